"""Reads any audio dataset of the `datasets` library, from the Hub or disk, in our columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from datasets import Audio, Dataset, DatasetDict, IterableDataset, Value, load_dataset, load_from_disk
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetGenerationError

from ..audio import SAMPLING_RATE
from ..errors import CorpusError, option
from ..files.tables import LABELS
from ..hub import bounded_requests, why
from .corpus import Row
from .labels import LABEL_NAMES, map_label
from .own_data import match_columns, our_columns
from .schema import FEATURES, TEXT_COLUMNS, to_table

_ROWS_AT_ONCE = 16  # few, because they hold their audio
_NO_ROWS = ("corresponds to no data", "BatchSize must be greater than 0")  # the library's messages for empty files
AnyDataset: TypeAlias = Dataset | IterableDataset


class NoRowsError(CorpusError):
    """A dataset is empty. The data is at fault, not the command."""

    exit_code = 1


def open_dataset(root: str, split: str | None, streaming: bool, options: Mapping[str, Any]) -> AnyDataset:
    """
    Opens a split of a dataset, unchanged; the only one if None.

    Raises:
        CorpusError: the dataset cannot be loaded, or has several splits and none is named.
    """
    splits = open_splits(root, split, streaming, options)
    if len(splits) > 1:
        raise CorpusError(f"{option('split')}: dataset {root} has {', '.join(splits)}: name one of them.")
    [dataset] = splits.values()
    return dataset


def open_splits(root: str, split: str | None, streaming: bool, options: Mapping[str, Any]) -> dict[str, AnyDataset]:
    """
    Opens all splits of a dataset, or only the given one.

    Args:
        root: Hub id; folder of audio, Parquet or anything else that `datasets.load_dataset` knows; folder of
            `save_to_disk`; or one Parquet file.
        options: options of `load_dataset`, e.g. `revision`. `config` is the name of a configuration.

    Raises:
        CorpusError: the dataset cannot be loaded, or has no such split.
    """
    path = Path(root)
    options = {"name" if key == "config" else key: value for key, value in options.items() if value is not None}
    if (path.is_absolute() or root.startswith(".")) and not path.exists():
        raise CorpusError(f"dataset {root} does not exist.")
    try:
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return _saved(root, split, streaming, options)
        with _stored_as_it_is(), nullcontext() if path.exists() else bounded_requests():
            if path.is_file() and path.suffix.lower() == ".parquet":
                loaded = load_dataset("parquet", data_files=root, split=split, streaming=streaming, **options)
            else:
                loaded = load_dataset(root, split=split, streaming=streaming, **options)
    except CorpusError:
        raise
    except Exception as error:  # the library and its file formats raise many kinds
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        if isinstance(cause, EmptyDatasetError) or any(words in str(cause) for words in _NO_ROWS):
            raise NoRowsError(f"dataset {root} has no rows: name another one.") from None
        reason = why(cause)
        if "Config name is missing" in reason:
            reason = f"{reason.split(' Example of usage')[0]}, with {option('config')}"
        raise CorpusError(f"dataset {root} could not be loaded: {reason}.") from None
    return {str(split): loaded} if split is not None else dict(loaded)


@contextmanager
def _stored_as_it_is() -> Iterator[None]:
    """
    Within it, `datasets` stores paths and bytes of audio in a table without torchcodec. It always asks for torchcodec
    there, but needs it only for arrays. Folders of audio and archives are read in this way.
    """
    encode = Audio.encode_example

    def store(self: Audio, value: Any) -> Any:
        if isinstance(value, str):
            return {"bytes": None, "path": value}
        if isinstance(value, dict) and value.get("bytes") is not None and "array" not in value:
            return {"bytes": value["bytes"], "path": value.get("path")}
        return encode(self, value)

    Audio.encode_example = store
    try:
        yield
    finally:
        Audio.encode_example = encode


def _saved(root: str, split: str | None, streaming: bool, options: Mapping[str, Any]) -> dict[str, AnyDataset]:
    if options:
        raise CorpusError(
            f"{', '.join(options)}: dataset {root} was saved with save_to_disk and takes no options: remove them."
        )
    saved = load_from_disk(root)
    splits = dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    if split is not None:
        if split not in splits:
            raise CorpusError(f"{option('split')}: dataset {root} has {', '.join(splits)}, got {split!r}.")
        splits = {split: splits[split]}
    return {name: each.to_iterable_dataset() if streaming else each for name, each in splits.items()}


def in_our_columns(
    dataset: AnyDataset,
    root: str | os.PathLike[str],
    columns: Mapping[str, str] | None,
    label_map: Mapping[Any, str] | None,
) -> AnyDataset:
    """
    Returns the dataset with the columns of `FEATURES`. Labels are mapped by name, and audio is not decoded.

    Raises:
        CorpusError: a column is missing. An unknown label raises it later, when its row is read.
    """
    dataset, to_ours = _prepared(dataset, root, columns, label_map)

    def tables(theirs: pa.Table, indices: list[int]) -> pa.Table:
        return to_table([to_ours(row, index) for row, index in zip(theirs.to_pylist(), indices, strict=True)])

    # A function on tables replaces all columns, so none has to be removed.
    mapped = dataset.with_format("arrow").map(tables, batched=True, with_indices=True, features=FEATURES)
    return mapped.with_format(None)


def iter_rows(
    dataset: AnyDataset,
    root: str | os.PathLike[str],
    columns: Mapping[str, str] | None,
    label_map: Mapping[Any, str] | None,
    on_error: Callable[[CorpusError], None],
) -> Iterator[Row]:
    """Yields the rows of `in_our_columns` one by one. Skips unreadable rows, and passes the error to `on_error`."""
    dataset, to_ours = _prepared(dataset, root, columns, label_map)
    index = 0
    for theirs in dataset.with_format("arrow").iter(_ROWS_AT_ONCE):
        for row in theirs.to_pylist():
            try:
                yield to_ours(row, index)
            except CorpusError as error:
                on_error(error)
            index += 1


def _prepared(
    dataset: AnyDataset,
    root: str | os.PathLike[str],
    columns: Mapping[str, str] | None,
    label_map: Mapping[Any, str] | None,
) -> tuple[AnyDataset, Callable[[Row, int], Row]]:
    features = dataset.features
    if features is None:
        raise CorpusError(f"dataset {root} does not declare its columns: use a dataset with features.")
    known = match_columns(features, our_columns(columns), f"dataset {root}", {"audio": ("audio",), "label": LABELS})
    audio, label = known["audio"], known["label"]
    if not _is_audio(features[audio]):
        raise CorpusError(f"dataset {root}: column {audio!r} is not audio, but {features[audio]}.")
    dataset = dataset.cast_column(audio, Audio(sampling_rate=SAMPLING_RATE, decode=False))

    def named(ours: str, row: Row) -> Any:
        """Returns a value of a row; for a class index, the name of the class."""
        if ours not in known:
            return None
        value, names = row[known[ours]], getattr(features[known[ours]], "names", None)
        return names[value] if names is not None and isinstance(value, int) and value >= 0 else value

    def to_ours(row: Row, index: int) -> Row:
        utterance = named("utterance_id", row)
        texts = {column: named(column, row) for column in TEXT_COLUMNS}
        place = f"dataset {root}, column {label!r}, row {index}"
        return {
            "utterance_id": str(index if utterance is None else utterance),
            "audio": row[audio],
            "label": LABEL_NAMES.index(map_label(named("label", row), place, label_map)),
            **{column: None if value is None else str(value) for column, value in texts.items()},
            "segment_labels": None,
        }

    return dataset, to_ours


def _is_audio(feature: Any) -> bool:
    """Returns whether a column holds audio: as `Audio`, or as the same struct in other people's Parquet files."""
    return isinstance(feature, Audio) or feature == {"bytes": Value("binary"), "path": Value("string")}
