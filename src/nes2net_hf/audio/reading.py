"""
Reading audio: a file, bytes or an array → float32 at 16 kHz, in blocks, so that memory does not grow with its length.

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

from ..errors import AudioError
from ..files import Found, walk_files
from .decoders import BLOCK_SAMPLES, ArrayDecoder, Decoder, open_decoder
from .decoders import MAX_RATE as MAX_RATE
from .decoders import MIN_RATE as MIN_RATE

SAMPLING_RATE = 16_000  # Hz, of everything that leaves this module
MIN_DURATION = 0.025  # s, one frame of the encoder
SILENCE = np.float32(1e-3)  # linear, -60 dBFS; see `holds_sound`
FULL_SCALE = 0.999  # samples from here on were cut off, where they cannot be larger
CHANNELS = ("mix", "each")

# What is looked for in a folder; a file named outright is opened whatever its suffix.
AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .m4b .aac .mp4 .m4v .mov .webm .mkv .mka .3gp .amr .wma .avi "  # noqa: SIM905
    ".aif .aiff .aifc .au .snd .caf .w64 .rf64 .bwf .mp2 .mpga .flv .f4v .ts .mts .m2ts .mpg .mpeg .vob .3g2 .wmv "
    ".asf .ogv .spx .awb .sph .nist .voc .wv .ape .tta .ac3 .eac3 .dts .mxf .nut .rm .ra".split()
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
    tracks: int
    """How many audio tracks the file has."""
    track: int
    """The one that is read, counted from 0."""


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
    likeness: float
    """The lowest correlation of any two channels that hold sound, -1…1; 1 where fewer than two do."""
    sounding: tuple[int, ...]
    """The channels of the original that hold sound, counted from 0."""
    silent: np.ndarray
    """Whether there is no sound at all, (C,) bool."""
    warnings: tuple[str, ...]
    """What is to be known of the reading: more audio than declared, several recordings in one file."""


def open_audio(
    source: Any, sampling_rate: int | None = None, *, track: int | None = None, max_duration: float | None = None
) -> AudioStream:
    """
    Opens a recording.

    Args:
        source: a path, `"-"` for bytes on standard input, bytes, a binary file object, an array or tensor (S,) or
            (C, S) of floats in [-1, 1], int16 or int32, a pair (array, sampling_rate), or a dict with `array` (or
            `raw`) and `sampling_rate`. The content of a file decides, not its name.
        sampling_rate: Hz of an array that comes without; files know theirs.
        track: of a file with several audio tracks (films, screen recordings), counted from 0; None is the one that
            the file marks as its default, else the first.
        max_duration: seconds; reading a longer recording ends with an error once that much has been decoded, whatever
            its header declares.

    Raises:
        AudioError: it is missing, a folder, empty, not audio, damaged, outside 8 to 192 kHz, of more than 64 channels,
            or has no such track.
    """

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
            raise AudioError(f"{name} is open as text: open it in binary mode ('rb').")
        return of_file(name, source, owned=False)
    return of_array(source, sampling_rate)


def holds_sound(samples: np.ndarray, axis: int | None = None) -> np.ndarray:
    """
    Whether samples rise above -60 dBFS: half the way from their lowest to their highest, so that a constant offset,
    as muted channels have, is no sound.
    """
    return (samples.max(axis=axis) - samples.min(axis=axis)) / 2 > SILENCE


def list_audio(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the audio files below a folder, in any nesting, sorted; hidden files are passed over."""
    return [found.path for found in find_audio(folder) if found.problem is None]


def find_audio(folder: str | os.PathLike[str]) -> list[Found]:
    """`list_audio`, with what may be audio and cannot be read: folders that cannot be listed, pipes named so."""
    return sorted(found for found in walk_files(folder) if found.is_folder or _is_named_audio(found.path))


