"""Reads shards, Parquet files that contain the audio, in groups of rows from disk, Hub or S3 (fsspec)."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import CorpusError
from ...hub import bounded_requests, why
from ..corpus import Row
from ..schema import FEATURES

_TEXT = [name for name in FEATURES if name != "audio"]
_NAME = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the name of one of `count` shards, in the form of the Hub's converter."""
    return f"{split}-{index:05}-of-{count:05}.parquet"


def is_url(root: str | os.PathLike[str]) -> bool:
    """Returns whether `root` is a URL for fsspec, e.g. `hf://datasets/org/name` or `s3://bucket/name`."""
    return "://" in os.fspath(root)


def find_shards(root: str | os.PathLike[str]) -> dict[str, list[str]]:
    """
    Returns split → its shards in order, as paths or URLs; empty if the folder or URL `root` has none in `data/`.

    Raises:
        CorpusError: a shard is missing, or `root` cannot be reached.
    """
    try:
        with bounded_requests() if os.fspath(root).startswith("hf://") else nullcontext():
            filesystem, path = fsspec.core.url_to_fs(os.fspath(root))
            paths = sorted(filesystem.glob(f"{path}/data/*-of-*.parquet"))
    except Exception as error:  # each file system raises its own
        raise CorpusError(f"{root} cannot be listed: {why(error)}.") from None
    found: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    for path in paths:
        if match := _NAME.fullmatch(path.rsplit("/", 1)[-1]):
            url = filesystem.unstrip_protocol(path) if is_url(root) else path
            found.setdefault(match["split"], {})[int(match["index"])] = url
            counts[match["split"]] = int(match["count"])
    for split, count in counts.items():
        absent = [shard_name(split, index, count) for index in range(count) if index not in found[split]]
        if absent:
            raise CorpusError(
                f"{root}: {len(absent)} of {count} shards of {split} are missing ({', '.join(absent[:3])}): "
                "copy them there, or make all shards again."
            )
    return {split: [by_index[index] for index in sorted(by_index)] for split, by_index in found.items()}


def is_ours(url: str) -> bool:
    """Returns whether a Parquet file has the columns of `FEATURES`."""
    return set(FEATURES) <= set(_open(url).schema_arrow.names)


class ShardedRows:
    """
    A sequence of the rows of shards that keeps only a few groups of rows in memory.

    `labels` (N,) has the class of each row, and `group_sizes` the numbers of consecutive rows that are read together.

    Args:
        urls: the shards in order.
        columns: the columns to read.
        keep: returns whether to keep a row, which it gets without audio. None keeps all rows.
        groups_in_memory: how many groups of rows to keep in memory, the most recent ones.

    Raises:
        CorpusError: a shard cannot be read.
    """

    def __init__(
        self,
        urls: Sequence[str],
        columns: Sequence[str],
        keep: Callable[[Row], bool] | None = None,
        groups_in_memory: int = 2,
    ) -> None:
        self._groups_in_memory = groups_in_memory
        self._urls, self._columns = list(urls), list(columns)
        places: list[np.ndarray] = []  # for each row: shard, group, and number in the group
        labels: list[np.ndarray] = []
        for shard, url in enumerate(self._urls):
            file = _open(url)
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            place = np.empty((3, sum(sizes)), np.int32)
            place[0] = shard
            place[1] = np.repeat(np.arange(len(sizes)), sizes)
            place[2] = np.concatenate([np.arange(size) for size in sizes])
            label = file.read(["label"]).column("label").to_numpy()
            if keep is not None:
                batches = file.iter_batches(1_000, columns=_TEXT)
                kept = np.array([keep(row) for batch in batches for row in batch.to_pylist()], bool)
                place, label = place[:, kept], label[kept]
            places.append(place)
            labels.append(label)
        self._places = np.concatenate(places, axis=1)
        self.labels = np.concatenate(labels)
        starts = np.flatnonzero((np.diff(self._places[:2], axis=1, prepend=-1) != 0).any(axis=0))
        self.group_sizes = np.diff(starts, append=len(self.labels))
        self._forget()

    def __len__(self) -> int:
        return self._places.shape[1]

    def __getitem__(self, index: int) -> Row:
        shard, group, row = self._places[:, index].tolist()
        return self._group(shard, group).slice(row, 1).to_pylist()[0]

    def utterances(self) -> list[str]:
        """Returns the utterance ids of all rows."""
        return self.column("utterance_id")

    def column(self, name: str) -> list[Any]:
        """Returns one of the columns, for all rows."""
        values: list[Any] = []
        for shard, url in enumerate(self._urls):
            file = _open(url)
            whole = file.read([name]).column(name).to_pylist()
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            _, groups, rows = self._places[:, self._places[0] == shard]
            values += [whole[row] for row in starts[groups] + rows]
        return values

    def files(self) -> None:
        """Returns None, because shards contain the audio itself."""
        return None

    def sizes(self) -> np.ndarray | None:
        """Returns None, because the sizes are unknown until the audio is read."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_files", "_held")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._files: dict[int, pq.ParquetFile] = {}
        self._held: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._process = os.getpid()

    def _group(self, shard: int, group: int) -> pa.Table:
        if self._process != os.getpid():  # a forked worker must not share its parent's file positions
            self._forget()
        if (shard, group) not in self._held:
            if shard not in self._files:
                self._files[shard] = _open(self._urls[shard])
            while len(self._held) >= self._groups_in_memory:
                self._held.popitem(last=False)
            try:
                self._held[shard, group] = self._files[shard].read_row_group(group, self._columns, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise CorpusError(_damaged(self._urls[shard], error)) from None
        self._held.move_to_end((shard, group))
        return self._held[shard, group]


def _open(url: str) -> pq.ParquetFile:
    try:
        if not is_url(url):
            return pq.ParquetFile(Path(url), memory_map=True)
        filesystem, path = fsspec.core.url_to_fs(url)
        return pq.ParquetFile(path, filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(_damaged(url, error)) from None


def _damaged(url: str, error: Exception) -> str:
    return f"{url} cannot be read as a shard ({why(error)}): copy, download or make it again."
