"""
The common last step: every utterance, bona fide or spoof, leaves through the same channel.

Silence policy, long-term spectrum matched to that of a bona fide utterance drawn at random, level, padding, noise
floor, band, and a G.722 round trip. What a trivial detector could measure is thus drawn from one distribution for both
classes; `baseline.py` tells whether that worked.
"""

from __future__ import annotations

import numpy as np

from . import activity
from .audio import SAMPLE_RATE, g722_round_trip, through_8khz

WIDEBAND, NARROWBAND = "g722", "g722-8k"
LEVEL_DB = (-34.0, -22.0)  # RMS of the speech, dB re full scale
PADDING_SECONDS = (0.03, 0.25)  # before and after, drawn apart
NOISE_SNR_DB = (20.0, 35.0)  # speech over noise
NOISE_TILT = (0.0, 1.0)  # power falls as 1 / f ** tilt: from white to pink
MATCH_LIMIT_DB = 20.0  # the most that spectrum matching raises or lowers a band
MATCH_TAPS = 513
_FFT = 512
_BANDS = np.concatenate([[80.0], np.geomspace(160.0, 7200.0, 23)])  # Hz, edges of 23 bands


def long_term_spectrum(wave: np.ndarray) -> np.ndarray:
    """Mean power of the speech in (S,) in 23 bands from 80 Hz to 7.2 kHz: (23,) dB, its mean taken out."""
    speech = activity.speech_only(wave)
    count = max(1, 1 + (speech.size - _FFT) // (_FFT // 2))
    speech = np.pad(speech, (0, max(0, _FFT - speech.size)))
    frames = np.stack([speech[i * _FFT // 2 : i * _FFT // 2 + _FFT] for i in range(count)])
    power = np.mean(np.abs(np.fft.rfft(frames * np.hanning(_FFT), axis=1)) ** 2, axis=0)
    frequencies = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    edges = np.searchsorted(frequencies, _BANDS)
    bands = np.array([power[a : max(b, a + 1)].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)])
    spectrum = 10.0 * np.log10(bands + 1e-12)
    return spectrum - spectrum.mean()


def match_spectrum(wave: np.ndarray, target: np.ndarray, bands: int) -> np.ndarray:
    """
    (S,) through a linear-phase filter that brings its long-term spectrum to `target` (23,) in the first `bands` bands.

    The gain of a band is held within 20 dB; above the last band it stays what it is there.
    """
    difference = (target - long_term_spectrum(wave))[:bands]
    gain_db = np.clip(difference - difference.mean(), -MATCH_LIMIT_DB, MATCH_LIMIT_DB)
    centres = np.sqrt(_BANDS[:-1] * _BANDS[1:])[:bands]
    frequencies = np.fft.rfftfreq(MATCH_TAPS - 1, 1 / SAMPLE_RATE)
    gain = 10.0 ** (np.interp(frequencies, centres, gain_db) / 20.0)
    taps = np.fft.fftshift(np.fft.irfft(gain)) * np.hanning(MATCH_TAPS - 1)
    return _filter(wave, taps)


def _filter(wave: np.ndarray, taps: np.ndarray) -> np.ndarray:
    size = wave.size + taps.size
    filtered = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(taps, size), size)
    return filtered[taps.size // 2 : taps.size // 2 + wave.size].astype(np.float32)


def coloured_noise(samples: int, tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit RMS whose power falls as 1 / f ** tilt above 50 Hz: (samples,)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 50.0)
    noise = np.fft.irfft(spectrum * frequencies ** (-tilt / 2), samples)
    return noise / np.sqrt(np.mean(noise**2))


def send(
    wave: np.ndarray, reference: np.ndarray, codec: str, seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """
    Sends one utterance through the channel.

    Args:
        wave: (S,) at 16 kHz.
        reference: (R,) a bona fide recording of the same partition and codec condition, whose spectrum is taken on.
        codec: `g722` (16 kHz) or `g722-8k` (the same after 8 kHz and back).
        seconds: the longest the speech may be.
        rng: of this utterance.

    Returns:
        (S',) float32 at 16 kHz.
    """
    wave = activity.cut(activity.shorten_pauses(wave, rng), seconds)
    bands = int(np.searchsorted(_BANDS, 3400.0)) - 1 if codec == NARROWBAND else _BANDS.size - 1
    wave = match_spectrum(wave, long_term_spectrum(reference), bands)
    before, after = (round(rng.uniform(*PADDING_SECONDS) * SAMPLE_RATE) for _ in range(2))
    wave = np.pad(wave, (before, after))
    level = rng.uniform(*LEVEL_DB)
    wave = wave * 10.0 ** (level / 20.0) / np.sqrt(np.mean(activity.speech_only(wave) ** 2) + 1e-12)
    noise = coloured_noise(wave.size, rng.uniform(*NOISE_TILT), rng)
    wave = wave + noise * 10.0 ** ((level - rng.uniform(*NOISE_SNR_DB)) / 20.0)
    if codec == NARROWBAND:
        wave = through_8khz(wave)
    return g722_round_trip(wave)
