"""
What a calibrated model's score means: where it stands among the scores of the calibration data, how strongly it
supports a verdict, and between which scores the model does not decide.

Of each class, the calibration keeps 199 order statistics of its scores, one for every half per cent.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CalibrationError

STEPS = 200
TYPICAL = 0.1  # a score is typical of a class if at least this share of the class is on either side of it
# Likelihood ratio from which on the evidence supports a verdict so strongly: ENFSI Guideline for Evaluative Reporting
# in Forensic Science (2015), which gives these words and limits as an example.
_SCALE = (
    (1e6, "extremely strong"), (1e4, "very strong"), (1e3, "strong"), (1e2, "moderately strong"), (10, "moderate"),
    (2, "weak"),
)  # fmt: skip


def check_share(share: float) -> None:
    """Raises CalibrationError if an accepted share of errors is out of range."""
    if not 1 / STEPS <= share < 0.5:
        raise CalibrationError(f"the share of errors must be at least {1 / STEPS:g} and below 0.5, got {share:g}.")


@dataclass(frozen=True)
class Population:
    """
    The calibration data.

    Args:
        name: of its corpus.
        bonafide, spoof: scores of each class at 199 ranks, from low to high. Rank j(n + 1)/200 is rounded to the side
            that keeps the guarantee of `band`: down for bona fide and up for spoofed speech. Below the lowest rank
            the score is minus infinity, above the highest infinity.
        n_bonafide, n_spoof: recordings of each class.
    """

    name: str
    bonafide: list[float]
    spoof: list[float]
    n_bonafide: int
    n_spoof: int

    @classmethod
    def of_scores(cls, name: str, bonafide: NDArray[np.float64], spoof: NDArray[np.float64]) -> Population:
        """Returns the population with these scores, (N,) and (M,)."""
        found = []
        for scores, upwards in ((np.sort(bonafide), False), (np.sort(spoof), True)):
            n = len(scores)
            padded = np.concatenate([[-np.inf], scores, [np.inf]])
            ranks = [-(-step * (n + 1) // STEPS) if upwards else step * (n + 1) // STEPS for step in range(1, STEPS)]
            found.append([float(f"{padded[rank]:.6g}") for rank in ranks])
        return cls(name, found[0], found[1], len(bonafide), len(spoof))

    @classmethod
    def of(cls, calibration: dict[str, Any] | None) -> Population | None:
        """Returns the population in `config.calibration`, or None if it has none, as those of version 0.1.0."""
        kept = (calibration or {}).get("population")
        if not kept:
            return None
        low, high = ([side if score is None else score for score in kept[kind]["scores"]]
                     for kind, side in (("bonafide", -math.inf), ("spoof", math.inf)))  # fmt: skip
        return cls(kept["name"], low, high, kept["bonafide"]["recordings"], kept["spoof"]["recordings"])

    def kept(self) -> dict[str, list[float | None]]:
        """Returns the scores of each class for `config.calibration`, with None for infinity, which JSON lacks."""
        both = {"bonafide": self.bonafide, "spoof": self.spoof}
        return {kind: [score if math.isfinite(score) else None for score in scores] for kind, scores in both.items()}

    def standing(self, score: float) -> str:
        """Returns where a score stands, such as "lower than 99 % of bona fide and typical of spoofed speech in x"."""
        both = ((self.bonafide, self.n_bonafide), (self.spoof, self.n_spoof))
        places = [_place(score, scores, count) for scores, count in both]
        return f"{places[0]} of bona fide and {places[1]} of spoofed speech in {self.name}"

    def band(self, share: float, threshold: float) -> tuple[float, float]:
        """
        Returns the scores (low, high) between which the model does not decide, by class-conditional split conformal
        prediction (Vovk, Gammerman & Shafer 2005, section 4.5; also called Mondrian). A new bona fide recording that
        is exchangeable with those here is below `low`, and a spoofed one above `high`, with a probability of at most
        `share`. If the classes are so far apart that every score can be decided, both are one score: the one closest
        to the threshold that keeps the guarantee.

        Args:
            share: in [0.005, 0.5).
            threshold: that of the model.

        Raises:
            CalibrationError: the share is out of range, or there are too few recordings for it.
        """
        check_share(share)
        step = math.floor(share * STEPS + 1e-9)
        low, high = self.bonafide[step - 1], self.spoof[STEPS - step - 1]
        if math.isinf(low) or math.isinf(high):
            needed = math.ceil(STEPS / step) - 1
            raise CalibrationError(
                f"a share of errors of {share:g} needs at least {needed} recordings of each class to calibrate on; "
                f"the model has {self.n_bonafide} and {self.n_spoof}."
            )
        if low > high:
            low = high = min(max(threshold, high), low)
        return low, high

    def support(self, llr: float) -> str:
        """
        Returns how strongly a log-likelihood ratio (natural log) supports a verdict, in the words of ENFSI (2015). The
        ratio counts at most as much as there are calibration recordings of the other class, because nothing is known
        about what happens more rarely.
        """
        verdict, limit = ("bona fide", self.n_spoof) if llr > 0 else ("spoof", self.n_bonafide)
        ratio = math.exp(min(abs(llr), 700.0))
        words = next((words for lowest, words in _SCALE if min(ratio, limit) >= lowest), None)
        if words is None:
            return "no support for either"
        return f"{words} support for {verdict}" + (f" (limited by {limit} recordings)" if ratio > limit else "")


def _place(score: float, scores: list[float], count: int) -> str:
    most = count / (count + 1)  # more is not known from so many recordings
    below = min(max(bisect_left(scores, score) / (STEPS - 1), 1 - most), most)
    if below < TYPICAL:
        return f"lower than {_percent(1 - below)}"
    return f"higher than {_percent(below)}" if below > 1 - TYPICAL else "typical"


def _percent(share: float) -> str:
    return f"{min(99.5, 100 * share):.3g} %"
