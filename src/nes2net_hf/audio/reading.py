"""
Read a file, bytes or an array as float32 at 16 kHz, in blocks, so that memory does not grow with the length.

    with open_audio("call.m4a") as audio:
        for start, window in iter_windows(audio.blocks(channels="each"), window_length=64_600):
            ...                                   # window: (channels, samples)
    audio.summary                                 # duration, peaks, seconds of sound, clipping

Errors are `AudioError`s: one sentence that names the file and the reason. In shapes, C is channels and S is samples.
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

from ..errors import AudioError
from ..files import Found, walk_files
from .decoders import BLOCK_SAMPLES, ArrayDecoder, Decoder, open_decoder
from .decoders import MAX_RATE as MAX_RATE
from .decoders import MIN_RATE as MIN_RATE

SAMPLING_RATE = 16_000  # Hz, of all audio that this module returns
MIN_DURATION = 0.025  # s, one frame of the encoder
SILENCE = np.float32(1e-3)  # linear, -60 dBFS; see `holds_sound`
FULL_SCALE = 0.999  # samples of this magnitude count as clipped
CHANNELS = ("mix", "each")

# The suffixes of audio files in folders. A file that is named directly is opened with any suffix.
AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .m4b .aac .mp4 .m4v .mov .webm .mkv .mka .3gp .amr .wma .avi "  # noqa: SIM905
    ".aif .aiff .aifc .au .snd .caf .w64 .rf64 .bwf .mp2 .mpga .flv .f4v .ts .mts .m2ts .mpg .mpeg .vob .3g2 .wmv "
    ".asf .ogv .spx .awb .sph .nist .voc .wv .ape .tta .ac3 .eac3 .dts .mxf .nut .rm .ra".split()
)
BLOCK_SECONDS = 4.0


@dataclass(frozen=True)
class AudioInfo:
    """What is known about a recording before it is read."""

    name: str
    """The path as given, `-` for standard input, or `<bytes>`, `<file>`, `<array>`."""
    codec: str
    """As FFmpeg names it, such as mp3, pcm_s16 or amr_nb; empty for an array."""
    sampling_rate: int
    """Hz, of the original."""
    channels: int
    duration: float | None
    """Seconds declared by the file; None if it declares none."""
    tracks: int
    """Number of audio tracks in the file."""
    track: int
    """The track that is read, counted from 0."""


@dataclass(frozen=True)
class AudioSummary:
    """What was measured while a recording was read; arrays have one value per returned channel, (C,)."""

    duration: float
    """Seconds."""
    peak: np.ndarray
    """Largest magnitude at 16 kHz, full scale 1."""
    sound: np.ndarray
    """Seconds of sound: total length of the 25 ms frames that rise above -60 dBFS."""
    clipped: np.ndarray
    """Share of the original samples at full scale, 0…1."""
    cancelling: bool
    """Whether the channels nearly cancel each other when mixed (opposite phase)."""
    likeness: float
    """The lowest correlation between two channels with sound, -1…1; 1 if fewer than two have sound."""
    sounding: tuple[int, ...]
    """The channels of the original that have sound, counted from 0."""
    silent: np.ndarray
    """Whether the channel has no sound at all, (C,) bool."""
    warnings: tuple[str, ...]
    """Messages for the user, e.g. more audio than declared, or several recordings in one file."""


def open_audio(
    source: Any, sampling_rate: int | None = None, *, track: int | None = None, max_duration: float | None = None
) -> AudioStream:
    """
    Opens a recording.

    Args:
        source: a path, `"-"` for bytes on standard input, bytes, a binary file object, an array or tensor (S,) or
            (C, S) of floats in [-1, 1], int16 or int32, a pair (array, sampling_rate), or a dict with `array` (or
            `raw`) and `sampling_rate`. The format of a file is detected from its content, not from its name. An open
            `AudioStream` is returned as it is.
        sampling_rate: Hz, for an array without a rate; ignored for files.
        track: the audio track of a film or screen recording, counted from 0; None is the file's default track, or the
            first if it marks none.
        max_duration: seconds; a longer recording raises an error once that much has been decoded, even if its header
            declares less.

    Raises:
        AudioError: the source is missing, a folder, empty, not audio, damaged, outside 8 to 192 kHz, has more than
            64 channels, or has no such track.
    """

    if isinstance(source, AudioStream):
        return source

    def of_array(array: Any, rate: int | None) -> AudioStream:
        return AudioStream("<array>", lambda one: ArrayDecoder(array, rate, one), track, max_duration=max_duration)

    def of_file(name: str, file: IO[bytes], owned: bool) -> AudioStream:
        return _open_file(name, file, owned, track, max_duration)

    if isinstance(source, Mapping):
        return of_array(source.get("array", source.get("raw")), source.get("sampling_rate", sampling_rate))
    if isinstance(source, tuple) and len(source) == 2:
        return of_array(*source)
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        return of_file(name, sys.stdin.buffer if name == "-" else _open_path(name), owned=name != "-")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return of_file("<bytes>", io.BytesIO(source), owned=True)
    if hasattr(source, "read"):
        name = source.name if isinstance(getattr(source, "name", None), str) else "<file>"
        if isinstance(source, io.TextIOBase):
            raise AudioError(f"{name} is open in text mode: open it in binary mode ('rb').")
        return of_file(name, source, owned=False)
    return of_array(source, sampling_rate)


def holds_sound(samples: np.ndarray, axis: int | None = None) -> np.ndarray:
    """
    Returns whether samples rise above -60 dBFS. Half the range from lowest to highest is compared, so that the
    constant offset of a muted channel is not sound.
    """
    return (samples.max(axis=axis) - samples.min(axis=axis)) / 2 > SILENCE


def seconds_of_sound(waveform: np.ndarray) -> float:
    """Returns the total length of the 25 ms frames of (S,) at 16 kHz that rise above -60 dBFS."""
    frame = round(MIN_DURATION * SAMPLING_RATE)
    padded = np.pad(waveform, (0, -waveform.size % frame), mode="edge").reshape(-1, frame)
    return min(MIN_DURATION * float(holds_sound(padded, axis=1).sum()), waveform.size / SAMPLING_RATE)


def list_audio(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted paths of all audio files below a folder; hidden files are skipped."""
    return [found.path for found in find_audio(folder) if found.problem is None]


