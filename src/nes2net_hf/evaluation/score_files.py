"""
Score files in the forms that people have: `utterance_id score` text as the ASVspoof challenges of 2019, 2021 and 5
take it, CSV with a header, Parquet, and what `nes2net detect` writes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..audio import AUDIO_SUFFIXES
from ..corpora.labels import known_label
from ..errors import EvaluationError
from ..files.spreadsheets import from_cell
from ..files.tables import (
    FILES,
    IDS,
    find_column,
    plain,
    read_table,
    read_text,
    row_of,
    separator_of,
    split_fields,
    split_lines,
)
from .verdicts import are_verdicts, from_cells, read_json_lines, scored

_SCORES = ("score", "cm_score")
_SASV = "sasv_label"  # of ASVspoof 5
_LABELS = ("label", "key", "cm_label", _SASV)
_SASV_KINDS = {0: "spoof", 1: "target", 2: "nontarget"}
KINDS = ("bonafide", "spoof", "target", "nontarget")  # the last two are bona fide, in tandem with ASV


@dataclass(frozen=True)
class ScoreFile:
    """Scores (N,) float64, higher = bona fide, and what else stands in their file."""

    path: Path
    scores: np.ndarray
    ids: np.ndarray | None
    """(N,) utterances; None of a table that has labels instead."""
    kinds: np.ndarray | None = None
    """(N,) of `KINDS`, where the file has labels."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Any further columns of a table (N,), e.g. `asv_score`, `duration`, `frame_scores`."""
    scored: Mapping[str, Any] = field(default_factory=dict)
    """What `nes2net_hf.scoring` wrote of its model and corpus into the Parquet it made; else nothing."""
    are_files: bool = False
    """Whether `ids` are the files that `nes2net detect` judged, which may have folders that the keys do not name."""


def read_scores(path: Path) -> ScoreFile:
    """
    Text has the utterance, which may hold spaces, first and the score last in a line, or the four fields of ASVspoof
    2019 (`utterance attack key score`); a first line whose last field is no number is a header. A table (`.csv`,
    `.parquet`, or text whose first line names a column `score`) has the columns `score` (or `cm_score`) and
    `utterance_id` (or `filename`, …), or labels beside the scores: `label` in words, or `sasv_label` of ASVspoof 5
    (0 spoof, 1 target, 2 non-target). Names of columns may be in any letter case. Of what `nes2net detect` wrote, JSON
    Lines or CSV, files that could not be judged have no score, and its verdicts are no labels.

    Raises:
        EvaluationError: the file cannot be read, a score is no finite number, or an utterance is there twice, which
            a file is of which channels or tracks were judged one by one.
    """
    if path.suffix.lower() == ".parquet":
        columns, scored = _read_parquet(path)
        return _from_table(path, columns, scored)
    text = read_text(path, EvaluationError)
    lines = split_lines(text)
    first = next((line for line in lines if line.strip()), "")
    if path.suffix.lower() in (".jsonl", ".ndjson") or first.lstrip().startswith("{"):
        return _from_verdicts(path, read_json_lines(path, text.split("\n")))
    is_table = separator_of(first) in (",", ";") or any(plain(field) in _SCORES for field in split_fields(first))
    if is_table or path.suffix.lower() == ".csv":
        table = read_table(path, text, EvaluationError)
        rows = [row_of(table, where, fields, EvaluationError) for where, fields in table.rows]
        if are_verdicts(table.names):
            return _from_verdicts(path, map(from_cells, rows))
        return _from_table(path, [(name, _column(row[name] for row in rows)) for name in table.names if name])
    return _from_lines(path, lines)


def _column(values: Iterable[Any]) -> np.ndarray:
    return np.array(list(values), dtype=object)


