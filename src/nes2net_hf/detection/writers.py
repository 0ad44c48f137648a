"""
Writing results as they come: JSON Lines, CSV, or a table for people; and taking up a run that was interrupted.

CSV has the columns of `Result.to_dict` except `windows`, because a cell of a spreadsheet holds 32,767 characters.
`spoofed` is text there (`12.10-16.14 (-3.40); …`, times in seconds), `warnings` are joined by "; ", and a name that a
spreadsheet would compute has an apostrophe before it (`spreadsheets`). CSV files begin with a byte order mark, without
which spreadsheets misread names.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from ..errors import OutputError
from ..files import atomic_file, check_same_work
from ..files.spreadsheets import as_cell, csv_row, csv_rows, from_cell
from .results import Result
from .words import chance, clock, verdict

COLUMNS = tuple(field.name for field in fields(Result) if field.name != "windows")
_WINDOWS = "windows"  # the column of JSON that version 0.1.0 wrote
_MARK = "\ufeff"
_STRETCHES = 20  # that a cell names
_NEEDED = {"file", "channel", "score", "threshold", "model", "error"}  # of every version
_NAMES = ("file", "model", "warnings", "error")  # columns that begin with a name, or may


class Sink(Protocol):
    """What rows are written to."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


class RowFile:
    """A file that grows by whole rows: one that a full disk cuts off is taken back. Names that are not valid Unicode
    keep their bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - it is closed by `__exit__`

    def write(self, text: str) -> None:
        start, rest = os.fstat(self._file.fileno()).st_size, _bytes(text)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):  # a device
                self._file.truncate(start)
            raise

    def flush(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


class Writer(Protocol):
    def write(self, result: Result) -> None:
        """Writes one result and flushes it."""


class JsonLinesWriter:
    """One JSON object a line."""

    def __init__(self, file: Sink, fresh: bool = True) -> None:
        self._file = file

    def write(self, result: Result) -> None:
        self._file.write(_json(result.to_dict()) + "\n")
        self._file.flush()


class CsvWriter:
    """
    One row a result, under a header. A text file must be opened with `newline=""`, `errors="surrogateescape"`.

    Args:
        fresh: whether the file is empty.
        mark: whether a fresh one begins with a byte order mark; standard output and devices do not.
    """

    def __init__(self, file: Sink, fresh: bool = True, mark: bool = True) -> None:
        self._file = file
        if fresh:
            file.write((_MARK if mark else "") + csv_row(list(COLUMNS)))
            file.flush()

    def write(self, result: Result) -> None:
        row = result.to_dict()
        row |= {"spoofed": _spoofed(row["spoofed"]), "warnings": "; ".join(row["warnings"])}
        self._file.write(_csv(row))
        self._file.flush()


class TableWriter:
    """Lines for a terminal, under a header; the file comes last because its name may be long."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._line("verdict", "bold", f"{'score':>8}  {'lowest window':>18}  {'duration':>9}  file", "bold")

    def write(self, result: Result) -> None:
        if result.score is None or result.min_window_score is None or result.min_window_start is None:
            self._line("error", "yellow", result.error or "")
            return
        lowest = f"{result.min_window_score:.3f} at {clock(result.min_window_start)}"
        figures = f"{result.score:>8.3f}  {lowest:>18}  {clock(result.duration or 0):>9}  {result.name}"
        color = {"bonafide": "green", "spoof": "red", None: "yellow"}[result.label]
        self._line("undecided" if result.undecided else verdict(result), color, figures)
        if result.undecided is not None:
            self._line("", "", result.undecided, "yellow")
        if result.spoof_probability is not None:
            self._line("", "", chance(result), "")
        for warning in result.warnings:
            self._line("", "", f"warning: {warning}", "yellow")

    def _line(self, label: str, color: str, rest: str, style: str = "") -> None:
        self._console.print(Text.assemble((f"{label:<9}", color), " ", (rest, style)), soft_wrap=True)


