"""`load_corpus`: loads any corpus by name, as a dataset in one schema."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset
from datasets.table import InMemoryTable

from ..errors import CorpusError, option
from .any_dataset import AnyDataset, in_our_columns, open_dataset, open_splits
from .corpus import Row
from .own_data import read_own_data
from .registry import ANY_DATASET, CORPORA, NAMES, OWN_DATA, check_split, find_corpus
from .row_filter import RowFilter
from .schema import FEATURES, to_table
from .shards.read import ShardedRows, find_shards, is_ours, is_url
from .tree import Tree
from .utterances import audio_bytes

_NAMED = 5  # how many utterances a message names
_ROWS_AT_ONCE = 1_000


def load_corpus(
    name: str,
    split: str | None = None,
    *,
    root: str | os.PathLike[str],
    condition: str | None = None,
    where: Mapping[str, Any] | None = None,
    allow_missing: bool = False,
    streaming: bool = False,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[Any, str] | None = None,
    **options: Any,
) -> Dataset | IterableDataset:
    """
    Loads a corpus as a dataset with the columns of `FEATURES`. `audio` is not decoded (`path`, or `bytes` in shards).

    Args:
        name: one of `NAMES`: a benchmark, `"own-data"` (a manifest, or a folder per class) or `"dataset"` (any audio
            dataset of the `datasets` library).
        split: partition (`train`, `dev`, `eval`; in CtrSVDD `test`; in Codecfake `C1` to `C7` and `A1` to `A3`; `all`
            of a corpus without splits), or the split of a `"dataset"` with several.
        root: the folder of a benchmark's unpacked archives; the manifest or folder of `"own-data"`; the Hub id or path
            of a `"dataset"` (an argument of `datasets.load_dataset`, a folder of `save_to_disk`, or a Parquet file);
            or the folder or URL (`hf://datasets/org/name`, `s3://…`) of shards of any of these.
        condition: a part that the organisers score separately: `progress`, `eval` or `hidden_track` of ASVspoof 2021,
            `with-acesinger` or `without-acesinger` of CtrSVDD; or a version of Fake-or-Real (`for-original`,
            `for-norm`, `for-2sec`, `for-rerec`).
        where: column → the value or values that a row must have, e.g. `{"source": ["vcc2018", "vcc2020"]}`. Column
            names are not case-sensitive.
        allow_missing: skip utterances whose audio is missing instead of raising an error.
        streaming: return an `IterableDataset`.
        columns: our columns → the data's columns, for `"own-data"` and `"dataset"`.
        label_map: the data's labels → `"spoof"` and `"bonafide"`. A column of bare integers needs it.
        **options: options of `datasets.load_dataset` for a `"dataset"`, e.g. `revision`. `config` is the name of a
            configuration.

    Raises:
        CorpusError: the corpus, a protocol, a column or a label is missing or unknown, or audio is missing.
    """
    if shards := _shards(name, split, root):
        refuse_options(options)
        dataset = load_dataset("parquet", data_files=shards, split="train", streaming=streaming)
        return _filter(dataset, RowFilter(name, condition, where))
    if name == ANY_DATASET:
        dataset = open_dataset(os.fspath(root), split, streaming, options)
        return _filter(in_our_columns(dataset, root, columns, label_map), RowFilter(name, condition, where))
    refuse_options(options)
    belongs = RowFilter(name, condition, where)
    tables: list[pa.Table] = []
    held: list[Row] = []
    missing: list[str] = []
    found = 0
    for row in read_rows(name, split, root=root, columns=columns, label_map=label_map):
        if not belongs(row):
            continue
        if row["audio"] is None:
            missing.append(row["utterance_id"])
            continue
        found += 1
        held.append(row)
        if len(held) == _ROWS_AT_ONCE:  # Python rows take ten times the memory of a table
            tables.append(to_table(held))
            held = []
    if missing and not allow_missing:
        raise CorpusError(
            f"{root}: the audio of {len(missing)} of {len(missing) + found} utterances is missing ("
            f"{', '.join(missing[:_NAMED])}{', …' if len(missing) > _NAMED else ''}): unpack it there, or skip these "
            f"utterances with {option('allow_missing')}."
        )
    if not found:
        raise CorpusError(_nothing_left(root, name, bool(missing or not belongs.keeps_all), belongs))
    dataset = Dataset(InMemoryTable(pa.concat_tables([*tables, to_table(held)])))
    return dataset.to_iterable_dataset() if streaming else dataset


class TableRows:
    """A dataset's rows by number, with the interface of `ShardedRows`. Each row is its own group."""

    def __init__(self, dataset: Dataset, columns: Sequence[str]) -> None:
        self.labels = np.array(dataset.with_format("numpy")["label"])
        self._dataset = dataset.select_columns(list(columns))
        self.group_sizes = np.ones(len(dataset), int)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Row:
        return self._dataset[int(index)]

    def column(self, name: str) -> list[Any]:
        """Returns one of the columns, for all rows."""
        return list(self._dataset[name])

    def utterances(self) -> list[str]:
        """Returns the utterance ids of all rows."""
        return self.column("utterance_id")

    def files(self) -> list[str] | None:
        """Returns the real path of each row's file; None if the table contains the audio itself."""
        if self._dataset[0]["audio"]["bytes"] is not None:
            return None
        return [os.path.realpath(audio["path"]) for audio in self._dataset["audio"]]

    def sizes(self) -> np.ndarray | None:
        """Returns the file sizes of all rows, (N,)."""
        return np.array([audio_bytes(row) for row in self._dataset])


