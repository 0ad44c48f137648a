"""`nes2net release`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .console import as_utf8, be_quiet, ending, need, say
from .options import StoredPrecision

_OWN_DATA = "own-data"


def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run or a model.")],
    repo_id: Annotated[str, typer.Option(metavar="ORG/NAME", help="Repository on the Hub.")],
    license: Annotated[str, typer.Option(metavar="SPDX", help="Licence of the weights: Apache-2.0, GPL-3.0-only, …")],
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Benchmark whose published figures the card quotes: asvspoof2021-la, …",
            show_default="none: your own data",
        ),
    ] = None,
    license_file: Annotated[
        Path | None, typer.Option(help="Text of the licence, if the package does not include it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep the folder here.", show_default="NAME with --dry-run, else not kept"
        ),
    ] = None,
    dtype: Annotated[StoredPrecision, typer.Option(help="Precision of the weights.")] = "float32",
    evaluations: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluation",
            metavar="[NAME=]FIGURES.json",
            help="From nes2net evaluate --report, measured on the benchmark or on NAME.",
        ),
    ] = None,
    robustness: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder that nes2net robustness wrote for these weights.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder that nes2net audit --model wrote for these weights.")
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Also publish a Space with the page of nes2net demo.")
    ] = False,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", metavar="ID", help="Hub id of training data, for the card.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write and test the folder, but send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FOLDER if it exists.")] = False,
) -> int:
    """
    Publish a model on the Hub, privately: gather weights, code, recipe, metrics and a card, test them, and send them.

    Exit codes:
      0    the model was released
      1    the model cannot be released, or the disk is full
      2    an option, the model or the folder is wrong
      130  interrupted
    """
    interrupted = "Interrupted: run the same command to continue. Large files already sent are not sent again."
    with ending(interrupted) as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.release.contents import checksums
        from nes2net_hf.release.release import Release, data_warnings, push, write_release, write_release_space

        be_quiet()
        as_utf8(sys.stdout)
        _check_repository(repo_id)
        if not run.is_dir():
            raise UsageError(f"{run} is not a folder: name the folder of a run or a model.")
        if space:
            need("gradio", "demo", "--space")  # the Space requires the installed version
        if force and out is not None:
            _check_replaceable(out, run)
        contents = Release(
            source=run,
            repo_id=repo_id,
            benchmark=benchmark,
            license=license,
            license_file=license_file,
            dtype=dtype,
            evaluations=[_named(value, benchmark or _OWN_DATA) for value in evaluations or []],
            robustness=robustness,
            audit=audit,
            datasets=datasets or [],
        )
        with tempfile.TemporaryDirectory() as scratch:
            name = repo_id.partition("/")[2]
            folder = out or (Path(name) if dry_run else Path(scratch, name))
            space_folder = folder.with_name(folder.name + "-space")
            tried = write_release(contents, folder, force)
            if space:
                write_release_space(repo_id, space_folder, force)
            for warning in data_warnings(contents):
                say(f"Warning: {warning}")
            for sample, score in tried.scores.items():
                print(f"{sample}: {score:.6f}, difference from the source {tried.differences[sample]:.1e}")
            for file, (size, digest) in checksums(folder).items():
                print(f"{size:>13,}  {digest[:16]}  {file}")
            if dry_run:
                seen = "public" if public else "private"
                print(f"{folder}: would be sent to {repo_id}, {seen}; nothing was sent.")
                if space:
                    print(f"{space_folder}: would be sent as the Space {repo_id}, {seen}.")
            else:
                print(push(folder, repo_id, public))
                if space:
                    print(push(space_folder, repo_id, public, space=True))
    return end.code


def _check_repository(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from nes2net_hf.errors import UsageError

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UsageError(f"--repo-id {repo_id!r} is not valid on the Hub: use the form ORG/NAME.") from None
    if repo_id.count("/") != 1:
        raise UsageError(f"--repo-id {repo_id!r} must have the form ORG/NAME.")


def _check_replaceable(out: Path, source: Path) -> None:
    """
    Raises:
        UsageError: the folder contains the source of the release, or was not written by a release.
    """
    from nes2net_hf.errors import UsageError

    if not out.is_dir():
        return
    if source.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"--out {out} contains the model to release: name another folder.")
    if any(out.iterdir()) and not (out / "README.md").is_file():
        raise UsageError(f"--out {out} was not written by nes2net release: remove it, or name another folder.")


def _named(value: str, benchmark: str) -> tuple[str, Path]:
    """Splits `NAME=FIGURES.json` into name and path. `FIGURES.json` alone gets the name of the benchmark."""
    from nes2net_hf.errors import UsageError

    name, separator, path = value.partition("=")
    if not separator:
        return benchmark, Path(value)
    if not name or not path or not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--evaluation {value!r} must have the form FIGURES.json or NAME=FIGURES.json.")
    return name, Path(path)
