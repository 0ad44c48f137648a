"""Rooms: convolution with measured or simulated impulse responses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import oaconvolve

from .recordings import find_audio, read_drawn


@dataclass(frozen=True)
class Room:
    """
    Convolves with a room impulse response of a folder, e.g. `RIRS_NOISES/simulated_rirs`.

    The direct sound stays where it was, and the waveform keeps its length and its power.

    Raises:
        ValueError: the folder is not there or empty.
    """

    root: str
    recordings: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "recordings", find_audio(self.root))

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S,) float32"""
        response = read_drawn(self.recordings, rng).astype(np.float64)
        direct = int(np.abs(response).argmax())
        wet = oaconvolve(waveform.astype(np.float64), response)[direct : direct + waveform.size]
        power = np.mean(np.square(waveform, dtype=np.float64)) / (np.mean(wet**2) + 1e-12)
        return (wet * np.sqrt(power)).astype(np.float32)
