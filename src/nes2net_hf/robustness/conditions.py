"""
How `nes2net robustness` degrades recordings before the model hears them: one table of named conditions, made with the
training augmentations at fixed strengths.

Noises and rooms are generated, the same in every run, and written as audio files for the augmentations.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..audio import SAMPLING_RATE
from ..augmentation import Chain, Codec, Noise, Room, Silence, Speed
from ..augmentation.chain import Augmentation
from ..files import atomic_file

SEED = 0
CLEAN = "clean"
# How recordings are changed, for the report, in the order of table and plot.
GROUPS = {
    CLEAN: "The unchanged recording.",
    "MP3": "Encoded with LAME at this constant bit rate, then decoded.",
    "AAC": "Encoded as AAC-LC with FFmpeg at about this bit rate, then decoded.",
    "Opus": "Encoded with libopus at about this bit rate, then decoded.",
    "telephony": "Resampled to 8 kHz and back: alone, or with A-law, GSM full rate, or AMR-NB at this bit rate in "
    "kbit/s.",
    "white noise": "Gaussian white noise, added at this signal-to-noise ratio over the whole recording, including "
    "pauses. Sums are not clipped.",
    "pink noise": "Like white noise, but the power falls by 3 dB per octave above 20 Hz.",
    "reverberation": "Convolved with one of eight synthetic room responses of this RT60: the direct sound, then "
    "exponentially decaying Gaussian noise with as much energy as the direct sound. The power is kept.",
    "cropping": "A segment of this length from a random position. Shorter recordings stay whole.",
    "silence": "The silence before and after speech removed, or made longer by this much at both ends with more of "
    "the same. Silence is at least 40 dB below the loud frames of 10 ms.",
    "speed": "Played this many times as fast: tempo, pitch and formants change together.",
    "level": "Turned down by this much, or amplified until this share of the samples exceeds full scale and is "
    "clipped.",
}
_NOISE_SECONDS, _ROOMS = 30, 8


@dataclass(frozen=True)
class Condition:
    """
    A named way to degrade recordings.

    Args:
        group: key of `GROUPS`.
        name: name within the group.
        change: function of a waveform (S,) float32 at 16 kHz and a random generator, like an augmentation.
    """

    group: str
    name: str
    change: Augmentation

    def __call__(self, waveform: np.ndarray, utterance: str) -> np.ndarray:
        """(S,) → (S',). Random choices depend only on condition and utterance, so every run makes the same audio."""
        return self.change(waveform, np.random.default_rng(number_of(self.group, self.name, utterance)))


def number_of(*names: str) -> int:
    """Returns a 64-bit number for `SEED` and these names, the same in every process."""
    text = json.dumps([SEED, *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def make_conditions(sounds: Path) -> tuple[Condition, ...]:
    """
    Returns all conditions: the clean one first, then each group from mild to severe (speeds from slow to fast).

    Args:
        sounds: folder to write the noises and room responses to; existing ones are overwritten.

    Raises:
        ValueError: this build of PyAV lacks a codec.
        OSError: the folder cannot be written.
    """
    white, pink = (_write_noise(sounds / name, slope) for name, slope in (("white", 0.0), ("pink", 1.0)))
    small, medium, large = (_write_rooms(sounds / f"room-{rt60} s", rt60) for rt60 in (0.3, 0.6, 1.0))
    return (
        Condition(CLEAN, "as it is", Chain(())),
        Condition("MP3", "64 kbit/s", Codec(("mp3",), bit_rates=(64_000,))),
        Condition("MP3", "32 kbit/s", Codec(("mp3",), bit_rates=(32_000,))),
        Condition("MP3", "16 kbit/s", Codec(("mp3",), bit_rates=(16_000,))),
        Condition("AAC", "64 kbit/s", Codec(("aac",), bit_rates=(64_000,))),
        Condition("AAC", "32 kbit/s", Codec(("aac",), bit_rates=(32_000,))),
        Condition("AAC", "16 kbit/s", Codec(("aac",), bit_rates=(16_000,))),
        Condition("Opus", "24 kbit/s", Codec(("opus",), bit_rates=(24_000,))),
        Condition("Opus", "12 kbit/s", Codec(("opus",), bit_rates=(12_000,))),
        Condition("Opus", "6 kbit/s", Codec(("opus",), bit_rates=(6_000,))),
        Condition("telephony", "8 kHz", Narrowband()),
        Condition("telephony", "A-law", Codec(("alaw",))),
        Condition("telephony", "GSM", Codec(("gsm",))),
        Condition("telephony", "AMR 12.2", Codec(("amr-nb",), bit_rates=(12_200,))),
        Condition("telephony", "AMR 4.75", Codec(("amr-nb",), bit_rates=(4_750,))),
        Condition("white noise", "20 dB", Noise(white, snr=(20, 20))),
        Condition("white noise", "10 dB", Noise(white, snr=(10, 10))),
        Condition("white noise", "5 dB", Noise(white, snr=(5, 5))),
        Condition("white noise", "0 dB", Noise(white, snr=(0, 0))),
        Condition("pink noise", "20 dB", Noise(pink, snr=(20, 20))),
        Condition("pink noise", "10 dB", Noise(pink, snr=(10, 10))),
        Condition("pink noise", "5 dB", Noise(pink, snr=(5, 5))),
        Condition("pink noise", "0 dB", Noise(pink, snr=(0, 0))),
        Condition("reverberation", "0.3 s", Room(small)),
        Condition("reverberation", "0.6 s", Room(medium)),
        Condition("reverberation", "1.0 s", Room(large)),
        Condition("cropping", "4 s", Crop(4.0)),
        Condition("cropping", "2 s", Crop(2.0)),
        Condition("cropping", "1 s", Crop(1.0)),
        Condition("cropping", "0.5 s", Crop(0.5)),
        Condition("silence", "trimmed", Silence(("trim",), kept=(0, 0))),
        Condition("silence", "+1 s", Silence(("lengthen",), added=(1, 1))),
        Condition("speed", "0.8x", Speed(0.8, 0.8)),
        Condition("speed", "0.9x", Speed(0.9, 0.9)),
        Condition("speed", "1.1x", Speed(1.1, 1.1)),
        Condition("speed", "1.25x", Speed(1.25, 1.25)),
        Condition("level", "-20 dB", Gain(-20.0)),
        Condition("level", "-40 dB", Gain(-40.0)),
        Condition("level", "1 % clipped", Overdrive(0.01)),
        Condition("level", "10 % clipped", Overdrive(0.10)),
    )


@dataclass(frozen=True)
class Narrowband:
    """Resampling to 8 kHz and back, as before any telephone codec."""

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (S,), plus or minus a sample."""
        narrow = soxr.resample(waveform, SAMPLING_RATE, 8_000, quality="HQ")
        return soxr.resample(narrow, 8_000, SAMPLING_RATE, quality="HQ")


@dataclass(frozen=True)
class Crop:
    """A segment of `seconds` from a random position."""

    seconds: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (min(S, seconds · 16,000),)"""
        length = round(self.seconds * SAMPLING_RATE)
        start = int(rng.integers(max(waveform.size - length, 0) + 1))
        return waveform[start : start + length]


@dataclass(frozen=True)
class Gain:
    """A change of level by `decibels`, in floating point, so that nothing is lost to rounding."""

    decibels: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (waveform * 10 ** (self.decibels / 20)).astype(np.float32)


@dataclass(frozen=True)
class Overdrive:
    """Amplification until `share` of the non-zero samples exceeds full scale, where they are clipped."""

    share: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        full_scale = np.quantile(np.abs(waveform[waveform != 0]), 1 - self.share)
        return np.clip(waveform / full_scale, -1.0, 1.0).astype(np.float32)


def _write_noise(folder: Path, slope: float) -> str:
    """Writes 30 s of Gaussian noise whose power falls as 1 / frequency ** `slope` above 20 Hz; returns the folder."""
    samples = _NOISE_SECONDS * SAMPLING_RATE
    spectrum = np.fft.rfft(np.random.default_rng(SEED).standard_normal(samples))
    spectrum /= np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLING_RATE), 20.0) ** (slope / 2)
    noise = np.fft.irfft(spectrum, samples)
    return _write(folder, [0.1 * noise / noise.std()])


def _write_rooms(folder: Path, rt60: float) -> str:
    """Writes room responses (S,) that decay by 60 dB until their end; returns the folder."""
    decay = 10.0 ** (-3 * np.arange(1, round(rt60 * SAMPLING_RATE)) / (rt60 * SAMPLING_RATE))
    tails = [np.random.default_rng([SEED, number]).standard_normal(decay.size) * decay for number in range(_ROOMS)]
    return _write(folder, [np.concatenate([[1.0], tail / np.linalg.norm(tail)]) for tail in tails])


def _write(folder: Path, sounds: list[np.ndarray]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number, sound in enumerate(sounds, start=1):
        content = io.BytesIO()  # libsndfile does not say why it cannot write a file
        soundfile.write(content, sound, SAMPLING_RATE, format="WAV", subtype="FLOAT")
        with atomic_file(folder / f"{number}.wav", "wb") as file:
            file.write(content.getbuffer())
    return str(folder)
