"""`nes2net demo`."""

from __future__ import annotations

from .common import UsageError, be_quiet, ending


def run_demo(
    models: list[str], host: str, port: int, max_size: int, max_duration: float, allow_hosts: list[str]
) -> int:
    """Serves the page until it is interrupted; returns the exit code."""
    with ending(extra="demo") as end:
        from ..page import serve
        from ..pretrained.load import check_place

        be_quiet()
        for model in models:  # each is loaded when it first has something to judge
            check_place(model)
        try:
            serve(models or [None], host, port, max_size, max_duration, allow_hosts)
        except OSError:
            raise UsageError(
                f"the page cannot be served at {host}:{port}: choose another --port, or a --host of this machine."
            ) from None
    return end.code
