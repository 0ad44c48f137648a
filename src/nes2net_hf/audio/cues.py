"""
Trivial cues of a recording, which say nothing about speech: its duration, silence, level, noise floor, bandwidth and
spectral balance. If they tell bona fide from spoof, a corpus leaks. If they are unusual, a model has not heard such
recordings.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .reading import SAMPLING_RATE

FRAME = 160  # samples, 10 ms
_BANDS = (100, 300, 600, 1000, 1500, 2200, 3000, 4000, 5000, 6000, 7000)  # Hz
# Cue → the statistics that measure it.
CUES = {
    "duration": ("duration",),
    "silence": ("leading", "trailing", "silent_30", "silent_40", "silent_50"),
    "level": ("rms", "peak", "crest"),
    "noise floor": ("floor",),
    "bandwidth": ("rolloff_95", "rolloff_99", "above_7k"),
    "spectrum": ("tilt", *(f"band_{low}" for low in _BANDS[:-1])),
}
STATISTICS = tuple(name for names in CUES.values() for name in names)


def frame_levels(wave: np.ndarray) -> np.ndarray:
    """Returns the RMS level of each full 10 ms frame of (S,): (S // 160,) in dB re full scale."""
    frames = wave[: wave.size // FRAME * FRAME].reshape(-1, FRAME)
    return 10.0 * np.log10(np.mean(np.square(frames, dtype=np.float64), axis=1) + 1e-12)


def measure_cues(wave: np.ndarray) -> dict[str, float]:
    """
    Returns the `STATISTICS` of a waveform (S,) at 16 kHz.

    The duration and leading and trailing silence are in seconds, levels and band energies in dB, silence as the share
    of 10 ms frames far below the loudest, roll-off in kHz, and tilt in dB per octave.
    """
    levels = frame_levels(wave) if wave.size >= FRAME else frame_levels(np.pad(wave, (0, FRAME - wave.size)))
    rms, peak = 10 * np.log10(np.mean(wave**2) + 1e-12), 20 * np.log10(np.abs(wave).max() + 1e-9)
    relative = levels - np.percentile(levels, 95)
    loud = np.flatnonzero(relative > -30.0)
    power = np.abs(np.fft.rfft(wave)).astype(np.float64) ** 2 + 1e-20
    frequencies = np.fft.rfftfreq(wave.size, 1 / SAMPLING_RATE)
    cumulated = np.cumsum(power)
    cumulated /= cumulated[-1]
    rolloff = [frequencies[np.searchsorted(cumulated, share)] / 1000 for share in (0.95, 0.99)]
    above = 10 * np.log10(power[frequencies >= 7000].sum() / power.sum() + 1e-9)
    bands = np.array(
        [
            10 * np.log10(_mean(power[(frequencies >= low) & (frequencies < high)]) + 1e-12)
            for low, high in pairwise(_BANDS)
        ]
    )
    tilt = np.polyfit(np.log2(np.sqrt(np.multiply(_BANDS[:-1], _BANDS[1:]))), bands, 1)[0]
    values = [
        wave.size / SAMPLING_RATE, loud[0] / 100, (levels.size - 1 - loud[-1]) / 100,
        *(np.mean(relative < limit) for limit in (-30, -40, -50)), rms, peak, peak - rms, np.percentile(levels, 5),
        *rolloff, above, tilt, *(bands - bands.mean()),
    ]  # fmt: skip
    return dict(zip(STATISTICS, map(float, values), strict=True))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
