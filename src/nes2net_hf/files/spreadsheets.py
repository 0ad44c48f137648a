"""CSV that survives every file name: spreadsheets take none for a formula, and reading gives back what was written."""

from __future__ import annotations

import csv
import io
import re

# What a spreadsheet computes; and such a name behind apostrophes, so that ours can be told from a name's own.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def as_cell(name: str) -> str:
    """`=1+1.wav` → `'=1+1.wav`, `'=1.wav` → `''=1.wav`; all other names are their own cells."""
    return f"'{name}" if _FORMULA.match(name) else name


def from_cell(cell: str) -> str:
    """The name that [`as_cell`] was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_row(cells: list[str]) -> str:
    """A row and its newline; cells with line breaks of any kind are quoted."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)  # ends in CR LF: only then does every Python quote a CR
    return buffer.getvalue()[:-2] + "\n"


def csv_rows(text: str) -> list[list[str]]:
    """
    The whole rows of a file that ends anywhere: a last one that was cut off is left out. Version 0.1.0 did not quote a
    CR in a name, so only LF ends a row, or CR LF where the header does.
    """
    end = text.rfind("\n") + 1
    while text.count('"', 0, end) % 2:  # a newline in a quoted cell
        end = text.rfind("\n", 0, end - 1) + 1
    text = text[:end]
    if text.partition("\n")[0].endswith("\r"):
        text = text.replace("\r\n", "\n")
    stand_in = next(letter for letter in map(chr, range(0xE000, 0xF900)) if letter not in text)
    csv.field_size_limit(2**31 - 1)  # the windows of a day
    rows = csv.reader(io.StringIO(text.replace("\r", stand_in), newline=""))
    return [[cell.replace(stand_in, "\r") for cell in row] for row in rows if row]
