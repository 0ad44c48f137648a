"""Text and tables as people save them: any line end, byte order mark and separator, and names in any spelling."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Nes2NetError

# What columns are called, in the order in which they are looked for.
IDS = ("utterance_id", "utterance", "utt_id", "trial")
FILES = ("path", "file", "file_name", "filename", "audio")
LABELS = ("label", "key", "class", "target", "cm_label")

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks; Excel saves "Unicode text" so


def read_text(path: Path, error: type[Nes2NetError]) -> str:
    """
    The text of a file in UTF-8, or in UTF-16 with its byte order mark.

    Raises:
        error: it cannot be read, or is no text.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except OSError as caught:
        raise error(f"{path} cannot be read ({caught.strerror}).") from None
    if "\0" in text:
        raise error(f"{path} is not a text file in UTF-8.")
    return text


def split_lines(text: str) -> list[str]:
    """Lines by their ends alone: `str.splitlines` would also cut at characters that names may hold."""
    return re.split(r"\r\n|\n|\r", text)


def split_fields(line: str) -> list[str]:
    """Of a line without a header: by tabs where it has any, else by white space."""
    return [field.strip() for field in line.split("\t") if field.strip()] if "\t" in line else line.split()


def plain(name: object) -> str:
    """A column's name without letter case, and with `_` for the spaces and hyphens in it."""
    return re.sub(r"[\s_-]+", "_", str(name).replace("\ufeff", "").strip().casefold())


def find_column(names: Iterable[str], wanted: Sequence[str], where: object, error: type[Nes2NetError]) -> str | None:
    """
    The first of the `wanted` columns that there is, in any spelling.

    Raises:
        error: two columns are spelt alike, so that nobody knows which is meant; the message begins with `where`.
    """
    names = list(names)
    for name in wanted:
        alike = [other for other in names if plain(other) == plain(name)]
        if len(alike) > 1:
            raise error(
                f"{where}: its columns {' and '.join(map(repr, alike))} have one name, letter case aside: rename or "
                "remove one."
            )
        if alike:
            return alike[0]
    return None


@dataclass(frozen=True)
class Table:
    """A header and what follows it."""

    names: list[str]
    rows: Iterator[tuple[str, list[str]]]
    """Of each row where it stands, for messages, and its fields, as many as `names` unless there are too many."""


def separator_of(line: str) -> str | None:
    """What separates the names of a header: a comma, semicolon or tab; None where there is none but white space."""
    best = max(",;\t", key=line.count)
    return best if best in line else None


def read_table(path: Path, text: str, error: type[Nes2NetError]) -> Table:
    """
    The table of a text whose first line that is not empty is the header, its fields separated as that one's.

    Empty lines, spaces around fields and separators at the end of a line make no difference; quotation marks are those
    of CSV. A row that is too short is filled up with empty fields.

    Raises:
        error: a quotation mark is not closed, now or while the rows are read.
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
    """A row by its columns' names; raises `error` where it has too many fields."""
    if len(fields) > len(table.names):
        raise error(
            f"{where}: {len(fields)} fields instead of {len(table.names)}: put quotation marks around a field that "
            "holds the separator."
        )
    return {name: field for name, field in zip(table.names, fields, strict=True) if name}


def _records(path: Path, text: str, separator: str, error: type[Nes2NetError]) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the windows of a day, as nes2net detect writes them
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield f"{path}, line {reader.line_num}", fields
    except csv.Error as caught:
        raise error(
            f"{path}, line {reader.line_num}: a quotation mark is not closed, or a field is not of CSV ({caught})."
        ) from None


def _lines(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(split_lines(text), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.split()


def _trimmed(fields: list[str], least: int) -> list[str]:
    """Without the empty fields at the end, down to so many."""
    while len(fields) > least and not fields[-1]:
        fields = fields[:-1]
    return fields
