"""Change the speed. Tempo, pitch and formants change together, so that one speaker sounds like several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from ..audio import SAMPLING_RATE


@dataclass(frozen=True)
class Speed:
    """
    Resamples to a speed drawn uniformly from [`low`, `high`] (1 = as recorded), as `sox speed` does.

    Raises:
        ValueError: `low` and `high` are not positive or not in order.
    """

    low: float = 0.9
    high: float = 1.1

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"low and high must be positive and in order, got {self.low} and {self.high}.")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → about (S / speed,)"""
        speed = rng.uniform(self.low, self.high)
        return soxr.resample(waveform, SAMPLING_RATE * speed, SAMPLING_RATE, quality="HQ")
