"""The files of a run that grow line by line, as JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import atomic_file, explained


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds a line."""
    with explained(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def cut(path: Path, key: str, last: int) -> None:
    """Removes the lines after a checkpoint, because their steps run again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line)[key] <= last:
                kept.append(line + "\n")
        except ValueError:
            break  # an incomplete line, because the process was killed
    with atomic_file(path) as file:
        file.write("".join(kept))
