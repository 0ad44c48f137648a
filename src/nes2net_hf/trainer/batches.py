"""
Batches of utterances, in an order that depends only on seed and epoch, not on the number of processes or workers.

We use our own stream so that a run resumes bit for bit. The next batch depends only on seed, epoch and batch number,
so a resumed run does not read again what it has already seen.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import BrokenDataError

logger = logging.getLogger(__name__)

_POOL = 50  # batches that are sorted by length together
_LANES = 16  # at least this many places of the corpus are mixed when it is read in groups


class Broken(str):
    """Stands in for an utterance that cannot be read. The text names the utterance and the reason."""


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


class BatchStream:
    """
    The batches of one process, epoch after epoch. Iterating yields the rest of the current epoch.

    Together, all processes see each utterance once per epoch. An incomplete last batch is dropped. With `keep_last`,
    it is used as long as every pass of every process gets a part of it.

    Args:
        dataset: maps `(epoch, row)` to an item, or to a `Broken` if the utterance cannot be read.
        group_sizes: see `epoch_order`.
        batch_size: utterances per batch, over all processes.
        collate: turns items into a batch.
        process, processes: index of this process, and the number of processes. It must divide the batch size.
        passes: passes that each process makes over its share of a batch.
        seed: seed of the order.
        keep_last: whether to keep an incomplete last batch.
        workers: processes that read. With 0, this process reads.
        lengths: see `epoch_order`.
        max_broken: how many unreadable utterances a run may skip.
        pin_memory: whether to put batches in page-locked memory, which copies to a GPU faster.

    Raises:
        BrokenDataError: while iterating, if more than `max_broken` utterances, or all of one batch, cannot be read.
    """

    def __init__(
        self,
        dataset: Dataset,
        group_sizes: np.ndarray,
        batch_size: int,
        collate: Callable[[list[Any]], dict[str, Any]],
        *,
        process: int = 0,
        processes: int = 1,
        passes: int = 1,
        seed: int = 0,
        keep_last: bool = False,
        workers: int = 0,
        lengths: np.ndarray | None = None,
        max_broken: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if batch_size % (processes * passes):
            raise ValueError(
                f"{batch_size} utterances cannot be split evenly over {processes} processes with {passes} passes each."
            )
        self.broken: dict[str, None] = {}  # an ordered set
        self.max_broken = max_broken
        kept = passes if keep_last else None
        self._sampler = _Sampler(group_sizes, batch_size, seed, process, processes, kept, lengths)
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=self._sampler,
            num_workers=workers,
            collate_fn=_Collate(collate),
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # otherwise each iterator draws its seed from the generator that dropout uses
            worker_init_fn=_outlive_signals,
        )

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return self._sampler.epoch

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return self._sampler.batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch, broken in self._loader:
            self._sampler.batch += 1  # before the yield: a state saved while this batch is in use is the one after it
            self._count(broken, nothing_left=batch is None)
            yield batch
        self._sampler.epoch, self._sampler.batch = self._sampler.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the position after the last batch yielded, and the utterances found broken so far."""
        return {"epoch": self._sampler.epoch, "batch": self._sampler.batch, "broken": list(self.broken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state, with the batch that would have been next."""
        self._sampler.epoch, self._sampler.batch = state["epoch"], state["batch"]
        self.broken = dict.fromkeys(state["broken"])

    def _count(self, broken: list[str], nothing_left: bool) -> None:
        for reason in broken:
            if reason not in self.broken:
                self.broken[reason] = None
                logger.warning("skipped: %s (%d of at most %d)", reason, len(self.broken), self.max_broken)
        if len(self.broken) > self.max_broken or nothing_left:
            raise BrokenDataError(
                f"{len(self.broken)} utterances could not be read"
                + (", including a whole batch" if nothing_left else f", more than data.max_broken={self.max_broken}")
                + ": "
                + " ".join(list(self.broken)[-3:])
            )


class _Sampler:
    """
    Yields the item keys of one process's batches, from its position (`epoch`, `batch`) onwards.

    It holds no reference to the stream. In a reference cycle, the garbage collector may free a loader's queues before
    the loader stops its workers, and the loader then waits five seconds for each worker.
    """

    def __init__(
        self,
        group_sizes: np.ndarray,
        batch_size: int,
        seed: int,
        process: int,
        processes: int,
        passes: int | None,
        lengths: np.ndarray | None,
    ) -> None:
        self.epoch = self.batch = 0
        self._group_sizes, self._batch_size, self._seed = group_sizes, batch_size, seed
        self._process, self._processes, self._lengths = process, processes, lengths
        whole, rest = divmod(int(group_sizes.sum()), batch_size)
        self.batches = whole + (passes is not None and rest >= processes * passes)

    def __len__(self) -> int:
        return self.batches - self.batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first, size = self.epoch, self.batch, self._batch_size
        order = epoch_order(self._group_sizes, size, self._seed, epoch, self._lengths)
        for start in range(first * size, self.batches * size, size):
            # Slices, not every n-th row, keep a process to its own lanes. An incomplete batch is split evenly.
            share = np.array_split(order[start : start + size], self._processes)[self._process]
            yield [(epoch, row) for row in share.tolist()]


def in_order(
    dataset: Dataset,
    batches: Sequence[Sequence[int]],
    collate: Callable[[list[Any]], dict[str, Any]],
    workers: int = 0,
    epoch: int = 0,
) -> Iterator[dict[str, Any]]:
    """
    Yields exactly these batches of rows.

    Raises:
        BrokenDataError: an utterance cannot be read. Results without it would describe a different set.
    """
    keys = [[(epoch, row) for row in batch] for batch in batches]
    loader: DataLoader = DataLoader(
        dataset,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_Collate(collate),
        generator=torch.Generator(),
        worker_init_fn=_outlive_signals,
    )
    for batch, broken in loader:
        if broken:
            raise BrokenDataError(str(broken[0]))
        yield batch


def share_out(rows: np.ndarray, batch_size: int, process: int, processes: int) -> list[list[int]]:
    """
    Returns one process's share of the rows (every n-th row) in batches. If there are enough rows, all processes get
    the same number of batches, because a sharded model must run equally often on every process.
    """
    share = rows[process::processes]
    count = -(-len(rows[::processes]) // batch_size)
    return [batch.tolist() for batch in np.array_split(share, count) if len(batch)]


def _outlive_signals(worker: int) -> None:
    """
    Lets a worker survive the signals that a cluster (SIGTERM) or a terminal (SIGINT) sends to every process of a job.
    If a worker exited at once, the training process would stop before it could save. After SIGTERM, a worker continues
    for one minute.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # Windows has no alarm and sends no such signals
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(60))


class _Collate:
    """Returns a batch of the readable items (None if there are none), and the reasons for the unreadable ones."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> tuple[dict[str, Any] | None, list[str]]:
        whole = [item for item in items if not isinstance(item, Broken)]
        return self.collate(whole) if whole else None, [item for item in items if isinstance(item, Broken)]
