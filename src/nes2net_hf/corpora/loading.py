"""`load_corpus`: any corpus by its name, as a dataset of one schema."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset
from datasets.table import InMemoryTable

from ..errors import CorpusError, option
from ..files.tables import find_column
from .any_dataset import AnyDataset, in_our_columns, open_dataset, open_splits
from .benchmarks import (
    asvspoof5,
    asvspoof2019_la,
    asvspoof2021_df,
    asvspoof2021_la,
    ctrsvdd,
    in_the_wild,
    partialspoof,
)
from .corpus import Corpus, Row
from .labels import LABEL_NAMES, map_label
from .own_data import read_own_data
from .schema import FEATURES, TEXT_COLUMNS, to_table
from .shards.read import ShardedRows, find_shards, is_ours, is_url
from .tree import Tree
from .utterances import audio_bytes

_MODULES = (asvspoof2019_la, asvspoof2021_la, asvspoof2021_df, asvspoof5, in_the_wild, partialspoof, ctrsvdd)
CORPORA: dict[str, Corpus] = {module.CORPUS.name: module.CORPUS for module in _MODULES}
OWN_DATA, ANY_DATASET = "own-data", "dataset"
NAMES = (*CORPORA, OWN_DATA, ANY_DATASET)
_NAMED = 5  # missing utterances that a message names
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
    A corpus as a dataset with the columns of `FEATURES`; `audio` is not decoded (`path`, or `bytes` from shards).

    Args:
        name: one of `NAMES`: a benchmark, `"own-data"` (a manifest, or a folder per class) or `"dataset"` (any audio
            dataset of the `datasets` library).
        split: partition (`train`, `dev`, `eval`; `test` of CtrSVDD); of a `"dataset"` its split, if it has several.
        root: where the archives were unpacked; manifest or folder of `"own-data"`; Hub id or path of a `"dataset"`
            (what `datasets.load_dataset` takes, a folder of `save_to_disk`, or a Parquet file);
            or, of any of them, the folder or URL (`hf://datasets/org/name`, `s3://…`) of its shards.
        condition: one that the organisers score by itself: `progress`, `eval`, `hidden_track` of ASVspoof 2021,
            `with-acesinger` and `without-acesinger` of CtrSVDD.
        where: column → the value, or the values, that a row must have, e.g. `{"source": ["vcc2018", "vcc2020"]}`;
            columns in any letter case.
        allow_missing: leave out utterances whose audio is missing instead of raising.
        streaming: an `IterableDataset`.
        columns: ours → the data's own, of `"own-data"` and `"dataset"`.
        label_map: the data's own labels → `"spoof"` and `"bonafide"`; a column of bare integers needs it.
        **options: passed to `datasets.load_dataset` for a `"dataset"`, e.g. `revision`; `config` is the name of one of
            its configurations.

    Raises:
        CorpusError: the corpus, a protocol, a column or a label is not there or not known, or audio is missing.
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
        if len(held) == _ROWS_AT_ONCE:  # as objects, rows take ten times the memory that they take in a table
            tables.append(to_table(held))
            held = []
    if missing and not allow_missing:
        raise CorpusError(
            f"{root}: the audio of {len(missing)} of {len(missing) + found} utterances is missing ("
            f"{', '.join(missing[:_NAMED])}{', …' if len(missing) > _NAMED else ''}): unpack it there, or pass "
            f"{option('allow_missing')}."
        )
    if not found:
        raise CorpusError(_nothing_left(root, name, bool(missing or not belongs.keeps_all), belongs))
    dataset = Dataset(InMemoryTable(pa.concat_tables([*tables, to_table(held)])))
    return dataset.to_iterable_dataset() if streaming else dataset


class TableRows:
    """The rows of a dataset by their number, as `ShardedRows` has them; each is a group of its own."""

    def __init__(self, dataset: Dataset, columns: Sequence[str]) -> None:
        self.labels = np.array(dataset.with_format("numpy")["label"])
        self._dataset = dataset.select_columns(list(columns))
        self.group_sizes = np.ones(len(dataset), int)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Row:
        return self._dataset[int(index)]

    def utterances(self) -> list[str]:
        """The ids of all rows."""
        return list(self._dataset["utterance_id"])

    def files(self) -> list[str] | None:
        """The real path of each row's file; None where the table holds the audio itself."""
        if self._dataset[0]["audio"]["bytes"] is not None:
            return None
        return [os.path.realpath(audio["path"]) for audio in self._dataset["audio"]]

    def sizes(self) -> np.ndarray | None:
        """Of all rows (N,), the sizes of their files."""
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
    A corpus as a sequence of rows, for training and scoring, which draw rows by their numbers: shards are read where
    they lie, a few groups of rows at a time, and nothing is copied into a cache.

    Args:
        columns_read: columns of `FEATURES` that a row shall have.
        groups_in_memory: of shards, the groups of rows that are held; a random order needs more than a few.
        name, split, root, **options: as of `load_corpus`.

    Raises:
        CorpusError: as `load_corpus`, and where a shard cannot be read.
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
    """The shards of a corpus below `root`, or none where it is something else."""
    if name not in NAMES:
        find_corpus(name)  # raises
    there = find_shards(root) if is_url(root) or Path(root).is_dir() else {}
    ours = bool(there) and is_ours(next(iter(there.values()))[0])
    if not ours:
        if is_url(root) or (there and name != ANY_DATASET):
            raise CorpusError(f"{root} holds no shards of ours in `data`: make them with `nes2net corpus shard`.")
        return []
    if name in CORPORA:
        split = check_split(CORPORA[name], split)
    elif split is None and len(there) == 1:
        split = next(iter(there))
    if split not in there:
        raise CorpusError(f"{root} holds no shards of split {split!r}: it has {', '.join(sorted(there))}.")
    return there[split]


