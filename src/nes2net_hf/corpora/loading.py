"""`load_corpus`: any corpus by its name, as a dataset of one schema."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Audio, Dataset, IterableDataset, load_dataset
from datasets.table import InMemoryTable

from ..audio import SAMPLING_RATE
from ..hub import hub_reason
from . import asvspoof5, asvspoof2019_la, asvspoof2021_df, asvspoof2021_la, ctrsvdd, in_the_wild, partialspoof
from .corpus import Corpus, Row
from .errors import CorpusError
from .labels import LABEL_NAMES, map_label
from .own_data import read_own_data
from .schema import FEATURES, TEXT_COLUMNS, to_table
from .tree import Tree

_MODULES = (asvspoof2019_la, asvspoof2021_la, asvspoof2021_df, asvspoof5, in_the_wild, partialspoof, ctrsvdd)
CORPORA: dict[str, Corpus] = {module.CORPUS.name: module.CORPUS for module in _MODULES}
OWN_DATA, ANY_DATASET = "own-data", "dataset"
NAMES = (*CORPORA, OWN_DATA, ANY_DATASET)
_NAMED = 5  # missing utterances that a message names


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
        split: partition (`train`, `dev`, `eval`; `test` of CtrSVDD); of a `"dataset"` its split.
        root: where the archives were unpacked; manifest or folder of `"own-data"`; Hub id or path of a `"dataset"`.
        condition: one that the organisers score by itself: `progress`, `eval`, `hidden_track` of ASVspoof 2021,
            `with-acesinger` and `without-acesinger` of CtrSVDD.
        where: column → the value, or the values, that a row must have, e.g. `{"source": ["vcc2018", "vcc2020"]}`.
        allow_missing: leave out utterances whose audio is missing instead of raising.
        streaming: an `IterableDataset`.
        columns: ours → the data's own, of `"own-data"` and `"dataset"`.
        label_map: the data's own labels → `"spoof"` and `"bonafide"`; a column of bare integers needs it.
        **options: passed to `datasets.load_dataset` for a `"dataset"`, e.g. `revision`.

    Raises:
        CorpusError: the corpus, a protocol, a column or a label is not there or not known, or audio is missing.
    """
    if name == ANY_DATASET:
        dataset = _any_dataset(os.fspath(root), split, columns or {}, label_map, streaming, options)
        return dataset.filter(_Filter(None, where)) if where else dataset
    if options:
        raise CorpusError(f"{', '.join(options)}: only a {ANY_DATASET!r} takes further options.")
    rows = read_rows(name, split, root=root, columns=columns, label_map=label_map)
    rows = filter(_Filter(_condition(name, condition), where), rows)
    found: list[Row] = []
    missing: list[Row] = []
    for row in rows:
        (found if row["audio"] is not None else missing).append(row)
    if missing and not allow_missing:
        names = ", ".join(row["utterance_id"] for row in missing[:_NAMED])
        raise CorpusError(
            f"{root}: the audio of {len(missing)} of {len(missing) + len(found)} utterances is missing ({names}"
            f"{', …' if len(missing) > _NAMED else ''}): unpack it there, or pass allow_missing."
        )
    if not found:
        raise CorpusError(f"{root}: no utterance of {name} is left: look at split, condition and where.")
    dataset = Dataset(InMemoryTable(to_table(found)))
    return dataset.to_iterable_dataset() if streaming else dataset


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
        if split is not None:
            raise CorpusError("split: your own data has none; choose rows by where={'partition': …}.")
        for row in read_own_data(root, columns, label_map):
            if not Path(row["audio"]["path"]).is_file():
                row["audio"] = None
            yield row
        return
    corpus = find_corpus(name)
    if columns or label_map:
        raise CorpusError(f"columns and label_map are for {OWN_DATA!r} and {ANY_DATASET!r}: {name} has its own.")
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
        raise CorpusError(f"split must be one of {', '.join(corpus.protocols)} of {corpus.title}, got {split!r}.")
    return split


