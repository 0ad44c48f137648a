"""CSV that is safe for every file name: spreadsheets see no formula, and reading returns what was written."""

from __future__ import annotations

import csv
import io
import re

# What a spreadsheet computes, also after apostrophes, so that ours can be told apart from those in a name.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def as_cell(name: str) -> str:
    """`=1+1.wav` → `'=1+1.wav`, `'=1.wav` → `''=1.wav`; other names stay as they are."""
    return f"'{name}" if _FORMULA.match(name) else name


def from_cell(cell: str) -> str:
    """Returns the name that [`as_cell`] received."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_row(cells: list[str]) -> str:
    """Returns a row with its newline. Cells with any kind of line break are quoted."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)  # ends in CR LF, so that every Python version quotes a CR
    return buffer.getvalue()[:-2] + "\n"


def csv_rows(text: str) -> list[list[str]]:
    """
    Returns the whole rows of a file, without a last one that was cut off. Version 0.1.0 did not quote a CR in a name,
    so a row ends only in LF, or in CR LF if the header does.
    """
    end = text.rfind("\n") + 1
    while text.count('"', 0, end) % 2:  # a newline in a quoted cell
        end = text.rfind("\n", 0, end - 1) + 1
    text = text[:end]
    if text.partition("\n")[0].endswith("\r"):
        text = text.replace("\r\n", "\n")
    stand_in = next(letter for letter in map(chr, range(0xE000, 0xF900)) if letter not in text)
    csv.field_size_limit(2**31 - 1)  # enough for the windows of a day
    rows = csv.reader(io.StringIO(text.replace("\r", stand_in), newline=""))
    return [[cell.replace(stand_in, "\r") for cell in row] for row in rows if row]
