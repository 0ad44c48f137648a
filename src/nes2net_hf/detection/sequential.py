"""
A running verdict on a recording that goes on: Wald's sequential probability ratio test on calibrated scores.

Windows of one recording are alike, even where they do not overlap, so their log-likelihood ratios must not be added as
if they were independent. The evidence of n windows is their mean ratio times the number of independent windows that
they are worth, n² / Σᵢⱼ ρ(|tᵢ - tⱼ|), where ρ is the correlation of the scores of two windows of a recording with that
distance in time. The calibration measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..calibration import Calibration
from ..errors import ModelError

ERRORS = (0.05, 0.05)


class SequentialTest:
    """
    Decides between bona fide and spoofed speech as soon as the evidence allows it (Wald 1945, "Sequential Tests of
    Statistical Hypotheses", section 3). The decision stands until `reset`.

    Args:
        calibration: turns scores into log-likelihood ratios.
        correlation: pairs (distance in seconds, correlation), with ascending distances. Beyond the last, its value
            holds. Empty: all windows count as one.
        errors: accepted shares of bona fide speech called spoof, and of spoofed speech called bona fide. They are
            bounds for independent windows with the distribution of the calibration data; `nes2net_hf` promises none
            for others.

    Attributes:
        state: `undecided`, `bonafide` or `spoof`.
        evidence: log-likelihood ratio (natural log) of all windows so far; None before the first.

    Raises:
        ModelError: `errors` is out of range.
    """

    def __init__(
        self,
        calibration: Calibration,
        correlation: Sequence[tuple[float, float]] = (),
        errors: tuple[float, float] = ERRORS,
    ) -> None:
        if not all(0 < share < 0.5 for share in errors):
            raise ModelError(f"both accepted shares of errors must be above 0 and below 0.5, got {errors}.")
        rejected, accepted = errors
        self._calibration = calibration
        self._distances, self._values = (np.array(column) for column in zip(*(correlation or [(0.0, 1.0)])))
        self._upper, self._lower = math.log((1 - rejected) / accepted), math.log(rejected / (1 - accepted))
        self.reset()

    def reset(self) -> None:
        """Forgets all windows, as for another speaker."""
        self.state = "undecided"
        self.evidence: float | None = None
        self._count, self._sum, self._alike = 0, 0.0, 0.0
        self._recent: list[float] = []  # times of the windows that are closer than the last distance

    def add(self, time: float, score: float) -> str:
        """Adds the score of a window that ends at `time` (seconds, ascending); returns the state."""
        self._recent = [one for one in self._recent if time - one < self._distances[-1]]
        far = self._count - len(self._recent)
        near = np.interp([time - one for one in self._recent], self._distances, self._values).sum()
        self._alike += 1 + 2 * float(near + far * self._values[-1])
        self._recent.append(time)
        self._count += 1
        self._sum += self._calibration.llr(score)
        # n²/Σρ independent windows, each with the mean ratio.
        self.evidence = evidence = self._count * self._sum / max(self._alike, 1.0)
        if self.state == "undecided" and not self._lower < evidence < self._upper:
            self.state = "bonafide" if evidence > 0 else "spoof"
        return self.state


def measure_correlation(
    recordings: Iterable[tuple[int, Sequence[float], Sequence[float]]], step: float
) -> list[tuple[float, float]]:
    """
    Returns the correlation of the scores of two windows of a recording, by their distance in multiples of `step`, as
    `SequentialTest` takes it: from 1 at distance 0 on, it never rises. Distances of fewer than 30 pairs are left out.

    Args:
        recordings: of each, the label, the ends of its windows in seconds, and their scores.
        step: seconds.
    """
    known = [(label, np.array(ends), np.array(scores)) for label, ends, scores in recordings if len(scores)]
    pairs: dict[int, list[float]] = {}
    for label in {label for label, _, _ in known}:
        of_class = [(ends, scores) for one, ends, scores in known if one == label]
        together = np.concatenate([scores for _, scores in of_class])
        mean, variance = together.mean(), max(float(together.var()), 1e-12)
        for ends, scores in of_class:
            first, second = np.triu_indices(len(scores), 1)
            steps = np.round((ends[second] - ends[first]) / step).astype(int)
            products = (scores[first] - mean) * (scores[second] - mean) / variance
            for distance, product in zip(steps.tolist(), products.tolist(), strict=True):
                pairs.setdefault(distance, []).append(product)
    found = [(0.0, 1.0)]
    for distance, products in sorted(pairs.items()):
        if distance and len(products) >= 30:
            value = min(max(float(np.mean(products)), 0.0), found[-1][1])
            found.append((round(distance * step, 3), round(value, 4)))
    return found if len(found) > 1 else []
