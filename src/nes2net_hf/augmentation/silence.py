"""
Change the silence before and after speech, so that a model cannot learn from it which recordings are spoofed.

Its length alone separates the classes of ASVspoof 2019 LA with an EER of about 15 % (Müller et al., "Speech is Silver,
Silence is Golden: What do ASVspoof-trained Models Really Learn?", 2021, arXiv 2106.12914; not reproduced).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..audio import SAMPLING_RATE

CHANGES = ("trim", "lengthen", "swap")
FRAME = SAMPLING_RATE // 100
_BELOW = 10 ** (-40 / 10)  # of the power of loud frames


@dataclass(frozen=True)
class Silence:
    """
    Trims or lengthens the silence at both ends of a recording, or swaps both, as drawn from `changes`.

    Silence is what comes before the first and after the last frame of 10 ms whose level is at least that of the loud
    frames (their 95th percentile) minus 40 dB. A recording with more noise than that has none: only `lengthen` then
    changes it.

    Args:
        changes: some of `CHANGES`.
        kept: lowest and highest share of the silence that `trim` keeps, drawn for each end.
        added: lowest and highest duration in seconds that `lengthen` adds, drawn for each end. It is the silence of
            that end, forwards and backwards in turn, or zeros if there is none.

    Raises:
        ValueError: a change is unknown, or a range is out of order.
    """

    changes: tuple[str, ...] = CHANGES
    kept: tuple[float, float] = (0.0, 1.0)
    added: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.changes or not set(self.changes) <= set(CHANGES):
            raise ValueError(f"changes must be among {', '.join(CHANGES)}, got {self.changes!r}.")
        if len(self.kept) != 2 or not 0 <= self.kept[0] <= self.kept[1] <= 1:
            raise ValueError(f"kept must be a lower and an upper bound between 0 and 1, got {self.kept!r}.")
        if len(self.added) != 2 or not 0 <= self.added[0] <= self.added[1]:
            raise ValueError(f"added must be a lower and an upper bound of at least 0, got {self.added!r}.")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S',) float32; the speech itself is not changed."""
        change = self.changes[rng.integers(len(self.changes))]
        start, end = find_speech(waveform)
        before, speech, after = waveform[:start], waveform[start:end], waveform[end:]
        if change == "swap":
            return np.concatenate([after, speech, before])
        if change == "trim":
            first, last = rng.uniform(*self.kept, size=2)
            # The silence next to speech is kept.
            return np.concatenate([before[start - round(first * start) :], speech, after[: round(last * after.size)]])
        first, last = (round(seconds * SAMPLING_RATE) for seconds in rng.uniform(*self.added, size=2))
        return np.concatenate([_continued(before[::-1], first)[::-1], speech, _continued(after, last)])


def find_speech(waveform: np.ndarray) -> tuple[int, int]:
    """Returns the first sample of speech and the one after its last, in a waveform (S,); see `Silence`."""
    frames = waveform.size // FRAME
    # The variance, because a constant offset is no sound.
    power = np.var(waveform[: frames * FRAME].reshape(frames, FRAME), axis=1, dtype=np.float64)
    if not power.any():
        return 0, waveform.size
    loud = np.flatnonzero(power >= _BELOW * np.quantile(power, 0.95))
    end = waveform.size if loud[-1] == frames - 1 else (loud[-1] + 1) * FRAME
    return int(loud[0]) * FRAME, int(end)


def _continued(silence: np.ndarray, samples: int) -> np.ndarray:
    """Returns the silence (S,) after speech, longer by `samples`: it goes back and forth, without jumps."""
    return np.pad(silence, (0, samples), "symmetric" if silence.size else "constant")
