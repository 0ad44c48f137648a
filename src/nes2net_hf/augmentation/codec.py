"""Lossy codecs of messengers, streaming services and telephone lines."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
import soundfile
import soxr

from ..audio import SAMPLING_RATE, read_audio


@dataclass(frozen=True)
class _Format:
    """PyAV's names for a codec and its container, its sampling rate in Hz and its usual bit rates."""

    encoder: str
    container: str
    rate: int
    bit_rates: tuple[int, ...] = ()


FORMATS = {
    "mp3": _Format("libmp3lame", "mp3", 16_000, (16_000, 32_000, 64_000)),
    "aac": _Format("aac", "adts", 16_000, (16_000, 32_000, 64_000)),
    "opus": _Format("libopus", "ogg", 16_000, (6_000, 12_000, 24_000)),
    "alaw": _Format("pcm_alaw", "wav", 8_000),
    "mulaw": _Format("pcm_mulaw", "wav", 8_000),
    "amr-nb": _Format("libopencore_amrnb", "amr", 8_000, (4_750, 7_950, 12_200)),
    "gsm": _Format("", "", 8_000),  # encoded by soundfile, because PyAV has no encoder
    "mp3-11k": _Format("libmp3lame", "mp3", 11_025, (16_000, 24_000)),  # MPEG 2.5: voice notes, old games
}
# Those of the first release: a recipe that names no codecs draws from them.
_USUAL = tuple(FORMATS)[:7]


@dataclass(frozen=True)
class Codec:
    """
    Encodes and decodes with a codec drawn from `codecs`, at a bit rate drawn from the codec's usual ones.

    Args:
        codecs: keys of `FORMATS`, by default all but `mp3-11k`; `alaw`, `mulaw`, `amr-nb` and `gsm` work at 8 kHz,
            `mp3-11k` at 11,025 Hz.
        narrowband: probability that audio for the other codecs first passes through 8 kHz, as on a telephone line.
        bit_rates: bits per second that replace the usual ones, for codecs with a bit rate.

    Raises:
        ValueError: a codec is unknown or missing in this build of PyAV, or a value is invalid.
    """

    codecs: tuple[str, ...] = _USUAL
    narrowband: float = 0.0
    bit_rates: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in self.codecs:
            if name not in FORMATS:
                raise ValueError(f"codecs must be among {', '.join(FORMATS)}, got {name!r}.")
            encoder = FORMATS[name].encoder
            if encoder and encoder not in av.codecs_available:
                raise ValueError(f"codecs: {name} needs the encoder {encoder}, which this build of PyAV lacks.")
        if not self.codecs or not 0 <= self.narrowband <= 1:
            raise ValueError("codecs must name at least one codec, and narrowband must be between 0 and 1.")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S,) float32, delayed by the few milliseconds of the codec."""
        name = self.codecs[rng.integers(len(self.codecs))]
        form = FORMATS[name]
        rates = (self.bit_rates or form.bit_rates) if form.bit_rates else (0,)
        bit_rate, through_8khz = int(rates[rng.integers(len(rates))]), rng.random() < self.narrowband
        if form.rate == SAMPLING_RATE and through_8khz:
            narrow = soxr.resample(waveform, SAMPLING_RATE, 8_000, quality="HQ")
            waveform = _of_length(soxr.resample(narrow, 8_000, SAMPLING_RATE, quality="HQ"), waveform.size)
        sent = soxr.resample(waveform, SAMPLING_RATE, form.rate, quality="HQ")
        return _of_length(read_audio(_encode(sent, name, form, bit_rate)), waveform.size)


def _encode(waveform: np.ndarray, name: str, form: _Format, bit_rate: int) -> bytes:
    """Returns an encoded file of (S,) at the codec's rate."""
    file = io.BytesIO()
    if name == "gsm":
        soundfile.write(file, waveform, form.rate, format="WAV", subtype="GSM610")
        return file.getvalue()
    samples = np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)
    with av.open(file, "w", format=form.container) as container:
        stream = container.add_stream(form.encoder, rate=form.rate)
        stream.layout = "mono"
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = form.rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=form.rate)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def _of_length(waveform: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(waveform[:samples], (0, max(0, samples - waveform.size)))
