"""Messages, progress bars and error handling, shared by the commands and the scripts of `training/`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def say(sentence: str) -> None:
    """Prints to standard error, so that standard output contains only results."""
    print(sentence, file=sys.stderr)


def be_quiet() -> None:
    """Turns off the logs and progress bars of transformers and huggingface_hub, which would mix with ours."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    be_quiet_on_the_hub()


def be_quiet_on_the_hub() -> None:
    """Turns off those of huggingface_hub, for a command that does not import transformers."""
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    disable_progress_bars()
    hub_logging.set_verbosity_error()


def as_utf8(stream: Any, errors: str = "backslashreplace") -> None:
    """Makes a stream write UTF-8 and "\\n" line endings on every system."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors=errors, newline="")


def need(module: str, extra: str, option: str) -> None:
    """
    Checks that a module is installed.

    Raises:
        UsageError: it is not, or cannot be loaded; the message names the extra that installs it.
    """
    try:
        importlib.import_module(module)
    except ImportError:
        from nes2net_hf.errors import UsageError

        raise UsageError(f"{option} needs {module} (not installed): pip install 'nes2net_hf[{extra}]'.") from None
    except OSError as error:  # a library of the system is missing
        from nes2net_hf.errors import UsageError

        raise UsageError(f"{option} needs {module}, which cannot be loaded: {str(error).rstrip('.')}.") from None


@dataclass
class Ending:
    """How a command ends."""

    code: int = 0


@contextmanager
def ending(
    interrupted: str | Callable[[], str] = "Interrupted.", *, extra: str | None = None, error_word: str = "Error"
) -> Iterator[Ending]:
    """
    Turns every error that a command expects into one sentence on standard error and an exit code:

        the error's own code  one of our errors (`Nes2NetError`)
        1                     any other error of the operating system, or a closed pipe
        2                     a package of an extra is not installed
        130                   Ctrl+C

    Args:
        interrupted: the sentence printed after Ctrl+C.
        extra: the extra that installs the command's packages.
        error_word: the first word of every error message.
    """
    from nes2net_hf.errors import Nes2NetError
    from nes2net_hf.files import DISK_ERRORS, write_reason

    end = Ending()
    try:
        yield end
        sys.stdout.flush()  # a full disk must show before we report success
    except Nes2NetError as error:
        say(f"{error_word}: {error}")
        end.code = error.exit_code
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        say(f"{error_word}: {error.name} is not installed: pip install 'nes2net_hf[{extra}]'.")
        end.code = 2
    except BrokenPipeError:  # the reader closed the pipe, as `head` does: not an error
        end.code = 1
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
        if error.filename:
            reason = f"{error.filename}: {reason}"
        elif error.errno in DISK_ERRORS:  # files explain their errors where they are written
            reason = f"standard output cannot be written: {write_reason(error.errno)}"
        say(f"{error_word}: {reason}.")
        end.code = 1
    except KeyboardInterrupt:
        say(interrupted if isinstance(interrupted, str) else interrupted())
        end.code = 130
    try:
        sys.stdout.flush()
    except OSError:  # drop the buffer, or Python would try to write it on exit and complain
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress_bar(*columns: ProgressColumn, redirect_stdout: bool = True) -> Progress:
    """Returns a bar on standard error that disappears at its end. Without a terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=redirect_stdout,
        disable=not console.is_terminal,
    )


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Shows a counter on standard error."""
    from rich.progress import TextColumn, TimeElapsedColumn

    with progress_bar(TextColumn("{task.completed:,.0f} " + what), TimeElapsedColumn()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.advance(task, done)
