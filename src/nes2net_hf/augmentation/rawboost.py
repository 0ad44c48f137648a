"""
RawBoost (Tak et al., "RawBoost: A Raw Data Boosting and Augmentation Method applied to Automatic Speaker Verification
Anti-Spoofing", ICASSP 2022, arXiv 2111.04433): three kinds of telephony noise, computed from the waveform alone.

LnL, linear and non-linear convolutive noise: the sum of the signal's powers, each with its own notch filters.
ISD, impulsive signal-dependent additive noise: some samples are disturbed in proportion to their values.
SSI, stationary signal-independent additive noise: coloured noise at a random signal-to-noise ratio.

Where the paper is not specific, this follows the authors' released settings: parameters are drawn uniformly, notches
are linear-phase band-stop filters by the window method, and only signals that would clip are scaled down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.signal import firwin

from ..audio import SAMPLING_RATE
from .ways import check_way

NUMBERS = {
    0: "none", 1: "LnL", 2: "ISD", 3: "SSI", 4: "LnL, ISD, SSI in series", 5: "LnL, ISD in series",
    6: "LnL, SSI in series", 7: "ISD, SSI in series", 8: "LnL and ISD in parallel", 9: "LnL, ISD and SSI in parallel",
    10: "LnL and ISD in parallel, each with a probability", 11: "LnL, ISD, SSI in series, each with a probability",
}  # fmt: skip
_SERIES = {1: "L", 2: "I", 3: "S", 4: "LIS", 5: "LI", 6: "LS", 7: "IS", 11: "LIS"}
_PARALLEL = {8: "LI", 9: "LIS", 10: "LI"}


@dataclass(frozen=True)
class RawBoost:
    """
    Applies one of the twelve numbered combinations of the published systems; 0 to 8 are the paper's.

    Args:
        number: key of `NUMBERS`.
        bands: number of notch filters in a cascade.
        centre: lowest and highest centre frequency of a notch, in Hz.
        width: narrowest and widest notch, in Hz.
        coefficients: lowest and highest number of taps of a notch; even draws become the next odd number.
        gain: lowest and highest gain of a cascade, in dB.
        powers: number of powers of the signal that LnL sums (N_f), 1 = linear.
        bias: lowest and highest attenuation of the non-linear parts relative to the linear one, in dB.
        disturbed: highest share of samples that ISD disturbs, in per cent.
        disturbance: gain of ISD (g_sd).
        snr: lowest and highest signal-to-noise ratio of SSI, in dB.
        chances: probabilities of LnL, ISD and SSI in numbers 10 and 11.
        alignment: `exact` compensates the delay of the filters. With `authors`, as in the published systems, filtered
            signals start one sample late: sample n is sample n + 1 of `exact`. In series, this is inaudible. In
            numbers 8 to 10, LnL and ISD are then one sample apart, so their sum is weaker at high frequencies.

    Raises:
        ValueError: `number` or `alignment` is unknown, or a range is out of order.
    """

    number: int = 4
    bands: int = 5
    centre: tuple[float, float] = (20.0, 8000.0)
    width: tuple[float, float] = (100.0, 1000.0)
    coefficients: tuple[int, int] = (10, 100)
    gain: tuple[float, float] = (0.0, 0.0)
    powers: int = 5
    bias: tuple[float, float] = (5.0, 20.0)
    disturbed: float = 10.0
    disturbance: float = 2.0
    snr: tuple[float, float] = (10.0, 40.0)
    chances: tuple[float, float, float] = (1.0, 1.0, 1.0)
    alignment: str = "exact"

    def __post_init__(self) -> None:
        if self.number not in NUMBERS:
            raise ValueError(f"number must be 0 to 11, got {self.number!r}.")
        check_way("alignment", self.alignment)
        for name in ("centre", "width", "coefficients", "gain", "bias", "snr"):
            value = getattr(self, name)
            if len(value) != 2 or value[0] > value[1]:
                raise ValueError(f"{name} must be a lower and an upper bound, got {value!r}.")
        if self.bands < 1 or self.powers < 1 or not 0 <= self.disturbed <= 100:
            raise ValueError("bands and powers must be at least 1, and disturbed must be between 0 and 100 per cent.")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 in [-1, 1] → (S,) float32 in [-1, 1]."""
        wave = waveform.astype(np.float64)
        parts: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
            "L": self.convolutive, "I": self.impulsive, "S": self.stationary
        }  # fmt: skip
        if self.number in _SERIES:
            for part in _SERIES[self.number]:
                if self._is_drawn(part, rng):
                    wave = parts[part](wave, rng)
        elif self.number in _PARALLEL:
            drawn = [parts[part](wave, rng) for part in _PARALLEL[self.number] if self._is_drawn(part, rng)]
            if drawn:
                wave = _scaled(np.sum(drawn, axis=0))
        return wave.astype(np.float32)

    @property
    def _late(self) -> int:
        return 1 if self.alignment == "authors" else 0

    def _is_drawn(self, part: str, rng: np.random.Generator) -> bool:
        return self.number not in (10, 11) or rng.random() < self.chances["LIS".index(part)]

    def convolutive(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """LnL (section 3.1): Σ_j h_j * x^j, the parts with j > 1 `bias` dB lower; mean removed. (S,) → (S,)"""
        parts, power = [], np.ones(1)
        for order in range(self.powers):
            power = power * wave
            least, most = (0.0, 0.0) if order == 0 else self.bias
            parts.append((power, self._notches(rng, (self.gain[0] - most, self.gain[1] - least))))
        filtered = _filter_and_sum(parts, self._late)
        return _scaled(filtered - filtered.mean())

    def impulsive(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """ISD (section 3.2): x + g·x·D where D is the product of two uniform draws in [-1, 1]. (S,) → (S,)"""
        count = int(wave.size * rng.uniform(0.0, self.disturbed) / 100)
        places = rng.choice(wave.size, count, replace=False, shuffle=False)
        factors = rng.uniform(-1.0, 1.0, count) * rng.uniform(-1.0, 1.0, count)
        disturbed = wave.copy()
        disturbed[places] += self.disturbance * wave[places] * factors
        return _scaled(disturbed)

    def stationary(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """SSI (section 3.3): white noise after notch filters, added at a random SNR. (S,) → (S,)"""
        taps = self._notches(rng, self.gain)
        noise = _filter_and_sum([(rng.standard_normal(wave.size), taps)], self._late)
        snr = rng.uniform(*self.snr)
        return wave + noise * (np.linalg.norm(wave) / np.linalg.norm(noise) / 10 ** (snr / 20))

    def _notches(self, rng: np.random.Generator, gain: tuple[float, float]) -> np.ndarray:
        """Returns the taps (odd,) of a cascade of band-stop filters. Its largest gain is drawn from `gain` in dB."""
        taps = np.ones(1)
        for _ in range(self.bands):
            centre, width = rng.uniform(*self.centre), rng.uniform(*self.width)
            count = int(rng.integers(self.coefficients[0], self.coefficients[1])) | 1
            low, high = max(centre - width / 2, 1e-3), min(centre + width / 2, SAMPLING_RATE / 2 - 1e-3)
            taps = np.convolve(taps, firwin(count, [low, high], window="hamming", fs=SAMPLING_RATE))
        largest = np.abs(fft.rfft(taps, 2048)).max()
        return taps * (10 ** (rng.uniform(*gain) / 20) / largest)


def _filter_and_sum(parts: Sequence[tuple[np.ndarray, np.ndarray]], late: int = 0) -> np.ndarray:
    """
    Filters signals (S,), each with its own linear-phase taps (odd,), without delay; returns the sum (S,), from its
    sample `late` (0 or 1) on.

    Uses overlap-add. The filtered parts are summed as spectra, so that all need only one inverse transform.
    """
    samples, longest = parts[0][0].size, max(taps.size for _, taps in parts)
    size = 1 << (8 * longest - 1).bit_length()  # so that most of a block is signal, and the transform fits the cache
    block = size - longest + 1
    count = -(-samples // block)
    spectrum: np.ndarray | float = 0.0
    for signal, taps in parts:
        blocks = np.pad(signal, (0, count * block - samples)).reshape(count, block)
        centred = np.pad(taps, (longest - taps.size) // 2)
        spectrum = spectrum + fft.rfft(blocks, size) * fft.rfft(centred, size)
    pieces = fft.irfft(spectrum, size)
    whole = np.zeros((count + 1, block))
    whole[:count] = pieces[:, :block]
    whole[1:, : longest - 1] += pieces[:, block:]
    start = longest // 2 + late
    return whole.ravel()[start : start + samples]


def _scaled(wave: np.ndarray) -> np.ndarray:
    """Scales (S,) to a peak of 1 if it exceeds that."""
    return wave / max(1.0, np.abs(wave).max())
