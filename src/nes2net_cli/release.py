"""`nes2net release`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .console import as_utf8, be_quiet, ending, need
from .options import Precision

_OWN_DATA = "own-data"


def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run, or of a model.")],
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
        Path | None, typer.Option(help="Text of the licence, if the package does not have it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the folder here.", show_default="NAME if --dry-run, else not"),
    ] = None,
    dtype: Annotated[Precision, typer.Option(help="Precision of the weights.")] = "float32",
    evaluations: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluation",
            metavar="[NAME=]FIGURES.json",
            help="File of nes2net evaluate --report, measured on the benchmark, or on NAME.",
        ),
    ] = None,
    robustness: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of nes2net robustness, measured with these weights.")
    ] = None,
    space: Annotated[bool, typer.Option("--space", help="Also write a Space with the page of nes2net demo.")] = False,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", metavar="ID", help="Hub id of training data, for the card.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write and try the folder, send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FOLDER if it exists.")] = False,
) -> int:
    """
    Publish a run on the Hub: write weights, code, recipe, figures and a card, try them, then send them. Private.

    Exit codes: 0 released; 1 the model cannot be released, or the disk is full; 2 an option, the model or the folder
    is wrong; 130 interrupted.
    """
    interrupted = "Interrupted: run the same command to continue; large files that were sent are not sent again."
    with ending(interrupted) as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.release.contents import checksums
        from nes2net_hf.release.release import Release, push, write_release, write_release_space

        be_quiet()
        as_utf8(sys.stdout)
        _check_repository(repo_id)
        if not run.is_dir():
            raise UsageError(f"{run} is no folder: name a run's, or a model's.")
        if space:
            need("gradio", "demo", "--space")  # the Space takes its version
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
            datasets=datasets or [],
        )
        with tempfile.TemporaryDirectory() as scratch:
            name = repo_id.partition("/")[2]
            folder = out or (Path(name) if dry_run else Path(scratch, name))
            space_folder = folder.with_name(folder.name + "-space")
            tried = write_release(contents, folder, force)
            if space:
                write_release_space(repo_id, space_folder, force)
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
        raise UsageError(f"--repo-id {repo_id!r} is not possible on the Hub: it has the form ORG/NAME.") from None
    if repo_id.count("/") != 1:
        raise UsageError(f"--repo-id {repo_id!r}: it has the form ORG/NAME.")


def _check_replaceable(out: Path, source: Path) -> None:
    """
    Raises:
        UsageError: the folder holds what is to be released, or something that no release wrote.
    """
    from nes2net_hf.errors import UsageError

    if not out.is_dir():
        return
    if source.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"--out {out} holds what is to be released: name another folder.")
    if any(out.iterdir()) and not (out / "README.md").is_file():
        raise UsageError(f"--out {out} is no folder that a release wrote: remove it, or name another.")


def _named(value: str, benchmark: str) -> tuple[str, Path]:
    """What was measured, and where: `NAME=FIGURES.json`, or `FIGURES.json` of the benchmark."""
    from nes2net_hf.errors import UsageError

    name, separator, path = value.partition("=")
    if not separator:
        return benchmark, Path(value)
    if not name or not path or not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--evaluation {value!r}: it has the form FIGURES.json or NAME=FIGURES.json.")
    return name, Path(path)
