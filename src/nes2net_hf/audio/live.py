"""Sound that arrives while it is judged: standard input, headerless or in a container, and a microphone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import IO, Any

import av
import numpy as np
from av.error import FFmpegError

from ..errors import AudioError
from .decoders import check_form

_CHUNK = 4096  # bytes, at most, of headerless sound: 0.13 s at 16 kHz
_AHEAD = 256  # chunks that a reading thread may be ahead
# FFmpeg would otherwise read seconds of sound before the first of it is decoded.
_AT_ONCE = {"probesize": "4096", "analyzeduration": "0"}


class LiveSource:
    """
    Chunks of sound as they arrive, read in a thread. Iterating ends with the sound.

    Attributes:
        name: of the recording.
        sampling_rate: Hz.
        channels: C.
        lost: seconds of a microphone's sound that were not fetched in time.
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
        while (item := self._arrived.get()) is not None:
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
        self._file, self.sampling_rate, self.name = file, sampling_rate, name

    def _chunks(self) -> Iterator[np.ndarray]:
        rest = b""
        while data := _arrived(self._file, _CHUNK):
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
            self._container = av.open(_Forward(file), mode="r", options=_AT_ONCE, metadata_errors="replace")
            [stream, *_] = self._container.streams.audio
            self._frames = self._container.decode(stream)
            self._first = next(self._frames)
        except (FFmpegError, ValueError, StopIteration) as error:
            raise AudioError(
                f"{name} has no sound that can be decoded from front to back: send WAV, for example with "
                "ffmpeg -i … -f wav -; or name the rate of headerless 16-bit PCM."
            ) from error
        self.sampling_rate, self.channels = self._first.sample_rate, self._first.layout.nb_channels
        check_form(name, self.sampling_rate, self.channels)
        self._resampler = av.AudioResampler("fltp", self._first.layout, self.sampling_rate)

    def _chunks(self) -> Iterator[np.ndarray]:
        yield from map(_samples, self._resampler.resample(self._first))
        for frame in self._frames:
            yield from map(_samples, self._resampler.resample(frame))


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

        try:
            found = sounddevice.query_devices(device, "input")
            self.sampling_rate, self.name = int(found["default_samplerate"]), str(found["name"])
            self._stream = sounddevice.InputStream(
                device=device, channels=1, dtype="float32", samplerate=self.sampling_rate, callback=self._hear
            )
        except (ValueError, sounddevice.PortAudioError) as error:
            known = [one["name"] for one in sounddevice.query_devices() if one["max_input_channels"]]
            raise AudioError(
                f"no microphone {'' if device is None else f'{device} '}can be opened ({error}); "
                f"this machine has {', '.join(known) or 'none'}."
            ) from None

    def _start(self) -> None:
        self._stream.start()

    def _hear(self, block: np.ndarray, frames: int, times: Any, status: Any) -> None:
        try:
            self._arrived.put_nowait(block.T.copy())
        except queue.Full:
            self.lost += frames / self.sampling_rate


class _Forward:
    """The part of a file that a decoder reads if it cannot seek, without waiting for a full buffer."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return _arrived(self._file, size)


def _arrived(file: Any, size: int) -> bytes:
    """Returns what has arrived, and waits for at least one byte; empty at the end."""
    return file.read1(size) if hasattr(file, "read1") else file.read(size)


def _samples(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray()