def finished_files(path: Path, form: str, model: str, threshold: float | None, several: bool) -> set[str]:
    """
    The files an interrupted run has judged, for `--resume`; leaves in the output only their rows.

    A half-written last line is dropped, and so are all rows of a file that had an error in any of them: it is judged
    again. Where a file may give `several` rows, one a channel or track, and the last file does, so is that one: some
    of its rows may be missing. CSV of version 0.1.0 is put into today's columns, and a copy of it, which has the
    windows, is kept as `NAME.old`.

    Raises:
        OutputError: the output is not one of ours, or was written with another model or threshold.
    """
    content = path.read_bytes()
    text = content.decode("utf-8-sig", errors="surrogateescape")
    rows = _read_json_lines(path, text) if form == "jsonl" else _read_csv(path, text)
    for row in rows:
        # None is an empty cell in CSV.
        its_threshold = None if row["threshold"] in (None, "") else float(row["threshold"])
        asked = {"model": model, "threshold": None if threshold is None else round(threshold, 6)}
        check_same_work(path, {"model": row["model"], "threshold": its_threshold}, asked)
    again = {row["file"] for row in rows if row["error"]}
    if several and rows and any(rows[-1].get(name) not in (None, "") for name in ("channel", "track")):
        again.add(rows[-1]["file"])
    kept = [row for row in rows if row["file"] not in again]
    if form == "csv":
        new = _MARK + csv_row(list(COLUMNS)) + "".join(map(_csv, kept))
    else:
        new = "".join(_json(row) + "\n" for row in kept)
    if _bytes(new) != content:
        if any(_WINDOWS in row for row in kept) and form == "csv":
            _keep(path)
        with atomic_file(path, "wb") as file:  # nothing is lost if we are interrupted here
            file.write(_bytes(new))
    done = {row["file"] for row in kept}
    if form == "csv":  # version 0.1.0 wrote bytes of names that are not UTF-8 as `\udcff`
        done |= {re.sub(r"\\(udc[89a-f][0-9a-f])", lambda code: chr(int(code[1][1:], 16)), name) for name in done}
    return done


def _read_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    lines = text.split("\n")  # what follows the last newline is nothing, or half a line
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not row.keys() >= _NEEDED:
            raise OutputError(f"{path}, line {number}, is no result of nes2net detect: write to another file.")
        rows.append(row)
    return rows


def _read_csv(path: Path, text: str) -> list[dict[str, Any]]:
    header, *rows = csv_rows(text) or [[]]
    if text.strip() and not _NEEDED <= set(header) <= {*COLUMNS, _WINDOWS}:
        raise OutputError(f"{path} has not the columns of nes2net detect: write to another file.")
    empty = dict.fromkeys(COLUMNS, "")  # those that an earlier version had not
    found = [empty | dict(zip(header, row)) for row in rows if len(row) == len(header)]
    for row in found:
        row |= {name: from_cell(row[name]) for name in _NAMES}
        if row["spoofed"].startswith("["):  # of version 0.1.0
            with suppress(ValueError, KeyError, TypeError):
                row["spoofed"] = _spoofed(json.loads(row["spoofed"])) or ""
    return found


def _keep(path: Path) -> None:
    """Copies a file to `NAME.old`, unless that is there."""
    old = path.with_name(f"{path.name}.old")
    if not old.exists():
        with atomic_file(old, "wb") as file:
            file.write(path.read_bytes())


def _spoofed(stretches: list[dict[str, float]] | None) -> str | None:
    """What a cell says of them: times in seconds and the score, of the first ones, and how many more there are."""
    if stretches is None:
        return None
    named = [f"{part['start']:.2f}-{part['end']:.2f} ({part['score']:.2f})" for part in stretches[:_STRETCHES]]
    more = len(stretches) - len(named)
    return "; ".join([*named, f"and {more} more"] if more else named)


def _csv(row: dict[str, Any]) -> str:
    row = row | {name: as_cell(row[name] or "") for name in _NAMES}
    return csv_row(["" if row[name] is None else str(row[name]) for name in COLUMNS])


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # what no file system of bytes gives
        return text.encode("utf-8", "backslashreplace")


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not valid Unicode
        return json.dumps(value)
    return text
