"""
Writes results one by one, as JSON Lines, CSV or a table for people, and resumes an interrupted run.

CSV has the columns of `Result.to_dict` except `windows`, because a spreadsheet cell holds at most 32,767 characters.
`spoofed` is text (`12.10-16.14 (-3.40); …`, times in seconds), and `warnings` are joined by "; ". A name that a
spreadsheet would take for a formula gets an apostrophe in front (`spreadsheets`). CSV files begin with a byte order
mark, because spreadsheets misread names without it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from ..errors import OutputError
from ..files import atomic_file, check_same_work
from ..files.spreadsheets import as_cell, csv_row, csv_rows, from_cell
from .detector import Detector
from .results import VERDICT_FIELDS, Result
from .words import chance, clock

COLUMNS = tuple(field.name for field in fields(Result) if field.name != "windows")
_WINDOWS = "windows"  # the column of JSON that version 0.1.0 wrote
_MARK = "\ufeff"
_STRETCHES = 20  # at most in a cell
_ROWS = ("channel", "track", "speaker")  # why a file has several rows
_NAMES = ("file", "speaker", "model", "warnings", "error")  # columns that begin with a name, or can


class Sink(Protocol):
    """A place that rows are written to."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


class RowFile:
    """A file that grows by whole rows: a row that a full disk cuts off is removed again. Names that are not valid
    Unicode keep their bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - it is closed by `__exit__`

    def write(self, text: str) -> None:
        start, rest = os.fstat(self._file.fileno()).st_size, _bytes(text)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):  # a device cannot be truncated
                self._file.truncate(start)
            raise

    def flush(self) -> None:
        """Does nothing: rows are not buffered."""

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


class Writer(Protocol):
    def write(self, result: Result) -> None:
        """Writes one result, without delay."""


class JsonLinesWriter:
    """Writes one JSON object per line."""

    def __init__(self, file: Sink, fresh: bool = True) -> None:
        self._file = file

    def write(self, result: Result) -> None:
        self._file.write(_json(result.to_dict()) + "\n")
        self._file.flush()


class CsvWriter:
    """
    Writes a header and one row per result. A text file must be opened with `newline=""`, `errors="surrogateescape"`.

    Args:
        fresh: whether the file is empty.
        mark: whether an empty file gets a byte order mark. Standard output and devices get none.
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
    """
    Prints a line per result under a header, and remarks below it. Long names are shortened in the middle.

    Args:
        chances: whether the model gives probabilities; otherwise the table shows scores.
    """

    def __init__(self, console: Console, chances: bool = False) -> None:
        self._console, self._chances = console, chances
        self._can_draw = (console.encoding or "").lower().startswith("utf")
        self._line("  verdict", "bold", "fake" if chances else "score", "lowest window", "length", "file", "bold")

    def write(self, result: Result) -> None:
        drawn, plain, words, color = _SIGNS[result.label if result.score is not None else "error"]
        label = f"{drawn if self._can_draw else plain} {words}"
        if result.score is None or result.min_window_score is None or result.min_window_start is None:
            self._line(label, color, "", "", "", result.name)
            self._remark(result.error or "", color)
            return
        figure = f"{result.score:.2f}"
        if self._chances:
            figure = "" if result.spoof_probability is None else f"{100 * result.spoof_probability:.1f} %"
        lowest = f"{result.min_window_score:.2f} at {clock(result.min_window_start)}"
        self._line(label, color, figure, lowest, clock(result.duration or 0), result.name)
        if result.undecided is not None:
            self._remark(result.undecided, "yellow")
        if result.attack is not None:
            self._remark(f"most like {result.attack}")
        if result.spoof_probability is not None:
            self._remark("; ".join(filter(None, (chance(result), result.support))))
        if result.standing is not None:
            self._remark(f"score {result.score:.2f}: {result.standing}")
        for warning in result.warnings:
            self._remark(f"warning: {warning}", "yellow")

    def _line(self, label: str, color: str, figure: str, lowest: str, length: str, file: str, style: str = "") -> None:
        middle = f" {figure:>7}  {lowest:>16}  {length:>9}  "
        name = _shortened(file, self._console.width - 12 - len(middle))
        self._console.print(Text.assemble((f"{label:<12}", color), (middle + name, style)), soft_wrap=True)

    def _remark(self, text: str, style: str = "") -> None:
        for line in Text(text).wrap(self._console, max(20, self._console.width - 4)):
            self._console.print(Text.assemble("    ", (line.plain.rstrip(), style)), soft_wrap=True)


# Verdict → its sign, the same in ASCII, its words and its colour.
_SIGNS = {
    "bonafide": ("\N{CHECK MARK}", "+", "bona fide", "green"),
    "spoof": ("\N{BALLOT X}", "x", "spoof", "red"),
    "undecided": ("?", "?", "undecided", "yellow"),
    None: ("?", "?", "undecided", "yellow"),
    "error": ("!", "!", "error", "yellow"),
}


def _shortened(name: str, width: int) -> str:
    """Returns a name of at most `width` columns, with an ellipsis in its middle if need be."""
    width = max(width, 12)
    if cell_len(name) <= width:
        return name
    start, end = (width - 1) // 3, len(name)
    head = set_cell_size(name, start)
    while cell_len(tail := name[len(name) - end :]) > width - 1 - start:
        end -= 1
    return f"{head}\N{HORIZONTAL ELLIPSIS}{tail}"


