"""`nes2net demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import be_quiet, ending
from .options import AllowHosts, Host, MaxDuration


def demo(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Folder, Hub id, short name or official checkpoint of a model; repeat it to offer a choice.",
            show_default="bundled demonstration model",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_size: Annotated[int, typer.Option(min=1, help="Maximum size of a file, in megabytes.")] = 200,
    max_duration: MaxDuration = 3600,
    allow_hosts: AllowHosts = None,
) -> int:
    """
    Serve a web page that judges recordings: drop a file or record, then see and hear the verdict. Ctrl+C stops it.

    Exit codes:
      0    stopped
      2    an option or a model is wrong
    """
    with ending(extra="demo") as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.page import serve
        from nes2net_hf.pretrained.cache import check_model

        be_quiet()
        for model in models or []:  # each is loaded when it judges its first recording
            check_model(model)
        try:
            serve(models or [None], host, port, max_size, max_duration, allow_hosts or [])
        except OSError:
            raise UsageError(
                f"the page cannot be served at {host}:{port}: choose another --port, or a --host of this machine."
            ) from None
    return end.code
