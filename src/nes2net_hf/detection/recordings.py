"""A recording while it is judged, from the decoder to its verdict."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import AudioStream, find_audio
from ..errors import AudioError
from .results import WindowScore

logger = logging.getLogger(__name__)

UNRELIABLE_BELOW = 2.0  # s of sound
ALIKE, SAME_SCENE = 0.99, 0.5
"""
Correlations of channels. At or above the first, they are one signal, and so is their mix. Below the second, they are
separate, as in a call with one speaker on each channel.
"""
CANCELLING = "the channels nearly cancel in the mix (opposite phase): judge each channel"
DIFFERING = "the channels differ, and their mix was judged: judge each channel"


@dataclass
class Recording:
    """A recording, or one of its tracks, channels or speakers, with what was decoded and judged so far."""

    name: str
    channel: int | None = None
    track: int | None = None
    speaker: str | None = None
    windows: list[WindowScore] = field(default_factory=list)
    log_odds: list[float] = field(default_factory=list)  # of the windows with sound
    kinds: list[list[float]] = field(default_factory=list)  # of the same, logits of the kinds of spoof
    frames: list[tuple[int, list[float]]] = field(default_factory=list)  # of these, first frame and scores
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)  # (D,) of the judged windows, if known
    cues: list[dict[str, float]] = field(default_factory=list)  # of the judged windows
    sound: float = 0.0  # s
    spoken: float | None = None  # s, of a speaker's turns
    has_speech: bool = False
    duration: float | None = None
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    def heard(self) -> tuple[NDArray[np.float32] | None, dict[str, float]]:
        """Returns the mean embedding (D,) and cues of the judged windows, with the whole duration, or a speaker's."""
        count = len(self.cues)
        means = {name: sum(one[name] for one in self.cues) / count for name in self.cues[0]}
        means["duration"] = (self.duration if self.spoken is None else self.spoken) or 0.0
        return np.mean(self.embeddings, axis=0) if self.embeddings else None, means

    def silent(self) -> str:
        where = "" if self.channel is None else f" in channel {self.channel}"
        where += "" if self.speaker is None else f" where only {self.speaker} speaks"
        return f"{self.name} is silent{where}: no window peaks above -60 dBFS."

    def conclude(
        self, audio: AudioStream, row: int, *, mixed: bool, of_several: bool, heard: float | None = None
    ) -> None:
        """
        Fills in duration, sound, warnings and error once everything was read.

        Args:
            row: the row of the blocks that holds this recording.
            mixed: whether it is the mix of all channels.
            of_several: whether there are other audio tracks, and the user chose none.
            heard: seconds of sound of its speaker; None if all of it is judged.
        """
        assert audio.summary is not None
        summary = audio.summary
        self.duration, self.sound = summary.duration, float(summary.sound[row]) if heard is None else heard
        if summary.silent[row] or heard == 0:
            self.error = self.silent()
        self.warnings += summary.warnings
        if of_several:
            self.warnings.append(
                f"{audio.info.tracks} audio tracks: only track {audio.info.track} was judged; choose another track "
                "or all"
            )
        if mixed and summary.cancelling:
            self.warnings.append(CANCELLING)
        elif mixed and summary.likeness < ALIKE:
            self.warnings.append(DIFFERING)
        clipped = summary.clipped[row]
        if self.sound < UNRELIABLE_BELOW:
            self.warnings.append(f"unreliable: only {_rounded_down(self.sound)} s of sound")
        if self.sound < summary.duration / 2 and self.channel is None and heard is None:  # else, others speak, too
            self.warnings.append(f"mostly silence: {self.sound:.1f} of {summary.duration:.1f} s hold sound")
        if audio.info.sampling_rate <= 8000:
            self.warnings.append("8 kHz recording: it has no frequencies above 4 kHz to judge by")
        if clipped > 0.001:
            self.warnings.append(f"clipping: {100 * clipped:.1f} % of the samples are at full scale")


def _rounded_down(seconds: float) -> str:
    """Rounds down to two decimals, so that a time just below the limit does not look long enough."""
    return f"{math.floor(100 * seconds + 1e-6) / 100:g}"


def list_recordings(sources: Any) -> Iterator[Any]:
    """
    Yields the recordings of one source or an iterable of sources. Each folder is replaced by its audio files, sorted.

    A folder without audio files stays in the list and gets an error of its own. So does anything in a folder that
    cannot be read. Hidden files are ignored.
    """
    for source in [sources] if _is_one_recording(sources) else sources:
        if isinstance(source, Unreadable):  # from an earlier call of this function
            yield source
        elif isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            found = find_audio(source)
            yield from (Unreadable(path, problem) if problem else path for path, problem, _ in found)
            if not found:
                yield Unreadable(os.fspath(source), f"{os.fspath(source)} is a folder without audio files.")
        else:
            yield source


class Unreadable(str):
    """A path found in a folder, and the `problem` that makes it an error instead of a recording."""

    problem: str

    def __new__(cls, path: str, problem: str) -> Unreadable:
        unreadable = super().__new__(cls, path)
        unreadable.problem = problem
        return unreadable


def _is_one_recording(sources: Any) -> bool:
    if isinstance(sources, tuple) and len(sources) == 2:
        return isinstance(sources[1], (int, float, np.integer))
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, dict, np.ndarray)
    return isinstance(sources, kinds) or hasattr(sources, "read") or hasattr(sources, "numpy")  # a tensor


def why_unread(name: str, error: Exception) -> str:
    """Returns a sentence of ours for any error in reading a recording."""
    if isinstance(error, AudioError):
        return str(error)
    logger.debug("%s could not be read", name, exc_info=error)
    if isinstance(error, MemoryError):
        return f"{name} could not be read: it needs more memory than is available."
    if isinstance(error, OSError) and error.strerror:
        return f"{name} could not be read: {error.strerror}."
    return f"{name} could not be read: it is damaged or in an unusual format; convert it to WAV, or download it again."