def _label_index(value: Any) -> Any:
    """A label in words as the number that rows have."""
    remedy = "take one of these words"
    return LABEL_NAMES.index(map_label(value, option("where"), None, remedy)) if isinstance(value, str) else value


def _nothing_left(root: str | os.PathLike[str], name: str, chosen: bool, belongs: RowFilter | None) -> str:
    culprit = None if belongs is None else belongs.culprit()
    if culprit is not None:
        return f"{root}: no utterance of {name} is left: {option('where')} {culprit}: change it, or leave it out."
    why = f"look at {option('split')}, {option('condition')} and {option('where')}" if chosen else "it holds no rows"
    return f"{root}: no utterance of {name} is left: {why}."


def _filter(dataset: Dataset | IterableDataset, belongs: RowFilter) -> Dataset | IterableDataset:
    if belongs.keeps_all:
        return dataset
    said = [column for column in FEATURES if column != "audio"]  # reading audio to choose by labels would take hours
    return dataset.filter(lambda *values: belongs(dict(zip(said, values))), input_columns=said)


def dataset_splits(root: str | os.PathLike[str], split: str | None = None, **options: Any) -> dict[str, AnyDataset]:
    """
    The splits of a `"dataset"`, or the one asked for, in its own columns; also where they are shards.

    Raises:
        CorpusError: it cannot be loaded, or has no such split.
    """
    if not is_url(root):
        return open_splits(os.fspath(root), split, False, options)
    parts = list(find_shards(root)) if split is None else [split]
    return {
        part: load_dataset("parquet", data_files=_shards(ANY_DATASET, part, root), split="train")
        for part in parts or ["train"]  # of none, for the error that says so
    }


def refuse_options(options: Mapping[str, Any]) -> None:
    """Of what is no dataset of the `datasets` library."""
    given = [option(name) for name, value in options.items() if value is not None]
    if given:
        raise CorpusError(f"{', '.join(given)}: only a {ANY_DATASET!r} takes further options.")


def read_rows(
    name: str,
    split: str | None = None,
    *,
    root: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[Any, str] | None = None,
) -> Iterator[Row]:
    """The rows of a benchmark or of own data in their order; `audio` is None where the file is missing."""
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
        paths = tree.audio(row["utterance_id"], corpus.folders[split])
        row["audio"] = {"bytes": None, "path": paths[0]} if paths else None
        yield row


