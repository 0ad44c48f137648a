"""Lines of protocol files, however they were saved."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import CorpusError
from ..files.tables import read_text, split_lines


def read_lines(path: Path, delimiter: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """
    Where each line stands (file and number, for messages), and its fields.

    A byte order mark, Windows line ends, spaces behind the last field and empty lines make no difference.

    Args:
        path: the protocol.
        delimiter: between fields; any white space if None. With one, the file is CSV and its first line a header.

    Raises:
        CorpusError: the file cannot be read, or is no text in UTF-8.
    """
    text = read_text(path, CorpusError)
    lines = split_lines(text)
    rows = csv.reader(lines, delimiter=delimiter) if delimiter else (line.split() for line in lines)
    for number, fields in enumerate(rows, start=1):
        if fields and not (delimiter and number == 1):
            yield f"{path}, line {number}", [field.strip() for field in fields]
