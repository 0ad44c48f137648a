"""Reads keys, which say what each trial is: from a benchmark's protocol file, a corpus on disk, or a table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..corpora.labels import is_header, known_label, map_label
from ..corpora.loading import load_corpus
from ..corpora.registry import CORPORA, check_split, find_corpus
from ..corpora.schema import RESOLUTIONS_MS, TEXT_COLUMNS
from ..corpora.tree import Tree
from ..errors import CorpusError, EvaluationError, option
from ..files.tables import (
    FILES,
    IDS,
    LABELS,
    Table,
    find_column,
    read_table,
    read_text,
    row_of,
    separator_of,
    split_fields,
    split_lines,
)
from .score_files import first_duplicate

_FIX = "fix it"  # for unknown labels, because keys have no label_map


@dataclass(frozen=True)
class Keys:
    """N trials in the order of their source."""

    source: str
    ids: np.ndarray
    """(N,) utterances."""
    labels: np.ndarray
    """(N,) 1 for bona fide, 0 for spoofed."""
    columns: Mapping[str, np.ndarray]
    """(N,) text or None: speaker_id, attack, codec …; only columns with any value."""
    conditions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(N,) whether a trial belongs to a condition that the organisers define."""
    segment_labels: Mapping[int, list[Any]] = field(default_factory=dict)
    """Resolution in milliseconds → labels (T,) of each trial, if the source has them."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Keys:
        """Returns some of the trials."""
        kept = np.arange(len(self))[rows]
        return Keys(
            self.source,
            self.ids[kept],
            self.labels[kept],
            {name: column[kept] for name, column in self.columns.items()},
            {name: mask[kept] for name, mask in self.conditions.items()},
            {step: [labels[row] for row in kept] for step, labels in self.segment_labels.items()},
        )


def read_keys(path: Path, benchmark: str | None = None, split: str | None = None) -> Keys:
    """
    Reads keys from a file or folder.

    Args:
        path: with a `benchmark`, its protocol file or a folder that contains it. Otherwise, lines `utterance_id label`
            (a header is optional), or a table with a header. Other columns of a table, such as `speaker_id`, `attack`
            and `codec`, break down the metrics. Column names are not case-sensitive.
        benchmark: one of `CORPORA`, e.g. `"asvspoof2021-la"`.
        split: partition, if the benchmark has several and the file name does not show which.

    Raises:
        EvaluationError: the keys cannot be read, or list a trial twice.
    """
    try:
        if benchmark is not None:
            return _read_protocol(path, benchmark, split)
        if split is not None:
            raise EvaluationError(f"{option('split')} needs {option('benchmark')}.")
        return _read_table(path)
    except CorpusError as error:
        raise EvaluationError(str(error)) from None


def keys_of_corpus(name: str, split: str | None = None, *, root: str, **options: Any) -> Keys:
    """
    Returns the keys of a corpus. Takes the arguments of `load_corpus`.

    Raises:
        CorpusError: the corpus cannot be opened.
    """
    dataset = load_corpus(name, split, root=root, **options)
    wanted = ["utterance_id", "label", *TEXT_COLUMNS]
    if name in CORPORA and CORPORA[name].has_segments:
        wanted.append("segment_labels")
    return _collect(root, name, dataset.select_columns(wanted))


def _read_protocol(path: Path, benchmark: str, split: str | None) -> Keys:
    corpus = find_corpus(benchmark)
    if path.is_dir():
        split = check_split(corpus, split)
        return _collect(str(path), benchmark, corpus.read(Tree(path), split))
    if not corpus.protocols:
        raise EvaluationError(f"{path}: {corpus.title} has no protocol file: name the folder of its recordings.")
    if split is None and len(corpus.partitions) > 1:
        named = corpus.partitions_of(path.name)
        if len(named) != 1:
            known = ", ".join(corpus.partitions)
            raise EvaluationError(f"{path}: set {option('split')} to its partition ({known}).")
        split = named[0]
    return _collect(str(path), benchmark, corpus.read_file(path, check_split(corpus, split)))


def _read_table(path: Path) -> Keys:
    text = read_text(path, EvaluationError)
    lines = split_lines(text)
    first = next((line for line in lines if line.strip()), "")
    if separator_of(first) in (",", ";") or is_header(split_fields(first)):
        return _collect(str(path), None, _table_rows(path, read_table(path, text, EvaluationError)))
    return _collect(str(path), None, _pairs(path, lines))


def _pairs(path: Path, lines: list[str]) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        fields = split_fields(line)
        if not fields:
            continue
        if len(fields) > 2 and "\t" not in line and known_label(fields[-1]) and not known_label(fields[-2]):
            fields = line.strip().rsplit(maxsplit=1)  # an id with spaces
        if len(fields) != 2:
            raise EvaluationError(
                f"{path}, line {number}: {len(fields)} fields: keys must be lines `utterance_id label`, a table "
                f"with a header, or a protocol file with {option('benchmark')}."
            )
        label = map_label(fields[1], f"{path}, line {number}", remedy=_FIX)
        yield {"utterance_id": fields[0], "label": int(label == "bonafide")}


def _table_rows(path: Path, table: Table) -> Iterable[dict[str, Any]]:
    names = [name for name in table.names if name]
    utterance, label = (find_column(names, wanted, path, EvaluationError) for wanted in ((*IDS, *FILES), LABELS))
    if utterance is None and label is not None and len(names) == 2:
        utterance = names[1 - names.index(label)]
    if utterance is None or label is None:
        raise EvaluationError(f"{path} has the columns {', '.join(names)}: it needs `utterance_id` and `label`.")
    columns = {ours: find_column(names, [ours], path, EvaluationError) for ours in TEXT_COLUMNS}
    for where, fields in table.rows:
        row = row_of(table, where, fields, EvaluationError)
        kind = map_label(row[label], where, remedy=_FIX)
        values = {ours: row[theirs] for ours, theirs in columns.items() if theirs is not None and row[theirs] != "-"}
        if not row[utterance]:
            raise EvaluationError(f"{where}: {utterance} is empty: fill it in, or remove the row.")
        yield {"utterance_id": row[utterance], "label": int(kind == "bonafide"), **values}


def _collect(source: str, benchmark: str | None, rows: Iterable[dict[str, Any]]) -> Keys:
    """Collects rows into columns, because half a million dicts take gigabytes."""
    conditions = CORPORA[benchmark].conditions if benchmark in CORPORA else {}
    ids: list[str] = []
    labels: list[int] = []
    columns: dict[str, list[str | None]] = {name: [] for name in TEXT_COLUMNS}
    belongs: dict[str, list[bool]] = {name: [] for name in conditions}
    segments: dict[int, list[Any]] = {step: [] for step in RESOLUTIONS_MS}
    for row in rows:
        ids.append(row["utterance_id"])
        labels.append(row["label"])
        for name, column in columns.items():
            value = row.get(name)
            column.append(sys.intern(value) if value else None)
        for name, condition in conditions.items():
            belongs[name].append(condition.belongs(row))
        its_segments = row.get("segment_labels") or {}
        for step, found in segments.items():
            found.append(its_segments.get(f"{step}ms"))
    if not ids:
        raise EvaluationError(f"{source} has no trials.")
    if (twice := first_duplicate(ids)) is not None:
        raise EvaluationError(f"{source}: utterance {twice} is listed twice: remove one of its lines.")
    return Keys(
        source,
        np.array(ids, dtype=object),
        np.array(labels, np.int8),
        {name: np.array(values, dtype=object) for name, values in columns.items() if any(values)},
        {name: np.array(mask) for name, mask in belongs.items()},
        {step: found for step, found in segments.items() if all(found)},
    )
