"""What the commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from ..errors import UsageError


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def be_quiet() -> None:
    """Libraries' remarks and bars would stand between our lines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()


def as_utf8(stream: Any) -> None:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")


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


def need_extra(error: ImportError, extra: str) -> int:
    """Says what to install; the exit code."""
    say(f"Error: {error.name} is not installed: pip install 'nes2net_hf[{extra}]'.")
    return 2


def need_train(error: ImportError) -> int:
    return need_extra(error, "train")


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
