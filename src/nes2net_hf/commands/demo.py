"""`nes2net demo`."""

from __future__ import annotations

from .common import be_quiet, need_extra, say


def run_demo(models: list[str], host: str, port: int, max_size: int) -> int:
    """Serves the page until it is interrupted; returns the exit code."""
    try:
        from ..page import serve
    except ImportError as error:
        return need_extra(error, "demo")
    be_quiet()
    try:
        serve(models or [None], host, port, max_size)
        return 0
    except OSError:
        say(f"Error: the page cannot be served at {host}:{port}: choose another --port, or a --host of this machine.")
        return 2
