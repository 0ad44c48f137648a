"""`nes2net release`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..loading import ModelError
from .common import UsageError, as_utf8, be_quiet, say


@dataclass
class ReleaseOptions:
    """What `nes2net release` was asked for."""

    source: Path
    benchmark: str
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
    from ..release_card import ReleaseError
    from ..releasing import Release, checksums, push, write_release, write_release_space

    be_quiet()
    as_utf8(sys.stdout)
    try:
        _check(options)
        release = Release(
            source=options.source,
            repo_id=options.repo_id,
            benchmark=options.benchmark,
            license=options.license,
            license_file=options.license_file,
            dtype=options.dtype,
            evaluations=[_named(value, options.benchmark) for value in options.evaluations],
            robustness=options.robustness,
            datasets=options.datasets,
        )
        with tempfile.TemporaryDirectory() as scratch:
            name = options.repo_id.partition("/")[2]
            folder = options.out or (Path(name) if options.dry_run else Path(scratch, name))
            space = folder.with_name(folder.name + "-space")
            tried = _replacing(folder, options.force, Path(scratch, "fresh"), partial(write_release, release))
            if options.space:
                _replacing(space, options.force, Path(scratch, "fresh"), partial(write_release_space, options.repo_id))
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
        return 0
    except UsageError as error:
        say(f"Error: {error}")
        return 2
    except (ReleaseError, ModelError) as error:
        say(f"Error: {error}")
        return 1
    except OSError as error:
        say(f"Error: {error.strerror or error} while writing {error.filename or options.out or 'the release'}.")
        return 1
    except KeyboardInterrupt:
        say("Interrupted: the same command does it again, and large files that were sent are not sent twice.")
        return 130


def _replacing(folder: Path, force: bool, fresh: Path, write: Callable[[Path], Any]) -> Any:
    """Writes to a folder; one that is there is replaced, if asked for, when the new one is whole."""
    to = fresh if folder.exists() and force else folder
    result = write(to)
    if to is fresh:
        shutil.rmtree(folder)
        shutil.move(fresh, folder)
    return result


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
    """`FIGURES.json` is of the benchmark, `NAME=FIGURES.json` of something else."""
    name, separator, path = value.partition("=")
    if not separator:
        return benchmark, Path(value)
    if not name or not path or not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--evaluation {value!r}: it has the form FIGURES.json or NAME=FIGURES.json.")
    return name, Path(path)
