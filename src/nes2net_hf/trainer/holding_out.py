"""Divides one table into train and dev: by a column, or else by a fixed share, split by speaker where known."""

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
    """Row numbers of both parts, and a sentence on how they were chosen."""

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
    Divides N rows. If `partitions` has values, they decide; rows with other values, such as test, are in neither part.
    Otherwise dev gets about `share` of each class. Rows are drawn by speaker, so that no speaker is in both parts, or
    by utterance if speakers are unknown or too few. Every run makes the same choice, and adding rows later moves few
    of the others.

    Args:
        column, table: the names of the partition column and of the table, for messages.

    Raises:
        RecipeError: the column has gaps or no row for train or dev, or a class has too few rows for both parts.
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
            f"data.hold_out: {table} has {counts}, too few to hold out some of each class: add recordings (20 of "
            "each class is a good start), or name others for dev, e.g. data.dev.root=dev.csv."
        )
    said = f"dev: {dev.sum()} of {len(truth)} utterances, held out from training"
    if alike:
        said += "; no speaker is in both parts"
    elif all(speakers):
        said += ". There are too few speakers to separate the parts by speaker: the dev EER is too optimistic"
    else:
        said += ". The speakers are unknown, and some may be in both parts: the dev EER may be too optimistic"
    return Division(np.flatnonzero(~dev), np.flatnonzero(dev), said)


def _by_column(partitions: Sequence[str | None], column: str, table: str) -> Division:
    if not all(partitions):
        gap = partitions.index(None)
        raise RecipeError(
            f"data.root: column {column} of {table} is empty in row {gap + 1}: fill it in every row, or in none."
        )
    names = np.array([str(one).lower() for one in partitions])
    rows = {part: np.flatnonzero(np.isin(names, spellings)) for part, spellings in PARTITIONS.items()}
    for part, found in rows.items():
        if not found.size:
            there = ", ".join(sorted(set(map(str, partitions))))
            alias = "" if column == "partition" else f" (a recipe always calls your column {column} partition)"
            raise RecipeError(
                f"data.root: column {column} of {table} has {there}, but no {part}: write {part} there, or choose "
                f"both parts with data.train.where={{partition: …}} data.dev.where={{partition: …}}{alias}."
            )
    used = rows["train"].size + rows["dev"].size
    left = f"; {len(names) - used} are in neither part" if used < len(names) else ""
    return Division(
        rows["train"],
        rows["dev"],
        f"dev: {rows['dev'].size} of {len(names)} utterances, from column {column}{left}",
    )


def _drawn(names: list[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Returns which rows are dev, (N,) bool: all rows of a name together, until each class has its share."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    wanted = {label: max(1, round(share * int((labels == label).sum()))) for label in set(labels.tolist())}
    dev = np.zeros(len(labels), bool)
    for name in sorted(groups, key=lambda name: blake2b(name.encode("utf-8", "surrogateescape")).digest()):
        rows = groups[name]
        counts = {label: int((labels[rows] == label).sum()) for label in set(labels[rows].tolist())}
        held = {label: int((labels[dev] == label).sum()) for label in counts}
        # The limit of 1.5 times the share leaves some of each class for train.
        if any(held[label] < wanted[label] for label in counts) and all(
            held[label] + count <= max(1.5 * wanted[label], 1) for label, count in counts.items()
        ):
            dev[rows] = True
    return dev


def _both_whole(dev: np.ndarray, labels: np.ndarray) -> bool:
    return all(len(set(labels[part].tolist())) == len(set(labels.tolist())) for part in (dev, ~dev))
