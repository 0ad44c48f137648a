"""What the commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from ..errors import Nes2NetError, UsageError
from ..files import DISK_ERRORS, write_reason


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def be_quiet() -> None:
    """Libraries' remarks and bars would stand between our lines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()


def as_utf8(stream: Any, errors: str = "backslashreplace") -> None:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors=errors, newline="")


def pairs(option: str, values: list[str]) -> dict[str, str] | None:
    """`["audio=wav"]` → `{"audio": "wav"}`; None of none, which leaves all to be known by name."""
    for value in values:
        if not all(value.partition("=")):
            raise UsageError(
                f"{option} {value!r}: it has the form {'OURS=THEIRS' if option == '--column' else 'THEIRS=OURS'}."
            )
    return dict(value.split("=", 1) for value in values) or None


def wanted(values: list[str]) -> dict[str, list[str]]:
    """Of `--where`: `["codec=alaw", "codec=gsm"]` → `{"codec": ["alaw", "gsm"]}`."""
    rows: dict[str, list[str]] = {}
    for text in values:
        column, _, value = text.partition("=")
        if not column or not value:
            raise UsageError(f"--where {text!r}: it has the form COLUMN=VALUE.")
        rows.setdefault(column, []).append(value)
    return rows


@dataclass
class Ending:
    """How a command ends."""

    code: int = 0


@contextmanager
def ending(
    interrupted: str | Callable[[], str] = "Interrupted.", *, extra: str | None = None, error_word: str = "Error"
) -> Iterator[Ending]:
    """
    Whatever ends a command early becomes a sentence on standard error and an exit code: of our errors their own, 1 of
    any other that the operating system has, 2 where an extra is not installed, 130 after Ctrl-C. All commands and the
    scripts of `training/` end so.

    Args:
        interrupted: what Ctrl-C says.
        extra: the extra whose packages the command needs.
        error_word: that a sentence begins with.
    """
    end = Ending()
    try:
        yield end
        sys.stdout.flush()  # a full disk is found here, and not after we have said that all is well
    except Nes2NetError as error:
        say(f"{error_word}: {error}")
        end.code = error.exit_code
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        say(f"{error_word}: {error.name} is not installed: pip install 'nes2net_hf[{extra}]'.")
        end.code = 2
    except BrokenPipeError:  # the reader went away, as `head` does; nothing is wrong
        end.code = 1
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
        if error.filename:
            reason = f"{error.filename}: {reason}"
        elif error.errno in DISK_ERRORS:  # all other outputs are explained where they are written
            reason = f"standard output cannot be written: {write_reason(error.errno)}"
        say(f"{error_word}: {reason}.")
        end.code = 1
    except KeyboardInterrupt:
        say(interrupted if isinstance(interrupted, str) else interrupted())
        end.code = 130
    try:
        sys.stdout.flush()
    except OSError:  # what it still holds goes nowhere; Python would try again at its end and complain
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A counter on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.completed:,.0f} " + what), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.advance(task, done)


def need_matplotlib(option: str = "--plot") -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(f"{option} needs matplotlib: pip install 'nes2net_hf[plot]'.") from None
