"""
Decoding: an open file or an array → blocks (S, C) of float32 at its own rate. Used by `audio.py` alone.

`containers` says where in a file its recordings lie; libsndfile reads what it can read to the end, FFmpeg (through
PyAV) the rest. The content of a file decides, not its name. Decoders tend to end quietly where a file was cut off, so
what was read is compared with what the headers declare: less is an error, more is a warning.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol

import av
import numpy as np
import soundfile
import soxr
from av.stream import Disposition

from ..errors import AudioError
from .containers import TOLERANCE, UNKNOWN_FORM, Part, Pieces, parts_of

logger = logging.getLogger(__name__)

MIN_RATE, MAX_RATE = 8_000, 192_000  # Hz
MAX_CHANNELS = 64
GAP_SECONDS = 0.5  # between the times of two frames: less is how containers count
UNREAD_BYTES = 1 << 16  # at the end of a file: less is padding, or a tag
BLOCK_SAMPLES = 1 << 18  # of all channels together: what is held in memory does not depend on a header

# Integer arrays as Python users have them, and what full scale is in them.
_INTEGER_SCALES = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
# Containers that FFmpeg may open. Play lists and everything else that names other files or addresses are not among
# them: a file must never make us fetch another one.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,aiff,caf,amr,asf,avi,"
    "mpegts,mpeg,flv,live_flv,kux,mxf,nut,gxf,wtv,ty,rm,ivr,nsv,ac3,eac3,dts,dtshd,truehd,mlp,loas,"
    "w64,au,voc,nistsphere,sox,ircam,iff,paf,epaf,pvf,sds,avr,wve,wv,ape,tta,tak,mpc,mpc8,shn,dsf,oma,aea,"
    "qcp,dss,xwma,mmf,act,ilbc,g729,sln,caf,rso"
)
# Those whose header declares how long they are; elsewhere FFmpeg guesses from the bit rate.
_DECLARING = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "wv", "ape", "tta", "tak", "voc"}
# First bytes of the formats people have, to tell a broken file from one that is no audio at all.
_MAGIC = re.compile(
    rb"RIFF|RF64|fLaC|OggS|ID3|\xff[\xe2-\xff]|....ftyp|\x1aE\xdf\xa3|FORM|#!AMR|caff|FLV|\x00\x00\x01\xba|wvpk|\.snd",
    re.DOTALL,
)


class Decoder(Protocol):
    """
    One way of decoding.

    Attributes:
        sampling_rate: Hz, of all blocks.
        channels: C, of all blocks.
        duration: seconds that the headers declare, or None.
        tracks: how many audio tracks there are.
        track: the one that is decoded, counted from 0.
        is_float: whether the samples are floats, which may exceed full scale without having been cut off there.
        warnings: what a user must know of the reading, complete once `blocks` has ended.
    """

    sampling_rate: int
    channels: int
    duration: float | None
    tracks: int
    track: int
    is_float: bool
    warnings: list[str]

    def blocks(self) -> Iterator[np.ndarray]:
        """
        Yields (S, C) float32 of any length.

        Raises:
            AudioError: the recording is damaged, or less of it was there than its headers declare.
        """

    def close(self) -> None: ...


def open_decoder(name: str, file: IO[bytes], track: int | None = None) -> Decoder:
    """
    The decoder of an open, seekable file, whatever the file is called.

    Args:
        name: what messages call it.
        track: the audio track, counted from 0; the default one if None.

    Raises:
        AudioError: it is empty, not audio, damaged, or has no such track.
    """
    try:
        if not file.seek(0, os.SEEK_END):
            raise AudioError(f"{name} is empty (zero bytes).")
        parts = parts_of(file)
    except (struct.error, ArithmeticError):  # of values that make no sense
        parts = [Part([(0, file.seek(0, os.SEEK_END))], form=UNKNOWN_FORM)]
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"{name} cannot be read: {_reason(error)}.") from None
    if len(parts) > 1:
        return _Sequence(name, file, parts, track)
    return _open_part(name, file, parts[0], track)


def _open_part(name: str, file: IO[bytes], part: Part, track: int | None) -> Decoder:
    # libsndfile believes headers; where they were walked it reads well, elsewhere FFmpeg goes first.
    ways: tuple[type[_SoundFileDecoder] | type[_PyAVDecoder], ...] = (_SoundFileDecoder, _PyAVDecoder)
    if part.form is not None:
        ways = (_PyAVDecoder, _SoundFileDecoder) if part.form == UNKNOWN_FORM else (_PyAVDecoder,)
    for way in ways:
        pieces = Pieces(file, part.pieces)
        try:
            return way(name, pieces, part, track)
        except AudioError:
            raise
        except MemoryError:
            raise AudioError(f"{name} needs more memory than there is.") from None
        except Exception as error:  # of whatever kind: a library may fail in many ways on a damaged file
            logger.debug("%s: %s", name, error, exc_info=True)
        _refuse_unread(name, pieces)
    file.seek(0)
    if part.form != UNKNOWN_FORM or _MAGIC.match(file.read(16)):
        raise AudioError(
            f"{name} is truncated or damaged: it begins like audio or video but cannot be opened; copy or download "
            "it again."
        )
    raise AudioError(f"{name} is not an audio or video file of a known format, whatever its name.")


class _ForwardSoundFile(soundfile.SoundFile):
    """soundfile seeks after every read of a seekable file, which tears MP3 apart at each block (its bit reservoir)."""

    def seekable(self) -> bool:
        return False


class _SoundFileDecoder:
    """WAV, FLAC, Ogg, Opus, MP3, AIFF … through libsndfile. Raises LibsndfileError for what it should leave alone."""

    tracks, track = 1, 0

    def __init__(self, name: str, pieces: Pieces, part: Part, track: int | None) -> None:
        self._name, self._pieces, self._part = name, pieces, part
        self._file = _ForwardSoundFile(pieces)
        try:
            # No length known, or one of MPEG audio that was guessed: it would stop there, which may come too early.
            guessed = part.form is not None and self._file.format in ("MP3", "MPEG")
            if guessed or not 0 < self._file.frames < 2**48:
                raise soundfile.LibsndfileError(1)
            self.sampling_rate, self.channels = self._file.samplerate, self._file.channels
            check_form(name, self.sampling_rate, self.channels)
            _check_track(name, self.tracks, track)
        except BaseException:
            self._file.close()
            raise
        self._length = self._file.frames / self.sampling_rate
        self.duration: float | None = self._length if part.declared is None else part.declared
        self.is_float = self._file.subtype in ("FLOAT", "DOUBLE")
        self.warnings: list[str] = []

    def blocks(self) -> Iterator[np.ndarray]:
        read = 0
        while True:
            # Not a sample more than there are: what follows may be a tag, which libsndfile would take for damage.
            wanted = min(BLOCK_SAMPLES // self.channels, self._file.frames - read)
            try:
                block = self._file.read(wanted, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, ValueError):
                raise _damaged(self._name, read / self.sampling_rate, self.duration) from None
            if not len(block):
                break
            read += len(block)
            yield block
        _refuse_unread(self._name, self._pieces)
        self.warnings += _check_end(self._name, self._part, read / self.sampling_rate, self._length)

    def close(self) -> None:
        self._file.close()


class _PyAVDecoder:
    """M4A/AAC, MP4, WebM, Matroska, MPEG-TS, AMR … through FFmpeg: one of the audio tracks."""

    def __init__(self, name: str, pieces: Pieces, part: Part, track: int | None) -> None:
        self._name, self._pieces, self._part = name, pieces, part
        self._container = av.open(
            pieces,
            mode="r",
            format=part.form if part.form in ("mp3", "flac") else None,  # of short streams it would have to guess
            options={"format_whitelist": _CONTAINERS},
            metadata_errors="replace",
        )
        self._due: float | None = None  # s, when the next frame should come
        self._gaps: list[tuple[float, float]] = []  # where, and how long
        self._undecodable = False  # whether a packet before the first sound was
        self._end = 0.0  # s, where the last packet of any track ends
        self.warnings: list[str] = []
        try:
            tracks = self._container.streams.audio
            if not tracks:
                raise AudioError(f"{name} holds no audio track.")
            self.tracks = len(tracks)
            _check_track(name, self.tracks, track)
            preferred = [index for index, one in enumerate(tracks) if one.disposition & Disposition.default]
            self.track = track if track is not None else preferred[0] if preferred else 0
            self._stream = tracks[self.track]
            declared = self._container.duration if self._container.format.name in _DECLARING else None
            self._length = declared / av.time_base if declared else None
            self.duration: float | None = self._length if part.declared is None else part.declared
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                if self._undecodable:
                    raise _damaged(name, 0.0, self.duration)
                _check_end(name, part, 0.0, self._length, 0.5, vouched=self._length is not None)
                raise AudioError(f"{name} is empty: its audio track holds no samples.")
            # Not the track's header: HE-AAC declares half its rate there.
            self.sampling_rate, self.channels = first.sample_rate, first.layout.nb_channels
            check_form(name, self.sampling_rate, self.channels)
        except BaseException:
            self._container.close()
            raise
        self._first = first
        self.is_float = self._stream.codec_context.name.startswith("pcm_f")

    def blocks(self) -> Iterator[np.ndarray]:
        read = 0
        for block in _conformed(self._name, self._runs(), self.sampling_rate, self.channels, self.warnings):
            read += len(block)
            yield block
        _refuse_unread(self._name, self._pieces)
        # A track may well end before its film does, so it is the end of the file's last packet that counts; and the
        # last picture of a video has no length.
        heard = read / self.sampling_rate
        reached, tolerance = (heard, TOLERANCE) if self._length is None else (max(heard, self._end), 0.5)
        self.warnings += _check_end(self._name, self._part, reached, self._length, tolerance, self._length is not None)

        if self._gaps:
            missing, first = sum(gap for _, gap in self._gaps), self._gaps[0][0]
            self.warnings.append(f"{missing:.1f} s are missing in the middle, the first of them at {first:.1f} s")
        unread = self._pieces.size - self._pieces.reached
        if self._part.form == UNKNOWN_FORM and unread > UNREAD_BYTES:
            self.warnings.append(f"the last {unread / 1e6:.1f} MB of the file were not read: they follow its audio")

    def close(self) -> None:
        self._container.close()

    def _runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rate and samples (S, C) of each frame, whatever form the frame has."""
        convert, form = None, None
        for frame in itertools.chain([self._first], self._frames):
            if (frame.format.name, frame.layout.name, frame.sample_rate) != form:
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                convert = av.AudioResampler(format="fltp", layout=frame.layout, rate=frame.sample_rate)
            assert convert is not None
            for part in convert.resample(frame):
                yield part.sample_rate, part.to_ndarray().T

    def _note_gap(self, frame: av.AudioFrame, seconds: float) -> None:
        """Remembers how much is missing before a frame, by the times that the container gives."""
        if frame.time is None:
            return
        if self._due is not None and frame.time - self._due > GAP_SECONDS:
            self._gaps.append((seconds, frame.time - self._due))
        self._due = frame.time + frame.samples / frame.sample_rate

    def _decode(self) -> Iterator[av.AudioFrame]:
        seconds = 0.0
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    start = float(packet.pts * packet.time_base)
                    self._end = max(self._end, start + float((packet.duration or 0) * packet.time_base))
                if packet.stream is not self._stream:
                    continue
                try:
                    frames = self._stream.decode(packet)
                except av.error.InvalidDataError:
                    if seconds:
                        raise
                    self._undecodable = True  # the recording begins in the middle of a frame
                    continue
                for frame in frames:
                    self._note_gap(frame, seconds)
                    seconds += frame.samples / frame.sample_rate
                    yield frame
        except (av.error.FFmpegError, ValueError):
            raise _damaged(self._name, seconds, self.duration) from None


