"""
The order of an epoch's utterances, and how they are divided into batches. It depends only on seed and epoch, not on
the number of processes or workers, so that a resumed run finds the same batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_POOL = 50  # batches that are sorted by length together
_LANES = 16  # at least this many places of the corpus are mixed when it is read in groups


def epoch_order(
    group_sizes: np.ndarray, batch_size: int, seed: int, epoch: int, lengths: np.ndarray | None = None
) -> np.ndarray:
    """
    Returns all row numbers (N,) in the order of an epoch. Every `batch_size` of them form a batch.

    Groups of neighbouring rows are shuffled, and so are the rows in each group. The sequence is then cut into lanes,
    and batches take utterances from all lanes in turn. A batch thus mixes as many places of the corpus as there are
    lanes, and a reader holds one group per lane. If every row is its own group, all orders are equally likely.

    Args:
        group_sizes: number of rows in each group, in corpus order.
        lengths: length of each row, in any unit. If given, batches have similar lengths: the utterances of 50
            consecutive batches are sorted by length, and the resulting batches are shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    rows = int(group_sizes.sum())
    place_of_row = np.repeat(rng.permutation(len(group_sizes)), group_sizes)
    order = np.lexsort((rng.random(rows), place_of_row))
    lanes = lane_count(batch_size)
    dealt = rows - rows % lanes
    order = np.concatenate([order[:dealt].reshape(lanes, -1).T.ravel(), order[dealt:]])
    if lengths is not None:
        for start in range(0, rows - rows % batch_size, _POOL * batch_size):  # a ragged last batch stays the last
            pool = order[start : min(start + _POOL * batch_size, rows - rows % batch_size)]
            batches = pool[np.argsort(lengths[pool], kind="stable")].reshape(-1, batch_size)
            pool[:] = batches[rng.permutation(len(batches))].ravel()
    return order