def find_audio(folder: str | os.PathLike[str]) -> list[Found]:
    """Like `list_audio`, plus entries that cannot be read: folders that cannot be listed, pipes with such suffixes."""
    return sorted(found for found in walk_files(folder) if found.is_folder or _is_named_audio(found.path))


def _is_named_audio(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith(".")


def without_suffix(name: str) -> str:
    """Returns a name or path without the suffix of an audio file."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in AUDIO_SUFFIXES else name


def read_audio(
    source: Any, sampling_rate: int | None = None, channels: str = "mix", track: int | None = None
) -> np.ndarray:
    """
    Returns a whole recording as float32 at 16 kHz: (S,) for `channels="mix"`, (C, S) for `"each"`.

    Raises:
        AudioError: as in `open_audio` and `AudioStream.blocks`.
    """
    with open_audio(source, sampling_rate, track=track) as audio:
        samples = np.concatenate(list(audio.blocks(channels)), axis=1)
    return samples[0] if channels == "mix" else samples


class AudioStream:
    """
    An open recording, which can be read once. A context manager that closes it.

    Attributes:
        info: what is known before reading.
        summary: what was measured; None until `blocks` has ended.
    """

    def __init__(
        self,
        name: str,
        decode: Callable[[int | None], Decoder],
        track: int | None = None,
        file: IO[bytes] | None = None,
        max_duration: float | None = None,
    ) -> None:
        """`decode` returns the decoder of a track; `file` is closed with the stream."""
        self._decode, self._file, self._max_duration = decode, file, max_duration
        self._decoder = decoder = decode(track)
        self.info = AudioInfo(
            name,
            decoder.codec,
            decoder.sampling_rate,
            decoder.channels,
            decoder.duration,
            decoder.tracks,
            decoder.track,
        )
        self.summary: AudioSummary | None = None
        try:
            self._refuse_too_long(decoder.duration)
        except AudioError:
            decoder.close()
            raise

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

    def on_track(self, track: int) -> AudioStream:
        """
        Returns a new stream from the start of the same file, on this or another audio track. Read it instead of this
        stream, and keep this stream open meanwhile.

        Raises:
            AudioError: the track does not exist or cannot be decoded.
        """
        return AudioStream(self.info.name, self._decode, track, max_duration=self._max_duration)

    def survey(self) -> AudioSummary:
        """
        Reads the whole recording and returns only the summary of each channel; `on_track` can then read it again.

        Raises:
            AudioError: as in `blocks`, except for silent or too short recordings.
        """
        meter = _Meter(self.info, self._decoder.is_float, mixed=False)
        for block in self._metered(meter):
            meter.give(block)  # at the original rate, so peaks may differ slightly from those at 16 kHz
        self.summary = meter.summary(tuple(self._decoder.warnings))
        return self.summary

    def _refuse_too_long(self, seconds: float | None) -> None:
        limit = self._max_duration
        if limit is not None and seconds is not None and seconds > limit:
            named = f"{limit:g} seconds" if limit < 120 else f"{limit / 60:.4g} minutes"
            raise AudioError(f"{self.info.name} is longer than the limit of {named}: cut it into shorter files.")

    def blocks(self, channels: str = "mix") -> Iterator[np.ndarray]:
        """
        Yields float32 blocks (C, S) of about four seconds at 16 kHz. With `"mix"` C is 1, the mean of the channels.

        Raises:
            AudioError: while reading, at NaN or infinite samples, damage, or beyond `max_duration`; at the end, if
                the recording was truncated, too short, or silent in all channels.
        """
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, got {channels!r}.")
        info, meter = self.info, _Meter(self.info, self._decoder.is_float, mixed=channels == "mix")
        resample = resampler(info.sampling_rate, len(meter.peak))
        for block in self._metered(meter):
            yield meter.give(resample(block, False))
        yield meter.give(resample(np.zeros((0, len(meter.peak)), np.float32), True))

        self.summary = meter.summary(tuple(self._decoder.warnings))
        if not meter.samples:
            raise AudioError(f"{info.name} is empty: it has no audio samples.")
        if self.summary.duration < MIN_DURATION:
            raise AudioError(
                f"{info.name} is too short: it lasts {1000 * self.summary.duration:.1f} ms, but at least "
                f"{1000 * MIN_DURATION:.0f} ms are needed."
            )
        if self.summary.silent.all():
            if self.summary.cancelling:
                raise AudioError(
                    f"{info.name} is silent when mixed, because its channels cancel each other (opposite phase): "
                    "judge each channel separately."
                )
            raise AudioError(f"{info.name} is silent: no window peaks above -60 dBFS.")

    def _metered(self, meter: _Meter) -> Iterator[np.ndarray]:
        """Yields blocks (S, C) at the original rate, measured and, if the meter says so, mixed."""
        info = self.info
        # Whole frames of the meter: about four seconds, or less with many channels.
        frames = min(round(BLOCK_SECONDS / MIN_DURATION), BLOCK_SAMPLES // (meter.frame * info.channels))
        for block in _even(self._decoder.blocks(), meter.frame * max(frames, 1)):
            highest = _refuse_impossible(block, info, meter.samples)
            block = meter.see(block, highest)
            self._refuse_too_long(meter.samples / info.sampling_rate)
            yield block


class _Meter:
    """Mixes blocks and measures what the summary reports."""

    def __init__(self, info: AudioInfo, is_float: bool, mixed: bool) -> None:
        given_out = 1 if mixed else info.channels
        self.is_float, self.highest = is_float, 0.0
        self.rate, self.mixes = info.sampling_rate, mixed and info.channels > 1
        self.frame = round(MIN_DURATION * info.sampling_rate)
        self.samples = 0
        self.peak, self.sound = np.zeros(given_out), np.zeros(given_out)
        self.lowest, self.uppermost = np.full(given_out, np.inf, np.float32), np.full(given_out, -np.inf, np.float32)
        self.clipped = np.zeros(info.channels)
        self.power = self.mixed_power = 0.0
        self.sums, self.products = np.zeros(info.channels), np.zeros((info.channels, info.channels))
        self.sounding = np.zeros(info.channels, bool)

    def see(self, block: np.ndarray, highest: float) -> np.ndarray:
        """Measures a block (S, C) at the original rate with the peak `highest`; returns it, mixed to (S, 1) if set."""
        self.samples += len(block)
        self.highest = max(self.highest, highest)
        if highest >= FULL_SCALE:
            self.clipped += (np.abs(block) >= FULL_SCALE).sum(axis=0)
        # All blocks but the last are whole frames.
        whole = len(block) - len(block) % self.frame
        if block.shape[1] > 1:
            self.sums += block.sum(axis=0)
            self.products += block.T @ block
            self.sounding |= self._sounds(block, whole).any(axis=0)
        if self.mixes:
            self.power += float(np.square(block).sum()) / block.shape[1]
            block = block.mean(axis=1, keepdims=True)
            self.mixed_power += float(np.square(block).sum())
        self.sound += MIN_DURATION * self._sounds(block, whole).sum(axis=0)
        return block

    def _sounds(self, block: np.ndarray, whole: int) -> np.ndarray:
        """Returns whether each frame of (S, C) has sound, (F, C); the last frame may be shorter."""
        frames = holds_sound(block[:whole].reshape(-1, self.frame, block.shape[1]), axis=1)
        return frames if whole == len(block) else np.vstack([frames, holds_sound(block[whole:], axis=0)])

    def give(self, block: np.ndarray) -> np.ndarray:
        """Measures a block (S, C) at 16 kHz; returns it as (C, S)."""
        if len(block):
            self.lowest = np.minimum(self.lowest, block.min(axis=0))
            self.uppermost = np.maximum(self.uppermost, block.max(axis=0))
            self.peak = np.maximum(self.uppermost, -self.lowest)
        return np.ascontiguousarray(block.T)

    def summary(self, warnings: tuple[str, ...]) -> AudioSummary:
        duration = self.samples / self.rate
        # Floats above full scale were not clipped.
        unlimited = self.is_float and self.highest > 1
        clipped = np.zeros(len(self.clipped)) if unlimited else self.clipped / max(self.samples, 1)
        return AudioSummary(
            duration=duration,
            peak=self.peak,
            sound=np.minimum(self.sound, duration),
            clipped=clipped if len(clipped) == len(self.peak) else clipped.max(keepdims=True),
            # 20 dB below the channels: only their difference remains, not the speech.
            cancelling=self.mixed_power < 0.01 * self.power,
            likeness=self._likeness(),
            sounding=(0,) if len(self.sounding) == 1 else tuple(np.flatnonzero(self.sounding).tolist()),
            # At the original rate, where no resampler rings at the edges of an offset, and at 16 kHz, as it is judged.
            silent=(self.sound == 0) | ~holds_sound(np.stack([self.lowest, self.uppermost]), axis=0),
            warnings=warnings,
        )

    def _likeness(self) -> float:
        heard = np.flatnonzero(self.sounding)
        if len(heard) < 2:
            return 1.0
        mean = self.sums[heard] / self.samples
        covariance = self.products[np.ix_(heard, heard)] / self.samples - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-20))
        return float(np.clip(covariance / np.outer(deviation, deviation), -1, 1).min())


def resampler(rate: int, channels: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Returns a function (block (S, C) at `rate`, whether it is the last) → (S', C) at 16 kHz, with state."""
    if rate == SAMPLING_RATE:
        return lambda block, last: block
    stream = soxr.ResampleStream(rate, SAMPLING_RATE, channels, dtype="float32", quality="HQ")
    return lambda block, last: stream.resample_chunk(np.ascontiguousarray(block), last=last)


def _largest(samples: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns the largest magnitude without copying the samples."""
    return np.maximum(samples.max(axis=axis), -samples.min(axis=axis))


def _refuse_impossible(block: np.ndarray, info: AudioInfo, offset: int) -> float:
    """Returns the largest magnitude of a block. Raises AudioError if it is not finite or far above full scale."""
    highest = float(_largest(block))
    if not np.isfinite(highest):
        first = offset + int(np.argmin(np.isfinite(block).all(axis=1)))
        raise AudioError(f"{info.name} has NaN or infinite samples, the first at {first / info.sampling_rate:.2f} s.")
    if highest > 10:
        raise AudioError(
            f"{info.name} has samples up to {highest:.4g}, but full scale is 1: if they were integers, divide them by "
            "their full scale (32768 for 16 bits)."
        )
    return highest


def _even(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Regroups blocks (S, C) into blocks of `length` samples; the last may be shorter."""
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
    except OSError as error:
        raise AudioError(f"{name} cannot be opened: {error.strerror or 'the system refuses to open it'}.") from None
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name} cannot be opened: it is not a valid file name.") from None


def _spool(stream: IO[bytes]) -> IO[bytes]:
    """Copies a stream that is not seekable (standard input, a pipe) to disk, because it may not fit into memory."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stream that reads it
    shutil.copyfileobj(stream, file)
    return file


def _open_file(name: str, file: IO[bytes], owned: bool, track: int | None, max_duration: float | None) -> AudioStream:
    try:
        if not getattr(file, "seekable", lambda: False)():  # standard input or a pipe; a path may be a pipe, too
            file, owned = _spool(file), True
    except Exception as error:
        reason = getattr(error, "strerror", None) or "the file object fails"
        raise AudioError(f"{name} cannot be read: {reason}.") from None
    try:
        return AudioStream(
            name, lambda one: open_decoder(name, file, one), track, file if owned else None, max_duration
        )
    except BaseException:
        if owned:
            file.close()
        raise