class _Sequence:
    """Several recordings one after another in a file, as one: in the form of the first."""

    def __init__(self, name: str, file: IO[bytes], parts: list[Part], track: int | None) -> None:
        self._name, self._file, self._parts, self._wanted = name, file, parts, track
        self._decoder = first = _open_part(name, file, parts[0], track)
        self.sampling_rate, self.channels, self.is_float = first.sampling_rate, first.channels, first.is_float
        self.tracks, self.track = first.tracks, first.track
        self.duration: float | None = None  # each part declares its own
        self.warnings = [f"the file holds {len(parts)} recordings one after another: all of them were read"]

    def blocks(self) -> Iterator[np.ndarray]:
        return _conformed(self._name, self._runs(), self.sampling_rate, self.channels, self.warnings)

    def close(self) -> None:
        self._decoder.close()

    def _runs(self) -> Iterator[tuple[int, np.ndarray]]:
        for index, part in enumerate(self._parts):
            if index:
                self._decoder.close()
                self._decoder = _open_part(f"{self._name} (part {index + 1})", self._file, part, self._wanted)
            for block in self._decoder.blocks():
                yield self._decoder.sampling_rate, block
            self.warnings += self._decoder.warnings


class ArrayDecoder:
    """Arrays and tensors: (S,) or (C, S) of floats, int16 or int32."""

    tracks, track = 1, 0

    def __init__(self, array: Any, sampling_rate: int | None, track: int | None = None) -> None:
        if sampling_rate is None:
            raise AudioError("<array> has no sampling rate: give a pair (array, rate) with its rate in Hz.")
        try:
            samples = np.asarray(array)
        except Exception as error:
            raise AudioError(f"<array> cannot be read as an array of numbers: {error}") from None
        if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] > max(samples.shape[1], 1)):
            raise AudioError(
                f"<array> has shape {samples.shape}, where (samples,) or (channels, samples) is expected: "
                "pass one recording at a time, channels first."
            )
        self.is_float = samples.dtype.kind == "f"
        if samples.dtype in _INTEGER_SCALES:
            samples = samples / np.float32(_INTEGER_SCALES[samples.dtype])
        elif samples.dtype not in (np.float32, np.float64):
            raise AudioError(f"<array> holds {samples.dtype}, where float32, float64, int16 or int32 is expected.")
        self._samples = np.atleast_2d(samples).T
        self.sampling_rate, self.channels = int(sampling_rate), self._samples.shape[1]
        check_form("<array>", self.sampling_rate, self.channels)
        _check_track("<array>", self.tracks, track)
        self.duration: float | None = len(self._samples) / self.sampling_rate
        self.warnings: list[str] = []

    def blocks(self) -> Iterator[np.ndarray]:
        length = BLOCK_SAMPLES // self.channels
        for start in range(0, len(self._samples), length):
            yield self._samples[start : start + length].astype(np.float32)

    def close(self) -> None:
        pass


