"""Detection error trade-off and equal error rate, with ties ordered as in the ASVspoof evaluation packages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class EqualErrorRate(NamedTuple):
    """`eer` is a fraction (0.05 is 5 %); `threshold` is the score at that point."""

    eer: float
    threshold: float


def check_scores(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    """Returns `scores` as a float64 vector (N,). Raises ValueError if it is empty, not a vector, or not finite."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} must be a vector of scores, got shape {values.shape}.")
    if values.size == 0:
        raise ValueError(f"{name} is empty: an error rate needs scores of both classes.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} NaN or infinite scores.")
    return values


def det_curve(
    bonafide_scores: ArrayLike, spoof_scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns the detection error trade-off at every operating point.

    As in the evaluation packages of ASVspoof 2019 to 5, there is one point per trial, in a stable sort of bona fide
    scores followed by spoof scores. Among equal scores, bona fide trials are rejected first.

    Args:
        bonafide_scores: (N,) scores of bona fide trials, higher = bona fide.
        spoof_scores: (M,) scores of spoofed trials.

    Returns:
        Three vectors of N + M + 1 points: miss rate (bona fide rejected), false alarm rate (spoof accepted), and the
        threshold at or below which a trial is rejected. The first point rejects nothing.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    bonafide = check_scores(bonafide_scores, "bonafide_scores")
    spoof = check_scores(spoof_scores, "spoof_scores")
    scores = np.concatenate([bonafide, spoof])
    order = np.argsort(scores, kind="stable")
    is_bonafide = order < bonafide.size
    rejected_bonafide = np.concatenate([[0], np.cumsum(is_bonafide)])
    rejected_spoof = np.concatenate([[0], np.cumsum(~is_bonafide)])
    # The point that rejects nothing is just below the lowest score. The evaluation packages use 0.001, too.
    thresholds = np.concatenate([[scores[order[0]] - 0.001], scores[order]])
    # Quotients of counts, as in those packages: 1 - x / y is rounded differently, which matters for close points.
    return rejected_bonafide / bonafide.size, (spoof.size - rejected_spoof) / spoof.size, thresholds


def equal_error_rate(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> EqualErrorRate:
    """Returns the equal error rate: the mean of miss and false alarm rate at the first point where they are closest.

    Args:
        bonafide_scores: (N,) scores of bona fide trials, higher = bona fide.
        spoof_scores: (M,) scores of spoofed trials.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    miss, false_alarm, thresholds = det_curve(bonafide_scores, spoof_scores)
    closest = int(np.argmin(np.abs(miss - false_alarm)))
    return EqualErrorRate(float((miss[closest] + false_alarm[closest]) / 2), float(thresholds[closest]))
