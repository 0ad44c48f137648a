"""Which epoch of a run is the best, and which epochs it keeps. A lower value is better, whatever the criterion."""

from __future__ import annotations

from collections.abc import Mapping

from .recipe import ValidationRecipe


def is_better(value: float, best: float, ties: str) -> bool:
    """Returns whether a later epoch's `value` beats the `best` so far. With `ties="later"`, so does an equal one."""
    return value < best or (ties == "later" and value == best)


def ranked(values: Mapping[str, float], ties: str) -> list[str]:
    """
    Returns the names of epochs from best to worst.

    Args:
        values: the value of each epoch, in the order of training.
        ties: which of two equal epochs is better, `first` or `later`.
    """
    names = list(values)
    return sorted(reversed(names) if ties == "later" else names, key=values.__getitem__)


def break_records(records: dict[str, float], record: Mapping[str, float], rules: ValidationRecipe) -> bool:
    """
    Returns whether an epoch broke the record of a criterion, and notes its values in `records`, criterion → best value
    so far. The criteria are that of `rules.select` on dev as it is and, if evaluated, on augmented dev.

    Args:
        record: the epoch's results by name, as in `metrics.jsonl`.
    """
    plain = rules.select.removesuffix("_augmented")
    broken = {
        name: record[name]
        for name in (plain, f"{plain}_augmented")
        if name in record and is_better(record[name], records.get(name, float("inf")), rules.ties)
    }
    records.update(broken)
    return bool(broken)
