"""
Writing results as they come: JSON Lines, CSV, or a table for people; and taking up a run that was interrupted.

CSV has the columns of `Result.to_dict`; `windows` and `spoofed` are JSON there, `warnings` are joined by "; ".
"""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, Protocol

from rich.console import Console
from rich.text import Text

from .detection import Result
from .errors import OutputError

COLUMNS = tuple(field.name for field in fields(Result))


class Writer(Protocol):
    def write(self, result: Result) -> None:
        """Writes one result and flushes it."""


class JsonLinesWriter:
    """One JSON object a line."""

    def __init__(self, file: IO[str], fresh: bool = True) -> None:
        self._file = file

    def write(self, result: Result) -> None:
        self._file.write(_json(result.to_dict()) + "\n")
        self._file.flush()


class CsvWriter:
    """One row a result, under a header."""

    def __init__(self, file: IO[str], fresh: bool = True) -> None:
        self._file, self._rows = file, csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            self._rows.writeheader()
            file.flush()

    def write(self, result: Result) -> None:
        row = result.to_dict()
        spoofed = None if row["spoofed"] is None else _json(row["spoofed"])
        self._rows.writerow(
            row | {"windows": _json(row["windows"]), "spoofed": spoofed, "warnings": "; ".join(row["warnings"])}
        )
        self._file.flush()


class TableWriter:
    """Lines for a terminal, under a header; the file comes last, for it may be long."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._line("label", "bold", f"{'score':>8}  {'lowest window':>18}  {'duration':>9}  file", "bold")

    def write(self, result: Result) -> None:
        if result.score is None or result.min_window_score is None or result.min_window_start is None:
            self._line("error", "yellow", result.error or "")
            return
        name = result.file if result.channel is None else f"{result.file} (channel {result.channel})"
        lowest = f"{result.min_window_score:.3f} at {clock(result.min_window_start)}"
        figures = f"{result.score:>8.3f}  {lowest:>18}  {clock(result.duration or 0):>9}"
        if result.spoof_probability is not None:
            name += f"  (spoofed with probability {result.spoof_probability:.3f}, prior {result.prior:g})"
        self._line(str(result.label), "green" if result.label == "bonafide" else "red", f"{figures}  {name}")
        for warning in result.warnings:
            self._line("", "", f"weak: {warning}", "yellow")

    def _line(self, label: str, color: str, rest: str, style: str = "") -> None:
        self._console.print(Text.assemble((f"{label:<8}", color), " ", (rest, style)), soft_wrap=True)


def clock(seconds: float) -> str:
    """65.25 → "1:05.2", 3665 → "1:01:05.0"."""
    tenths = int(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{rest // 10:02}.{rest % 10}"


def finished_files(path: Path, form: str, model: str, threshold: float | None, channels: str) -> set[str]:
    """
    The files an interrupted run has judged, for `--resume`; leaves in the output only their rows.

    A half-written last line is dropped, and so are all rows of a file that had an error in any of them: it is judged
    again. With `channels="each"` so is the last file, for its last channels may never have been written.

    Raises:
        OutputError: the output is not one of ours, or was written with another model or threshold.
    """
    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    rows = _read_json_lines(path, text) if form == "jsonl" else _read_csv(path, text)
    for row in rows:
        # None is an empty cell in CSV.
        its_threshold = None if row["threshold"] in (None, "") else float(row["threshold"])
        if row["model"] != model or its_threshold != (None if threshold is None else round(threshold, 6)):
            raise OutputError(
                f"{path} was written with model {row['model']} and threshold {its_threshold}, not {model} and "
                f"{threshold}: resume with those, or write to another file."
            )
    again = {row["file"] for row in rows if row["error"]}
    if channels == "each" and rows:
        again.add(rows[-1]["file"])
    kept = [row for row in rows if row["file"] not in again]

    buffer = io.StringIO()
    if form == "csv":
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    else:
        buffer.writelines(_json(row) + "\n" for row in kept)
    if buffer.getvalue() != text:
        # Beside it and then in its place: nothing is lost if we are interrupted here.
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(buffer.getvalue().encode("utf-8", errors="surrogateescape"))
        os.replace(beside, path)
    return {row["file"] for row in kept}


def _read_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    lines = text.split("\n")  # what follows the last newline is nothing, or half a line
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not set(COLUMNS) <= row.keys():
            raise OutputError(f"{path}, line {number}, is no result of nes2net detect: write to another file.")
        rows.append(row)
    return rows


def _read_csv(path: Path, text: str) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    if text.strip() and tuple(rows.fieldnames or ()) != COLUMNS:
        raise OutputError(f"{path} has not the columns of nes2net detect: write to another file.")
    # A row cut off inside a quoted field lacks its last columns.
    return [row for row in rows if None not in row.values()]


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not valid Unicode
        return json.dumps(value)
    return text
