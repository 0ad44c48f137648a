"""Lines of protocol files, however they were saved."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import CorpusError


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
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not a text file in UTF-8.") from None
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}).") from None
    lines = text.splitlines()
    rows = csv.reader(lines, delimiter=delimiter) if delimiter else (line.split() for line in lines)
    for number, fields in enumerate(rows, start=1):
        if fields and not (delimiter and number == 1):
            yield f"{path}, line {number}", [field.strip() for field in fields]
