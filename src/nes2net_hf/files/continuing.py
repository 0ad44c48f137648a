"""Checks that unfinished work continues with the settings it began with: otherwise its result would mix two pieces."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .reasons import explained
from .writing import atomic_file

_DIGEST = re.compile(r"[0-9a-f]{32,}")
_LONGEST = 60  # characters of a value in a message


def check_same_work(
    place: str | os.PathLike[str],
    began: Mapping[str, Any],
    now: Mapping[str, Any],
    remedy: str = "name another output",
) -> None:
    """
    Checks that all settings that affect the result are the ones that the work began with.

    Args:
        place: file or folder of the work.
        began, now: settings by name. An absent one equals None, because later versions add some.
        remedy: how to choose another place.

    Raises:
        OutputError: a setting differs. The message names the first one and both values, unless they are checksums.
    """
    where = os.fspath(place)
    for key in {**now, **began}:
        before, after = _plain(began.get(key)), _plain(now.get(key))
        if before == after:
            continue
        if _is_digest(before) or _is_digest(after):
            raise OutputError(f"{where} began with other {key}: remove it, or {remedy}.")
        raise OutputError(
            f"{key}: {where} began with {_said(before)}, not {_said(after)}: use the same value to continue, remove "
            f"{where}, or {remedy}."
        )


def begin(record: Path, settings: Mapping[str, Any], remedy: str = "name another output") -> None:
    """
    Begins the work in the folder of `record`, a JSON file of its settings, or checks that it continues.

    Raises:
        OutputError: the folder holds other work, or cannot be written.
        DiskError: the disk is full or failed.
    """
    folder = record.parent
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not record.exists():
        with atomic_file(record) as file:
            file.write(json.dumps(settings, indent=1, default=str) + "\n")
        return
    try:
        began = json.loads(record.read_text(encoding="utf-8"))
        if not isinstance(began, dict):
            raise ValueError
    except (OSError, ValueError):
        raise OutputError(f"{record} cannot be read: remove {folder}, or {remedy}.") from None
    check_same_work(folder, began, settings, remedy)


def _plain(value: Any) -> Any:
    """Returns the value as JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _said(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
