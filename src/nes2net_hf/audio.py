"""
Reading audio: any file, bytes or array → float32 at 16 kHz, in blocks, so that memory does not grow with its length.

    with open_audio("call.m4a") as audio:
        for start, window in iter_windows(audio.blocks(channels="each"), window_length=64_600):
            ...                                   # window: (channels, samples)
    audio.summary                                 # duration, peaks, seconds of sound, clipping

What goes wrong is an `AudioError`, one sentence that names the file and the reason. Letters in shapes: C channels,
S samples.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

import numpy as np
import soxr

from .decoders import ArrayDecoder, AudioError, Decoder, open_decoder
from .files import Found, walk_files

SAMPLING_RATE = 16_000  # Hz, of everything that leaves this module
MIN_RATE, MAX_RATE = 8_000, 192_000  # Hz, of what comes in
MIN_DURATION = 0.025  # s, one frame of the encoder
SILENCE = 1e-3  # linear peak, -60 dBFS: what never rises above it holds no sound
CHANNELS = ("mix", "each")

# What is looked for in a folder; a file named outright is opened whatever its suffix.
AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .m4b .aac .mp4 .m4v .mov .webm .mkv .mka .3gp .amr .wma .avi "  # noqa: SIM905
    ".aif .aiff .aifc .au .caf .w64 .rf64".split()
)
BLOCK_SECONDS = 4.0


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a recording before it is read."""

    name: str
    """The path as given, `-` for standard input, or `<bytes>`, `<file>`, `<array>`."""
    sampling_rate: int
    """Hz of the original."""
    channels: int
    duration: float | None
    """Seconds the file declares; None where it declares nothing."""


@dataclass(frozen=True)
class AudioSummary:
    """What was seen while a recording was read; arrays have one value per channel given out, (C,)."""

    duration: float
    """Seconds."""
    peak: np.ndarray
    """Largest magnitude at 16 kHz, full scale 1."""
    sound: np.ndarray
    """Seconds in frames of 25 ms that rise above -60 dBFS."""
    clipped: np.ndarray
    """Share of the original samples at full scale, 0…1."""
    cancelling: bool
    """Whether the channels nearly cancel each other in the mix (opposite phase)."""


def open_audio(source: Any, sampling_rate: int | None = None) -> AudioStream:
    """
    Opens a recording.

    Args:
        source: a path, `"-"` for bytes on standard input, bytes, a binary file object, an array or tensor (S,) or
            (C, S) of floats in [-1, 1], int16 or int32, a pair (array, sampling_rate), or a dict with `array` (or
            `raw`) and `sampling_rate`. The content of a file decides, not its name.
        sampling_rate: Hz of an array that comes without; files know theirs.

    Raises:
        AudioError: it is missing, a folder, empty, not audio, damaged, or outside 8 to 192 kHz.
    """
    if isinstance(source, Mapping):
        array = source.get("array", source.get("raw"))
        return AudioStream("<array>", ArrayDecoder(array, source.get("sampling_rate", sampling_rate)))
    if isinstance(source, tuple) and len(source) == 2:
        return AudioStream("<array>", ArrayDecoder(*source))
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return _open_file(name, sys.stdin.buffer if name == "-" else _open_path(name), owned=name != "-")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open_file("<bytes>", io.BytesIO(source), owned=True)
    if hasattr(source, "read"):
        name = source.name if isinstance(getattr(source, "name", None), str) else "<file>"
        if isinstance(source, io.TextIOBase):
            raise AudioError(f"{name} is open as text: open it in binary mode ('rb').")
        return _open_file(name, source, owned=False)
    return AudioStream("<array>", ArrayDecoder(source, sampling_rate))


