"""Audio input and output: decoding to 16 kHz mono, the G.722 and MP3 round trips, and the telephone band."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import soundfile as sf
import soxr

from nes2net_hf.augmentation.codec import Codec

SAMPLE_RATE = 16000
G722_DELAY = 22  # delay of libavcodec's encoder and decoder together, in samples
_LOW_RATE_MP3 = Codec(("mp3-11k",), bit_rates=(16_000,))


def resample(wave: np.ndarray, rate: int, target: int = SAMPLE_RATE) -> np.ndarray:
    """Resamples (S,) at `rate` Hz to (S * target / rate,) at `target` Hz, float32."""
    wave = np.asarray(wave, dtype=np.float32)
    return wave if rate == target else soxr.resample(wave, rate, target, quality="HQ").astype(np.float32)


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Reads a recording of the packages, and returns (S,) float32 mono and its rate in Hz."""
    if path.suffix not in {".g722", ".gsm"}:
        wave, rate = sf.read(path, dtype="float32", always_2d=True)
        return wave.mean(axis=1), rate
    with av.open(str(path), format=path.suffix[1:]) as container:
        blocks = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
        wave = np.concatenate([np.zeros(0, dtype=np.int16), *blocks])  # some prompt files have no audio
        return wave.astype(np.float32) / 32768.0, container.streams.audio[0].rate


def write(path: Path, wave: np.ndarray) -> None:
    """Writes (S,) in [-1, 1) as 16-bit FLAC at 16 kHz, without dither, so that equal signals give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, to_int16(wave), SAMPLE_RATE, subtype="PCM_16", format="FLAC")


def read(path: Path) -> np.ndarray:
    """Reads a file of `write`: (S,) float32."""
    return sf.read(path, dtype="float32")[0]


def to_int16(wave: np.ndarray) -> np.ndarray:
    """Converts (S,) in [-1, 1) to 16-bit integers, with clipping."""
    return np.clip(np.round(np.asarray(wave) * 32768.0), -32768, 32767).astype(np.int16)


def g722_round_trip(wave: np.ndarray) -> np.ndarray:
    """Encodes and decodes (S,) at 16 kHz with G.722 (64 kbit/s), and removes the delay: (S,) float32."""
    padded = np.concatenate([to_int16(wave), np.zeros(G722_DELAY + (wave.size + G722_DELAY) % 2, dtype=np.int16)])
    encoder = av.CodecContext.create("g722", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(padded[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    decoder = av.CodecContext.create("g722", "r")
    decoder.sample_rate, decoder.layout = SAMPLE_RATE, "mono"
    packets = encoder.encode(frame) + encoder.encode(None)
    blocks = [block.to_ndarray().ravel() for packet in packets for block in decoder.decode(packet)]
    decoded = np.concatenate(blocks)[G722_DELAY : G722_DELAY + wave.size]
    return decoded.astype(np.float32) / 32768.0


def mp3_round_trip(wave: np.ndarray) -> np.ndarray:
    """Encodes and decodes (S,) at 16 kHz with MP3 at 11,025 Hz and 16 kbit/s, without delay: (S,) float32."""
    return _LOW_RATE_MP3(wave, np.random.default_rng(0)) if wave.size else wave  # with one codec, nothing is random


def through_8khz(wave: np.ndarray) -> np.ndarray:
    """Resamples (S,) from 16 kHz to 8 kHz and back, like a narrow-band line."""
    return _fit(resample(resample(wave, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE), wave.size)


def _fit(wave: np.ndarray, size: int) -> np.ndarray:
    """Cuts (S,), or fills it with zeros, to (size,), because resampling there and back changes the length slightly."""
    return np.pad(wave, (0, max(0, size - wave.size)))[:size]
