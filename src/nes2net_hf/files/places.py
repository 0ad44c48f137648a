"""Tells what a path leads to, and makes hidden names next to it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def is_device(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path exists but is neither a file nor a folder, e.g. /dev/stdout."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def hidden(path: Path, purpose: str) -> Path:
    """`scores.txt` → `.scores.txt.part`. Long names are hashed, so that the result is not too long."""
    name = path.name
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{purpose}")
