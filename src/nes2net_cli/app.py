"""
Registers the commands and ends the process. To add a command, write a function in its own file and list it in
`_COMMANDS`. Its parameters are the options, its docstring is the help, and it returns the exit code.
"""

from __future__ import annotations

import functools
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import typer

from .audit import audit
from .augment import augment
from .cache import cache
from .calibrate import calibrate
from .convert import convert
from .corpus import check, shard
from .demo import demo
from .detect import detect
from .evaluate import evaluate
from .export import export
from .fuse import fuse
from .info import info
from .layers import layers
from .listen import listen
from .models import models
from .options import Version
from .release import release
from .robustness import robustness
from .serve import serve

# In the order in which the help lists them.
_COMMANDS: tuple[Callable[..., int], ...] = (
    detect, listen, models, info, convert, cache, export, release, augment, robustness, evaluate, demo, serve,
    calibrate, fuse, layers, audit,
)  # fmt: skip
_CORPUS_COMMANDS: tuple[Callable[..., int], ...] = (check, shard)

_SETTINGS: dict[str, Any] = {"no_args_is_help": True}
app = typer.Typer(name="nes2net", add_completion=False, pretty_exceptions_enable=False, **_SETTINGS)


@app.callback()
def nes2net(version: Version = False) -> None:
    """Deepfake speech detection with Nes2Net."""


def _command(function: Callable[..., int]) -> Callable[..., None]:
    """Wraps a command for typer. While it runs, error messages spell its parameters as options."""

    @functools.wraps(function)
    def run(**options: Any) -> None:
        from nes2net_hf.errors import offering

        with offering(*options):
            code = function(**options)
        raise typer.Exit(code)

    return run


corpus_app = typer.Typer(help="Check or shard a corpus on your disk.", **_SETTINGS)
for _function in _COMMANDS:
    app.command()(_command(_function))
for _function in _CORPUS_COMMANDS:
    corpus_app.command()(_command(_function))
app.add_typer(corpus_app, name="corpus")


def main() -> None:
    """Runs the command line. An error that no command expects also becomes one sentence."""
    try:
        app(prog_name="nes2net")
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")
        typer.echo(f"nes2net failed unexpectedly ({reason}); please report it with the command you ran.", err=True)
        sys.exit(1)
