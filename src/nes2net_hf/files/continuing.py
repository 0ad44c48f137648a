"""Resumes unfinished work only with the same settings, so that results never mix two pieces of work."""

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
    Checks that all settings that affect the result are those that the work began with.

    Args:
        place: file or folder of the unfinished work.
        began, now: settings by name. A missing setting equals None, False and empty ones, because later versions add
            settings.

    Raises:
        OutputError: a setting differs; the message names the first one and both values.
    """
    for key in {**now, **began}:
        before, after = began.get(key), now.get(key)
        if _plain(before) != _plain(after):
            raise OutputError(
                f"{key}: the work in {os.fspath(place)} began with {_as_text(before)}, not {_as_text(after)}: "
                "use the same value to continue, or name another output."
            )


def begin(record: Path, settings: Mapping[str, Any]) -> None:
    """
    Begins work in the folder of `record`, a JSON file of its settings, or checks that the same work continues.

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
    """Returns the value as JSON reads it back; None if it is unset."""
    plain = json.loads(json.dumps(value, default=str))
    return None if plain is False or plain in ("", [], {}) else plain


def _as_text(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)