def _condition(name: str, condition: str | None) -> Callable[[Row], bool] | None:
    if condition is None:
        return None
    conditions = CORPORA[name].conditions if name in CORPORA else {}
    if condition not in conditions:
        raise CorpusError(
            f"condition must be one of {', '.join(conditions)} of {name}, got {condition!r}."
            if conditions
            else f"condition: {name} has none, got {condition!r}."
        )
    return conditions[condition].belongs


class _Filter:
    """Whether a row belongs to a condition and has the values asked for."""

    def __init__(self, belongs: Callable[[Row], bool] | None, where: Mapping[str, Any] | None) -> None:
        self.belongs = belongs
        self.wanted: dict[str, set[Any]] = {}
        for column, value in (where or {}).items():
            if column not in (*TEXT_COLUMNS, "label", "utterance_id"):
                raise CorpusError(f"where: there is no column {column!r}; there are {', '.join(TEXT_COLUMNS)}, label.")
            values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
            if column == "label":
                values = [LABEL_NAMES.index(value) if value in LABEL_NAMES else value for value in values]
            self.wanted[column] = set(values)

    def __call__(self, row: Row) -> bool:
        if self.belongs is not None and not self.belongs(row):
            return False
        return all(row[column] in values for column, values in self.wanted.items())


def _any_dataset(
    path: str,
    split: str | None,
    columns: Mapping[str, str],
    label_map: Mapping[Any, str] | None,
    streaming: bool,
    options: dict[str, Any],
) -> Dataset | IterableDataset:
    """A dataset of the Hub or the disk in our columns: labels mapped by name, audio not decoded."""
    if split is None:
        raise CorpusError("split: name the split of the dataset, e.g. train.")
    try:
        dataset = load_dataset(path, split=split, streaming=streaming, **options)
    except Exception as error:
        reason = hub_reason(error) or " ".join(str(error).split())[:200]
        raise CorpusError(f"dataset {path} could not be loaded: {reason}.") from None
    features = dataset.features
    if features is None:
        raise CorpusError(f"dataset {path} does not say its columns: give a dataset with features.")
    audio, label = columns.get("audio", "audio"), columns.get("label", "label")
    for ours, theirs in {"audio": audio, "label": label, **columns}.items():
        if ours not in FEATURES or ours == "segment_labels":
            raise CorpusError(f"columns: there is no column {ours!r} of ours.")
        if theirs not in features:
            raise CorpusError(
                f"dataset {path} has no column {theirs!r} for {ours} (it has {', '.join(features)}): "
                "name it in columns."
            )
    if not isinstance(features[audio], Audio):
        raise CorpusError(f"dataset {path}: its column {audio!r} is no audio but {features[audio]}.")
    names = getattr(features[label], "names", None)
    dataset = dataset.cast_column(audio, Audio(sampling_rate=SAMPLING_RATE, decode=False))

    def to_ours(row: Row, index: int) -> Row:
        value = row[label]
        value = names[value] if names is not None and isinstance(value, int) and value >= 0 else value
        place = f"dataset {path}, column {label!r}, row {index}"
        known = {ours: row.get(columns.get(ours, ours)) for ours in TEXT_COLUMNS}
        utterance = row.get(columns.get("utterance_id", "utterance_id"))
        return {
            "utterance_id": str(index if utterance is None else utterance),
            "audio": row[audio],
            "label": LABEL_NAMES.index(map_label(value, place, label_map)),
            **{column: None if value is None else str(value) for column, value in known.items()},
            "segment_labels": None,
        }

    def tables(theirs: pa.Table, indices: list[int]) -> pa.Table:
        return to_table([to_ours(row, index) for row, index in zip(theirs.to_pylist(), indices, strict=True)])

    # A function of tables replaces all columns: none has to be removed.
    mapped = dataset.with_format("arrow").map(tables, batched=True, with_indices=True, features=FEATURES)
    return mapped.with_format(None)
