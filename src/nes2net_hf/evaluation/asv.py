"""Scores of an automatic speaker verification (ASV) system, for tandem metrics."""

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
    """Countermeasure scores of the same trials, in the same three arrays, if known."""

    @property
    def error_rates(self) -> AsvErrorRates:
        """Error rates at the ASV system's own equal error rate."""
        return asv_error_rates(self.target, self.nontarget, self.spoof)[0]


def asv_of_table(file: ScoreFile) -> AsvScores | None:
    """Returns the ASV scores of a table with a column `asv_score` and all three kinds of trials; else None."""
    if file.kinds is None or "asv_score" not in file.columns or not {*KINDS} <= {*file.kinds}:
        return None
    asv = numbers(file.path, "asv_score", file.columns["asv_score"])
    if not np.isfinite(asv).all():
        raise EvaluationError(f"{file.path}: column asv_score has NaN or infinite scores: compute them again.")
    target, nontarget, spoof = (file.kinds == kind for kind in KINDS)
    cm = file.scores[target], file.scores[nontarget], file.scores[spoof]
    return AsvScores(asv[target], asv[nontarget], asv[spoof], cm)


def read_asv_scores(path: Path, phase: str | None = None) -> AsvScores:
    """
    Reads the organisers' ASV scores of ASVspoof 2019 (lines `attack kind score`) or 2021 (lines `speaker utterance
    score`). For 2021, `trial_metadata.txt`, one folder up, describes the trial of each line.

    Args:
        phase: phase of ASVspoof 2021, e.g. `"eval"`; all if None.

    Raises:
        EvaluationError: the file cannot be read, or has no trials of one kind.
    """
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    try:
        lines = list(read_lines(path))
        trials = None
        if lines and lines[0][1][1:2] != [] and lines[0][1][1].replace("-", "") not in KINDS:
            trials = _trial_kinds(path, len(lines), phase)
        for number, (where, fields) in enumerate(lines):
            if len(fields) < 3:
                raise EvaluationError(f"{where}: {len(fields)} fields instead of three (the score is third).")
            kind = fields[1].replace("-", "") if trials is None else trials(number)
            if kind is None:
                continue
            if kind not in found:
                raise EvaluationError(f"{where}: trial kind {kind!r} must be one of {', '.join(KINDS)}.")
            try:
                found[kind].append(float(fields[2]))
                if not math.isfinite(found[kind][-1]):
                    raise ValueError
            except ValueError:
                raise EvaluationError(f"{where}: score {fields[2]!r} must be a finite number.") from None
    except CorpusError as error:
        raise EvaluationError(str(error)) from None
    absent = [kind for kind, scores in found.items() if not scores]
    if absent:
        raise EvaluationError(f"{path} has no {' and no '.join(absent)} trials: the t-DCF needs all three kinds.")
    return AsvScores(np.array(found["target"]), np.array(found["nontarget"]), np.array(found["spoof"]))


def _trial_kinds(path: Path, count: int, phase: str | None) -> Callable[[int], str | None]:
    """Returns a function from a line number to the kind of its trial, or None if it is of another phase."""
    metadata = path.parent.parent / "trial_metadata.txt"
    if not metadata.is_file():
        raise EvaluationError(
            f"{path} needs {metadata}, because it has no kinds of trials: unpack the ASVspoof 2021 keys there."
        )
    trials = [fields for _, fields in read_lines(metadata)]
    if len(trials) != count:
        raise EvaluationError(
            f"{metadata} has {len(trials)} trials, but {path} has {count} scores: unpack both again."
        )

    def kind(number: int) -> str | None:
        fields = trials[number]
        if phase is not None and fields[-1] != phase:
            return None
        return next((field.replace("-", "") for field in fields if field.replace("-", "") in KINDS), "unknown")

    return kind
