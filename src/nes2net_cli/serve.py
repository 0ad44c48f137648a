"""`nes2net serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import be_quiet, ending
from .options import AllowHosts, Host, MaxDuration, Model


def serve(
    model: Model = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    max_size: Annotated[int, typer.Option(min=1, help="Maximum size of a request, in megabytes.")] = 200,
    max_duration: MaxDuration = 3600,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait while a recording is judged.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=1, help="Maximum time for a request, upload and waiting included, in seconds.")
    ] = 600,
    allow_hosts: AllowHosts = None,
) -> int:
    """
    Run an HTTP server: POST a recording to /judge, and the answer is the verdict as JSON. Ctrl+C stops it.

    GET /health returns the model's name and the version.

    Exit codes:
      0    stopped
      2    an option or a model is wrong
      130  interrupted before the server was ready
    """
    with ending(extra="serve") as end:
        from nes2net_hf.server import serve as serve_model

        be_quiet()
        serve_model(model, host, port, max_size, max_duration, queue, timeout, allow_hosts or [])
    return end.code
