"""Decisions at one threshold, and the area under the ROC curve."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .eer import check_scores


class Decisions(NamedTuple):
    """Fractions. A trial is classified as bona fide if its score is at or above the threshold."""

    accuracy: float
    balanced_accuracy: float
    f1: float
    """F1 of the class spoof: the harmonic mean of its precision and recall."""
    miss_rate: float
    """Bona fide trials classified as spoofed."""
    false_alarm_rate: float
    """Spoofed trials classified as bona fide."""


def decisions(bonafide_scores: ArrayLike, spoof_scores: ArrayLike, threshold: float) -> Decisions:
    """
    Returns accuracy, F1 and both error rates at a threshold.

    Args:
        bonafide_scores: (N,) scores of bona fide trials, higher = bona fide.
        spoof_scores: (M,) scores of spoofed trials.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    bonafide = check_scores(bonafide_scores, "bonafide_scores")
    spoof = check_scores(spoof_scores, "spoof_scores")
    missed, accepted = int(np.sum(bonafide < threshold)), int(np.sum(spoof >= threshold))
    miss_rate, false_alarm_rate = missed / bonafide.size, accepted / spoof.size
    found = spoof.size - accepted
    return Decisions(
        accuracy=1 - (missed + accepted) / (bonafide.size + spoof.size),
        balanced_accuracy=1 - (miss_rate + false_alarm_rate) / 2,
        f1=2 * found / (2 * found + missed + accepted) if found else 0.0,
        miss_rate=miss_rate,
        false_alarm_rate=false_alarm_rate,
    )


def auc(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> float:
    """
    Returns the area under the ROC curve: the probability that a bona fide trial scores above a spoofed one, with ties
    counted as half (Mann & Whitney 1947).

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    bonafide = check_scores(bonafide_scores, "bonafide_scores")
    spoof = np.sort(check_scores(spoof_scores, "spoof_scores"))
    below = np.searchsorted(spoof, bonafide, side="left")
    not_above = np.searchsorted(spoof, bonafide, side="right")
    return float(np.mean(below + not_above) / (2 * spoof.size))
