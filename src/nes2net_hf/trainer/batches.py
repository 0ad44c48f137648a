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
from .order import Epoch, Excerpts, Plan

logger = logging.getLogger(__name__)


class Broken(str):
    """Stands in for an utterance that cannot be read. The text names the utterance and the reason."""


class BatchStream:
    """
    The batches of one process, epoch after epoch. Iterating yields the rest of the current epoch.

    Together, all processes see what the plan of an epoch holds. An incomplete last batch is dropped. With `keep_last`,
    it is used as long as every pass of every process gets a part of it.

    Args:
        dataset: maps a key of `Epoch.keys` to an item, or to a `Broken` if the utterance cannot be read.
        group_sizes: see `epoch_order`.
        batch_size: utterances per batch, over all processes.
        collate: turns items into a batch.
        process, processes: index of this process, and the number of processes. It must divide the batch size.
        passes: passes that each process makes over its share of a batch.
        seed: seed of the order.
        keep_last: whether to keep an incomplete last batch.
        workers: processes that read. With 0, this process reads.
        lengths: see `epoch_order`.
        draw: see `Plan`.
        excerpts: see `Plan`.
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
        draw: Callable[[int], np.ndarray] | None = None,
        excerpts: Excerpts | None = None,
        max_broken: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if excerpts is None and batch_size % (processes * passes):
            raise ValueError(
                f"{batch_size} utterances cannot be split evenly over {processes} processes with {passes} passes each."
            )
        self.broken: dict[str, None] = {}  # an ordered set
        self.max_broken = max_broken
        plan = Plan(group_sizes, batch_size, seed, processes * passes, keep_last, lengths, draw, excerpts)
        self._sampler = _Sampler(plan, process, processes)
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
        self.size = 0
        """Utterances of the last batch, over all processes."""

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return self._sampler.epoch

    @property
    def utterances(self) -> int:
        """Number of utterances in the batches of the current epoch."""
        return int(self._sampler.planned().ends[-1])

    def __len__(self) -> int:
        """Returns the number of batches in the current epoch."""
        return len(self._sampler.planned())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        ends = self._sampler.planned().ends
        for batch, broken in self._loader:
            self._sampler.batch += 1  # before the yield: a state saved while this batch is in use is the one after it
            self._count(broken, nothing_left=batch is None)
            self.size = int(ends[self._sampler.batch] - ends[self._sampler.batch - 1])
            yield batch
        self.start(self.epoch + 1)

    def start(self, epoch: int) -> None:
        """Goes to the beginning of an epoch, counted from 0."""
        self._sampler.epoch, self._sampler.batch = epoch, 0

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

    def __init__(self, plan: Plan, process: int, processes: int) -> None:
        self.epoch = self.batch = 0
        self._plan, self._process, self._processes = plan, process, processes
        self._planned: Epoch | None = None

    def planned(self) -> Epoch:
        """Returns the plan of the current epoch."""
        if self._planned is None or self._planned.number != self.epoch:
            self._planned = self._plan(self.epoch)
        return self._planned

    def __len__(self) -> int:
        return len(self.planned()) - self.batch

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        planned = self.planned()
        for batch in range(self.batch, len(planned)):
            # Slices, not every n-th row, keep a process to its own lanes. An incomplete batch is split evenly.
            yield planned.keys(batch, self._process, self._processes)


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
