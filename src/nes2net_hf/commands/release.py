"""`nes2net release`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .common import UsageError, as_utf8, be_quiet, ending

OWN_DATA = "own-data"


@dataclass
class ReleaseOptions:
    """What `nes2net release` was asked for."""

    source: Path
    benchmark: str | None
    repo_id: str
    license: str
    license_file: Path | None
    out: Path | None
    dtype: str
    evaluations: list[str]
    robustness: Path | None
    space: bool
    datasets: list[str]
    dry_run: bool
    public: bool
    force: bool


def run_release(options: ReleaseOptions) -> int:
    """Writes, tries and sends; returns the exit code."""
    be_quiet()
    as_utf8(sys.stdout)
    interrupted = "Interrupted: the same command does it again, and large files that were sent are not sent twice."
    with ending(interrupted) as end:
        from ..release.contents import checksums
        from ..release.release import Release, push, write_release, write_release_space

        _check(options)
        release = Release(
            source=options.source,
            repo_id=options.repo_id,
            benchmark=options.benchmark,
            license=options.license,
            license_file=options.license_file,
            dtype=options.dtype,
            evaluations=[_named(value, options.benchmark or OWN_DATA) for value in options.evaluations],
            robustness=options.robustness,
            datasets=options.datasets,
        )
        with tempfile.TemporaryDirectory() as scratch:
            name = options.repo_id.partition("/")[2]
            folder = options.out or (Path(name) if options.dry_run else Path(scratch, name))
            space = folder.with_name(folder.name + "-space")
            tried = write_release(release, folder, options.force)
            if options.space:
                write_release_space(options.repo_id, space, options.force)
            for sample, score in tried.scores.items():
                print(f"{sample}: {score:.6f}, difference from the source {tried.differences[sample]:.1e}")
            for file, (size, digest) in checksums(folder).items():
                print(f"{size:>13,}  {digest[:16]}  {file}")
            if options.dry_run:
                seen = "public" if options.public else "private"
                print(f"{folder}: would be sent to {options.repo_id}, {seen}; nothing was sent.")
                if options.space:
                    print(f"{space}: would be sent as the Space {options.repo_id}, {seen}.")
            else:
                print(push(folder, options.repo_id, options.public))
                if options.space:
                    print(push(space, options.repo_id, options.public, space=True))
    return end.code


def _check(options: ReleaseOptions) -> None:
    try:
        validate_repo_id(options.repo_id)
    except HFValidationError:
        raise UsageError(
            f"--repo-id {options.repo_id!r} is not possible on the Hub: it has the form ORG/NAME."
        ) from None
    if options.repo_id.count("/") != 1:
        raise UsageError(f"--repo-id {options.repo_id!r}: it has the form ORG/NAME.")
    if not options.source.is_dir():
        raise UsageError(f"{options.source} is no folder: name a run's, or a model's.")
    if options.space:
        try:
            import gradio  # noqa: F401 - whose version the Space takes
        except ImportError:
            raise UsageError("--space needs gradio: pip install 'nes2net_hf[demo]'.") from None
    if options.force and options.out is not None and options.out.is_dir():
        if options.source.resolve().is_relative_to(options.out.resolve()):
            raise UsageError(f"--out {options.out} holds what is to be released: name another folder.")
        if any(options.out.iterdir()) and not (options.out / "README.md").is_file():
            raise UsageError(f"--out {options.out} is no folder that a release wrote: remove it, or name another.")


def _named(value: str, benchmark: str) -> tuple[str, Path]:
    """`FIGURES.json` is of the benchmark, or of own data where there is none; `NAME=FIGURES.json` of NAME."""
    name, separator, path = value.partition("=")
    if not separator:
        return benchmark, Path(value)
    if not name or not path or not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--evaluation {value!r}: it has the form FIGURES.json or NAME=FIGURES.json.")
    return name, Path(path)
