"""
Decoding: an open file or an array → blocks (S, C) of float32 at its own rate. Used by `audio.py` alone.

libsndfile reads what it can, FFmpeg (through PyAV) the rest; the content of a file decides, not its name. Decoders
tend to end quietly where a file was cut off, so each tells how long its recording should have been.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from typing import IO, Any, Protocol

import av
import numpy as np
import soundfile

from .errors import AudioError

# Integer arrays as Python users have them, and what full scale is in them.
_INTEGER_SCALES = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
# Containers PyAV may open. Play lists are not among them: a file must never make us fetch another one.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,aiff,caf,amr,asf,avi"
# Those whose header declares how long they are; elsewhere FFmpeg guesses from the bit rate.
_DECLARING = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flac", "wav", "asf", "avi"}
# First bytes of the formats people have, to tell a broken file from one that is no audio at all.
_MAGIC = re.compile(rb"RIFF|RF64|fLaC|OggS|ID3|\xff[\xe2-\xff]|....ftyp|\x1aE\xdf\xa3|FORM|#!AMR|caff", re.DOTALL)


class Decoder(Protocol):
    """One way of decoding; `blocks` yields (S, C) float32 of any length at `sampling_rate`."""

    sampling_rate: int
    channels: int
    duration: float | None

    def blocks(self) -> Iterator[np.ndarray]: ...

    def missing(self, seconds_read: float) -> float | None:
        """Seconds the file should have, where that is more than what could be read."""

    def close(self) -> None: ...


def open_decoder(name: str, file: IO[bytes]) -> Decoder:
    """libsndfile where it can, FFmpeg otherwise; whatever the file is called."""
    if not file.seek(0, os.SEEK_END):
        raise AudioError(f"{name} is empty (zero bytes).")
    _refuse_cut_ogg(name, file)
    try:
        file.seek(0)
        return _SoundFileDecoder(name, file)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: soundfile asks for the format of a file called .raw
        pass
    file.seek(0)
    try:
        return _PyAVDecoder(name, file)
    except av.error.FFmpegError:
        file.seek(0)
        if _MAGIC.match(file.read(16)):
            raise AudioError(
                f"{name} is truncated or damaged: it begins like audio or video but cannot be opened; copy or "
                "download it again."
            ) from None
        raise AudioError(f"{name} is not an audio or video file of a known format, whatever its name.") from None


class _ForwardSoundFile(soundfile.SoundFile):
    """soundfile seeks after every read of a seekable file, which tears MP3 apart at each block (its bit reservoir)."""

    def seekable(self) -> bool:
        return False


class _SoundFileDecoder:
    """WAV, FLAC, Ogg, Opus, MP3, AIFF … through libsndfile. Raises LibsndfileError for what it should leave alone."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        guessing = _is_mp3_without_length(file)
        file.seek(0)
        self._file = _ForwardSoundFile(file)
        # No length known: libsndfile would stop at its guess, which may come too early.
        if guessing or not 0 < self._file.frames < 2**48:
            self._file.close()
            raise soundfile.LibsndfileError(1)
        self._name = name
        self.sampling_rate, self.channels = self._file.samplerate, self._file.channels
        self.duration: float | None = self._file.frames / self.sampling_rate * _cut_off(self._file.extra_info)

    def blocks(self) -> Iterator[np.ndarray]:
        read = 0
        while True:
            try:
                block = self._file.read(4 * self.sampling_rate, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                raise _damaged(self._name, read / self.sampling_rate, self.duration) from None
            if not len(block):
                return
            read += len(block)
            yield block

    def missing(self, seconds_read: float) -> float | None:
        # A tenth of a second: the declared lengths of lossy formats count a little more or less padding.
        return self.duration if self.duration and seconds_read < self.duration - 0.1 else None

    def close(self) -> None:
        self._file.close()


class _PyAVDecoder:
    """M4A/AAC, MP4, WebM, Matroska, AMR … through FFmpeg: the first audio track."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._container = av.open(file, mode="r", options={"format_whitelist": _CONTAINERS})
        self._end = 0.0  # s, where the last packet of any track ends
        try:
            if not self._container.streams.audio:
                raise AudioError(f"{name} holds no audio track.")
            declared = self._container.duration if self._container.format.name in _DECLARING else None
            self.duration: float | None = declared / av.time_base if declared else None
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise self._truncated_or_empty()
        except BaseException:
            self._container.close()
            raise
        self._first = first
        # Not the track's header: HE-AAC declares half its rate there.
        self.sampling_rate, self.channels = first.sample_rate, first.layout.nb_channels

    def blocks(self) -> Iterator[np.ndarray]:
        convert = av.AudioResampler(format="fltp", layout=self._first.layout, rate=self.sampling_rate)
        read = 0
        for frame in itertools.chain([self._first], self._frames, [None]):
            if frame is not None and (frame.sample_rate, frame.layout.nb_channels) != (
                self.sampling_rate,
                self.channels,
            ):
                raise AudioError(
                    f"{self._name} changes its sampling rate or channels after {read / self.sampling_rate:.1f} s: "
                    "convert it to WAV first."
                )
            for part in convert.resample(frame):
                read += part.samples
                yield part.to_ndarray().T

    def missing(self, seconds_read: float) -> float | None:
        # Half a second: the last picture of a video has no length. A track may well end before its film does,
        # so it is the end of the file's last packet that counts.
        return self.duration if self.duration and max(self._end, seconds_read) < self.duration - 0.5 else None

    def close(self) -> None:
        self._container.close()

    def _decode(self) -> Iterator[av.AudioFrame]:
        track = self._container.streams.audio[0]
        seconds = 0.0
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    start = float(packet.pts * packet.time_base)
                    self._end = max(self._end, start + float((packet.duration or 0) * packet.time_base))
                if packet.stream is track:
                    for frame in track.decode(packet):
                        yield frame
                        seconds += frame.samples / frame.sample_rate
        except av.error.FFmpegError:
            raise _damaged(self._name, seconds, self.duration) from None

    def _truncated_or_empty(self) -> AudioError:
        if self.missing(0):
            return _damaged(self._name, 0, self.duration)
        return AudioError(f"{self._name} is empty: its audio track holds no samples.")


class ArrayDecoder:
    """Arrays and tensors: (S,) or (C, S) of floats, int16 or int32."""

    def __init__(self, array: Any, sampling_rate: int | None) -> None:
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
        if samples.dtype in _INTEGER_SCALES:
            samples = samples / np.float32(_INTEGER_SCALES[samples.dtype])
        elif samples.dtype not in (np.float32, np.float64):
            raise AudioError(f"<array> holds {samples.dtype}, where float32, float64, int16 or int32 is expected.")
        self._samples = np.atleast_2d(samples).T
        self.sampling_rate, self.channels = int(sampling_rate), self._samples.shape[1]
        self.duration: float | None = len(self._samples) / self.sampling_rate if self.sampling_rate > 0 else None

    def blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._samples), self.sampling_rate):
            yield self._samples[start : start + self.sampling_rate].astype(np.float32)

    def missing(self, seconds_read: float) -> float | None:
        return None

    def close(self) -> None:
        pass


def _damaged(name: str, seconds: float, declared: float | None) -> AudioError:
    extent = f"{seconds:.1f} of {declared:.1f} s" if declared else f"{seconds:.1f} s"
    return AudioError(f"{name} is truncated or damaged: {extent} could be read; copy or download it again.")


def _cut_off(libsndfile_log: str) -> float:
    """How many times longer the audio should be by its header than the file is (1 for a whole file)."""
    for line in libsndfile_log.splitlines():
        match = re.match(r"\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", line)
        # Recorders that write into a pipe leave the largest number there is: no length declared.
        if match and int(match[1]) < 0x7FFFF000:
            return max(int(match[1]) / max(int(match[2]), 1), 1.0)
    return 1.0


def _is_mp3_without_length(file: IO[bytes]) -> bool:
    """Whether this is an MP3 stream with no Xing, Info or VBRI header, whose length could only be guessed."""
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":
        file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
    else:
        file.seek(0)
    frame = file.read(4096)
    is_mp3 = len(frame) > 2 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2  # MPEG sync, layer III
    return is_mp3 and not re.search(rb"Xing|Info|VBRI", frame[:256])


def _refuse_cut_ogg(name: str, file: IO[bytes]) -> None:
    """An Ogg file declares no length, but a page that runs past the end of the file shows that it was cut."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 66_000))  # a page has at most 65,307 bytes
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(page) < 27 + page[26] + sum(lengths):
        raise AudioError(f"{name} is truncated: it ends in the middle of an Ogg page; copy or download it again.")