def check_form(name: str, sampling_rate: int, channels: int) -> None:
    """Raises AudioError where a recording has a rate or a number of channels that cannot be judged."""
    if not MIN_RATE <= sampling_rate <= MAX_RATE:
        raise AudioError(
            f"{name} is sampled at {sampling_rate} Hz, outside the {MIN_RATE} to {MAX_RATE} Hz that can be judged."
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name} has {channels} channels, more than the {MAX_CHANNELS} that can be judged: split it into files of "
            "fewer channels."
        )


def _check_track(name: str, tracks: int, track: int | None) -> None:
    if track is not None and not 0 <= track < tracks:
        there = f"{tracks} audio tracks, 0 to {tracks - 1}" if tracks > 1 else "one audio track, 0"
        raise AudioError(f"{name} has {there}: there is no track {track}.")


def _check_end(
    name: str,
    part: Part,
    seconds: float,
    length: float | None,
    tolerance: float = TOLERANCE,
    vouched: bool = False,
) -> list[str]:
    """
    Compares the `seconds` read with what the walk, the headers and the decoder's own `length` make one expect.
    `vouched`: the container declares that length, so a cut in it is judged by how much was heard.

    Returns:
        warnings, where there is more than the headers declare, or the end looks torn off.

    Raises:
        AudioError: where there is less.
    """
    expected = max((value for value in (part.declared, part.held, length) if value is not None), default=None)
    if expected is not None and seconds < expected - tolerance:
        raise AudioError(
            f"{name} is truncated: {seconds:.1f} of {expected:.1f} s could be read; copy or download it again."
        )
    if part.cut and part.declared is None and not vouched:
        raise AudioError(
            f"{name} is truncated or damaged: a part of its data is missing, {seconds:.1f} s could be read; copy or "
            "download it again."
        )
    warnings = list(part.notes)
    if part.declared is not None and seconds > part.declared + tolerance:
        warnings.append(f"the header declares {part.declared:.1f} s, but {seconds:.1f} s are there: all was read")
    return warnings


