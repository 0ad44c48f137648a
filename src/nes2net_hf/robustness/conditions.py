"""
What `nes2net robustness` does to recordings before the model hears them: one table of named conditions, made with the
augmentations of training at fixed strengths.

Noises and rooms are generated, always the same ones, and written as audio files that the augmentations draw from.
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
from ..augmentation import Chain, Codec, Noise, Room, Speed
from ..augmentation.chain import Augmentation
from ..files import atomic_file

SEED = 0
CLEAN = "clean"
# What is done to a recording, for the report; the order is that of table and plot.
GROUPS = {
    CLEAN: "The recording as it is.",
    "MP3": "Encoded by LAME at this constant bit rate, and decoded.",
    "AAC": "Encoded as AAC-LC by FFmpeg at about this bit rate, and decoded.",
    "Opus": "Encoded by libopus at about this bit rate, and decoded.",
    "telephony": "Resampled to 8 kHz and back; there nothing more, or through A-law, GSM full rate, or AMR-NB at this "
    "bit rate in kbit/s.",
    "white noise": "Gaussian white noise added at this signal-to-noise ratio over the whole recording, pauses "
    "included; sums are not clipped.",
    "pink noise": "The same with noise whose power falls by 3 dB per octave above 20 Hz.",
    "reverberation": "Convolved with one of eight synthetic room responses of this RT60: the direct sound, then "
    "Gaussian noise that decays exponentially and has the energy of the direct sound in all. The power is kept.",
    "cropping": "A stretch of this length from a random place; shorter recordings stay whole.",
    "speed": "Played this many times as fast: tempo, pitch and formants move together.",
    "level": "Turned down by this much; or amplified until this share of its samples is beyond full scale, and "
    "clipped.",
}
_NOISE_SECONDS, _ROOMS = 30, 8


@dataclass(frozen=True)
class Condition:
    """
    Args:
        group: key of `GROUPS`.
        name: within its group.
        change: a function of a waveform (S,) float32 at 16 kHz and a random generator, as augmentations are.
    """

    group: str
    name: str
    change: Augmentation

    def __call__(self, waveform: np.ndarray, utterance: str) -> np.ndarray:
        """(S,) → (S',): what is drawn is drawn by condition and utterance, so that any run makes the same audio."""
        return self.change(waveform, np.random.default_rng(number_of(self.group, self.name, utterance)))


def number_of(*names: str) -> int:
    """A number of 64 bits for `SEED` and these names, the same in any process."""
    text = json.dumps([SEED, *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def make_conditions(sounds: Path) -> tuple[Condition, ...]:
    """
    All conditions, the clean one first, within a group from mild to severe (speeds from slow to fast).

    Args:
        sounds: a folder of ours, for the noises and room responses; what it holds of them is written anew.

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
    """To 8 kHz and back: what any telephone codec is given."""

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (S,), give or take a sample."""
        narrow = soxr.resample(waveform, SAMPLING_RATE, 8_000, quality="HQ")
        return soxr.resample(narrow, 8_000, SAMPLING_RATE, quality="HQ")


@dataclass(frozen=True)
class Crop:
    """A stretch of `seconds` from a drawn place."""

    seconds: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (min(S, seconds · 16,000),)"""
        length = round(self.seconds * SAMPLING_RATE)
        start = int(rng.integers(max(waveform.size - length, 0) + 1))
        return waveform[start : start + length]


@dataclass(frozen=True)
class Gain:
    """Louder or softer by `decibels`, in floating point: nothing is lost to rounding."""

    decibels: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (waveform * 10 ** (self.decibels / 20)).astype(np.float32)


@dataclass(frozen=True)
class Overdrive:
    """Amplified until `share` of the samples that are not zero lie beyond full scale, where they are clipped."""

    share: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        full_scale = np.quantile(np.abs(waveform[waveform != 0]), 1 - self.share)
        return np.clip(waveform / full_scale, -1.0, 1.0).astype(np.float32)


def _write_noise(folder: Path, slope: float) -> str:
    """Half a minute of Gaussian noise, of a power that falls with frequency to the power of `slope` above 20 Hz."""
    samples = _NOISE_SECONDS * SAMPLING_RATE
    spectrum = np.fft.rfft(np.random.default_rng(SEED).standard_normal(samples))
    spectrum /= np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLING_RATE), 20.0) ** (slope / 2)
    noise = np.fft.irfft(spectrum, samples)
    return _write(folder, [0.1 * noise / noise.std()])


def _write_rooms(folder: Path, rt60: float) -> str:
    """Responses (S,) that have died away by 60 dB at their end."""
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
