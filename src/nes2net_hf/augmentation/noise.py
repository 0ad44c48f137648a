"""Add noise, music or babble from a folder or dataset, such as MUSAN (Snyder et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .recordings import Recordings
from .ways import check_way

_FLOOR = 1e-4  # added to powers by the authors' code


@dataclass(frozen=True)
class Noise:
    """
    Adds a stretch of one or more recordings, which repeat if they are shorter.

    Args:
        root: folder of recordings, e.g. `musan/noise`, including subfolders.
        dataset, split: a dataset with a column `audio` instead of `root`.
        snr: lowest and highest signal-to-noise ratio in dB, drawn uniformly.
        files: lowest and highest number of recordings; several of speech make babble.
        levels: with `exact`, the recordings are summed at equal power, and `snr` is the ratio to their sum. With
            `authors`, as in the published systems, each recording draws its own `snr`, and 1e-4 is added to the power
            of the waveform and of the recording before their ratio is set: quiet noise is then amplified less.

    Raises:
        ValueError: the recordings are missing, a range is out of order, or `levels` is unknown.
    """

    root: str | None = None
    dataset: str | None = None
    split: str = "train"
    snr: tuple[float, float] = (0.0, 15.0)
    files: tuple[int, int] = (1, 1)
    levels: str = "exact"
    recordings: Recordings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.snr) != 2 or self.snr[0] > self.snr[1]:
            raise ValueError(f"snr must be a lower and an upper bound, got {self.snr!r}.")
        if len(self.files) != 2 or not 1 <= self.files[0] <= self.files[1]:
            raise ValueError(f"files must be a lower and an upper bound of at least 1, got {self.files!r}.")
        check_way("levels", self.levels)
        object.__setattr__(self, "recordings", Recordings(self.root, self.dataset, self.split))

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S,) float32; the sum is not clipped."""
        count = int(rng.integers(self.files[0], self.files[1] + 1))
        mix = self._authors if self.levels == "authors" else self._exact
        return (waveform + mix(waveform.astype(np.float64), count, rng)).astype(np.float32)

    def _exact(self, wave: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns the noise (S,) of `count` recordings at equal power, at a random SNR to `wave` (S,)."""
        noise = np.zeros(wave.size)
        for _ in range(count):
            stretch = _stretch(self.recordings.draw(rng), wave.size, rng)
            noise += stretch / (np.sqrt(np.mean(stretch**2)) + 1e-9)
        power = np.sqrt(np.mean(np.square(wave)))
        return noise * (power / (np.sqrt(np.mean(noise**2)) + 1e-9) / 10 ** (rng.uniform(*self.snr) / 20))

    def _authors(self, wave: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns the noise (S,) of `count` recordings, each at its own random SNR to `wave` (S,)."""
        noise = np.zeros(wave.size)
        power = np.mean(np.square(wave)) + _FLOOR
        for _ in range(count):
            stretch = _stretch(self.recordings.draw(rng), wave.size, rng)
            ratio = power / (np.mean(stretch**2) + _FLOOR)
            noise += stretch * np.sqrt(ratio / 10 ** (rng.uniform(*self.snr) / 10))
        return noise


def _stretch(samples: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `length` samples of a recording (S,) from a random start; it repeats after its end."""
    start = int(rng.integers(samples.size))
    return np.take(samples, np.arange(start, start + length), mode="wrap").astype(np.float64)
