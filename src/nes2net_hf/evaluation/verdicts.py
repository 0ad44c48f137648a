"""Reads scores from the output of `nes2net detect`, JSON Lines or CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..detection.results import VERDICT_FIELDS
from ..errors import EvaluationError
from ..files.spreadsheets import from_cell

_SEVERAL = {
    "track": "one per track: judge only one with nes2net detect --track N",
    "channel": "one per channel: judge the mix with nes2net detect --channels mix, or save each channel as a file",
}


def are_verdicts(columns: Iterable[str]) -> bool:
    """Returns whether `nes2net detect` wrote a table with these columns."""
    return set(columns) >= VERDICT_FIELDS


def read_json_lines(path: Path, lines: list[str]) -> list[dict[str, Any]]:
    """
    Returns the rows of JSON Lines.

    Raises:
        EvaluationError: a line is not a verdict of `nes2net detect`.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise EvaluationError(
                f"{path}, line {number}, is not complete JSON: finish it with nes2net detect --resume, or remove it."
            ) from None
        if not isinstance(row, dict) or not are_verdicts(row):
            raise EvaluationError(f"{path}, line {number}, is not a verdict of nes2net detect: remove it.")
        rows.append(row)
    return rows


def from_cells(row: Mapping[str, str]) -> dict[str, Any]:
    """Converts a row of CSV to one of JSON Lines, as far as scores need it: empty cells become None."""
    return {name: from_cell(cell) if name == "file" else cell or None for name, cell in row.items()}


def scored(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """
    Returns the rows that have a score, one per file.

    Raises:
        EvaluationError: a file has several scores.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["error"] or row["score"] is None:
            continue
        before = found.setdefault(str(row["file"]), row)
        if before is not row:
            why = next((text for name, text in _SEVERAL.items() if row.get(name) != before.get(name)), "")
            raise EvaluationError(
                f"{path}: {row['file']} has several scores{f', {why}' if why else ': remove one of its lines'}."
            )
    return list(found.values())