class Summary:
    """Counts results for the last line of a run."""

    def __init__(self) -> None:
        self._labels: Counter[str] = Counter()
        self._judged, self._failed = set[str](), set[str]()  # files
        self._lengths: dict[tuple[str, int | None], float] = {}  # of each track
        self._start = time.monotonic()

    @property
    def failed(self) -> int:
        """Files with a result that is an error."""
        return len(self._failed)

    def add(self, result: Result) -> None:
        (self._judged if result.error is None else self._failed).add(result.file)
        if result.error is None:
            self._labels[_SIGNS[result.label][2]] += 1
            self._lengths[result.file, result.track] = result.duration or 0.0

    def counts(self) -> str:
        """Returns the numbers of files judged and failed, and of results by verdict."""
        files = f"{len(self._judged - self._failed)} judged, {len(self._failed)} failed"
        verdicts = ", ".join(f"{self._labels[words]} {words}" for words in _COUNTED if self._labels[words])
        return f"{files} ({verdicts})" if verdicts else files

    def sentence(self) -> str:
        """Returns the counts, how much audio was judged, and how fast."""
        took, audio = time.monotonic() - self._start, sum(self._lengths.values())
        speed = f"; {audio / 60:.1f} min of audio in {clock(took)}, {audio / max(took, 1e-3):.3g} times real time"
        return f"{self.counts()}{speed if audio else ''}."


_COUNTED = ("bona fide", "spoof", "undecided")


def finished_files(path: Path, form: str, detector: Detector, several: bool) -> set[str]:
    """
    Returns the files that an interrupted run of a detector has judged, for `--resume`, and keeps only their rows in
    the output.

    A half-written last line is dropped. So are all rows of a file with an error in any of them: it is judged again. A
    file may have `several` rows, one per channel, track or speaker. If the last file has, it is judged again, too,
    because some of its rows may be missing. CSV of version 0.1.0 gets the present columns, and a copy of it, which has
    the windows, is kept as `NAME.old`.

    Raises:
        OutputError: nes2net detect did not write the output, or used another model, precision or decision rule.
    """
    content = path.read_bytes()
    text = content.decode("utf-8-sig", errors="surrogateescape")
    rows = _read_json_lines(path, text) if form == "jsonl" else _read_csv(path, text)
    low, high, _ = detector.band or (None, None, None)
    asked = {"model": detector.model_name, "dtype": detector.precision, "threshold": detector.threshold,
             "prior": detector.prior, "spoof_below": low, "bonafide_above": high}  # fmt: skip
    asked = {name: round(value, 6) if isinstance(value, float) else value for name, value in asked.items()}
    for told in {tuple(row.get(name) for name in asked) for row in rows}:
        began = {name: _setting(name, value) for name, value in zip(asked, told, strict=True)}
        # Rows of 0.1.0 do not tell their dtype, and rows without a probability no prior.
        began |= {name: asked[name] for name in ("dtype", "prior") if began[name] is None}
        check_same_work(path, began, asked, "write to another file")
    for by_speaker in {bool(row.get("speaker")) for row in rows if not row["error"]}:
        began, now = ({"rttm": "the turns of speakers" if one else None} for one in (by_speaker, bool(detector.turns)))
        check_same_work(path, began, now, "write to another file")
    again = {row["file"] for row in rows if row["error"]}
    if several and rows and any(rows[-1].get(name) not in (None, "") for name in _ROWS):
        again.add(rows[-1]["file"])
    kept = [row for row in rows if row["file"] not in again]
    if form == "csv":
        new = _MARK + csv_row(list(COLUMNS)) + "".join(map(_csv, kept))
    else:
        new = "".join(_json(row) + "\n" for row in kept)
    if _bytes(new) != content:
        if any(_WINDOWS in row for row in kept) and form == "csv":
            _keep(path)
        with atomic_file(path, "wb") as file:  # an interruption here loses nothing
            file.write(_bytes(new))
    done = {row["file"] for row in kept}
    if form == "csv":  # version 0.1.0 wrote bytes that are not UTF-8 as `\udcff`
        done |= {re.sub(r"\\(udc[89a-f][0-9a-f])", lambda code: chr(int(code[1][1:], 16)), name) for name in done}
    return done


def _read_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    lines = text.split("\n")  # after the last newline there is nothing, or half a line
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not row.keys() >= VERDICT_FIELDS:
            raise OutputError(f"{path}, line {number}, is not a result of nes2net detect: write to another file.")
        rows.append(row)
    return rows


def _read_csv(path: Path, text: str) -> list[dict[str, Any]]:
    header, *rows = csv_rows(text) or [[]]
    if text.strip() and not VERDICT_FIELDS <= set(header) <= {*COLUMNS, _WINDOWS}:
        raise OutputError(f"{path} does not have the columns of nes2net detect: write to another file.")
    empty = dict.fromkeys(COLUMNS, "")  # for columns that earlier versions lack
    found = [empty | dict(zip(header, row)) for row in rows if len(row) == len(header)]
    for row in found:
        row |= {name: from_cell(row[name]) for name in _NAMES}
        if row["spoofed"].startswith("["):  # written by version 0.1.0
            with suppress(ValueError, KeyError, TypeError):
                row["spoofed"] = _spoofed(json.loads(row["spoofed"])) or ""
    return found


def _setting(name: str, value: Any) -> Any:
    """Returns a setting as a row tells it. CSV has text, and an empty cell for None."""
    if value in (None, ""):
        return None
    return value if name in ("model", "dtype") else float(value)


def _keep(path: Path) -> None:
    """Copies a file to `NAME.old`, unless that exists."""
    old = path.with_name(f"{path.name}.old")
    if not old.exists():
        with atomic_file(old, "wb") as file:
            file.write(path.read_bytes())


def _spoofed(stretches: list[dict[str, float]] | None) -> str | None:
    """Returns the text of a cell: times in seconds and score of the first stretches, and how many more there are."""
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
    except UnicodeEncodeError:  # surrogates that no file name of bytes contains
        return text.encode("utf-8", "backslashreplace")


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not valid Unicode
        return json.dumps(value)
    return text
