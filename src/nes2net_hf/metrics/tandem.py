"""
Metrics for a countermeasure (CM) in tandem with automatic speaker verification (ASV): min t-DCF, a-DCF, t-EER.

Trials are of three kinds: target (bona fide, the claimed speaker), non-target (bona fide, another speaker) and spoof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .eer import check_scores, det_curve, equal_error_rate


@dataclass(frozen=True)
class TandemCosts:
    """Priors (which sum to 1) and costs; the defaults are those of ASVspoof 2019 to 5."""

    target_prior: float = 0.9405
    nontarget_prior: float = 0.0095
    spoof_prior: float = 0.05
    miss: float = 1.0
    """Cost of rejecting a target, by either system."""
    false_alarm: float = 10.0
    """Cost of accepting a non-target."""
    spoof_false_alarm: float = 10.0
    """Cost of accepting a spoof."""


class AsvErrorRates(NamedTuple):
    """Error rates of an ASV system at one threshold, as fractions: missed targets, accepted non-targets and spoofs."""

    miss: float
    false_alarm: float
    spoof_false_alarm: float


class TandemEqualErrorRate(NamedTuple):
    """`eer` (a fraction) and the concurrent point, the thresholds of ASV and CM for it."""

    eer: float
    asv_threshold: float
    cm_threshold: float


# The fixed operating point of the ASVspoof 5 package for its t-DCF, which has the form of 2021.
ASVSPOOF5_ASV = AsvErrorRates(0.01880141010575793, 0.01881016557566423, 0.4607082907604729)
TANDEM_COSTS = TandemCosts()


def asv_error_rates(
    target_scores: ArrayLike, nontarget_scores: ArrayLike, spoof_scores: ArrayLike
) -> tuple[AsvErrorRates, float]:
    """
    Returns the error rates of the ASV system at its own EER (target against non-target), and the threshold there.

    Raises:
        ValueError: a kind of trial is empty or has NaN or infinite scores.
    """
    target, nontarget, spoof = _check_kinds(target_scores, nontarget_scores, spoof_scores)
    threshold = equal_error_rate(target, nontarget).threshold
    rates = (np.mean(target < threshold), np.mean(nontarget >= threshold), np.mean(spoof >= threshold))
    return AsvErrorRates(*map(float, rates)), threshold


def min_tdcf(
    bonafide_scores: ArrayLike,
    spoof_scores: ArrayLike,
    asv: AsvErrorRates,
    costs: TandemCosts = TANDEM_COSTS,
    form: str = "2021",
) -> float:
    """
    Returns the minimum normalised tandem detection cost of a CM before a fixed ASV system.

    Args:
        bonafide_scores: (N,) CM scores of bona fide trials (targets and non-targets), higher = bona fide.
        spoof_scores: (M,) CM scores of spoofed trials.
        asv: the ASV system's error rates, from `asv_error_rates`, or `ASVSPOOF5_ASV`.
        form: `"2021"` (Kinnunen et al. 2020, equations 10 and 11, normalised by the cost without a CM), or `"2019"`
            (Kinnunen et al. 2018, the form of ASVspoof 2019, without the ASV system's own cost). The packages of
            ASVspoof 2021 and 5 (commit fe23d30) compute the form of 2021.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores; the form is unknown; or a CM cannot help this ASV
            system.
    """
    if form not in ("2021", "2019"):
        raise ValueError(f"form must be '2021' or '2019', got {form!r}.")
    c0 = costs.target_prior * costs.miss * asv.miss + costs.nontarget_prior * costs.false_alarm * asv.false_alarm
    c1 = costs.target_prior * costs.miss - c0
    c2 = costs.spoof_prior * costs.spoof_false_alarm * asv.spoof_false_alarm
    if c1 <= 0 or c2 <= 0:
        raise ValueError(
            f"the t-DCF needs an ASV system that a CM can help, but its miss rate is {asv.miss:.3g}, its false alarm "
            f"rate {asv.false_alarm:.3g} and its spoof false alarm rate {asv.spoof_false_alarm:.3g}: check its scores."
        )
    miss, false_alarm, _ = det_curve(bonafide_scores, spoof_scores)
    cost = float(np.min(c1 * miss + c2 * false_alarm))
    return (c0 + cost) / (c0 + min(c1, c2)) if form == "2021" else cost / min(c1, c2)


def min_adcf(
    target_scores: ArrayLike, nontarget_scores: ArrayLike, spoof_scores: ArrayLike, costs: TandemCosts = TANDEM_COSTS
) -> float:
    """
    Returns the minimum normalised architecture-agnostic detection cost (a-DCF, Shim et al. 2024) of a system with one
    score for spoofing-robust speaker verification.

    Args:
        target_scores, nontarget_scores, spoof_scores: the system's scores, higher = accept.

    Raises:
        ValueError: a kind of trial is empty or has NaN or infinite scores.
    """
    target, nontarget, spoof = _check_kinds(target_scores, nontarget_scores, spoof_scores)
    (miss, false_alarm, spoof_false_alarm), _ = _error_rates(target, nontarget, spoof)
    c_target = costs.target_prior * costs.miss
    c_nontarget = costs.nontarget_prior * costs.false_alarm
    c_spoof = costs.spoof_prior * costs.spoof_false_alarm
    cost = c_target * miss + c_nontarget * false_alarm + c_spoof * spoof_false_alarm
    return float(cost.min() / min(c_target, c_nontarget + c_spoof))


def tandem_eer(
    asv_scores: tuple[ArrayLike, ArrayLike, ArrayLike], cm_scores: tuple[ArrayLike, ArrayLike, ArrayLike]
) -> TandemEqualErrorRate:
    """
    Returns the tandem equal error rate (t-EER, Kinnunen et al. 2023) at the concurrent point: the pair of thresholds
    at which the tandem has equal rates of misses, accepted non-targets and accepted spoofs.

    ASV and CM decide independently, and both must accept. For each ASV threshold below its own crossing, one CM
    threshold makes the tandem's miss rate equal to its false alarm rate, the mean over non-targets and spoofs. Among
    these pairs, the concurrent one accepts non-targets and spoofs at the same rate.

    Args:
        asv_scores: three vectors for target, non-target and spoof trials; higher = the claimed speaker.
        cm_scores: three vectors for the same kinds; higher = bona fide.

    Raises:
        ValueError: a kind of trial is empty or has NaN or infinite scores.
    """
    asv_target, asv_nontarget, asv_spoof = _check_kinds(*asv_scores)
    cm_target, cm_nontarget, cm_spoof = _check_kinds(*cm_scores)
    (asv_miss, asv_false, asv_spoof_false), asv_thresholds = _error_rates(asv_target, asv_nontarget, asv_spoof)
    below = asv_miss < (asv_false + asv_spoof_false) / 2
    below &= asv_spoof_false > 0  # the ratio below is undefined if no spoof passes the ASV
    asv_miss, asv_false, asv_spoof_false = asv_miss[below], asv_false[below], asv_spoof_false[below]
    cm_miss, cm_false, cm_thresholds = det_curve(np.concatenate([cm_target, cm_nontarget]), cm_spoof)

    def excess(at: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the tandem's miss minus false alarm rate at a CM point per ASV threshold; grows with the point."""
        accepted = 1 - cm_miss[at]
        miss = asv_miss + (1 - asv_miss) * cm_miss[at]
        return miss - (accepted * asv_false + cm_false[at] * asv_spoof_false) / 2

    # Bisect for the first point with excess >= 0, for all ASV thresholds at once.
    low, high = np.zeros(asv_miss.size, np.int64), np.full(asv_miss.size, cm_miss.size - 1)
    while (low < high).any():
        middle = (low + high) // 2
        reached = excess(middle) >= 0
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    before = np.maximum(low - 1, 0)
    at = np.where(np.abs(excess(before)) <= np.abs(excess(low)), before, low)

    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(asv_false / asv_spoof_false - cm_false[at] / (1 - cm_miss[at]))
    concurrent = int(np.nanargmin(gap))
    return TandemEqualErrorRate(
        float(asv_spoof_false[concurrent] * cm_false[at[concurrent]]),
        float(asv_thresholds[below][concurrent]),
        float(cm_thresholds[at[concurrent]]),
    )


def _check_kinds(
    target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return (
        check_scores(target, "target_scores"),
        check_scores(nontarget, "nontarget_scores"),
        check_scores(spoof, "spoof_scores"),
    )


def _error_rates(
    target: NDArray[np.float64], nontarget: NDArray[np.float64], spoof: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Returns miss, false alarm and spoof false alarm rates at all thresholds; targets first among equal scores."""
    scores = np.concatenate([target, nontarget, spoof])
    kinds = np.repeat([0, 1, 2], [target.size, nontarget.size, spoof.size])
    order = np.argsort(scores, kind="stable")
    rejected = [np.concatenate([[0], np.cumsum(kinds[order] == kind)]) for kind in range(3)]
    thresholds = np.concatenate([[scores[order[0]] - 0.001], scores[order]])
    miss, false_alarm, spoof_false_alarm = (
        rejected[0] / target.size,
        (nontarget.size - rejected[1]) / nontarget.size,
        (spoof.size - rejected[2]) / spoof.size,
    )
    return (miss, false_alarm, spoof_false_alarm), thresholds
