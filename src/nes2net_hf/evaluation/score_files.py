"""
Reads score files in their usual forms: lines `utterance_id score` as in ASVspoof 2019, 2021 and 5, CSV with a header,
Parquet, and the output of `nes2net detect`.
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

from ..audio import without_suffix
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
KINDS = ("bonafide", "spoof", "target", "nontarget")  # target and nontarget are bona fide trials of ASV


@dataclass(frozen=True)
class ScoreFile:
    """Scores (N,) float64, higher = bona fide, and the rest of their file."""

    path: Path
    scores: np.ndarray
    ids: np.ndarray | None
    """(N,) utterances; None for a table that has labels instead."""
    kinds: np.ndarray | None = None
    """(N,) values of `KINDS`, if the file has labels."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Other columns of a table (N,), e.g. `asv_score`, `duration`, `frame_scores`."""
    scored: Mapping[str, Any] = field(default_factory=dict)
    """What `score_corpus` recorded about the model and corpus in its Parquet; else empty."""
    are_files: bool = False
    """Whether `ids` are files that `nes2net detect` judged. Their folders may differ from the keys'."""


def read_scores(path: Path) -> ScoreFile:
    """
    Reads a score file.

    - Text: a line starts with the utterance (spaces are allowed) and ends with the score, or has the four fields of
      ASVspoof 2019 (`utterance attack key score`). A first line whose last field is not a number is a header.
    - Table (`.csv`, `.parquet`, or text whose first line has a column `score`): has `score` (or `cm_score`), and
      `utterance_id` (or `filename`, …) or labels: `label` in words, or `sasv_label` of ASVspoof 5 (0 spoof, 1 target,
      2 non-target). Column names are not case-sensitive.
    - Output of `nes2net detect` (JSON Lines or CSV): files without a score are skipped. Verdicts are not labels.

    Raises:
        EvaluationError: the file cannot be read, a score is not a finite number, or an utterance has two scores, for
            example one per channel or track.
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
                f"{path}, line {number}: {len(fields)} fields: a line must be `utterance_id score`, or the four "
                "fields of ASVspoof 2019; if the id has spaces, put a tab before the score."
            )
        try:
            values.append(float(fields[-1]))
        except ValueError:
            if not names and not headed:
                headed = True
                continue
            raise EvaluationError(
                f"{path}, line {number}: score {fields[-1]!r} is not a number: correct it, or remove the line."
            ) from None
        names.append(fields[0])
    return _checked(ScoreFile(path, np.array(values), np.array(names, dtype=object)))


def _pair(line: str) -> list[str]:
    """Returns the utterance and the score of a line, or all of its fields if they cannot be told apart."""
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
    columns = {name: _column(row.get(name) for row in kept) for name in ("duration", "undecided", "attack")}
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
            f"{path} has the columns {', '.join(names) or '(none)'}: it needs `score`, and `utterance_id` or `label`."
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
            raise EvaluationError(f"{path}, row {row + 1}: {name} {column[row]!r} must be one of {known}.")
    return np.array(kinds, dtype=object)


def first_duplicate(names: Iterable[str]) -> str | None:
    """Returns the first name that repeats an earlier one; None if there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def find_trials(ids: np.ndarray, wanted: np.ndarray, path: Path, are_files: bool = False) -> np.ndarray:
    """
    Returns the row of each wanted trial (N,) among the `ids` of a score file; -1 if it has none.

    Names that differ only by the suffix of an audio file are one trial, unless both are listed. If they `are_files`,
    names that differ only by leading folders are also one trial.

    Raises:
        EvaluationError: a trial matches several rows, or a row matches several trials.
    """
    place = {name: row for row, name in enumerate(ids)}
    if not are_files and not any("." in name for name in (*ids, *wanted)):  # most corpora; ten times faster
        return np.fromiter((place.get(trial, -1) for trial in wanted), np.int64, len(wanted))
    alike: dict[str, list[str]] = defaultdict(list)
    for name in ids:
        alike[without_suffix(name)].append(name)
    known = set(wanted)
    rows = np.full(len(wanted), -1, np.int64)
    taken: dict[str, str] = {}
    for number, trial in enumerate(wanted):
        bare = without_suffix(trial)
        maybe = [name for name in alike.get(bare, []) if name not in known]
        if trial in place:  # another name also matches only if one of the two has no suffix
            maybe = [trial, *(name for name in maybe if bare in (trial, name))]
        if len(maybe) > 1:
            raise EvaluationError(f"{path}: {' and '.join(maybe[:2])} both match trial {trial}: remove one.")
        if not maybe:
            continue
        [name] = maybe
        if name in taken:
            raise EvaluationError(
                f"{path}: {name} matches both trial {taken[name]} and trial {trial}: score both, each with its suffix."
            )
        taken[name], rows[number] = trial, place[name]
    if are_files:
        _find_by_folders(ids, wanted, path, rows)
    return rows


def _find_by_folders(ids: np.ndarray, wanted: np.ndarray, path: Path, rows: np.ndarray) -> None:
    """Fills `rows` for names that differ by leading folders, starting with the trials that have the most folders."""
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
                f"{path}: {ids[free[0]]} and {ids[free[1]]} both match trial {wanted[number]}: name the folder in the "
                "keys, or remove one."
            )
        for row, its in maybe:
            if row in taken and len(its) < len(parts):
                raise EvaluationError(
                    f"{path}: {ids[row]} matches both trial {'/'.join(taken[row])} and trial {wanted[number]}: judge "
                    "the parent folder, so that names include folders, or remove one."
                )
        if free:
            rows[number], taken[free[0]] = free[0], parts


def _parts(name: str) -> tuple[str, ...]:
    """Returns the folders and the name of a file, without its suffix."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or [name]
    return (*parts[:-1], without_suffix(parts[-1]))


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def numbers(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    """Returns a column as float64; raises EvaluationError at the first value that is not a number."""
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        for row, value in enumerate(column, start=1):
            try:
                float(value)
            except (TypeError, ValueError):
                raise EvaluationError(f"{path}, row {row}: {name} {value!r} is not a number.") from None
        raise


def _checked(file: ScoreFile) -> ScoreFile:
    if not file.scores.size:
        raise EvaluationError(f"{file.path} has no scores.")
    wrong = np.flatnonzero(~np.isfinite(file.scores))
    if wrong.size:
        where = f"utterance {file.ids[wrong[0]]}" if file.ids is not None else f"row {wrong[0] + 1}"
        raise EvaluationError(
            f"{file.path}: {wrong.size} scores are NaN or infinite (the first is for {where}): score them again in "
            "float32."
        )
    twice = None if file.ids is None else first_duplicate(file.ids)
    if twice is not None:
        raise EvaluationError(f"{file.path}: utterance {twice} has two scores: remove one of its lines.")
    return file
