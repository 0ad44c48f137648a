"""Recordings for the tests: real speech of any length, rate and pitch, in files of any format."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr

from nes2net_hf.audio import SAMPLING_RATE, read_audio
from nes2net_hf.samples import BONAFIDE

SOUNDFILE_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_24"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


PYAV_FORMATS = {"m4a": ("ipod", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus"), "mp4": ("mp4", "aac")}


@cache
def _recording() -> np.ndarray:
    """Real speech below 3 kHz, at 6 kHz, of the same peak at every rate."""
    speech = soundfile.read(BONAFIDE, dtype="float32")[0][6_500:46_500]
    return soxr.resample(0.5 * speech / np.abs(speech).max(), 16_000, 6_000)


def voice(seconds: float, rate: int = SAMPLING_RATE, pitch: float = 120.0) -> np.ndarray:
    """(S,) float32: real speech below 3 kHz over and over, faster or slower for another pitch; peak about 0.5."""
    recording, needed = _recording(), round(seconds * 6_000 * pitch / 120) + 600
    signal = soxr.resample(np.resize(recording, needed), 6_000 * pitch / 120, rate)
    return signal[: round(seconds * rate)].astype(np.float32)


def encode(samples: np.ndarray, rate: int, suffix: str) -> bytes:
    """(S,) or (C, S) → the bytes of a file in the format of that suffix; MP4 carries pictures, too."""
    samples = np.atleast_2d(samples)
    buffer = io.BytesIO()
    if suffix in SOUNDFILE_FORMATS:
        container, codec = SOUNDFILE_FORMATS[suffix]
        soundfile.write(buffer, samples.T, rate, format=container, subtype=codec)
        return buffer.getvalue()
    container, codec = PYAV_FORMATS[suffix]
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(buffer, "w", format=container) as file:
        track: Any = file.add_stream(codec, rate=rate, layout=layout)
        if suffix == "mp4":
            pictures: Any = file.add_stream("mpeg4", rate=5)
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
            for index in range(round(5 * samples.shape[1] / rate)):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index % 256, np.uint8), format="rgb24")
                file.mux(pictures.encode(picture))
            file.mux(pictures.encode())
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        file.mux(track.encode(frame))
        file.mux(track.encode())
    return buffer.getvalue()


def melody(seconds: float, seed: int = 0) -> np.ndarray:
    """(S,) speech-like, a new pitch every half second: no two windows are alike."""
    pitches = np.random.default_rng(seed).uniform(80, 300, int(seconds * 2) + 1)
    return np.concatenate([voice(0.5, pitch=pitch) for pitch in pitches])[: round(seconds * SAMPLING_RATE)]


def muxed(samples: np.ndarray, form: str, codec: str, rate: int = SAMPLING_RATE, tracks: int = 1) -> bytes:
    """(S,) → the bytes of a file of FFmpeg's; the second track holds the samples backwards."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as file:
        streams: list[Any] = [file.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        for stream in streams:
            stream.bit_rate = 64_000
        for stream, sound in zip(streams, (samples, samples[::-1])):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
            frame.sample_rate = rate
            convert = av.AudioResampler(stream.format.name, "mono", rate, stream.codec_context.frame_size or 1024)
            for part in [*convert.resample(frame), *convert.resample(None)]:
                file.mux(stream.encode(part))
            file.mux(stream.encode())
    return buffer.getvalue()


def film_of(path: Path, *samples: Path) -> Path:
    """A file with an audio track of each sample."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=SAMPLING_RATE, layout="mono") for _ in samples]
        for stream, sample in zip(streams, samples, strict=True):
            frame = av.AudioFrame.from_ndarray((read_audio(sample)[None] * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate = SAMPLING_RATE
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    return path
