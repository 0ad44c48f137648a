"""Reads text and tables as people save them: any line ending, byte order mark, separator and spelling of names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Nes2NetError

# Names of columns, in the order of search.
IDS = ("utterance_id", "utterance", "utt_id", "trial")
FILES = ("path", "file", "file_name", "filename", "audio")
LABELS = ("label", "key", "class", "target", "cm_label")

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, as in "Unicode text" by Excel


def read_text(path: Path, error: type[Nes2NetError]) -> str:
    """
    Returns the text of a file in UTF-8, or in UTF-16 with its byte order mark.

    Raises:
        error: the file cannot be read, or is not text.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except OSError as caught:
        raise error(f"{path} cannot be read ({caught.strerror}).") from None
    if "\0" in text:
        raise error(f"{path} is not a text file in UTF-8: save it as one.")
    return text


def split_lines(text: str) -> list[str]:
    """Splits at line endings only: `str.splitlines` also splits at characters that names may contain."""
    return re.split(r"\r\n|\n|\r", text)


def split_fields(line: str) -> list[str]:
    """Splits a line without a header: at tabs if it has any, else at white space."""
    return [field.strip() for field in line.split("\t") if field.strip()] if "\t" in line else line.split()


def plain(name: object) -> str:
    """Returns a column's name in lower case, with `_` for spaces and hyphens."""
    return re.sub(r"[\s_-]+", "_", str(name).replace("\ufeff", "").strip().casefold())


def find_column(names: Iterable[str], wanted: Sequence[str], where: object, error: type[Nes2NetError]) -> str | None:
    """
    Returns the first of the `wanted` columns that exists, in any spelling.

    Raises:
        error: two columns have the same name, so either could be meant. The message begins with `where`.
    """
    names = list(names)
    for name in wanted:
        alike = [other for other in names if plain(other) == plain(name)]
        if len(alike) > 1:
            raise error(
                f"{where}: columns {' and '.join(map(repr, alike))} have the same name (ignoring case): rename or "
                "remove one."
            )
        if alike:
            return alike[0]
    return None


@dataclass(frozen=True)
class Table:
    """A header and its rows."""

    names: list[str]
    rows: Iterator[tuple[str, list[str]]]
    """Place (for messages) and fields of each row: as many fields as `names`, or more if the row has too many."""


def separator_of(line: str) -> str | None:
    """Returns the separator of a header: a comma, semicolon or tab; None if there is only white space."""
    best = max(",;\t", key=line.count)
    return best if best in line else None


def read_table(path: Path, text: str, error: type[Nes2NetError]) -> Table:
    """
    Returns the table in a text. Its first non-empty line is the header, and decides the separator.

    Empty lines, spaces around fields and separators at the end of a line are ignored. Quotation marks work as in CSV.
    Short rows are padded with empty fields.

    Raises:
        error: a quotation mark is not closed. This may be raised while the rows are read.
    """
    header = next((line for line in split_lines(text) if line.strip()), "")
    separator = separator_of(header)
    records = _records(path, text, separator, error) if separator else _lines(path, text)
    _, names = next(records, ("", []))
    names = _trimmed(names, 0)

    def rows() -> Iterator[tuple[str, list[str]]]:
        for where, fields in records:
            fields = _trimmed(fields, len(names))
            yield where, fields + [""] * (len(names) - len(fields))

    return Table(names, rows())


def row_of(table: Table, where: str, fields: list[str], error: type[Nes2NetError]) -> dict[str, str]:
    """Returns a row by column name; raises `error` if it has too many fields."""
    if len(fields) > len(table.names):
        raise error(
            f"{where}: {len(fields)} fields instead of {len(table.names)}: put quotation marks around fields that "
            "contain the separator."
        )
    return {name: field for name, field in zip(table.names, fields, strict=True) if name}


def _records(path: Path, text: str, separator: str, error: type[Nes2NetError]) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # enough for the windows of a day from nes2net detect
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield f"{path}, line {reader.line_num}", fields
    except csv.Error as caught:
        raise error(
            f"{path}, line {reader.line_num}: a quotation mark is not closed, or a field is not valid CSV ({caught})."
        ) from None


def _lines(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(split_lines(text), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.split()


def _trimmed(fields: list[str], least: int) -> list[str]:
    """Removes empty fields at the end, but keeps the first `least` fields."""
    while len(fields) > least and not fields[-1]:
        fields = fields[:-1]
    return fields
