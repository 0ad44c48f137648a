"""`nes2net serve`."""

from __future__ import annotations

from .common import be_quiet, ending


def run_serve(
    model: str | None,
    host: str,
    port: int,
    max_size: int,
    max_duration: float,
    queue: int,
    timeout: float,
    allow_hosts: list[str],
) -> int:
    """Serves until it is interrupted; returns the exit code."""
    with ending(extra="serve") as end:
        from ..server import serve

        be_quiet()
        serve(model, host, port, max_size, max_duration, queue, timeout, allow_hosts)
    return end.code