def _conformed(
    name: str, runs: Iterable[tuple[int, np.ndarray]], rate: int, channels: int, warnings: list[str]
) -> Iterator[np.ndarray]:
    """Blocks (S, C) that may change their rate and channels → all with the same, and a warning where they change."""
    form = (rate, channels)
    resample: Any = None
    samples, changed = 0, False
    for its_rate, block in runs:
        if (its_rate, block.shape[1]) != form:
            check_form(name, its_rate, block.shape[1])
            if not changed:
                warnings.append(
                    f"from {samples / rate:.1f} s on there are {block.shape[1]} channels at {its_rate} Hz, read as "
                    f"{channels} at {rate} Hz"
                )
            changed = True
            if resample is not None:
                yield resample.resample_chunk(np.zeros((0, channels), np.float32), last=True)
            form = (its_rate, block.shape[1])
            resample = None if its_rate == rate else soxr.ResampleStream(its_rate, rate, channels, dtype="float32")
        if block.shape[1] != channels:
            block = np.repeat(block.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)
        if resample is not None:
            block = resample.resample_chunk(np.ascontiguousarray(block))
        samples += len(block)
        yield block
    if resample is not None:
        yield resample.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def _refuse_unread(name: str, pieces: Pieces) -> None:
    if pieces.failure is not None:
        raise AudioError(f"{name} cannot be read to its end: {_reason(pieces.failure)}.")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "the file object fails"


def _damaged(name: str, seconds: float, declared: float | None) -> AudioError:
    extent = f"{seconds:.1f} of {declared:.1f} s" if declared else f"{seconds:.1f} s"
    return AudioError(f"{name} is truncated or damaged: {extent} could be read; copy or download it again.")