def _from_lines(path: Path, lines: list[str]) -> ScoreFile:
    names: list[str] = []
    values: list[float] = []
    headed = False
    for number, line in enumerate(lines, start=1):
        fields = _pair(line)
        if not fields:
            continue
        if len(fields) != 2:
            raise EvaluationError(
                f"{path}, line {number}: {len(fields)} fields; a line is `utterance_id score`, or the four of "
                "ASVspoof 2019; a tab before the score tells it from an id with spaces."
            )
        try:
            values.append(float(fields[-1]))
        except ValueError:
            if not names and not headed:
                headed = True
                continue
            raise EvaluationError(f"{path}, line {number}: {fields[-1]!r} is no number.") from None
        names.append(fields[0])
    return _checked(ScoreFile(path, np.array(values), np.array(names, dtype=object)))


def _pair(line: str) -> list[str]:
    """The utterance and the score of a line; all of its fields where nobody can tell which they are."""
    fields = split_fields(line)
    if "\t" in line or len(fields) < 3:
        return [fields[0], fields[3]] if len(fields) == 4 else fields
    if len(fields) == 4 and known_label(fields[2]) is not None:
        return [fields[0], fields[3]]
    try:
        float(fields[-2])
    except ValueError:
        return line.strip().rsplit(maxsplit=1)  # an id with spaces
    return fields  # two columns of numbers


def _from_verdicts(path: Path, rows: Iterable[Mapping[str, Any]]) -> ScoreFile:
    kept = scored(path, rows)
    columns = {name: _column(row.get(name) for row in kept) for name in ("duration", "undecided")}
    return _checked(
        ScoreFile(
            path,
            numbers(path, "score", _column(row["score"] for row in kept)),
            _column(str(row["file"]) for row in kept),
            columns={name: column for name, column in columns.items() if any(value is not None for value in column)},
            are_files=True,
        )
    )


_Columns = list[tuple[str, np.ndarray]]


