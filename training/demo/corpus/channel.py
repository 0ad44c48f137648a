"""
The common last step: every utterance, bona fide or spoof, passes through the same channel.

The channel applies the silence policy, matches the long-term spectrum to a random bona fide utterance, and sets band,
crest factor, padding, level, noise floor and a G.722 round trip. So everything that a trivial detector could measure
has the same distribution in both classes. `baseline.py` checks whether that worked.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import convolve1d, maximum_filter1d

from . import activity
from .audio import SAMPLE_RATE, g722_round_trip, mp3_round_trip, through_8khz

WIDEBAND, NARROWBAND, LOW_RATE = "g722", "g722-8k", "mp3-11k"
LEVEL_DB = (-34.0, -22.0)  # RMS of the speech, dB re full scale
PADDING_SECONDS = (0.03, 0.25)  # before and after, drawn separately
NOISE_SNR_DB = (34.0, 50.0)  # speech over noise
NOISE_TILT = (0.0, 1.0)  # power falls as 1 / f ** tilt: from white to pink
CREST_DB = (11.0, 14.0)  # peaks of the speech over its RMS after limiting; before it, almost all speech has more
MATCH_LIMIT_DB = 20.0  # largest change of a band by spectrum matching
EDGES_HZ = {
    WIDEBAND: (90.0, 6900.0),
    NARROWBAND: (90.0, 3400.0),
    LOW_RATE: (90.0, 4800.0),
}  # edges of the band that is kept
_TAPS = 1024
_FFT = 512
_BANDS = np.concatenate([[80.0], np.geomspace(160.0, 7200.0, 23)])  # Hz, edges of 23 bands


def long_term_spectrum(wave: np.ndarray) -> np.ndarray:
    """Returns the mean power of the speech in (S,) in 23 bands from 80 Hz to 7.2 kHz: (23,) dB with zero mean."""
    speech = activity.speech_only(wave)
    count = max(1, 1 + (speech.size - _FFT) // (_FFT // 2))
    speech = np.pad(speech, (0, max(0, _FFT - speech.size)))
    frames = np.stack([speech[i * _FFT // 2 : i * _FFT // 2 + _FFT] for i in range(count)])
    power = np.mean(np.abs(np.fft.rfft(frames * np.hanning(_FFT), axis=1)) ** 2, axis=0)
    frequencies = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    edges = np.searchsorted(frequencies, _BANDS)
    bands = np.array([power[a : max(b, a + 1)].mean() for a, b in pairwise(edges)])
    spectrum = 10.0 * np.log10(bands + 1e-12)
    return spectrum - spectrum.mean()


def match_spectrum(wave: np.ndarray, target: np.ndarray, bands: int) -> np.ndarray:
    """
    Filters (S,) with linear phase, so that the first `bands` bands of its long-term spectrum match `target` (23,).

    The gain of a band is limited to 20 dB. Above the last band, the gain stays constant.
    """
    centres = np.sqrt(_BANDS[:-1] * _BANDS[1:])[:bands]
    frequencies = np.fft.rfftfreq(_TAPS, 1 / SAMPLE_RATE)
    gain_db = np.zeros(bands)
    matched = wave
    # The filter is smoother than the bands, so a second round corrects what the first one missed.
    for _ in range(2):
        difference = (target - long_term_spectrum(matched))[:bands]
        gain_db = np.clip(gain_db + difference - difference.mean(), -MATCH_LIMIT_DB, MATCH_LIMIT_DB)
        matched = _filter(wave, 10.0 ** (np.interp(frequencies, centres, gain_db) / 20.0))
    return matched


def band_limit(wave: np.ndarray, codec: str) -> np.ndarray:
    """Limits (S,) to the band of its codec condition, with about 30 dB attenuation 40 Hz outside the edges."""
    frequencies = np.fft.rfftfreq(_TAPS, 1 / SAMPLE_RATE)
    low, high = EDGES_HZ[codec]
    return _filter(wave, ((frequencies >= low) & (frequencies <= high)).astype(float))


def _filter(wave: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Filters (S,) with a linear-phase FIR filter of 1024 taps and `gain` (513,) from 0 to 8 kHz, without delay."""
    taps = np.fft.fftshift(np.fft.irfft(gain)) * np.hanning(_TAPS + 1)[:-1]
    size = wave.size + _TAPS
    filtered = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(taps, size), size)
    return filtered[_TAPS // 2 : _TAPS // 2 + wave.size].astype(np.float32)


def limit_peaks(wave: np.ndarray, crest_db: float) -> np.ndarray:
    """
    Scales the speech in (S,) to an RMS of 1, and limits peaks to `crest_db` above it with a gain that adapts in 5 ms.

    Rooms smear the peaks of recordings, but not of synthetic voices. Without limiting, the crest factor would tell
    them apart.
    """
    reach, threshold = SAMPLE_RATE // 400, 10.0 ** (crest_db / 20.0)
    window = np.hanning(reach + 2)[1:-1] / np.hanning(reach + 2).sum()
    # Limiting lowers the RMS that the limit depends on. A few rounds converge.
    for _ in range(4):
        wave = wave / np.sqrt(np.mean(activity.speech_only(wave) ** 2) + 1e-12)
        peaks = maximum_filter1d(np.abs(wave), 2 * reach + 1)
        gain = np.minimum(1.0, threshold / np.maximum(peaks, 1e-9))
        wave = wave * convolve1d(gain, window, mode="nearest")
    return wave.astype(np.float32)


def coloured_noise(samples: int, tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Returns Gaussian noise (samples,) of unit RMS whose power falls as 1 / f ** tilt above 50 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 50.0)
    noise = np.fft.irfft(spectrum * frequencies ** (-tilt / 2), samples)
    return noise / np.sqrt(np.mean(noise**2))


def send(wave: np.ndarray, reference: np.ndarray, codec: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """
    Sends one utterance through the channel.

    Args:
        wave: (S,) at 16 kHz.
        reference: (R,) a bona fide recording of the same partition and codec condition, whose spectrum is matched.
        codec: `g722` (16 kHz), `g722-8k` (also 8 kHz and back), or `mp3-11k` (11 kHz, 16 kbit/s, without G.722).
        seconds: maximum length of the speech.
        rng: the utterance's random generator.

    Returns:
        (S',) float32 at 16 kHz.
    """
    wave = activity.cut(activity.shorten_pauses(wave, rng), seconds)
    bands = int(np.searchsorted(_BANDS, EDGES_HZ[codec][1]))
    target, crest = long_term_spectrum(reference), rng.uniform(*CREST_DB)
    # Limiting changes the spectrum slightly, more so for voices with high peaks, so both steps are repeated.
    for _ in range(2):
        wave = limit_peaks(band_limit(match_spectrum(wave, target, bands), codec), crest)
    before, after = (round(rng.uniform(*PADDING_SECONDS) * SAMPLE_RATE) for _ in range(2))
    wave = np.pad(wave, (before, after))
    level = rng.uniform(*LEVEL_DB)
    wave = wave * 10.0 ** (level / 20.0)
    noise = band_limit(coloured_noise(wave.size, rng.uniform(*NOISE_TILT), rng), codec)
    wave = wave + noise * 10.0 ** ((level - rng.uniform(*NOISE_SNR_DB)) / 20.0)
    if codec == LOW_RATE:
        return mp3_round_trip(wave)
    wave = g722_round_trip(wave)
    # The narrow band comes last: what G.722 adds above it would tell signals with high peaks from smooth ones.
    return band_limit(through_8khz(wave), codec) if codec == NARROWBAND else wave