def lane_count(batch_size: int) -> int:
    """Returns a multiple of the batch size, so that each process has its own lanes."""
    return batch_size * -(-_LANES // batch_size)


@dataclass(frozen=True)
class Excerpts:
    """
    Excerpts of different lengths, in batches with a budget of samples. The length of each excerpt is drawn evenly from
    `shortest` to `longest` in each epoch, but is not longer than its utterance, and utterances shorter than `shortest`
    are repeated. Without these bounds, an excerpt is the whole utterance.
    """

    budget: float
    """Samples of a batch, over all processes, with the padding behind shorter excerpts."""
    durations: np.ndarray | None
    """Estimated samples of each utterance, (N,); None if unknown, which counts as long."""
    shortest: int | None = None
    longest: int | None = None

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the estimated length of each row's excerpt, (E,), and its drawn length, (E,), in samples."""
        if self.shortest is None or self.longest is None:
            assert self.durations is not None
            return self.durations[rows], None
        drawn = rng.integers(self.shortest, self.longest + 1, len(rows))
        if self.durations is None:
            return drawn, drawn
        return np.clip(self.durations[rows], self.shortest, drawn), drawn


@dataclass(frozen=True)
class Epoch:
    """The utterances of an epoch in order, and where each batch ends."""

    number: int
    """The epoch, counted from 0."""
    rows: np.ndarray
    """Row numbers, (E,)."""
    ends: np.ndarray
    """Batch i has the utterances from `ends[i]` to `ends[i + 1]`."""
    repeats: np.ndarray | None = None
    """How often the row came before in this epoch, (E,); None if each row comes once."""
    samples: np.ndarray | None = None
    """Drawn length of the excerpt, (E,); None if the dataset decides."""

    def __len__(self) -> int:
        return len(self.ends) - 1

    def keys(self, batch: int, process: int, processes: int) -> list[tuple[int, ...]]:
        """
        Returns the item keys of a process's share of a batch: (epoch, row), and if rows can repeat or lengths are
        drawn also the repeat and the length (0 if the dataset decides).
        """
        places = np.array_split(np.arange(self.ends[batch], self.ends[batch + 1]), processes)[process]
        rows = self.rows[places].tolist()
        if self.repeats is None and self.samples is None:
            return [(self.number, row) for row in rows]
        none = np.zeros(len(places), int)
        repeats = (none if self.repeats is None else self.repeats[places]).tolist()
        samples = (none if self.samples is None else self.samples[places]).tolist()
        return [(self.number, *rest) for rest in zip(rows, repeats, samples)]


class Plan:
    """
    Plans epochs.

    Args:
        group_sizes, lengths: see `epoch_order`.
        batch_size: utterances per batch; with `excerpts`, the fewest that its budget holds.
        seed: seed of the order.
        least: utterances that a batch must have, so that every pass of every process gets one.
        keep_last: whether to keep an incomplete last batch, if it has at least `least`.
        draw: maps an epoch to how often each row comes, (N,). By default, each comes once.
        excerpts: if given, batches have a budget of samples instead of `batch_size` utterances.
    """

    def __init__(
        self,
        group_sizes: np.ndarray,
        batch_size: int,
        seed: int = 0,
        least: int = 1,
        keep_last: bool = False,
        lengths: np.ndarray | None = None,
        draw: Callable[[int], np.ndarray] | None = None,
        excerpts: Excerpts | None = None,
    ) -> None:
        self._group_sizes, self._batch_size, self._seed = group_sizes, batch_size, seed
        self._least, self._keep_last, self._lengths = least, keep_last, lengths
        self._draw, self._excerpts = draw, excerpts

    def __call__(self, epoch: int) -> Epoch:
        """Returns the plan of an epoch, counted from 0."""
        rows, repeats, sizes = np.arange(self._group_sizes.sum()), None, self._group_sizes
        if self._draw is not None:
            rows, repeats, sizes = _repeated(self._draw(epoch), self._group_sizes)
        lengths = None if self._lengths is None else self._lengths[rows]
        order = epoch_order(sizes, self._batch_size, self._seed, epoch, lengths)
        samples = None
        if self._excerpts is None:
            ends = np.arange(0, len(order) + 1, self._batch_size)
            if self._keep_last and len(order) - ends[-1] >= self._least:
                ends = np.append(ends, len(order))
        else:
            rng = np.random.default_rng([self._seed, epoch, 1])
            estimated, samples = self._excerpts.draw(rows, rng)
            order, ends = self._within_budget(order, estimated, rng)
        return Epoch(
            epoch,
            rows[order],
            ends,
            None if repeats is None else repeats[order],
            None if samples is None else samples[order],
        )

    def _within_budget(
        self, order: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Cuts an order (E,) into batches of similar lengths within the budget. Returns the new order and the ends of the
        batches. Equal lengths keep their order, as in batches of `batch_size` utterances.
        """
        assert self._excerpts is not None
        budget, alike = self._excerpts.budget, bool((lengths == lengths[:1]).all())
        batches: list[np.ndarray] = []
        rest = order[:0]
        for start in range(0, len(order), _POOL * self._batch_size):
            pool = np.concatenate([rest, order[start : start + _POOL * self._batch_size]])
            if not alike:
                pool = pool[np.argsort(lengths[pool], kind="stable")]
            starts = [0]
            for place, length in enumerate(lengths[pool].tolist()):
                count = place - starts[-1]
                if (count + 1) * length > budget and count >= self._least:
                    starts.append(place)
            *parts, rest = np.split(pool, starts[1:])
            if len(rest) >= self._least and (len(rest) + 1) * lengths[rest[-1]] > budget:
                parts, rest = [*parts, rest], order[:0]
            chosen = range(len(parts)) if alike else rng.permutation(len(parts))
            batches += [parts[index] for index in chosen]
        if self._keep_last and len(rest) >= self._least:
            batches.append(rest)
        ends = np.cumsum([0, *map(len, batches)])
        return np.concatenate([*batches, order[:0]]), ends


def _repeated(counts: np.ndarray, group_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Returns the rows of an epoch in which row i comes `counts[i]` times, (E,), how often each came before, (E,), and
    the sizes of their groups. The repeats of a group are groups of their own, so that they come at other places.
    """
    group_of_row = np.repeat(np.arange(len(group_sizes)), group_sizes)
    rounds = [np.flatnonzero(counts > number) for number in range(int(counts.max(initial=0)))]
    rows = np.concatenate([*rounds, np.arange(0)])
    repeats = np.repeat(np.arange(len(rounds)), [len(one) for one in rounds])
    places = np.stack([repeats, group_of_row[rows]])
    starts = np.flatnonzero((np.diff(places, axis=1, prepend=-1) != 0).any(axis=0))
    return rows, repeats, np.diff(starts, append=len(rows))
