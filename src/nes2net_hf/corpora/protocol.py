"""Reads the lines of protocol files, in any of the forms that editors save them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import CorpusError
from ..files.tables import read_text, split_lines


def read_lines(path: Path, delimiter: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """
    Yields the place of each line (file and number, for messages), and its fields.

    A byte order mark, Windows line ends, trailing spaces and empty lines are ignored.

    Args:
        path: the protocol.
        delimiter: separator of fields; None for white space. If given, the file is CSV with a header line.

    Raises:
        CorpusError: the file cannot be read, or is not UTF-8 text.
    """
    text = read_text(path, CorpusError)
    lines = split_lines(text)
    rows = csv.reader(lines, delimiter=delimiter) if delimiter else (line.split() for line in lines)
    for number, fields in enumerate(rows, start=1):
        if fields and not (delimiter and number == 1):
            yield f"{path}, line {number}", [field.strip() for field in fields]
