"""Sound that arrives while it is judged: standard input, headerless or in a container, and a microphone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import IO, Any

import av
import numpy as np
from av.error import FFmpegError

from ..errors import AudioError
from .decoders import CONTAINERS, check_form

_CHUNK = 4096  # bytes, at most, of headerless sound: 0.13 s at 16 kHz
_AHEAD = 4_096  # chunks that a reading thread may be ahead: more than half a minute
# FFmpeg would otherwise read seconds of sound before the first of it is decoded.
_AT_ONCE = {"probesize": "4096", "analyzeduration": "0"}


class LiveSource:
    """
    Chunks of sound as they arrive, read in a thread. Iterating ends with the sound.

    Attributes:
        name: of the recording.
        sampling_rate: Hz.
        channels: C.
        lost: seconds of sound that were damaged, or of a microphone's not fetched in time.
    """

    name: str
    sampling_rate: int
    channels: int
    lost = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        """
        Yields everything that has arrived since the last time, (C, S); waits for at least one sample.

        Raises:
            AudioError: the sound cannot be decoded any further.
        """
        self._arrived: queue.Queue[np.ndarray | BaseException | None] = queue.Queue(_AHEAD)
        self._start()
        while (item := self._next()) is not None:
            chunks = []
            while isinstance(item, np.ndarray):
                chunks.append(item)
                try:
                    item = self._arrived.get_nowait()
                except queue.Empty:
                    break
            if chunks:
                yield np.concatenate(chunks, axis=1)
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return

    def close(self) -> None:
        """Stops hearing."""

    def _next(self) -> np.ndarray | BaseException | None:
        while True:
            try:
                return self._arrived.get(timeout=0.5)  # without a timeout, Windows could not interrupt it
            except queue.Empty:
                continue

    def _start(self) -> None:
        threading.Thread(target=self._read, name="listening", daemon=True).start()

    def _read(self) -> None:
        try:
            for chunk in self._chunks():
                self._arrived.put(chunk)
            self._arrived.put(None)
        except FFmpegError as error:
            self._arrived.put(AudioError(f"{self.name} is damaged: {error.strerror or error}."))
        except BaseException as error:
            self._arrived.put(error)

    def _chunks(self) -> Iterator[np.ndarray]:
        raise NotImplementedError


class PcmSource(LiveSource):
    """Headerless 16-bit PCM, little-endian, of one channel."""

    channels = 1

    def __init__(self, file: IO[bytes], sampling_rate: int, name: str = "-") -> None:
        check_form(name, sampling_rate, 1)
        self._file, self.sampling_rate, self.name = _unbuffered(file), sampling_rate, name

    def _chunks(self) -> Iterator[np.ndarray]:
        rest = b""
        while data := self._file.read(_CHUNK):
            data = rest + data
            whole = len(data) // 2 * 2
            rest = data[whole:]
            yield np.frombuffer(data[:whole], "<i2")[None]


class ContainerSource(LiveSource):
    """
    Any container that can be read from front to back, such as WAV, Ogg, FLAC, MP3, Matroska and MPEG-TS.

    Raises:
        AudioError: there is no sound in it that can be decoded.
    """

    def __init__(self, file: IO[bytes], name: str = "-") -> None:
        self.name = name
        try:
            self._container = av.open(
                _Forward(file),
                mode="r",
                options=_AT_ONCE | {"format_whitelist": CONTAINERS},  # a list of files could name any
                metadata_errors="replace",
            )
            [self._stream, *_] = self._container.streams.audio
            self._frames = self._decoded()
            self._first = next(self._frames)
        except (FFmpegError, ValueError, StopIteration) as error:
            raise AudioError(
                f"{name} has no sound that can be decoded from front to back: send WAV, for example with "
                "ffmpeg -i … -f wav -; or name the rate of headerless 16-bit PCM."
            ) from error
        self.sampling_rate, self.channels = self._first.sample_rate, self._first.layout.nb_channels
        check_form(name, self.sampling_rate, self.channels)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yields frames; damaged packets are left out, and counted as lost."""
        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except FFmpegError:
                self.lost += float((packet.duration or 0) * (packet.time_base or 0))

    def _chunks(self) -> Iterator[np.ndarray]:
        layout = self._first.layout
        resampler = av.AudioResampler("fltp", layout, self.sampling_rate)
        form = None
        for frame in chain([self._first], self._frames):
            its = frame.format.name, frame.layout.name, frame.sample_rate
            if form is not None and its != form:  # as after a cut in a broadcast
                resampler = av.AudioResampler("fltp", layout, self.sampling_rate)
            form = its
            yield from (one.to_ndarray() for one in resampler.resample(frame))


class MicrophoneSource(LiveSource):
    """
    A microphone, through PortAudio (the package sounddevice).

    Args:
        device: part of its name, or its number; None for the system's default.

    Raises:
        AudioError: there is no such microphone.
    """

    channels = 1

    def __init__(self, device: str | int | None = None) -> None:
        import sounddevice

        self._failure: type[Exception] = sounddevice.PortAudioError
        try:
            found = sounddevice.query_devices(device, "input")
            self.sampling_rate, self.name = int(found["default_samplerate"]), str(found["name"])
            self._stream = sounddevice.InputStream(
                device=device,
                channels=1,
                dtype="float32",
                samplerate=self.sampling_rate,
                callback=self._hear,
                finished_callback=self._end,
            )
        except (ValueError, self._failure) as error:
            known = [one["name"] for one in sounddevice.query_devices() if one["max_input_channels"]]
            raise AudioError(
                f"no microphone {'' if device is None else f'{device} '}can be opened ({error}); "
                f"this machine has {', '.join(known) or 'none'}."
            ) from None

    def _start(self) -> None:
        try:
            self._stream.start()
        except self._failure as error:
            raise AudioError(f"the microphone {self.name} cannot be started: {error}.") from None

    def close(self) -> None:
        self._stream.close()

    def _hear(self, block: np.ndarray, frames: int, times: Any, status: Any) -> None:
        lost = frames if status.input_overflow else 0
        try:
            self._arrived.put_nowait(block.T.copy())
        except queue.Full:
            lost += frames
        self.lost += lost / self.sampling_rate

    def _end(self) -> None:
        with suppress(queue.Full):  # also if the microphone was unplugged
            self._arrived.put_nowait(None)


class _Forward:
    """The part of a file that a decoder reads if it cannot seek, without waiting for a full buffer."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = _unbuffered(file)

    def read(self, size: int) -> bytes:
        return self._file.read(size) or b""


def _unbuffered(file: IO[bytes]) -> Any:
    """
    Returns a file whose `read` returns what has arrived, and waits for at least one byte. The buffer of standard input
    would be locked by a thread that waits there, and Python could not end.
    """
    try:
        return open(file.fileno(), "rb", buffering=0, closefd=False)
    except (OSError, AttributeError):
        return file
