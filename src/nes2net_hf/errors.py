"""
Every error that this package raises on purpose. Its message is one sentence that names the file or field and says how
to fix it; the command line prints it and exits with the error's `exit_code`:

    1  the work failed: data, a score file, a disk, a memory;
    2  the request cannot be carried out: an option, a model, a corpus, a recipe or an output.

Imports nothing of the package, so that every module can import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_OPTIONS = {"columns": "--column", "label_map": "--label"}  # arguments whose options have another name
_offered: ContextVar[tuple[str, ...] | None] = ContextVar("offered", default=None)


@contextmanager
def offering(*arguments: str) -> Iterator[None]:
    """Within it, or in a function that it decorates, a command runs that has options for these arguments."""
    token = _offered.set(arguments)
    try:
        yield
    finally:
        _offered.reset(token)


def option(argument: str, key: str | None = None, value: str = "…") -> str:
    """
    How a message spells an argument, and an entry of it, to whoever gave it: as the option of the command that runs,
    and in Python by its own name.
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
    """A command or function was called wrongly."""

    exit_code = 2


class ModelError(Nes2NetError, ValueError):
    """A model cannot be loaded, or a setting of a run is impossible."""

    exit_code = 2


class InfoError(Nes2NetError, ValueError):
    """A file beside a model's weights cannot be read."""

    exit_code = 2


class OutputError(Nes2NetError, ValueError):
    """An output cannot be written or resumed."""

    exit_code = 2


class DiskError(Nes2NetError, OSError):
    """A disk is full or failed while we wrote; the message names the file."""


class CorpusError(Nes2NetError, ValueError):
    """A corpus cannot be read as asked."""

    exit_code = 2


class PushError(CorpusError):
    """Shards, or a model in training, cannot be sent to the Hub."""

    exit_code = 1


class RecipeError(Nes2NetError, ValueError):
    """A recipe cannot be followed; the message names the key."""

    exit_code = 2


class AugmentationError(Nes2NetError, ValueError):
    """An augmentation is unknown or its settings are impossible; the message names the key."""

    exit_code = 2


class RobustnessError(Nes2NetError, ValueError):
    """A robustness run cannot start or resume."""

    exit_code = 2


class AudioError(Nes2NetError, ValueError):
    """A recording cannot be read or judged."""


class BrokenDataError(Nes2NetError, RuntimeError):
    """More utterances cannot be read than a run may skip; the message names the last ones."""


class DetectionError(Nes2NetError, RuntimeError):
    """The run cannot continue."""


class ConversionError(Nes2NetError, ValueError):
    """A file cannot be converted; where keys are wrong, a list of them follows the sentence."""


class EvaluationError(Nes2NetError, ValueError):
    """Scores or keys cannot be evaluated."""


class CalibrationError(Nes2NetError, ValueError):
    """Scores cannot be calibrated."""


class ExportError(Nes2NetError, RuntimeError):
    """A model cannot be exported."""


class ReleaseError(Nes2NetError, ValueError):
    """A model cannot be released."""
