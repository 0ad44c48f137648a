"""Chooses rows by a condition of their corpus and by the values of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import CorpusError, option
from ..files.tables import find_column
from .corpus import Row
from .labels import LABEL_NAMES, map_label
from .registry import CORPORA
from .schema import TEXT_COLUMNS

_NAMED = 5  # how many values a message names


class RowFilter:
    """Tells whether a row belongs to a condition of its corpus and has the wanted values."""

    def __init__(self, name: str, condition: str | None, where: Mapping[str, Any] | None) -> None:
        conditions = CORPORA[name].conditions if name in CORPORA else {}
        if condition is not None and condition not in conditions:
            raise CorpusError(
                f"{option('condition')} must be one of {', '.join(conditions)} for {name}, got {condition!r}."
                if conditions
                else f"{option('condition')}: {name} has no conditions, got {condition!r}: omit it."
            )
        self._condition = conditions[condition] if condition is not None else None
        self._wanted: dict[str, set[Any]] = {}
        known = (*TEXT_COLUMNS, "label", "utterance_id")
        for asked, value in (where or {}).items():
            column = find_column(known, [asked], option("where"), CorpusError)
            if column is None:
                raise CorpusError(f"{option('where')}: there is no column {asked!r}: choose from {', '.join(known)}.")
            values = as_values(value)
            if column == "label":
                values = [_label_index(value) for value in values]
            self._wanted.setdefault(column, set()).update(values)
        self._seen: dict[str, set[Any]] = {column: set() for column in self._wanted}  # a few, for `culprit`
        self._matched: set[str] = set()
        self.keeps_all = self._condition is None and not self._wanted

    def __call__(self, row: Row) -> bool:
        if self._condition is not None and not self._condition.belongs(row):
            return False
        matched = [column for column, values in self._wanted.items() if row[column] in values]
        self._matched.update(matched)
        for column, seen in self._seen.items():
            if len(seen) <= _NAMED:
                seen.add(row[column])
        return len(matched) == len(self._wanted)

    def culprit(self) -> str | None:
        """Names the filter of `where` that matched no row, and what the rows have; None if there were no rows."""
        if not any(self._seen.values()):
            return None
        for column, seen in self._seen.items():
            if column not in self._matched:
                there = sorted(_shown(column, value) for value in seen if value is not None)
                more = ", …" if len(there) > _NAMED else ""
                has = f"has {', '.join(there[:_NAMED])}{more}" if there else "is empty"
                return f"{self._said(column)} matches no row (column {column} {has})"
        return f"{' and '.join(map(self._said, self._wanted))} match no row together"

    def _said(self, column: str) -> str:
        return f"{column}={' or '.join(sorted(_shown(column, value) for value in self._wanted[column]))}"


def as_values(value: Any) -> list[Any]:
    """Returns the values that a filter of `where` gives for a column: one, or several."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def _shown(column: str, value: Any) -> str:
    is_label = column == "label" and isinstance(value, int) and 0 <= value < len(LABEL_NAMES)
    return LABEL_NAMES[value] if is_label else str(value)


def _label_index(value: Any) -> Any:
    """Converts a label in words to its number in rows."""
    remedy = "use one of these words"
    return LABEL_NAMES.index(map_label(value, option("where"), None, remedy)) if isinstance(value, str) else value
