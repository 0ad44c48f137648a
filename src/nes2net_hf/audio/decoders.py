"""
Decode an open file or an array into float32 blocks (S, C) at its own rate. Only `reading.py` uses this module.

`containers` finds the recordings in a file. libsndfile decodes the files that it can read to the end; FFmpeg (through
PyAV) decodes the rest. The format is detected from the content, not from the name. Most decoders stop silently where
a file was cut off, so the length is compared with the headers: less audio is an error, more audio is a warning.
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
GAP_SECONDS = 0.5  # between two frames; containers round their times, so shorter gaps mean nothing
UNREAD_BYTES = 1 << 16  # at the end of a file; fewer are padding or a tag
BLOCK_SAMPLES = 1 << 18  # over all channels, so that no header can make a block large

# Full scale of the integer arrays that are accepted.
_INTEGER_SCALES = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
# Containers that FFmpeg may open. Playlists and other formats that refer to files or addresses are excluded: a file
# must never make us fetch another one.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,aiff,caf,amr,asf,avi,"
    "mpegts,mpeg,flv,live_flv,kux,mxf,nut,gxf,wtv,ty,rm,ivr,nsv,ac3,eac3,dts,dtshd,truehd,mlp,loas,"
    "w64,au,voc,nistsphere,sox,ircam,iff,paf,epaf,pvf,sds,avr,wve,wv,ape,tta,tak,mpc,mpc8,shn,dsf,oma,aea,"
    "qcp,dss,xwma,mmf,act,ilbc,g729,sln,caf,rso"
)
# Containers whose header declares a duration. For the others FFmpeg guesses it from the bit rate.
_DECLARING = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "wv", "ape", "tta", "tak", "voc"}
# First bytes of common formats, to tell a damaged audio file from a file that is not audio.
_MAGIC = re.compile(
    rb"RIFF|RF64|fLaC|OggS|ID3|\xff[\xe2-\xff]|....ftyp|\x1aE\xdf\xa3|FORM|#!AMR|caff|FLV|\x00\x00\x01\xba|wvpk|\.snd",
    re.DOTALL,
)


class Decoder(Protocol):
    """
    The interface of the decoders.

    Attributes:
        codec: as FFmpeg names it, such as mp3, pcm_s16 or amr_nb; empty for arrays.
        sampling_rate: Hz, the same in all blocks.
        channels: C, the same in all blocks.
        duration: seconds declared by the headers, or None.
        tracks: number of audio tracks.
        track: the track that is decoded, counted from 0.
        is_float: whether the samples are floats, which may exceed full scale without clipping.
        warnings: messages for the user; complete once `blocks` has ended.
    """

    codec: str
    sampling_rate: int
    channels: int
    duration: float | None
    tracks: int
    track: int
    is_float: bool
    warnings: list[str]

    def blocks(self) -> Iterator[np.ndarray]:
        """
        Yields float32 blocks (S, C) of any length.

        Raises:
            AudioError: the recording is damaged, or shorter than its headers declare.
        """

    def close(self) -> None: ...


def open_decoder(name: str, file: IO[bytes], track: int | None = None) -> Decoder:
    """
    Returns a decoder for an open, seekable file.

    Args:
        name: the name used in messages.
        track: the audio track, counted from 0; the default track if None.

    Raises:
        AudioError: the file is empty, not audio, damaged, or has no such track.
    """
    try:
        if not file.seek(0, os.SEEK_END):
            raise AudioError(f"{name} is empty (zero bytes).")
        parts = parts_of(file)
    except (struct.error, ArithmeticError):  # impossible values in a header
        parts = [Part([(0, file.seek(0, os.SEEK_END))], form=UNKNOWN_FORM)]
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"{name} cannot be read: {_reason(error)}.") from None
    if len(parts) > 1:
        return _Sequence(name, file, parts, track)
    return _open_part(name, file, parts[0], track)


def _open_part(name: str, file: IO[bytes], part: Part, track: int | None) -> Decoder:
    # libsndfile trusts headers, so it is tried first only where `containers` has checked them.
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
        except Exception as error:  # libraries raise all kinds of errors on damaged files
            logger.debug("%s: %s", name, error, exc_info=True)
        _refuse_unread(name, pieces)
    file.seek(0)
    if part.form != UNKNOWN_FORM or _MAGIC.match(file.read(16)):
        raise AudioError(
            f"{name} is truncated or damaged: it starts like audio or video but cannot be opened; copy or download "
            "it again."
        )
    raise AudioError(f"{name} is not an audio or video file in a known format, even if its name says so.")


class _ForwardSoundFile(soundfile.SoundFile):
    """
    A file that claims not to be seekable. soundfile seeks after every read of a seekable file, which loses the bit
    reservoir of MP3 and breaks the sound at each block.
    """

    def seekable(self) -> bool:
        return False


class _SoundFileDecoder:
    """Decodes WAV, FLAC, Ogg, Opus, MP3, AIFF … with libsndfile. Raises LibsndfileError if FFmpeg should do it."""

    tracks, track = 1, 0

    def __init__(self, name: str, pieces: Pieces, part: Part, track: int | None) -> None:
        self._name, self._pieces, self._part = name, pieces, part
        self._file = _ForwardSoundFile(pieces)
        try:
            # With an unknown length, or a guessed one (MPEG audio), libsndfile may stop too early.
            guessed = part.form is not None and self._file.format in ("MP3", "MPEG")
            if guessed or not 0 < self._file.frames < 2**48:
                raise soundfile.LibsndfileError(1)
            self.sampling_rate, self.channels = self._file.samplerate, self._file.channels
            self.codec = _codec(self._file.format, self._file.subtype)
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
            # Never read past the last sample: libsndfile would take a tag that follows for damage.
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
    """Decodes one audio track of M4A/AAC, MP4, WebM, Matroska, MPEG-TS, AMR … with FFmpeg."""

    def __init__(self, name: str, pieces: Pieces, part: Part, track: int | None) -> None:
        self._name, self._pieces, self._part = name, pieces, part
        self._container = av.open(
            pieces,
            mode="r",
            format=part.form if part.form in ("mp3", "flac") else None,  # FFmpeg guesses wrong on short streams
            options={"format_whitelist": CONTAINERS},
            metadata_errors="replace",
        )
        self._due: float | None = None  # s, expected time of the next frame
        self._gaps: list[tuple[float, float]] = []  # position and length of each gap, s
        self._undecodable = False  # whether a packet before the first sound could not be decoded
        self._end = 0.0  # s, end of the last packet of any track
        self.warnings: list[str] = []
        try:
            tracks = self._container.streams.audio
            if not tracks:
                raise AudioError(f"{name} has no audio track.")
            self.tracks = len(tracks)
            _check_track(name, self.tracks, track)
            preferred = [index for index, one in enumerate(tracks) if one.disposition & Disposition.default]
            self.track = track if track is not None else preferred[0] if preferred else 0
            self._stream = tracks[self.track]
            self.codec = re.sub(r"(?<=\d)[lb]e$", "", self._stream.codec_context.codec.canonical_name)
            declared = self._container.duration if self._container.format.name in _DECLARING else None
            self._length = declared / av.time_base if declared else None
            self.duration: float | None = self._length if part.declared is None else part.declared
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                if self._undecodable:
                    raise _damaged(name, 0.0, self.duration)
                _check_end(name, part, 0.0, self._length, 0.5, vouched=self._length is not None)
                raise AudioError(f"{name} is empty: its audio track has no samples.")
            # Taken from the first frame, because the header of an HE-AAC track declares half its rate.
            self.sampling_rate, self.channels = first.sample_rate, first.layout.nb_channels
            check_form(name, self.sampling_rate, self.channels)
        except BaseException:
            self._container.close()
            raise
        self._first = first
        self.is_float = self.codec.startswith("pcm_f")

    def blocks(self) -> Iterator[np.ndarray]:
        read = 0
        for block in _conformed(self._name, self._runs(), self.sampling_rate, self.channels, self.warnings):
            read += len(block)
            yield block
        _refuse_unread(self._name, self._pieces)
        # A track may end before its film, so the end of the last packet in the file counts. The last picture of a
        # video has no duration, hence the larger tolerance.
        heard = read / self.sampling_rate
        reached, tolerance = (heard, TOLERANCE) if self._length is None else (max(heard, self._end), 0.5)
        self.warnings += _check_end(self._name, self._part, reached, self._length, tolerance, self._length is not None)

        if self._gaps:
            missing, first = sum(gap for _, gap in self._gaps), self._gaps[0][0]
            self.warnings.append(f"{missing:.1f} s are missing in the middle; the first gap is at {first:.1f} s")
        unread = self._pieces.size - self._pieces.reached
        if self._part.form == UNKNOWN_FORM and unread > UNREAD_BYTES:
            self.warnings.append(f"the last {unread / 1e6:.1f} MB of the file were not read: they are after its audio")

    def close(self) -> None:
        self._container.close()

    def _runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the rate and the float samples (S, C) of each frame."""
        convert, form = None, None
        for frame in itertools.chain([self._first], self._frames):
            if (frame.format.name, frame.layout.name, frame.sample_rate) != form:
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                convert = av.AudioResampler(format="fltp", layout=frame.layout, rate=frame.sample_rate)
            assert convert is not None
            for part in convert.resample(frame):
                yield part.sample_rate, part.to_ndarray().T

    def _note_gap(self, frame: av.AudioFrame, seconds: float) -> None:
        """Records a gap before a frame, measured by the container's times."""
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
                    self._undecodable = True  # the recording starts in the middle of a frame
                    continue
                for frame in frames:
                    self._note_gap(frame, seconds)
                    seconds += frame.samples / frame.sample_rate
                    yield frame
        except (av.error.FFmpegError, ValueError):
            raise _damaged(self._name, seconds, self.duration) from None