def find_corpus(name: str) -> Corpus:
    """The benchmark of this name; raises CorpusError with the nearest one."""
    if name not in CORPORA:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}."
        raise CorpusError(f"{name!r} is no corpus that is known; {hint}")
    return CORPORA[name]


def check_split(corpus: Corpus, split: str | None) -> str:
    """The partition asked for, or the only one there is."""
    if split is None and len(corpus.protocols) == 1:
        return next(iter(corpus.protocols))
    if split is None or split not in corpus.protocols:
        raise CorpusError(
            f"{option('split')} must be one of {', '.join(corpus.protocols)} of {corpus.title}, got {split!r}."
        )
    return split


def check_own_split(split: str | None) -> None:
    """Your own data have no splits, unless they are shards."""
    if split is not None:
        raise CorpusError(f"{option('split')}: your own data has none; choose rows by {option('where', 'partition')}.")


def refuse_maps(name: str, columns: Mapping[str, str] | None, label_map: Mapping[Any, str] | None) -> None:
    """A benchmark has its own columns and labels."""
    if columns or label_map:
        raise CorpusError(
            f"{option('columns')} and {option('label_map')} are for {OWN_DATA!r} and {ANY_DATASET!r}: {name} has its "
            "own."
        )


class RowFilter:
    """Whether a row belongs to a condition of its corpus and has the values asked for."""

    def __init__(self, name: str, condition: str | None, where: Mapping[str, Any] | None) -> None:
        conditions = CORPORA[name].conditions if name in CORPORA else {}
        if condition is not None and condition not in conditions:
            raise CorpusError(
                f"{option('condition')} must be one of {', '.join(conditions)} of {name}, got {condition!r}."
                if conditions
                else f"{option('condition')}: {name} has none, got {condition!r}."
            )
        self._condition = conditions[condition] if condition is not None else None
        self._wanted: dict[str, set[Any]] = {}
        known = (*TEXT_COLUMNS, "label", "utterance_id")
        for asked, value in (where or {}).items():
            column = find_column(known, [asked], option("where"), CorpusError)
            if column is None:
                raise CorpusError(f"{option('where')}: there is no column {asked!r}; there are {', '.join(known)}.")
            values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
            if column == "label":
                values = [_label_index(value) for value in values]
            self._wanted.setdefault(column, set()).update(values)
        self._seen: dict[str, set[Any]] = {column: set() for column in self._wanted}  # a few, for `culprit`
        self._matched: set[str] = set()
        self.keeps_all = self._condition is None and not self._wanted

    def __call__(self, row: Row) -> bool:
        if self._condition is not None and not self._condition.belongs(row):
            return False
        matched = [column for column, values in self._wanted.items() if row[column] in values]
        self._matched.update(matched)
        for column, seen in self._seen.items():
            if len(seen) <= _NAMED:
                seen.add(row[column])
        return len(matched) == len(self._wanted)

    def culprit(self) -> str | None:
        """Which filter of `where` kept none of the rows that came, and what they have; None where no row came."""
        if not any(self._seen.values()):
            return None
        for column, seen in self._seen.items():
            if column not in self._matched:
                there = sorted(_shown(column, value) for value in seen if value is not None)
                more = ", …" if len(there) > _NAMED else ""
                has = f"has {', '.join(there[:_NAMED])}{more}" if there else "is empty"
                return f"{self._said(column)} matches no row (column {column} {has})"
        return f"{' and '.join(map(self._said, self._wanted))} match no row together"

    def _said(self, column: str) -> str:
        return f"{column}={' or '.join(sorted(_shown(column, value) for value in self._wanted[column]))}"


def _shown(column: str, value: Any) -> str:
    is_label = column == "label" and isinstance(value, int) and 0 <= value < len(LABEL_NAMES)
    return LABEL_NAMES[value] if is_label else str(value)