def list_audio(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the audio files below a folder, in any nesting, sorted; hidden files are passed over."""
    return [found.path for found in find_audio(folder) if found.problem is None]


def find_audio(folder: str | os.PathLike[str]) -> list[Found]:
    """`list_audio`, with what may be audio and cannot be read: folders that cannot be listed, pipes named so."""
    return sorted(found for found in walk_files(folder) if found.is_folder or _is_named_audio(found.path))


def _is_named_audio(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith(".")


def read_audio(source: Any, sampling_rate: int | None = None, channels: str = "mix") -> np.ndarray:
    """
    Reads a whole recording into memory: (S,) float32 at 16 kHz for `channels="mix"`, (C, S) for `"each"`.

    Raises:
        AudioError: as `open_audio` and `AudioStream.blocks`.
    """
    with open_audio(source, sampling_rate) as audio:
        samples = np.concatenate(list(audio.blocks(channels)), axis=1)
    return samples[0] if channels == "mix" else samples


def iter_windows(
    blocks: Iterable[np.ndarray], window_length: int, hop: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """
    Cuts blocks (C, S) into windows (C, window_length), lazily; yields each with its start in samples.

    Windows follow each other at `hop` samples (side by side by default) and cover everything: the last one is flush
    with the end. A recording shorter than a window is one short window.
    """
    hop = window_length if hop is None else hop
    if not 1 <= hop <= window_length:
        raise ValueError(f"hop must lie between 1 and the window of {window_length} samples, got {hop}.")
    held: np.ndarray | None = None  # samples from `offset` on
    offset = start = 0
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=1)
        while start + window_length <= offset + held.shape[1]:
            yield start, held[:, start - offset : start - offset + window_length].copy()
            start += hop
        # The flush last window may reach back as far as one window from the end.
        dispensable = min(start - offset, held.shape[1] - window_length)
        if dispensable > 0:
            held, offset = held[:, dispensable:].copy(), offset + dispensable
    if held is None or held.shape[1] == 0:
        return
    end = offset + held.shape[1]
    if end < window_length:
        yield 0, held
    elif start - hop + window_length < end:
        yield end - window_length, held[:, -window_length:].copy()


class AudioStream:
    """
    An open recording, to be read once from its start; a context manager that closes it.

    Attributes:
        info: what is known before reading.
        summary: what was seen, once `blocks` has come to its end.
    """

    def __init__(self, name: str, decoder: Decoder, file: IO[bytes] | None = None) -> None:
        self._decoder = decoder
        self._file = file
        self.info = AudioInfo(name, decoder.sampling_rate, decoder.channels, decoder.duration)
        self.summary: AudioSummary | None = None
        if not MIN_RATE <= decoder.sampling_rate <= MAX_RATE:
            self.close()
            raise AudioError(
                f"{name} is sampled at {decoder.sampling_rate} Hz, outside the {MIN_RATE} to {MAX_RATE} Hz that can "
                "be judged."
            )

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._decoder.close()
        if self._file is not None:
            self._file.close()

    def blocks(self, channels: str = "mix") -> Iterator[np.ndarray]:
        """
        Yields float32 blocks (C, S) at 16 kHz of about four seconds; C is 1 for `"mix"`, the mean of the channels.

        Raises:
            AudioError: while reading, at NaN or infinite samples or damage; at the end, if the recording was
                truncated, too short, or silent in all channels.
        """
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, got {channels!r}.")
        info, meter = self.info, _Meter(self.info, mixed=channels == "mix")
        resample = _resampler(info.sampling_rate, len(meter.peak))
        for block in _even(self._decoder.blocks(), meter.frame * round(BLOCK_SECONDS / MIN_DURATION)):
            highest = _refuse_impossible(block, info, meter.samples)
            block = meter.see(block, highest)
            yield meter.give(resample(block, False))
        yield meter.give(resample(np.zeros((0, len(meter.peak)), np.float32), True))

        self.summary = meter.summary()
        declared = self._decoder.missing(self.summary.duration)
        if declared is not None:
            raise AudioError(
                f"{info.name} is truncated: {self.summary.duration:.1f} of {declared:.1f} s could be read; "
                "copy or download it again."
            )
        if not meter.samples:
            raise AudioError(f"{info.name} is empty: it holds no audio samples.")
        if self.summary.duration < MIN_DURATION:
            raise AudioError(
                f"{info.name} is too short: {1000 * self.summary.duration:.1f} ms, at least "
                f"{1000 * MIN_DURATION:.0f} ms are needed."
            )
        if self.summary.peak.max() <= SILENCE:
            if self.summary.cancelling:
                raise AudioError(
                    f"{info.name} is silent once mixed, for its channels cancel each other (opposite phase): "
                    "judge each channel for itself (--channels each)."
                )
            raise AudioError(f"{info.name} is silent: no window peaks above -60 dBFS.")


class _Meter:
    """Mixes blocks and keeps count of what the summary tells of them."""

    def __init__(self, info: AudioInfo, mixed: bool) -> None:
        given_out = 1 if mixed else info.channels
        self.rate, self.mixes = info.sampling_rate, mixed and info.channels > 1
        self.frame = round(MIN_DURATION * info.sampling_rate)
        self.samples = 0
        self.peak, self.sound = np.zeros(given_out), np.zeros(given_out)
        self.clipped = np.zeros(info.channels)
        self.power = self.mixed_power = 0.0

    def see(self, block: np.ndarray, highest: float) -> np.ndarray:
        """(S, C) at the original rate, and its largest magnitude → (S, 1) mixed, or as it is."""
        self.samples += len(block)
        if highest >= 0.999:
            self.clipped += (np.abs(block) >= 0.999).sum(axis=0)
        if self.mixes:
            self.power += float(np.square(block).sum()) / block.shape[1]
            block = block.mean(axis=1, keepdims=True)
            self.mixed_power += float(np.square(block).sum())
        # All blocks but the last are whole frames.
        whole = len(block) - len(block) % self.frame
        frames = block[:whole].reshape(-1, self.frame, block.shape[1])
        self.sound += MIN_DURATION * (_largest(frames, axis=1) > SILENCE).sum(axis=0)
        if whole < len(block):
            self.sound += MIN_DURATION * (_largest(block[whole:], axis=0) > SILENCE)
        return block

    def give(self, block: np.ndarray) -> np.ndarray:
        """(S, C) at 16 kHz → (C, S)."""
        if len(block):
            self.peak = np.maximum(self.peak, _largest(block, axis=0))
        return np.ascontiguousarray(block.T)

    def summary(self) -> AudioSummary:
        duration = self.samples / self.rate
        clipped = self.clipped / max(self.samples, 1)
        return AudioSummary(
            duration=duration,
            peak=self.peak,
            sound=np.minimum(self.sound, duration),
            clipped=clipped if len(clipped) == len(self.peak) else clipped.max(keepdims=True),
            # 20 dB below the channels: what is left is their difference, not the speech.
            cancelling=self.mixed_power < 0.01 * self.power,
        )


def _resampler(rate: int, channels: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """(S, C) at `rate`, and whether it is the last → (S', C) at 16 kHz; keeps its state between blocks."""
    if rate == SAMPLING_RATE:
        return lambda block, last: block
    stream = soxr.ResampleStream(rate, SAMPLING_RATE, channels, dtype="float32", quality="HQ")
    return lambda block, last: stream.resample_chunk(np.ascontiguousarray(block), last=last)


def _largest(samples: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The largest magnitude, without a copy of the samples."""
    return np.maximum(samples.max(axis=axis), -samples.min(axis=axis))


def _refuse_impossible(block: np.ndarray, info: AudioInfo, offset: int) -> float:
    """The largest magnitude, which must be possible."""
    highest = float(_largest(block))
    if not np.isfinite(highest):
        first = offset + int(np.argmin(np.isfinite(block).all(axis=1)))
        raise AudioError(
            f"{info.name} holds NaN or infinite samples, the first at {first / info.sampling_rate:.2f} s."
        )
    if highest > 10:
        raise AudioError(
            f"{info.name} holds samples up to {highest:.4g}, where full scale is 1: floats made from integers must "
            "be divided by their full scale (32768 for 16 bits)."
        )
    return highest


def _even(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Regroups blocks (S, C) of any length into blocks of `length` samples; the last may be shorter."""
    held: list[np.ndarray] = []
    samples = 0
    for block in blocks:
        held.append(block)
        samples += len(block)
        if samples >= length:
            joined = np.concatenate(held)
            whole = samples - samples % length
            for start in range(0, whole, length):
                yield joined[start : start + length]
            held, samples = [joined[whole:].copy()], samples - whole
    if samples:
        yield np.concatenate(held)


def _open_path(name: str) -> IO[bytes]:
    try:
        if os.path.isdir(name):
            raise AudioError(f"{name} is a folder, not a file.")
        return open(name, "rb")
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist.") from None
    except (OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None


def _spool(stream: IO[bytes]) -> IO[bytes]:
    """A copy on disk of what cannot be sought in (standard input, a pipe): an hour of WAV stays out of memory."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stream that reads it
    shutil.copyfileobj(stream, file)
    return file


def _open_file(name: str, file: IO[bytes], owned: bool) -> AudioStream:
    if not file.seekable():  # standard input, a pipe: also behind a path
        file, owned = _spool(file), True
    try:
        return AudioStream(name, open_decoder(name, file), file if owned else None)
    except BaseException:
        if owned:
            file.close()
        raise