def _is_named_audio(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith(".")


def read_audio(
    source: Any, sampling_rate: int | None = None, channels: str = "mix", track: int | None = None
) -> np.ndarray:
    """
    Reads a whole recording into memory: (S,) float32 at 16 kHz for `channels="mix"`, (C, S) for `"each"`.

    Raises:
        AudioError: as `open_audio` and `AudioStream.blocks`.
    """
    with open_audio(source, sampling_rate, track=track) as audio:
        samples = np.concatenate(list(audio.blocks(channels)), axis=1)
    return samples[0] if channels == "mix" else samples


class AudioStream:
    """
    An open recording, to be read once from its start; a context manager that closes it.

    Attributes:
        info: what is known before reading.
        summary: what was seen, once `blocks` has come to its end.
    """

    def __init__(
        self,
        name: str,
        decode: Callable[[int | None], Decoder],
        track: int | None = None,
        file: IO[bytes] | None = None,
        max_duration: float | None = None,
    ) -> None:
        """`decode` makes a decoder of a track; `file` is closed with the stream."""
        self._decode, self._file, self._max_duration = decode, file, max_duration
        self._decoder = decoder = decode(track)
        self.info = AudioInfo(
            name, decoder.sampling_rate, decoder.channels, decoder.duration, decoder.tracks, decoder.track
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
        The same file from its start, on this or another audio track, to be read instead; it is valid while this stream
        is open.

        Raises:
            AudioError: there is no such track, or it cannot be decoded.
        """
        return AudioStream(self.info.name, self._decode, track, max_duration=self._max_duration)

    def survey(self) -> AudioSummary:
        """
        Reads it all without giving anything out: the summary of each channel, before `on_track` reads it again.

        Raises:
            AudioError: as `blocks`, but not where it is silent or too short.
        """
        meter = _Meter(self.info, self._decoder.is_float, mixed=False)
        for block in self._metered(meter):
            meter.give(block)  # at its own rate: peaks may differ a little from those at 16 kHz
        self.summary = meter.summary(tuple(self._decoder.warnings))
        return self.summary

    def _refuse_too_long(self, seconds: float | None) -> None:
        limit = self._max_duration
        if limit is not None and seconds is not None and seconds > limit:
            named = f"{limit:g} seconds" if limit < 120 else f"{limit / 60:.4g} minutes"
            raise AudioError(
                f"{self.info.name} is longer than the {named} that are allowed here: cut it into shorter files."
            )

    def blocks(self, channels: str = "mix") -> Iterator[np.ndarray]:
        """
        Yields float32 blocks (C, S) at 16 kHz of about four seconds; C is 1 for `"mix"`, the mean of the channels.

        Raises:
            AudioError: while reading, at NaN or infinite samples, damage, or more than `max_duration`; at the end, if
                the recording was truncated, too short, or silent in all channels.
        """
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, got {channels!r}.")
        info, meter = self.info, _Meter(self.info, self._decoder.is_float, mixed=channels == "mix")
        resample = _resampler(info.sampling_rate, len(meter.peak))
        for block in self._metered(meter):
            yield meter.give(resample(block, False))
        yield meter.give(resample(np.zeros((0, len(meter.peak)), np.float32), True))

        self.summary = meter.summary(tuple(self._decoder.warnings))
        if not meter.samples:
            raise AudioError(f"{info.name} is empty: it holds no audio samples.")
        if self.summary.duration < MIN_DURATION:
            raise AudioError(
                f"{info.name} is too short: {1000 * self.summary.duration:.1f} ms, at least "
                f"{1000 * MIN_DURATION:.0f} ms are needed."
            )
        if self.summary.silent.all():
            if self.summary.cancelling:
                raise AudioError(
                    f"{info.name} is silent once mixed because its channels cancel each other (opposite phase): "
                    "judge each channel by itself."
                )
            raise AudioError(f"{info.name} is silent: no window peaks above -60 dBFS.")

    def _metered(self, meter: _Meter) -> Iterator[np.ndarray]:
        """Blocks (S, C) at the original rate, mixed or not as the meter is told, each seen by it."""
        info = self.info
        # Whole frames of the meter, about four seconds of them, fewer of many channels.
        frames = min(round(BLOCK_SECONDS / MIN_DURATION), BLOCK_SAMPLES // (meter.frame * info.channels))
        for block in _even(self._decoder.blocks(), meter.frame * max(frames, 1)):
            highest = _refuse_impossible(block, info, meter.samples)
            block = meter.see(block, highest)
            self._refuse_too_long(meter.samples / info.sampling_rate)
            yield block


class _Meter:
    """Mixes blocks and keeps count of what the summary tells of them."""

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
        """(S, C) at the original rate, and its largest magnitude → (S, 1) mixed, or as it is."""
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
        """(S, C) → of each frame whether it holds sound, (F, C); the last frame may be shorter."""
        frames = holds_sound(block[:whole].reshape(-1, self.frame, block.shape[1]), axis=1)
        return frames if whole == len(block) else np.vstack([frames, holds_sound(block[whole:], axis=0)])

    def give(self, block: np.ndarray) -> np.ndarray:
        """(S, C) at 16 kHz → (C, S)."""
        if len(block):
            self.lowest = np.minimum(self.lowest, block.min(axis=0))
            self.uppermost = np.maximum(self.uppermost, block.max(axis=0))
            self.peak = np.maximum(self.uppermost, -self.lowest)
        return np.ascontiguousarray(block.T)

    def summary(self, warnings: tuple[str, ...]) -> AudioSummary:
        duration = self.samples / self.rate
        # Floats above full scale were not cut off there.
        unlimited = self.is_float and self.highest > 1
        clipped = np.zeros(len(self.clipped)) if unlimited else self.clipped / max(self.samples, 1)
        return AudioSummary(
            duration=duration,
            peak=self.peak,
            sound=np.minimum(self.sound, duration),
            clipped=clipped if len(clipped) == len(self.peak) else clipped.max(keepdims=True),
            # 20 dB below the channels: what is left is their difference, not the speech.
            cancelling=self.mixed_power < 0.01 * self.power,
            likeness=self._likeness(),
            sounding=(0,) if len(self.sounding) == 1 else tuple(np.flatnonzero(self.sounding).tolist()),
            # At its own rate, where no resampling rings at the edges of an offset; and at ours, as it is judged.
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
    except OSError as error:
        raise AudioError(f"{name} cannot be opened: {error.strerror or 'the system refuses it'}.") from None
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name} cannot be opened: no file can have such a name.") from None


def _spool(stream: IO[bytes]) -> IO[bytes]:
    """A copy on disk of what cannot be sought in (standard input, a pipe): an hour of WAV stays out of memory."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stream that reads it
    shutil.copyfileobj(stream, file)
    return file


def _open_file(name: str, file: IO[bytes], owned: bool, track: int | None, max_duration: float | None) -> AudioStream:
    try:
        if not getattr(file, "seekable", lambda: False)():  # standard input, a pipe: also behind a path
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
