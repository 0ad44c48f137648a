"""Cllr: the cost of log-likelihood ratios, in bits (Brümmer & du Preez 2006)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .eer import check_scores


def cllr(bonafide_llrs: ArrayLike, spoof_llrs: ArrayLike) -> float:
    """
    Returns the cost of log-likelihood ratios over all operating points, in bits. 0 is perfect; a constant ratio of 0
    costs 1.

    Args:
        bonafide_llrs: (N,) natural log-likelihood ratios, bona fide over spoof, of bona fide trials.
        spoof_llrs: (M,) natural log-likelihood ratios of spoofed trials.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    bonafide = check_scores(bonafide_llrs, "bonafide_llrs")
    spoof = check_scores(spoof_llrs, "spoof_llrs")
    return float(np.mean(bits(-bonafide)) + np.mean(bits(spoof))) / 2


def min_cllr(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> float:
    """
    Returns Cllr in bits after the best non-decreasing recalibration of these scores: the cost of discrimination alone.

    The recalibration uses the pool-adjacent-violators algorithm (Brümmer & du Preez 2006, section 8). Equal scores get
    equal ratios.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    bonafide_llrs, spoof_llrs = optimal_llrs(bonafide_scores, spoof_scores)
    return float(np.mean(bits(-bonafide_llrs)) + np.mean(bits(spoof_llrs))) / 2


def optimal_llrs(
    bonafide_scores: ArrayLike, spoof_scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Returns the log-likelihood ratios from pool-adjacent-violators, (N,) and (M,), in the order of the scores. Trials
    below all bona fide trials or above all spoofed trials have infinite ratios.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    from scipy.optimize import isotonic_regression

    bonafide = check_scores(bonafide_scores, "bonafide_scores")
    spoof = check_scores(spoof_scores, "spoof_scores")
    # Among equal scores bona fide is first. This violates the order, so they are pooled.
    order = np.argsort(np.concatenate([bonafide, spoof]), kind="stable")
    posterior = np.empty(order.size)
    posterior[order] = isotonic_regression((order < bonafide.size).astype(float)).x
    with np.errstate(divide="ignore"):
        llrs = np.log(posterior) - np.log1p(-posterior) - np.log(bonafide.size / spoof.size)
    return llrs[: bonafide.size], llrs[bonafide.size :]


def bits(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns log2(1 + exp(x)) without overflow."""
    return np.logaddexp(0, x) / np.log(2)