class _Sequence:
    """Decodes several consecutive recordings in one file as one, at the rate and channels of the first."""

    def __init__(self, name: str, file: IO[bytes], parts: list[Part], track: int | None) -> None:
        self._name, self._file, self._parts, self._wanted = name, file, parts, track
        self._decoder = first = _open_part(name, file, parts[0], track)
        self.sampling_rate, self.channels, self.is_float = first.sampling_rate, first.channels, first.is_float
        self.codec = first.codec
        self.tracks, self.track = first.tracks, first.track
        self.duration: float | None = None  # each part declares its own
        self.warnings = [f"the file has {len(parts)} recordings, one after another: all were read"]

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
    """Splits an array or tensor (S,) or (C, S) of floats, int16 or int32 into blocks."""

    tracks, track, codec = 1, 0, ""

    def __init__(self, array: Any, sampling_rate: int | None, track: int | None = None) -> None:
        if sampling_rate is None:
            raise AudioError("<array> has no sampling rate: pass a pair (array, rate) with the rate in Hz.")
        samples = as_floats(array)
        if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] > max(samples.shape[1], 1)):
            raise AudioError(
                f"<array> has shape {samples.shape}, but (samples,) or (channels, samples) is expected: "
                "pass one recording at a time, channels first."
            )
        self.is_float = np.asarray(array).dtype not in _INTEGER_SCALES
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
    """Raises AudioError if a recording's sampling rate or number of channels is out of range."""
    if not MIN_RATE <= sampling_rate <= MAX_RATE:
        raise AudioError(
            f"{name} is sampled at {sampling_rate} Hz, outside the supported {MIN_RATE} to {MAX_RATE} Hz: resample it."
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name} has {channels} channels, but 1 to {MAX_CHANNELS} are supported: split it into files with fewer "
            "channels."
        )


