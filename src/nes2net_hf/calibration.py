"""
Calibrate scores to log-likelihood ratios by logistic regression, and fuse several systems in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CalibrationError


@dataclass(frozen=True)
class Calibration:
    """
    llr = scale · score + offset, the natural log-likelihood ratio of bona fide over spoof. Stored in
    `config.calibration`.

    Args:
        scale: positive.
        offset: in natural log units.
        prior: prior probability of spoofing that the fit was weighted to.
        provenance: the data of the fit, and its quality.
        population: the recordings of the fit and the distribution of their scores: see `reference.Population`.
        undecided: the share of each class that may be labelled wrongly; scores that do not allow that are undecided.
            None: every score gets a label.
    """

    scale: float
    offset: float
    prior: float
    provenance: dict[str, Any] = field(default_factory=dict)
    population: dict[str, Any] | None = None
    undecided: float | None = None

    def llr(self, score: Any) -> Any:
        """Returns the log-likelihood ratios for scores of any shape."""
        return self.scale * score + self.offset

    def score(self, llr: float) -> float:
        """Returns the score for a log-likelihood ratio, e.g. for a threshold."""
        return (llr - self.offset) / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Returns the dict for `config.calibration`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def spoof_probability(llr: float, prior: float) -> float:
    """Returns the probability that speech is spoofed, from its log-likelihood ratio and the prior probability."""
    log_odds = math.log(prior) - math.log1p(-prior) - llr
    return 1 / (1 + math.exp(-log_odds)) if log_odds > 0 else math.exp(log_odds) / (1 + math.exp(log_odds))


def fit_calibration(
    bonafide_scores: NDArray[np.float64], spoof_scores: NDArray[np.float64], prior: float = 0.5
) -> Calibration:
    """
    Returns the calibration of one system by prior-weighted logistic regression (Brümmer & du Preez 2006, section 9).

    Args:
        bonafide_scores: (N,) scores, higher = bona fide.
        spoof_scores: (M,) scores.
        prior: prior probability of spoofing for which the ratios are optimised, in (0, 1); the sizes of the classes
            have no influence.

    Raises:
        CalibrationError: the classes do not overlap, or the scores are reversed.
    """
    weights, offset = fit_fusion(bonafide_scores[None], spoof_scores[None], prior)
    if weights[0] <= 0:
        raise CalibrationError(
            "bona fide speech does not score higher than spoofed speech: check whether the scores are reversed."
        )
    return Calibration(float(weights[0]), offset, prior)


def fit_fusion(
    bonafide_scores: NDArray[np.float64], spoof_scores: NDArray[np.float64], prior: float = 0.5
) -> tuple[NDArray[np.float64], float]:
    """
    Returns weights (S,) and offset of a linear fusion of S systems: llr = weights · scores + offset.

    Args:
        bonafide_scores: (S, N) scores of the same N bona fide trials.
        spoof_scores: (S, M).
        prior: as in `fit_calibration`.

    Raises:
        CalibrationError: the classes can be separated without errors, so no finite weights are optimal.
    """
    from scipy.optimize import minimize

    if not 0 < prior < 1:
        raise CalibrationError(f"prior must be between 0 and 1, got {prior}.")
    every = np.concatenate([bonafide_scores, spoof_scores], axis=1)
    middle, spread = every.mean(axis=1), every.std(axis=1)
    if not (spread > 0).all():
        raise CalibrationError("a system gives every trial the same score, so it cannot be calibrated.")
    signs = np.repeat([1.0, -1.0], [bonafide_scores.shape[1], spoof_scores.shape[1]])
    share = np.where(signs > 0, (1 - prior) / bonafide_scores.shape[1], prior / spoof_scores.shape[1])
    inputs = np.vstack([(every - middle[:, None]) / spread[:, None], np.ones(every.shape[1])])
    prior_log_odds = math.log1p(-prior) - math.log(prior)  # bona fide over spoof

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (parameters @ inputs + prior_log_odds)
        slopes = -share * signs * np.exp(-np.logaddexp(0, margins))
        return float(share @ np.logaddexp(0, -margins)), inputs @ slopes

    found = minimize(loss, np.zeros(len(inputs)), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 1000})
    if loss(found.x)[0] < 1e-6 or not np.isfinite(found.x).all():
        raise CalibrationError(
            "the classes do not overlap: without errors on these trials, the certainty of a score cannot be "
            "estimated; use more or harder trials."
        )
    weights = found.x[:-1] / spread
    return weights, float(found.x[-1] - weights @ middle)


def halves(groups: Sequence[Any]) -> NDArray[np.bool_]:
    """Returns which trials are in the first half, (N,). Sorted groups (speakers) alternate between the halves."""
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return (np.arange(names.size) % 2 == 0)[place]
