"""Scores of an automatic speaker verification (ASV) system, for metrics in tandem with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..corpora.protocol import read_lines
from ..errors import CorpusError, EvaluationError
from ..metrics import AsvErrorRates, asv_error_rates
from .score_files import ScoreFile, numbers

KINDS = ("target", "nontarget", "spoof")


@dataclass(frozen=True)
class AsvScores:
    """Scores of target, non-target and spoof trials; higher = the claimed speaker."""

    target: np.ndarray
    nontarget: np.ndarray
    spoof: np.ndarray
    cm_scores: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    """The countermeasure's, of the same three kinds of trials, where ASV and it scored the same ones."""

    @property
    def error_rates(self) -> AsvErrorRates:
        """At the system's own equal error rate."""
        return asv_error_rates(self.target, self.nontarget, self.spoof)[0]


def asv_of_table(file: ScoreFile) -> AsvScores | None:
    """Where a table holds `asv_score` beside the countermeasure's and tells targets from non-targets; else None."""
    if file.kinds is None or "asv_score" not in file.columns or not {*KINDS} <= {*file.kinds}:
        return None
    asv = numbers(file.path, "asv_score", file.columns["asv_score"])
    if not np.isfinite(asv).all():
        raise EvaluationError(f"{file.path}: asv_score holds NaN or infinite scores.")
    target, nontarget, spoof = (file.kinds == kind for kind in KINDS)
    cm = file.scores[target], file.scores[nontarget], file.scores[spoof]
    return AsvScores(asv[target], asv[nontarget], asv[spoof], cm)


def read_asv_scores(path: Path, phase: str | None = None) -> AsvScores:
    """
    The organisers' ASV scores of ASVspoof 2019 (`attack kind score` in a line) or 2021 (`speaker utterance score`, its
    trials line by line in the `trial_metadata.txt` of the folder above it).

    Args:
        phase: of ASVspoof 2021, e.g. `"eval"`; all if None.

    Raises:
        EvaluationError: the file cannot be read, or lacks a kind of trial.
    """
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    try:
        lines = list(read_lines(path))
        trials = None
        if lines and lines[0][1][1:2] != [] and lines[0][1][1].replace("-", "") not in KINDS:
            trials = _trial_kinds(path, len(lines), phase)
        for number, (where, fields) in enumerate(lines):
            if len(fields) < 3:
                raise EvaluationError(f"{where}: {len(fields)} fields instead of three, the last one a score.")
            kind = fields[1].replace("-", "") if trials is None else trials(number)
            if kind is None:
                continue
            if kind not in found:
                raise EvaluationError(f"{where}: {kind!r} is none of {', '.join(KINDS)}.")
            try:
                found[kind].append(float(fields[2]))
                if not math.isfinite(found[kind][-1]):
                    raise ValueError
            except ValueError:
                raise EvaluationError(f"{where}: {fields[2]!r} is no finite number.") from None
    except CorpusError as error:
        raise EvaluationError(str(error)) from None
    absent = [kind for kind, scores in found.items() if not scores]
    if absent:
        raise EvaluationError(f"{path} has no {' and no '.join(absent)} trials: the t-DCF needs all three kinds.")
    return AsvScores(np.array(found["target"]), np.array(found["nontarget"]), np.array(found["spoof"]))


def _trial_kinds(path: Path, count: int, phase: str | None) -> Callable[[int], str | None]:
    """Of the number of a line, the kind of its trial; None of another phase."""
    metadata = path.parent.parent / "trial_metadata.txt"
    if not metadata.is_file():
        raise EvaluationError(
            f"{path}: its second column names no kind of trial, so {metadata} is needed, as the keys of 2021 unpack."
        )
    trials = [fields for _, fields in read_lines(metadata)]
    if len(trials) != count:
        raise EvaluationError(f"{metadata} has {len(trials)} trials, {path} {count} scores: unpack both again.")

    def kind(number: int) -> str | None:
        fields = trials[number]
        if phase is not None and fields[-1] != phase:
            return None
        return next((field.replace("-", "") for field in fields if field.replace("-", "") in KINDS), "unknown")

    return kind
