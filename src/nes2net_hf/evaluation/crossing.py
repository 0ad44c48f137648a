"""
Do thresholds travel? The threshold and the calibration of one corpus, applied to another: for `nes2net evaluate
--cross`. Also the EER of the bona fide speech of each source against the attacks of each source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration import CalibrationError, fit_calibration
from ..errors import EvaluationError, option
from ..metrics import ASVSPOOF5_COSTS, DetectionCosts, actual_dcf, cllr, equal_error_rate
from .figures import Trials, match
from .keys import Keys, keys_of_corpus
from .score_files import ScoreFile, read_scores
from .systems import names_of

_FEWEST = 5  # trials of a source; fewer say nothing about an EER
_SOURCES = 12  # of a class, the largest


@dataclass(frozen=True)
class Cell:
    """What the threshold and the calibration of one corpus do on another. Rates are fractions; Cllr is in bits."""

    hter: float
    """Half total error rate: the mean of both error rates, at the threshold of the first corpus's EER."""
    act_dcf: float | None
    """Normalised, by the first corpus's calibration; None if it cannot be calibrated."""
    cllr: float | None


@dataclass(frozen=True)
class Crossed:
    """N corpora in the order of their files."""

    names: list[str]
    eers: list[float]
    cells: list[list[Cell]]
    """Row: where threshold and calibration come from. Column: where they are applied."""
    sources: list[Sources] = field(default_factory=list)
    """Of the corpora whose keys name sources."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sources:
    """The EERs of a corpus by the source of its bona fide speech (rows) and of its attacks (columns)."""

    name: str
    bonafide: list[str]
    spoof: list[str]
    eers: list[list[float]]


def cross(paths: Sequence[Path], keys: Sequence[Keys] = (), costs: DetectionCosts = ASVSPOOF5_COSTS) -> Crossed:
    """
    Applies the threshold and the calibration of every corpus to every other.

    Args:
        paths: score files of one system, one for each corpus.
        keys: those of each file, in the same order. Without them, a file has its own labels, or records which corpus
            was scored, as those of `score_corpus` do.
        costs: for the actual DCF.

    Raises:
        EvaluationError: a file cannot be read, does not match its keys, or nothing says which trials are bona fide.
        CorpusError: the corpus that a file records cannot be opened.
    """
    if len(paths) < 2:
        raise EvaluationError("a cross-test needs the score files of at least two corpora.")
    if keys and len(keys) != len(paths):
        raise EvaluationError(
            f"{len(paths)} score files and {len(keys)} keys: repeat {option('keys')} for each file, in the same order."
        )
    files = [read_scores(path) for path in paths]
    trials = [match(file, keys[number] if keys else _own_keys(file)) for number, file in enumerate(files)]
    names, warnings = names_of(paths), list(_different_models(files))
    cells = []
    for name, its_trials in zip(names, trials, strict=True):
        bonafide, spoof = its_trials.by_class
        threshold = equal_error_rate(bonafide, spoof).threshold
        try:
            fitted = fit_calibration(bonafide, spoof)
        except CalibrationError as error:
            fitted = None
            warnings.append(f"{name} cannot be calibrated: {str(error).rstrip('.')}")
        row = []
        for other in trials:
            real, fake = other.by_class
            hter = float(((real <= threshold).mean() + (fake > threshold).mean()) / 2)
            ratios = None if fitted is None else (fitted.llr(real), fitted.llr(fake))
            costly = None if ratios is None else actual_dcf(*ratios, costs)
            row.append(Cell(hter, costly, None if ratios is None else cllr(*ratios)))
        cells.append(row)
    eers = [equal_error_rate(*its_trials.by_class).eer for its_trials in trials]
    sources = [found for pair in zip(names, trials, strict=True) if (found := _sources(*pair)) is not None]
    return Crossed(names, eers, cells, sources, warnings)


def _own_keys(file: ScoreFile) -> Keys | None:
    """Returns the keys of the corpus that a file records, or None if the file has its own labels."""
    if file.kinds is not None:
        return None
    if not file.scored.get("corpus"):
        raise EvaluationError(
            f"{file.path} does not record which corpus was scored: name the keys of each file with {option('keys')}."
        )
    scored = file.scored
    rows = {key: scored[key] for key in ("where", "condition") if scored.get(key)}
    return keys_of_corpus(scored["corpus"], scored.get("split"), root=scored["root"], **rows)


def _different_models(files: Sequence[ScoreFile]) -> list[str]:
    weights = {file.scored["weights"]: file.path for file in files if file.scored.get("weights")}
    if len(weights) < 2:
        return []
    first, second, *_ = weights.values()
    return [f"{first} and {second} hold scores of different weights: a threshold of one means nothing to the other"]


def _sources(name: str, trials: Trials) -> Sources | None:
    """Returns the EERs by sources; None if the keys do not name several sources."""
    known = trials.keys.columns.get("source")
    if known is None:
        return None
    rows: dict[int, dict[str, NDArray[np.float64]]] = {1: {}, 0: {}}
    for label, found in rows.items():
        of_class = trials.keys.labels == label
        for source in {one for one in known[of_class] if one is not None}:
            scores = trials.scores[of_class & (known == source)]
            if len(scores) >= _FEWEST:
                found[source] = scores
    real, fake = [sorted(found, key=lambda one: -len(found[one]))[:_SOURCES] for found in rows.values()]
    if not real or not fake or len({*real, *fake}) < 2:
        return None
    eers = [[equal_error_rate(rows[1][one], rows[0][other]).eer for other in fake] for one in real]
    return Sources(name, real, fake, eers)
