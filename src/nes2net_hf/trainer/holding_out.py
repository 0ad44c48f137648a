"""Divides one table into train and dev: by a column, else a fixed share, by speaker if speakers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ..configuration_nes2net import ID2LABEL
from .recipe import RecipeError

PARTITIONS = {"train": ("train", "training"), "dev": ("dev", "development", "val", "valid", "validation")}


@dataclass(frozen=True)
class Division:
    """Row numbers of both parts, and a sentence that says how they were chosen."""

    train: np.ndarray
    dev: np.ndarray
    said: str


def divide(
    labels: Sequence[int],
    utterances: Sequence[str],
    speakers: Sequence[str | None],
    partitions: Sequence[str | None],
    share: float,
    column: str = "partition",
    table: str = "the table",
) -> Division:
    """
    Divides N rows. If `partitions` has values, they decide, and rows with other values (test) are in neither part.
    Otherwise dev is about `share` of each class, drawn by the names of the speakers, so that none is in both parts, or
    of the utterances. Every run makes the same choice, and rows that you add later move few others.

    Args:
        column, table: what the data calls its partitions, and its name, for errors.

    Raises:
        RecipeError: the column has gaps, or names no row of train or none of dev; or a class has too few rows for both
            parts.
    """
    if any(partitions):
        return _by_column(partitions, column, table)
    truth = np.asarray(labels)
    alike = all(speakers)
    dev = _drawn([str(one) for one in speakers] if alike else list(utterances), truth, share)
    if alike and not _both_whole(dev, truth):
        alike = False
        dev = _drawn(list(utterances), truth, share)
    if not _both_whole(dev, truth):
        counts = ", ".join(f"{int((truth == label).sum())} {name}" for label, name in ID2LABEL.items())
        raise RecipeError(
            f"data.hold_out: {table} has {counts}: too few to hold some of each class out of training: add "
            "recordings (20 of each class are a start), or name other ones for dev: data.dev.root=dev.csv."
        )
    said = f"dev: {dev.sum()} of {len(truth)} utterances, held out from training"
    if alike:
        said += "; no speaker is in both"
    elif all(speakers):
        said += ". There are too few speakers to keep those of dev out of train: the dev EER flatters the model"
    else:
        said += ". Speakers are not known and may be in both: the dev EER may flatter the model"
    return Division(np.flatnonzero(~dev), np.flatnonzero(dev), said)


def _by_column(partitions: Sequence[str | None], column: str, table: str) -> Division:
    if not all(partitions):
        gap = partitions.index(None)
        raise RecipeError(
            f"data.root: {table}: column {column} is empty in row {gap + 1}: fill it in all rows, or in none."
        )
    names = np.array([str(one).lower() for one in partitions])
    rows = {part: np.flatnonzero(np.isin(names, spellings)) for part, spellings in PARTITIONS.items()}
    for part, found in rows.items():
        if not found.size:
            there = ", ".join(sorted(set(map(str, partitions))))
            alias = "" if column == "partition" else f" (recipes say partition where your table says {column})"
            raise RecipeError(
                f"data.root: {table}: column {column} has {there}, and no {part}: write {part} there, or choose both "
                f"parts: data.train.where={{partition: …}} data.dev.where={{partition: …}}{alias}."
            )
    used = rows["train"].size + rows["dev"].size
    left = f", {len(names) - used} in neither" if used < len(names) else ""
    return Division(
        rows["train"],
        rows["dev"],
        f"dev: {rows['dev'].size} of {len(names)} utterances, as column {column} says{left}",
    )


def _drawn(names: list[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Which rows are dev, (N,) bool: whole groups of one name, until each class has its share."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    wanted = {label: max(1, round(share * int((labels == label).sum()))) for label in set(labels.tolist())}
    dev = np.zeros(len(labels), bool)
    for name in sorted(groups, key=lambda name: blake2b(name.encode("utf-8", "surrogateescape")).digest()):
        rows = groups[name]
        counts = {label: int((labels[rows] == label).sum()) for label in set(labels[rows].tolist())}
        held = {label: int((labels[dev] == label).sum()) for label in counts}
        # A group may exceed the share by half, but must not take all of a class away from train.
        if any(held[label] < wanted[label] for label in counts) and all(
            held[label] + count <= max(1.5 * wanted[label], 1) for label, count in counts.items()
        ):
            dev[rows] = True
    return dev


def _both_whole(dev: np.ndarray, labels: np.ndarray) -> bool:
    return all(len(set(labels[part].tolist())) == len(set(labels.tolist())) for part in (dev, ~dev))
