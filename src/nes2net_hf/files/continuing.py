"""Unfinished work continues only as what it began as; otherwise its result would mix two pieces of work."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .reasons import explained
from .writing import atomic_file


def check_same_work(place: str | os.PathLike[str], began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """
    Check that every value that decides the result is the one that the work began with.

    Args:
        place: the file or folder that holds the unfinished work.
        began, now: settings by their names. A missing one equals one that is None, False or empty, because later
            versions add some.

    Raises:
        OutputError: a setting differs; the message names the first one and both values.
    """
    for key in {**now, **began}:
        before, after = began.get(key), now.get(key)
        if _plain(before) != _plain(after):
            raise OutputError(
                f"{key}: the work in {os.fspath(place)} began with {_said(before)}, not {_said(after)}: "
                "use the same value to continue, or name another output."
            )


def begin(record: Path, settings: Mapping[str, Any]) -> None:
    """
    Begin the work in the folder of `record`, a JSON file of its settings, or check that it continues.

    Raises:
        OutputError: the folder holds other work, or cannot be written.
        DiskError: the disk is full or failed.
    """
    with explained(record.parent):
        record.parent.mkdir(parents=True, exist_ok=True)
    if not record.exists():
        with atomic_file(record) as file:
            file.write(json.dumps(settings, indent=1, default=str) + "\n")
        return
    try:
        began = json.loads(record.read_text(encoding="utf-8"))
        if not isinstance(began, dict):
            raise ValueError
    except (OSError, ValueError):
        raise OutputError(
            f"{record} cannot be read, so {record.parent} may hold other work: remove that folder, or name another "
            "output."
        ) from None
    check_same_work(record.parent, began, settings)


def _plain(value: Any) -> Any:
    """The value as JSON gives it back; None if it is not set."""
    plain = json.loads(json.dumps(value, default=str))
    return None if plain is False or plain in ("", [], {}) else plain


def _said(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)
