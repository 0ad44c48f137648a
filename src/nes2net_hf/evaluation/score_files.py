"""
Score files in the forms that people have: `utterance_id score` text as the ASVspoof challenges of 2019, 2021 and 5
take it, CSV with a header, and Parquet.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import EvaluationError

FILES = ("path", "file", "file_name", "filename", "audio")  # columns of files, which name utterances
_SUFFIXES = ("wav", "flac", "mp3", "m4a", "ogg", "opus", "aac", "wma", "mp4")
_IDS = ("utterance_id", "utterance", "utt_id", "trial", *FILES)
_SCORES = ("score", "cm_score", "cm-score")
_LABELS = ("label", "key")
_SASV = "sasv_label"  # of ASVspoof 5
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


def read_scores(path: Path) -> ScoreFile:
    """
    Text has the utterance first and the score last in a line of two fields, or of the four of ASVspoof 2019
    (`utterance attack key score`); a first line whose last field is no number is a header. A table (`.csv`,
    `.parquet`, or text with commas) has the columns `score` (or `cm_score`) and `utterance_id` (or `filename`, …), or
    labels beside the scores: `label` in words, or `sasv_label` of ASVspoof 5 (0 spoof, 1 target, 2 non-target).

    Raises:
        EvaluationError: the file cannot be read, a score is no finite number, or an utterance is there twice.
    """
    if path.suffix.lower() == ".parquet":
        columns, scored = _read_parquet(path)
        return _from_table(path, columns, scored)
    text = read_text(path)
    first = text.split("\n", 1)[0]
    if path.suffix.lower() == ".csv" or "," in first:
        return _from_table(path, _read_csv(path, text))
    return _from_lines(path, text.splitlines())


def _from_lines(path: Path, lines: list[str]) -> ScoreFile:
    names: list[str] = []
    values: list[float] = []
    headed = False
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (2, 4):
            raise EvaluationError(
                f"{path}, line {number}: {len(fields)} fields; a line is `utterance_id score`, or the four of "
                "ASVspoof 2019."
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


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise EvaluationError(f"{path} cannot be read as Parquet ({' '.join(str(error).split())[:100]}).") from None
    scored = (table.schema.metadata or {}).get(b"scored")
    return {name: table[name].to_numpy() for name in table.column_names}, json.loads(scored) if scored else {}


def _read_csv(path: Path, text: str) -> dict[str, np.ndarray]:
    rows = csv.reader(io.StringIO(text))
    header = [name.strip().lower() for name in next(rows, [])]
    lines = [row for row in rows if row]
    for number, row in enumerate(lines, start=2):
        if len(row) != len(header):
            raise EvaluationError(f"{path}, line {number}: {len(row)} fields instead of {len(header)}.")
    return {name: np.array(column, dtype=object) for name, column in zip(header, zip(*lines), strict=False)}


def _from_table(path: Path, columns: dict[str, Any], scored: Mapping[str, Any] | None = None) -> ScoreFile:
    score, name, label = (_first(columns, names) for names in (_SCORES, _IDS, (*_LABELS, _SASV)))
    if score is None or (name is None and label is None):
        raise EvaluationError(
            f"{path} has the columns {', '.join(columns) or 'of an empty file'}: it needs `score`, and `utterance_id` "
            "or `label`."
        )
    values = numbers(path, score, columns[score])
    rest = {key: value for key, value in columns.items() if key not in (score, name, label)}
    ids = None if name is None else np.array([utterance_name(name, value) for value in columns[name]], dtype=object)
    kinds = None if label is None else _kinds(path, label, columns[label])
    return _checked(ScoreFile(path, values, ids, kinds, rest, scored or {}))


def _kinds(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    if name == _SASV:
        kinds = [_SASV_KINDS.get(value) for value in numbers(path, name, column)]
    else:
        words = [str(value).strip().lower().replace("-", "") for value in column]
        kinds = [word if word in KINDS else None for word in words]
    for row, kind in enumerate(kinds):
        if kind is None:
            known = ", ".join(KINDS) if name != _SASV else ", ".join(f"{k} ({v})" for k, v in _SASV_KINDS.items())
            raise EvaluationError(f"{path}, row {row + 1}: {name} {column[row]!r} is none of {known}.")
    return np.array(kinds, dtype=object)


def read_text(path: Path) -> str:
    """The text of a file; raises EvaluationError where it is none, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise EvaluationError(f"{path} is not a text file in UTF-8.") from None
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}).") from None


def first_double(names: Iterable[str]) -> str | None:
    """The first name that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def utterance_name(column: str, value: Any) -> str:
    """What names an utterance, as text; of a column of files without the suffix of audio."""
    text = str(value).strip()
    stem, dot, suffix = text.rpartition(".")
    return stem if column in FILES and dot and suffix.lower() in _SUFFIXES else text


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