def open_rows(
    name: str,
    split: str | None = None,
    *,
    root: str | os.PathLike[str],
    columns_read: Sequence[str],
    groups_in_memory: int = 2,
    **options: Any,
) -> TableRows | ShardedRows:
    """
    Opens a corpus as a sequence of rows for training and scoring. Shards are read in place, a few groups of rows at a
    time, and nothing is copied to a cache.

    Args:
        columns_read: the columns of `FEATURES` to read.
        groups_in_memory: how many groups of rows of shards to keep in memory. Random order needs more than a few.
        name, split, root, **options: see `load_corpus`.

    Raises:
        CorpusError: see `load_corpus`; or a shard cannot be read.
    """
    if shards := _shards(name, split, root):
        condition, where = options.get("condition"), options.get("where")
        keep = RowFilter(name, condition, where) if condition or where else None
        rows = ShardedRows(shards, columns_read, keep, groups_in_memory)
        if not len(rows):
            raise CorpusError(_nothing_left(root, name, keep is not None, keep))
        return rows
    dataset = load_corpus(name, split, root=root, **options)
    assert isinstance(dataset, Dataset)
    return TableRows(dataset, columns_read)


def _shards(name: str, split: str | None, root: str | os.PathLike[str]) -> list[str]:
    """Returns the shards of a corpus below `root`, or an empty list if `root` is something else."""
    if name not in NAMES:
        find_corpus(name)  # raises
    there = find_shards(root) if is_url(root) or Path(root).is_dir() else {}
    ours = bool(there) and is_ours(next(iter(there.values()))[0])
    if not ours:
        if is_url(root) or (there and name != ANY_DATASET):
            raise CorpusError(f"{root} has no shards in `data`: make them with `nes2net corpus shard`.")
        return []
    if name in CORPORA:
        split = check_split(CORPORA[name], split)
    elif split is None and len(there) == 1:
        split = next(iter(there))
    if split not in there:
        raise CorpusError(f"{root} has no shards of split {split!r}: choose from {', '.join(sorted(there))}.")
    return there[split]


def _nothing_left(root: str | os.PathLike[str], name: str, chosen: bool, belongs: RowFilter | None) -> str:
    culprit = None if belongs is None else belongs.culprit()
    if culprit is not None:
        return f"{root}: no utterance of {name} is left: {option('where')} {culprit}: change or omit it."
    why = f"check {option('split')}, {option('condition')} and {option('where')}" if chosen else "it has no rows"
    return f"{root}: no utterance of {name} is left: {why}."


def _filter(dataset: Dataset | IterableDataset, belongs: RowFilter) -> Dataset | IterableDataset:
    if belongs.keeps_all:
        return dataset
    said = [column for column in FEATURES if column != "audio"]  # reading the audio would take hours
    return dataset.filter(lambda *values: belongs(dict(zip(said, values))), input_columns=said)


def dataset_splits(root: str | os.PathLike[str], split: str | None = None, **options: Any) -> dict[str, AnyDataset]:
    """
    Opens all splits of a `"dataset"`, or only the given one, in its own columns. They may be shards.

    Raises:
        CorpusError: the dataset cannot be loaded, or has no such split.
    """
    if not is_url(root):
        return open_splits(os.fspath(root), split, False, options)
    parts = list(find_shards(root)) if split is None else [split]
    return {
        part: load_dataset("parquet", data_files=_shards(ANY_DATASET, part, root), split="train")
        for part in parts or ["train"]  # if none, loading one raises the error
    }


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raises CorpusError if there are options for the `datasets` library, which only a `"dataset"` takes."""
    given = [option(name) for name, value in options.items() if value is not None]
    if given:
        raise CorpusError(f"{', '.join(given)}: only a {ANY_DATASET!r} takes these options: omit them.")


def read_rows(
    name: str,
    split: str | None = None,
    *,
    root: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[Any, str] | None = None,
) -> Iterator[Row]:
    """Yields the rows of a benchmark or of own data in order. `audio` is None if the file is missing."""
    seen: set[str] = set()
    for row in _rows(name, split, Path(root), columns, label_map):
        if row["utterance_id"] in seen:
            raise CorpusError(f"{root}: utterance {row['utterance_id']} is listed twice: remove one of its lines.")
        seen.add(row["utterance_id"])
        yield row


def _rows(
    name: str, split: str | None, root: Path, columns: Mapping[str, str] | None, label_map: Mapping[Any, str] | None
) -> Iterator[Row]:
    if name == OWN_DATA:
        check_own_split(split)
        for row in read_own_data(root, columns, label_map):
            if not os.path.isfile(row["audio"]["path"]):
                row["audio"] = None
            yield row
        return
    corpus = find_corpus(name)
    refuse_maps(name, columns, label_map)
    tree, split = Tree(root), check_split(corpus, split)
    for row in corpus.read(tree, split):
        paths = corpus.files(tree, row["utterance_id"], split)
        row["audio"] = {"bytes": None, "path": paths[0]} if paths else None
        yield row


def check_own_split(split: str | None) -> None:
    """Raises CorpusError if a split is given: own data has none, except as shards."""
    if split is not None:
        raise CorpusError(
            f"{option('split')}: your own data has no splits: choose rows with {option('where', 'partition')}."
        )


def refuse_maps(name: str, columns: Mapping[str, str] | None, label_map: Mapping[Any, str] | None) -> None:
    """Raises CorpusError if columns or labels are given: a benchmark has its own."""
    if columns or label_map:
        raise CorpusError(
            f"{option('columns')} and {option('label_map')} are only for {OWN_DATA!r} and {ANY_DATASET!r}: omit them "
            f"for {name}."
        )
