"""Reads the lines of protocol files, in any of the forms that editors save them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CorpusError
from ..files.tables import find_column, read_text, split_lines


def read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """
    Yields the place of each line (file and number, for messages), and its fields, which white space separates.

    A byte order mark, Windows line ends, trailing spaces and empty lines are ignored.

    Raises:
        CorpusError: the file cannot be read, or is not UTF-8 text.
    """
    for number, line in enumerate(split_lines(read_text(path, CorpusError)), start=1):
        if fields := line.split():
            yield f"{path}, line {number}", fields


def read_columns(path: Path, delimiter: str, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """
    Yields the place of each row of a table with a header, and its fields in the order of `columns`. Other columns are
    ignored, and fields that a short row lacks are empty.

    Args:
        delimiter: a comma, for CSV with quotation marks; or `|`, for tables whose quotation marks belong to the text.

    Raises:
        CorpusError: the file cannot be read, is not UTF-8 text, or lacks a column.
    """
    rows = csv.reader(
        split_lines(read_text(path, CorpusError)),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL,
    )
    header = [name.strip() for name in next(rows, [])]
    places: list[int] = []
    for column in columns:
        name = find_column(header, [column], path, CorpusError)
        if name is None:
            raise CorpusError(f"{path} has no column {column!r} (it has {', '.join(header)}): unpack it again.")
        places.append(header.index(name))
    for fields in rows:
        if fields:
            fields += [""] * (len(header) - len(fields))
            yield f"{path}, line {rows.line_num}", [fields[place].strip() for place in places]
