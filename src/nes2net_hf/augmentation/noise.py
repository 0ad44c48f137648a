"""Add noise, music or babble from a folder or dataset, such as MUSAN (Snyder et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .recordings import Recordings


@dataclass(frozen=True)
class Noise:
    """
    Adds a stretch of one or more recordings, which repeat if they are shorter.

    Args:
        root: folder of recordings, e.g. `musan/noise`, including subfolders.
        dataset, split: a dataset with a column `audio` instead of `root`.
        snr: lowest and highest signal-to-noise ratio in dB, drawn uniformly.
        files: lowest and highest number of recordings that are summed at equal power; several of speech make babble.

    Raises:
        ValueError: the recordings are missing, or a range is out of order.
    """

    root: str | None = None
    dataset: str | None = None
    split: str = "train"
    snr: tuple[float, float] = (0.0, 15.0)
    files: tuple[int, int] = (1, 1)
    recordings: Recordings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.snr) != 2 or self.snr[0] > self.snr[1]:
            raise ValueError(f"snr must be a lower and an upper bound, got {self.snr!r}.")
        if len(self.files) != 2 or not 1 <= self.files[0] <= self.files[1]:
            raise ValueError(f"files must be a lower and an upper bound of at least 1, got {self.files!r}.")
        object.__setattr__(self, "recordings", Recordings(self.root, self.dataset, self.split))

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S,) float32; the sum is not clipped."""
        noise = np.zeros(waveform.size)
        for _ in range(rng.integers(self.files[0], self.files[1] + 1)):
            stretch = _stretch(self.recordings.draw(rng), waveform.size, rng)
            noise += stretch / (np.sqrt(np.mean(stretch**2)) + 1e-9)
        power = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        level = power / (np.sqrt(np.mean(noise**2)) + 1e-9) / 10 ** (rng.uniform(*self.snr) / 20)
        return (waveform + level * noise).astype(np.float32)


def _stretch(samples: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `length` samples of a recording (S,) from a random start; it repeats after its end."""
    start = int(rng.integers(samples.size))
    return np.take(samples, np.arange(start, start + length), mode="wrap").astype(np.float64)
