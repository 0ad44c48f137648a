"""
Which utterances each batch holds: an order drawn from seed and epoch, the same in any number of processes and workers.

The stream is our own, so that a run resumes bit for bit: the next batch follows from seed, epoch and batch number
alone, and resuming reads nothing that the run has already seen.
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

_POOL = 50  # batches whose utterances are sorted by length among each other
_LANES = 16  # places of a corpus, at least, that neighbouring utterances come from where it is read by groups


class Broken(str):
    """Takes the place of an utterance that cannot be read: the reason, in a sentence that names it."""


def epoch_order(
    group_sizes: np.ndarray, batch_size: int, seed: int, epoch: int, lengths: np.ndarray | None = None
) -> np.ndarray:
    """
    The numbers of all rows, (N,) in the order of an epoch; each `batch_size` of them are a batch.

    Groups of neighbouring rows are permuted, and so are the rows in each. The sequence is then cut into lanes, and
    batches take utterances from all lanes in turn: a batch mixes as many places of the corpus as there are lanes, and
    a reader holds only one group for each of its lanes. If every row is its own group, all orders are equally likely.

    Args:
        group_sizes: rows in each group, in the corpus's order.
        lengths: of the rows, in any unit, to make batches of similar length: the utterances of 50 batches in a row are
            sorted, and the batches that they then make come in random order.
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
    """A multiple of the batch size, so that each process has its own lanes."""
    return batch_size * -(-_LANES // batch_size)


class BatchStream:
    """
    The batches of one process, epoch after epoch; iterating gives the rest of the current epoch.

    All processes together see each utterance once in an epoch. A last batch with fewer than `batch_size` is dropped.
    With `keep_last`, it is shared out too, if each pass of each process gets a part of it.

    Args:
        dataset: `(epoch, row)` → an item, or a `Broken` if it cannot be read.
        group_sizes: as of `epoch_order`.
        batch_size: utterances of a batch, over all processes.
        collate: items → a batch.
        process, processes: the number of this one, and how many there are; they divide the batch size.
        passes: how many each process makes over its share of a batch.
        seed: of the order.
        keep_last: whether to keep a ragged last batch.
        workers: processes that read; with 0, this one reads.
        lengths: as of `epoch_order`.
        max_broken: how many unreadable utterances a run may skip.
        pin_memory: whether batches lie in page-locked memory, which is faster to copy to a GPU.

    Raises:
        BrokenDataError: while iterating, when more than `max_broken` utterances could not be read, or none of a batch.
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
                f"{batch_size} utterances cannot be shared evenly by {processes} processes in {passes} passes each."
            )
        self.broken: dict[str, None] = {}  # in the order they were met, each once
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
            generator=torch.Generator(),  # else each iterator draws its seed from the generator of dropout
            worker_init_fn=_outlive_signals,
        )

    @property
    def epoch(self) -> int:
        """The current one, from 0."""
        return self._sampler.epoch

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._sampler.batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch, broken in self._loader:
            self._sampler.batch += 1  # first: a state saved while this batch is used is the one after it
            self._count(broken, nothing_left=batch is None)
            yield batch
        self._sampler.epoch, self._sampler.batch = self._sampler.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch that was handed out, and which utterances were broken so far."""
        return {"epoch": self._sampler.epoch, "batch": self._sampler.batch, "broken": list(self.broken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from there: the next batch is the one that would have come next."""
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
                + (", among them all of a batch" if nothing_left else f", more than data.max_broken {self.max_broken}")
                + ": "
                + " ".join(list(self.broken)[-3:])
            )


class _Sampler:
    """
    Keys of the items of one process's batches, from its place (`epoch`, `batch`) on.

    It holds no reference to the stream. In a reference cycle, the garbage collector may take a loader's queues before
    the loader tells its workers to stop, and it then waits five seconds for each.
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
            # Slices, not every n-th row: a process keeps to its own lanes. A ragged batch is shared out evenly.
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
    Exactly these batches of rows.

    Raises:
        BrokenDataError: an utterance cannot be read; figures over the others would describe another set.
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
    Rows in batches of one process: every n-th row. Each process gets the same number of batches if there are enough
    rows, because a model that is sharded over processes must run equally often on all.
    """
    share = rows[process::processes]
    count = -(-len(rows[::processes]) // batch_size)
    return [batch.tolist() for batch in np.array_split(share, count) if len(batch)]


def _outlive_signals(worker: int) -> None:
    """
    Lets a worker survive the signals that a cluster (SIGTERM) or a terminal (SIGINT) sends to every process of a job.
    A worker that ends at once ends the training process too, before it can save. After SIGTERM it runs for a minute.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows, which sends no such signals
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(60))


class _Collate:
    """Items → a batch of the readable ones (None if there is none), and why the others are not readable."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> tuple[dict[str, Any] | None, list[str]]:
        whole = [item for item in items if not isinstance(item, Broken)]
        return self.collate(whole) if whole else None, [item for item in items if isinstance(item, Broken)]