def _read_parquet(path: Path) -> tuple[_Columns, dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise EvaluationError(f"{path} cannot be read as Parquet ({' '.join(str(error).split())[:100]}).") from None
    scored = (table.schema.metadata or {}).get(b"scored")
    columns = [(name, table.column(i).to_numpy()) for i, name in enumerate(table.column_names)]
    return columns, json.loads(scored) if scored else {}


def _from_table(path: Path, columns: _Columns, scored: Mapping[str, Any] | None = None) -> ScoreFile:
    names = [name for name, _ in columns]
    score, name, label = (
        find_column(names, wanted, path, EvaluationError) for wanted in (_SCORES, (*IDS, *FILES), _LABELS)
    )
    if score is None or (name is None and label is None):
        raise EvaluationError(
            f"{path} has the columns {', '.join(names) or 'of an empty file'}: it needs `score`, and `utterance_id` "
            "or `label`."
        )
    values = dict(columns)
    rest = {plain(key): value for key, value in columns if key not in (score, name, label)}
    text = str if path.suffix.lower() == ".parquet" else from_cell
    ids = None if name is None else _column(text(str(value)).strip() for value in values[name])
    kinds = None if label is None else _kinds(path, label, values[label])
    return _checked(ScoreFile(path, numbers(path, score, values[score]), ids, kinds, rest, scored or {}))


def _kinds(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    is_sasv = plain(name) == _SASV
    if is_sasv:
        kinds = [_SASV_KINDS.get(value) for value in numbers(path, name, column)]
    else:
        words = [str(value).strip().lower().replace("-", "") for value in column]
        kinds = [word if word in KINDS else known_label(word) for word in words]
    for row, kind in enumerate(kinds):
        if kind is None:
            known = ", ".join(KINDS) if not is_sasv else ", ".join(f"{k} ({v})" for k, v in _SASV_KINDS.items())
            raise EvaluationError(f"{path}, row {row + 1}: {name} {column[row]!r} is none of {known}.")
    return np.array(kinds, dtype=object)


def first_double(names: Iterable[str]) -> str | None:
    """The first name that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def find_trials(ids: np.ndarray, wanted: np.ndarray, path: Path, are_files: bool = False) -> np.ndarray:
    """
    Of each trial that is wanted (N,), its row among the `ids` of a score file, -1 where it has none.

    A name and the same one with the suffix of an audio file are one trial, on whichever side the suffix stands, unless
    both are listed. Where they `are_files`, so are names of which one has more folders before it than the other.

    Raises:
        EvaluationError: a trial may be one of several rows, or a row one of several trials.
    """
    place = {name: row for row, name in enumerate(ids)}
    if not are_files and not any("." in name for name in (*ids, *wanted)):  # most corpora: in a tenth of the time
        return np.fromiter((place.get(trial, -1) for trial in wanted), np.int64, len(wanted))
    alike: dict[str, list[str]] = defaultdict(list)
    for name in ids:
        alike[_bare(name)].append(name)
    known = set(wanted)
    rows = np.full(len(wanted), -1, np.int64)
    taken: dict[str, str] = {}
    for number, trial in enumerate(wanted):
        bare = _bare(trial)
        maybe = [name for name in alike.get(bare, []) if name not in known]
        if trial in place:  # others are this one too only if one of them has no suffix
            maybe = [trial, *(name for name in maybe if bare in (trial, name))]
        if len(maybe) > 1:
            raise EvaluationError(f"{path}: {' and '.join(maybe[:2])} may both be trial {trial}: omit one.")
        if not maybe:
            continue
        [name] = maybe
        if name in taken:
            raise EvaluationError(f"{path}: {name} may be trial {taken[name]} or trial {trial}: give both by suffix.")
        taken[name], rows[number] = trial, place[name]
    if are_files:
        _find_by_folders(ids, wanted, path, rows)
    return rows


def _find_by_folders(ids: np.ndarray, wanted: np.ndarray, path: Path, rows: np.ndarray) -> None:
    """Fills `rows` where names differ in the folders before them, the trials with the most folders first."""
    alike: dict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for row in np.setdiff1d(np.arange(len(ids)), rows):
        parts = _parts(ids[row])
        alike[parts[-1]].append((int(row), parts))
    taken: dict[int, tuple[str, ...]] = {}
    trials = [(number, _parts(wanted[number])) for number in np.flatnonzero(rows < 0)]
    for number, parts in sorted(trials, key=lambda trial: -len(trial[1])):
        maybe = [(row, its) for row, its in alike.get(parts[-1], []) if _ends_alike(parts, its)]
        free = [row for row, _ in maybe if row not in taken]
        if len(free) > 1:
            raise EvaluationError(
                f"{path}: {ids[free[0]]} and {ids[free[1]]} may both be trial {wanted[number]}: name the folder in "
                "the keys, or omit one."
            )
        for row, its in maybe:
            if row in taken and len(its) < len(parts):
                raise EvaluationError(
                    f"{path}: {ids[row]} may be trial {'/'.join(taken[row])} or trial {wanted[number]}: judge files "
                    "by their folder, or omit one."
                )
        if free:
            rows[number], taken[free[0]] = free[0], parts


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the name of a file, without its suffix."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or [name]
    return (*parts[:-1], _bare(parts[-1]))


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def _bare(name: str) -> str:
    """A name without the suffix of an audio file."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in AUDIO_SUFFIXES else name


def numbers(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    """A column as float64; raises EvaluationError at the first that is no number."""
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        for row, value in enumerate(column, start=1):
            try:
                float(value)
            except (TypeError, ValueError):
                raise EvaluationError(f"{path}, row {row}: {name} {value!r} is no number.") from None
        raise


def _first(columns: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)


def _checked(file: ScoreFile) -> ScoreFile:
    if not file.scores.size:
        raise EvaluationError(f"{file.path} holds no scores.")
    wrong = np.flatnonzero(~np.isfinite(file.scores))
    if wrong.size:
        where = f"utterance {file.ids[wrong[0]]}" if file.ids is not None else f"row {wrong[0] + 1}"
        raise EvaluationError(
            f"{file.path}: {wrong.size} scores are NaN or infinite, the first one that of {where}: score them again, "
            "in float32."
        )
    double = None if file.ids is None else first_double(file.ids)
    if double is not None:
        raise EvaluationError(f"{file.path}: utterance {double} has two scores: remove one of its lines.")
    return file
