"""Several corpora as one, and how often an epoch of training has each of their utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..corpora.corpus import Row
from .durations import estimate
from .recipe import MixingRecipe, RecipeError

Rows = Any  # TableRows, ShardedRows or MixedRows


class MixedRows:
    """
    The rows of several corpora, one after another, with the interface of `TableRows`.

    Args:
        parts: the rows of each corpus by name.
    """

    def __init__(self, parts: Mapping[str, Rows]) -> None:
        self.parts = dict(parts)
        self.names = list(parts)
        rows = list(parts.values())
        self.labels = np.concatenate([one.labels for one in rows])
        self.group_sizes = np.concatenate([one.group_sizes for one in rows])
        self.sources = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
        """The corpus of each row, (N,), as an index of `names`."""
        self._starts = np.cumsum([0, *map(len, rows)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Row:
        source = int(self.sources[index])
        return self.parts[self.names[source]][int(index - self._starts[source])]

    def column(self, name: str) -> list[Any]:
        """Returns a column of all rows."""
        return [value for rows in self.parts.values() for value in rows.column(name)]

    def sizes(self) -> np.ndarray | None:
        """Returns the estimated samples of all rows, (N,), because file sizes differ between formats."""
        found = [estimate(rows).durations for rows in self.parts.values()]
        return None if any(one is None for one in found) else np.concatenate(found)  # type: ignore[arg-type]


class Mixture:
    """
    Maps an epoch to how often each row comes in it, (N,). A row comes once more than another of its corpus and kind at
    most; which ones do depends on seed and epoch.

    Args:
        rows: the training rows.
        mixing: the shares of corpora, and what to balance in each.
        weights: the given weight of each corpus, or None.
        seed: seed of the choice.
    """

    def __init__(
        self, rows: Rows, mixing: MixingRecipe, weights: Sequence[float | None] = (None,), seed: int = 0
    ) -> None:
        parts: dict[str, Rows] = rows.parts if isinstance(rows, MixedRows) else {"": rows}
        self._count, self._seed = mixing.utterances or len(rows), seed
        sizes = [weight or _size(part, mixing.weights) for part, weight in zip(parts.values(), weights, strict=True)]
        shares = np.array(sizes, float) ** (1 / mixing.temperature)
        self.shares = dict(zip(parts, (shares / shares.sum()).tolist()))
        """The share of each corpus in the utterances of an epoch."""
        self._kinds: list[tuple[np.ndarray, float]] = []  # rows, and their share of an epoch
        start = 0
        for name, part in parts.items():
            for members, share in _kinds(part, mixing.balance):
                self._kinds.append((start + members, share * self.shares[name]))
            start += len(part)
        self._total = start

    def __call__(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, epoch, 2])
        wanted = np.cumsum([share for _, share in self._kinds]) * self._count
        wanted[-1] = self._count
        # Rounded up or down by chance, so that over many epochs rare kinds get their share too.
        numbers = np.diff(np.floor(np.concatenate([[0], wanted]) + rng.random())).astype(int)
        counts = np.zeros(self._total, int)
        for (members, _), number in zip(self._kinds, numbers.tolist()):
            counts[members] = number // len(members)
            counts[rng.permutation(members)[: number % len(members)]] += 1
        return counts


def mixture_of(rows: Rows, mixing: MixingRecipe, weights: Sequence[float | None], seed: int) -> Mixture | None:
    """Returns the mixture, or None if each row comes once in each epoch."""
    return None if mixing == MixingRecipe() else Mixture(rows, mixing, weights, seed)


def columns_for(mixing: MixingRecipe) -> tuple[str, ...]:
    """Returns the columns that balancing reads."""
    return {"attack": ("attack",), "speaker": ("speaker_id",)}.get(mixing.balance, ())


def _size(rows: Rows, by: str) -> float:
    if by != "hours":
        return float(len(rows))
    seconds = estimate(rows).mean
    if not seconds:
        raise RecipeError("data.mixing.weights: no recording of a corpus can be read to estimate its hours.")
    return seconds * len(rows)


def _kinds(rows: Rows, balance: str) -> list[tuple[np.ndarray, float]]:
    """Returns the rows of each kind that gets a share of its corpus, (M,), and this share."""
    if balance == "nothing":
        return [(np.arange(len(rows)), 1.0)]
    names = [""] * len(rows)
    for column in columns_for(MixingRecipe(balance=balance)):  # type: ignore[arg-type]
        names = [value or "" for value in rows.column(column)]
    found: list[tuple[np.ndarray, float]] = []
    classes = np.unique(rows.labels)
    for label in classes:
        members = np.flatnonzero(rows.labels == label)
        values, kind = np.unique([names[row] for row in members], return_inverse=True)
        found += [(members[kind == index], 1 / len(classes) / len(values)) for index in range(len(values))]
    return found
