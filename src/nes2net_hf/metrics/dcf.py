"""Detection cost functions (DCF) of a countermeasure: minimum and actual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .eer import check_scores, det_curve


@dataclass(frozen=True)
class DetectionCosts:
    """
    Costs of errors and prior probability of spoofing. The defaults are from ASVspoof 5 (Wang et al. 2024, track 1).

    Args:
        miss: cost of rejecting bona fide speech.
        false_alarm: cost of accepting spoofed speech.
        spoof_prior: prior probability of spoofing, in (0, 1).

    Raises:
        ValueError: a cost is not positive, or the prior is not between 0 and 1.
    """

    miss: float = 1.0
    false_alarm: float = 10.0
    spoof_prior: float = 0.05

    def __post_init__(self) -> None:
        if not (self.miss > 0 and self.false_alarm > 0 and math.isfinite(self.miss * self.false_alarm)):
            raise ValueError(f"costs must be positive numbers, got {self.miss} and {self.false_alarm}.")
        if not 0 < self.spoof_prior < 1:
            raise ValueError(f"spoof_prior must be between 0 and 1, got {self.spoof_prior}.")

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the miss rate and the false alarm rate."""
        return self.miss * (1 - self.spoof_prior), self.false_alarm * self.spoof_prior

    @property
    def threshold(self) -> float:
        """Bayes' threshold: accepting costs less from this log-likelihood ratio on (Brümmer & du Preez 2006)."""
        miss, false_alarm = self.weights
        return math.log(false_alarm) - math.log(miss)

    def cost(self, miss_rate: Any, false_alarm_rate: Any) -> Any:
        """Returns the expected cost of rates of any shape, divided by the lower cost of accepting or rejecting all."""
        miss, false_alarm = self.weights
        return (miss * miss_rate + false_alarm * false_alarm_rate) / min(miss, false_alarm)


class MinimumCost(NamedTuple):
    """`dcf` is normalised: deciding without a countermeasure costs 1. `threshold` is the score at the minimum."""

    dcf: float
    threshold: float


ASVSPOOF5_COSTS = DetectionCosts()


def min_dcf(
    bonafide_scores: ArrayLike, spoof_scores: ArrayLike, costs: DetectionCosts = ASVSPOOF5_COSTS
) -> MinimumCost:
    """
    Returns the minimum normalised detection cost over all thresholds: the primary metric of ASVspoof 5 (Wang et al.
    2024).

    Args:
        bonafide_scores: (N,) scores of bona fide trials, higher = bona fide.
        spoof_scores: (M,) scores of spoofed trials.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    miss, false_alarm, thresholds = det_curve(bonafide_scores, spoof_scores)
    cost = costs.cost(miss, false_alarm)
    lowest = int(np.argmin(cost))
    return MinimumCost(float(cost[lowest]), float(thresholds[lowest]))


def actual_dcf(bonafide_scores: ArrayLike, spoof_scores: ArrayLike, costs: DetectionCosts = ASVSPOOF5_COSTS) -> float:
    """
    Returns the normalised detection cost at Bayes' threshold. Scores must be natural log-likelihood ratios.

    The difference from `min_dcf` is the cost of poor calibration.

    Raises:
        ValueError: a class is empty or has NaN or infinite scores.
    """
    bonafide = check_scores(bonafide_scores, "bonafide_scores")
    spoof = check_scores(spoof_scores, "spoof_scores")
    miss, false_alarm = (bonafide < costs.threshold).mean(), (spoof >= costs.threshold).mean()
    return float(costs.cost(miss, false_alarm))
