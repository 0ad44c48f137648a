"""What the tests of the page and of the server share."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import httpx
from gradio_client import Client

from nes2net_hf.samples import BONAFIDE as BONAFIDE
from nes2net_hf.samples import SPOOF as SPOOF


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(address: str, folder: Path) -> Client:
    return Client(address, verbose=False, analytics_enabled=False, download_files=folder / "downloads")


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(address)
            return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise AssertionError(f"{address} does not answer")
