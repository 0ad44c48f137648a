"""One recording on its way from the decoder to its verdict."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..audio import AudioStream, find_audio
from ..errors import AudioError
from .results import WindowScore

logger = logging.getLogger(__name__)

UNRELIABLE_BELOW = 2.0  # s of sound
ALIKE, SAME_SCENE = 0.99, 0.5
"""
Correlations of channels. From the first on they are one signal, and their mix is, too. Below the second they are
separate: a call with a speaker on each channel.
"""
CANCELLING = "the channels nearly cancel in the mix (opposite phase): judge each channel"
DIFFERING = "the channels differ, and their mix was judged: judge each channel"


@dataclass
class Recording:
    """A recording, or one track or channel of it: what was decoded and judged of it so far."""

    name: str
    channel: int | None = None
    track: int | None = None
    windows: list[WindowScore] = field(default_factory=list)
    log_odds: list[float] = field(default_factory=list)  # of the windows that hold sound
    frames: list[tuple[int, list[float]]] = field(default_factory=list)  # of them, the first frame and all scores
    sound: float = 0.0  # s
    has_speech: bool = False
    duration: float | None = None
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    def silent(self) -> str:
        where = "" if self.channel is None else f" in channel {self.channel}"
        return f"{self.name} is silent{where}: no window peaks above -60 dBFS."

    def conclude(self, audio: AudioStream, row: int, *, mixed: bool, of_several: bool) -> None:
        """
        Takes over what is known once all has been read.

        Args:
            row: of the blocks that were read, the one that holds this recording.
            mixed: whether it is the mix of all channels.
            of_several: whether there are more audio tracks, and nobody chose this one.
        """
        assert audio.summary is not None
        summary = audio.summary
        self.duration, self.sound = summary.duration, float(summary.sound[row])
        if summary.silent[row]:
            self.error = self.silent()
        self.warnings += summary.warnings
        if of_several:
            self.warnings.append(
                f"{audio.info.tracks} audio tracks: only track {audio.info.track} was judged, choose another one or "
                "all"
            )
        if mixed and summary.cancelling:
            self.warnings.append(CANCELLING)
        elif mixed and summary.likeness < ALIKE:
            self.warnings.append(DIFFERING)
        clipped = summary.clipped[row]
        if self.sound < UNRELIABLE_BELOW:
            self.warnings.append(f"unreliable: only {_rounded_down(self.sound)} s of sound")
        if self.sound < summary.duration / 2 and self.channel is None:  # on a channel, others speak meanwhile
            self.warnings.append(f"mostly silence: {self.sound:.1f} of {summary.duration:.1f} s hold sound")
        if audio.info.sampling_rate <= 8000:
            self.warnings.append("8 kHz recording: nothing above 4 kHz to judge by")
        if clipped > 0.001:
            self.warnings.append(f"clipping: {100 * clipped:.1f} % of the samples are at full scale")


def _rounded_down(seconds: float) -> str:
    """At most two decimals: what is too short by a hair does not read as long enough."""
    return f"{math.floor(100 * seconds + 1e-6) / 100:g}"


def list_recordings(sources: Any) -> Iterator[Any]:
    """
    One source or an iterable of them → the recordings, folders replaced by the audio files in them, sorted.

    A folder without audio files stays in the list, to be an error of its own, and so does what cannot be read below
    it; hidden files are passed over.
    """
    for source in [sources] if _is_one_recording(sources) else sources:
        if isinstance(source, Unreadable):  # of a list that was made here before
            yield source
        elif isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            found = find_audio(source)
            yield from (Unreadable(path, problem) if problem else path for path, problem, _ in found)
            if not found:
                yield Unreadable(os.fspath(source), f"{os.fspath(source)} is a folder without audio files.")
        else:
            yield source


class Unreadable(str):
    """A path in a folder that was searched, and the `problem` that makes it an error instead of a recording."""

    problem: str

    def __new__(cls, path: str, problem: str) -> Unreadable:
        unreadable = super().__new__(cls, path)
        unreadable.problem = problem
        return unreadable


def _is_one_recording(sources: Any) -> bool:
    if isinstance(sources, tuple) and len(sources) == 2:
        return isinstance(sources[1], (int, float, np.integer))
    return isinstance(sources, (str, os.PathLike, bytes, bytearray, memoryview, dict, np.ndarray, Tensor)) or hasattr(
        sources, "read"
    )


def why_unread(name: str, error: Exception) -> str:
    """A sentence of ours, whatever went wrong while a recording was read."""
    if isinstance(error, AudioError):
        return str(error)
    logger.debug("%s could not be read", name, exc_info=error)
    if isinstance(error, MemoryError):
        return f"{name} could not be read: it needs more memory than there is."
    if isinstance(error, OSError) and error.strerror:
        return f"{name} could not be read: {error.strerror}."
    return f"{name} could not be read: it is damaged, or of an unusual form; convert it to WAV, or download it again."
