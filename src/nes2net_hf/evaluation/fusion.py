"""Fuses score files of several systems by linear logistic regression. `nes2net fuse` runs this."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..calibration import fit_fusion
from ..errors import EvaluationError, UsageError
from ..files import atomic_file
from ..metrics import cllr, equal_error_rate
from .figures import match
from .keys import Keys
from .score_files import find_trials, read_scores


@dataclass(frozen=True)
class Fusion:
    """llr = weights · scores + offset of S systems, as stored in a file of weights."""

    systems: list[str]
    """Names of the score files, in order."""
    weights: list[float]
    offset: float
    prior: float
    """Prior probability of spoofing that weighted the fit."""
    n_bonafide: int
    n_spoof: int


@dataclass(frozen=True)
class Fitted:
    """A fusion, and its metrics on the trials of the fit."""

    fusion: Fusion
    rates: list[float]
    """EER of each system, a fraction."""
    rate: float
    """EER of the fused scores."""
    cllr: float
    """Cllr of the fused scores, in bits."""


def fit(paths: Sequence[Path], keys: Keys, out: Path, prior: float = 0.5) -> Fitted:
    """
    Fits weights on the trials of `keys` and writes them to `out` as JSON.

    Raises:
        EvaluationError: a score file and the keys do not match.
        CalibrationError: the scores cannot be fused.
        OutputError, DiskError: `out` cannot be written.
    """
    systems = [match(read_scores(path), keys) for path in paths]
    bonafide, spoof = (np.stack(scores) for scores in zip(*(system.by_class for system in systems), strict=True))
    weights, offset = fit_fusion(bonafide, spoof, prior)
    names = [path.name for path in paths]
    fusion = Fusion(names, weights.tolist(), offset, prior, bonafide.shape[1], spoof.shape[1])
    with atomic_file(out) as file:
        file.write(json.dumps(asdict(fusion), indent=1) + "\n")
    fused = weights @ bonafide + offset, weights @ spoof + offset
    rates = [equal_error_rate(*system.by_class).eer for system in systems]
    return Fitted(fusion, rates, equal_error_rate(*fused).eer, cllr(*fused))


def apply(paths: Sequence[Path], weights: Path, out: Path) -> int:
    """
    Fuses score files with the weights that `fit` wrote. Writes lines `utterance_id llr` to `out`, in the order of the
    first file.

    Returns:
        The number of utterances.

    Raises:
        UsageError: `weights` is not a file of weights, or has another number or order of systems.
        EvaluationError: the files hold scores of different utterances.
        OutputError, DiskError: `out` cannot be written.
    """
    systems, factors, offset = _read_weights(weights)
    if factors.size != len(paths):
        raise UsageError(f"{weights} has {factors.size} weights, not {len(paths)}: pass one score file per weight.")
    names = [path.name for path in paths]
    if names != systems and sorted(names) == sorted(systems):
        raise UsageError(f"{weights} was fitted in the order {' '.join(systems)}: pass the files in this order.")
    files = [read_scores(path) for path in paths]
    ids = files[0].ids
    fused = np.full(files[0].scores.size, offset)
    for factor, file in zip(factors, files, strict=True):
        if ids is None or file.ids is None or len(file.ids) != len(ids):
            raise EvaluationError(
                f"{file.path} and {files[0].path} must hold the same utterances: score both on the same corpus."
            )
        rows = find_trials(file.ids, ids, file.path, file.are_files or files[0].are_files)
        absent = ids[rows < 0]
        if absent.size:
            raise EvaluationError(
                f"{file.path} has no score for utterance {absent[0]}, unlike {files[0].path}: score it, or remove "
                "it there."
            )
        fused += factor * file.scores[rows]
    assert ids is not None
    with atomic_file(out) as target:
        target.write("".join(f"{name} {score:.9g}\n" for name, score in zip(ids, fused, strict=True)))
    return len(ids)


def _read_weights(path: Path) -> tuple[list[str], NDArray[np.float64], float]:
    """Returns the systems (S), weights (S,) and offset in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return (
            [str(name) for name in content["systems"]],
            np.array(content["weights"], float),
            float(content["offset"]),
        )
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} has no weights: name a file that `nes2net fuse` wrote.") from None
