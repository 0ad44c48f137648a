"""Simulate rooms by convolution with measured or simulated impulse responses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import oaconvolve

from .recordings import Recordings
from .ways import check_way


@dataclass(frozen=True)
class Room:
    """
    Convolves with a room impulse response. The length stays the same.

    Args:
        root: folder of responses, e.g. `RIRS_NOISES/simulated_rirs`, including subfolders.
        dataset, split: a dataset with a column `audio` instead of `root`.
        levels: with `exact`, the time of the direct sound and the power of the waveform stay the same. With `authors`,
            the response is scaled to unit energy and keeps its delay, as in the published systems.

    Raises:
        ValueError: the responses are missing, or `levels` is unknown.
    """

    root: str | None = None
    dataset: str | None = None
    split: str = "train"
    levels: str = "exact"
    recordings: Recordings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_way("levels", self.levels)
        object.__setattr__(self, "recordings", Recordings(self.root, self.dataset, self.split))

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S,) float32"""
        response = self.recordings.draw(rng).astype(np.float64)
        wet = oaconvolve(waveform.astype(np.float64), response)
        if self.levels == "authors":
            return (wet[: waveform.size] / np.linalg.norm(response)).astype(np.float32)
        direct = int(np.abs(response).argmax())
        wet = wet[direct : direct + waveform.size]
        power = np.mean(np.square(waveform, dtype=np.float64)) / (np.mean(wet**2) + 1e-12)
        return (wet * np.sqrt(power)).astype(np.float32)
