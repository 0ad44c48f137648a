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
    Statistical Hypotheses"). The limits are the logarithms of the accepted errors, which bounds both rates if the
    ratios are true (Ville's inequality); Wald's own limits bound their sum. The decision stands until `reset`.

    Args:
        calibration: turns scores into log-likelihood ratios.
        correlation: pairs (distance in seconds, correlation), with ascending distances. Beyond the last, its value
            holds. Empty: all windows count as one.
        errors: accepted shares of bona fide speech called spoof, and of spoofed speech called bona fide. They are
            bounds for independent windows whose ratios are true. That of a window is taken from a calibration of
            whole recordings, and windows are alike, so nothing is promised for a real recording.

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
        self._upper, self._lower = -math.log(accepted), math.log(rejected)
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
    `SequentialTest` takes it: it begins with 1 and never rises (isotonic regression). Distances above a minute, and
    those of fewer than 30 recordings, are left out.

    Args:
        recordings: of each, the label, the ends of its windows in seconds, and their scores. Windows off the steps,
            such as the last, are not used.
        step: seconds.
    """
    from scipy.optimize import isotonic_regression

    known = []
    for label, ends, scores in recordings:
        on_steps = [score for end, score in zip(ends, scores, strict=True) if _is_multiple(end - ends[0], step)]
        known.append((label, np.array(on_steps)))
    most = round(_LONGEST / step)
    sums, counts = np.zeros(most + 1), np.zeros(most + 1)
    for label in {label for label, _ in known}:
        of_class = [scores for one, scores in known if one == label]
        together = np.concatenate(of_class)
        mean, variance = together.mean(), max(float(together.var()), 1e-12)
        for of_recording in of_class:
            centred = of_recording - mean
            for distance in range(1, min(len(centred), most + 1)):
                products = centred[distance:] * centred[:-distance] / variance
                # Each recording counts once at a distance, however long it is.
                sums[distance] += products.mean()
                counts[distance] += 1
    enough = np.flatnonzero(counts >= _RECORDINGS)
    if not len(enough):
        return []
    values = isotonic_regression(sums[enough] / counts[enough], weights=counts[enough], increasing=False).x.clip(0, 1)
    return [(0.0, 1.0)] + [
        (round(int(distance) * step, 3), round(float(value), 4))
        for distance, value in zip(enough, values, strict=True)
    ]


_LONGEST = 60.0  # s
_RECORDINGS = 30


def _is_multiple(seconds: float, step: float) -> bool:
    return abs(seconds / step - round(seconds / step)) < 0.01
