"""What a path leads to, and names beside it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether it is something else than a file or a folder, as /dev/stdout is."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def hidden(path: Path, purpose: str) -> Path:
    """`scores.txt` → `.scores.txt.part`, and no longer than a name may be."""
    name = path.name
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{purpose}")