def as_floats(array: Any) -> np.ndarray:
    """
    Returns an array or tensor of floats, int16 or int32 as floats; full scale is 1.

    Raises:
        AudioError: it holds something else.
    """
    try:
        samples = np.asarray(array)
    except Exception as error:
        raise AudioError(f"<array> cannot be read as an array of numbers: {error}") from None
    if samples.dtype in _INTEGER_SCALES:
        return samples / np.float32(_INTEGER_SCALES[samples.dtype])
    if samples.dtype not in (np.float32, np.float64):
        raise AudioError(f"<array> is {samples.dtype}: convert it to float32, float64, int16 or int32.")
    return samples


def _codec(form: str, subtype: str) -> str:
    """Returns FFmpeg's name of a codec as libsndfile calls it, without the byte order of PCM."""
    if form == "FLAC":
        return "flac"
    named = {"MPEG_LAYER_III": "mp3", "ULAW": "pcm_mulaw", "ALAW": "pcm_alaw", "FLOAT": "pcm_f32", "DOUBLE": "pcm_f64"}
    return named.get(subtype) or re.sub(r"^pcm_(s?)(?=\d)", "pcm_s", subtype.lower())


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
    Compares the `seconds` read with the length in `part`, in the headers and in the decoder (`length`).
    `vouched`: the container declares `length`, so a cut counts only if less was read.

    Returns:
        Warnings if there is more audio than declared, or the end looks cut off.

    Raises:
        AudioError: there is less audio than declared.
    """
    expected = max((value for value in (part.declared, part.held, length) if value is not None), default=None)
    if expected is not None and seconds < expected - tolerance:
        raise AudioError(
            f"{name} is truncated: only {seconds:.1f} of {expected:.1f} s could be read; copy or download it again."
        )
    if part.cut and part.declared is None and not vouched:
        raise AudioError(
            f"{name} is truncated or damaged: part of its data is missing and only {seconds:.1f} s could be read; "
            "copy or download it again."
        )
    warnings = list(part.notes)
    if part.declared is not None and seconds > part.declared + tolerance:
        warnings.append(f"the header declares {part.declared:.1f} s, but the file has {seconds:.1f} s: all was read")
    return warnings


def _conformed(
    name: str, runs: Iterable[tuple[int, np.ndarray]], rate: int, channels: int, warnings: list[str]
) -> Iterator[np.ndarray]:
    """Converts blocks (S, C) to one rate and number of channels; adds a warning at the first change."""
    form = (rate, channels)
    resample: Any = None
    samples, changed = 0, False
    for its_rate, block in runs:
        if (its_rate, block.shape[1]) != form:
            check_form(name, its_rate, block.shape[1])
            if not changed:
                warnings.append(
                    f"the audio changes at {samples / rate:.1f} s to {block.shape[1]} channels at {its_rate} Hz; it "
                    f"was read as {channels} at {rate} Hz"
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
    return AudioError(f"{name} is truncated or damaged: only {extent} could be read; copy or download it again.")
