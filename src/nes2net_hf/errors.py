"""
All errors that this package raises on purpose. Each message is one sentence that names the file or field and says how
to fix it. The command line prints it and exits with the error's `exit_code`:

    1  the work failed: data, a score file, a disk or memory;
    2  the request is invalid: an option, a model, a corpus, a recipe or an output.

This module imports nothing from the package, so that every module can import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_OPTIONS = {"columns": "--column", "label_map": "--label"}  # arguments whose options have different names
_offered: ContextVar[tuple[str, ...] | None] = ContextVar("offered", default=None)


@contextmanager
def offering(*arguments: str) -> Iterator[None]:
    """Marks a block or decorated function as run by a command with options for these arguments; see `option`."""
    token = _offered.set(arguments)
    try:
        yield
    finally:
        _offered.reset(token)


def option(argument: str, key: str | None = None, value: str = "…") -> str:
    """
    Returns an argument, or an entry of it, as messages spell it: as the option of the running command, or by its own
    name in Python.
    """
    offered = _offered.get()
    if offered is not None and argument in offered:
        name = _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")
        return name if key is None else f"{name} {key}={value}"
    name = argument if key is None else f"{argument}={{{key!r}: {value!r}}}"
    return name if offered is None else f"{name} in Python"


class Nes2NetError(Exception):
    exit_code = 1


class UsageError(Nes2NetError, ValueError):
    """A command or function was called incorrectly."""

    exit_code = 2


class ModelError(Nes2NetError, ValueError):
    """A model cannot be loaded, or a setting of a run is invalid."""

    exit_code = 2


class InfoError(Nes2NetError, ValueError):
    """A file next to a model's weights cannot be read."""

    exit_code = 2


class OutputError(Nes2NetError, ValueError):
    """An output cannot be written or resumed."""

    exit_code = 2


class DiskError(Nes2NetError, OSError):
    """A disk was full or failed during writing; the message names the file."""


class CorpusError(Nes2NetError, ValueError):
    """A corpus cannot be read as requested."""

    exit_code = 2


class PushError(CorpusError):
    """Shards, or a model in training, cannot be sent to the Hub."""

    exit_code = 1


class RecipeError(Nes2NetError, ValueError):
    """A recipe cannot be followed; the message names the key."""

    exit_code = 2


class AugmentationError(Nes2NetError, ValueError):
    """An augmentation is unknown or its settings are invalid; the message names the key."""

    exit_code = 2


class RobustnessError(Nes2NetError, ValueError):
    """The robustness cannot be measured: the corpus lacks a class, a score is not finite, or a codec is missing."""

    exit_code = 2


class AuditError(Nes2NetError, ValueError):
    """A corpus or model cannot be audited."""

    exit_code = 2


class AudioError(Nes2NetError, ValueError):
    """A recording cannot be read or judged."""


class BrokenDataError(Nes2NetError, RuntimeError):
    """Too many utterances cannot be read; the message names the last ones."""


class DetectionError(Nes2NetError, RuntimeError):
    """A detection run cannot continue."""


class ConversionError(Nes2NetError, ValueError):
    """A file cannot be converted; if keys are wrong, the message lists them after the sentence."""


class EvaluationError(Nes2NetError, ValueError):
    """Scores or keys cannot be evaluated."""


class CalibrationError(Nes2NetError, ValueError):
    """Scores cannot be calibrated."""


class ExportError(Nes2NetError, RuntimeError):
    """A model cannot be exported."""


class ReleaseError(Nes2NetError, ValueError):
    """A model cannot be released."""
