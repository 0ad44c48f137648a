"""The only place that changes a model's `config.json` after it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import atomic_file


def change_config(folder: Path, **fields: Any) -> None:
    """
    Sets fields of `config.json` in a model's folder and keeps all others.

    Raises:
        OutputError, DiskError: the file cannot be written. It is unchanged.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | fields
    with atomic_file(path) as file:
        file.write(json.dumps(config, indent=2, sort_keys=True) + "\n")
