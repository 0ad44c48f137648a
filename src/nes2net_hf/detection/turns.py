"""
The turns of speakers, as pyannote and other diarisers write them (RTTM), and the audio of each speaker.

A line of an RTTM file is `SPEAKER <recording> <channel> <start> <duration> <NA> <NA> <speaker> <NA> <NA>`, with times
in seconds (NIST Rich Transcription 2009, appendix A). The recording is a file's name without its suffix. The channel
is ignored: turns lie in the mix.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from ..audio import SAMPLING_RATE, iter_windows, seconds_of_sound, without_suffix
from ..errors import AudioError, UsageError


@dataclass(frozen=True)
class Turn:
    start: float
    """Seconds."""
    end: float
    speaker: str


def read_rttm(path: str | os.PathLike[str]) -> dict[str, list[Turn]]:
    """
    Returns the turns of each recording, by name.

    Raises:
        UsageError: the file cannot be read, or a line is not RTTM.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"{os.fspath(path)} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{os.fspath(path)} is not RTTM: it is not text in UTF-8.") from None
    found: dict[str, list[Turn]] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith(";"):
            continue
        if fields[0] != "SPEAKER":  # other kinds of lines, such as SPKR-INFO, have no turns
            continue
        try:
            start, length = float(fields[3]), float(fields[4])
            if not (0 <= start < math.inf and 0 <= length < math.inf) or len(fields) > 10 or fields[7] == "<NA>":
                raise ValueError
            found.setdefault(fields[1], []).append(Turn(start, start + length, fields[7]))
        except (ValueError, IndexError):
            raise UsageError(
                f"{os.fspath(path)}, line {number}, is not RTTM: it must be SPEAKER <recording> <channel> <start> "
                "<duration> <NA> <NA> <speaker> <NA> <NA>, with times in seconds."
            ) from None
    if not found:
        raise UsageError(f"{os.fspath(path)} has no line that begins with SPEAKER.")
    return found


def turns_of(name: str, known: dict[str, list[Turn]]) -> list[Turn]:
    """
    Returns the turns of a recording. Audio that is no file has those of the only recording.

    Raises:
        AudioError: there are none.
    """
    base = os.path.basename(name)
    for one in (name, base, without_suffix(base)):
        for spelt in (one, "_".join(one.split())):  # the fields of RTTM have no spaces
            if spelt in known:
                return known[spelt]
    if len(known) == 1 and (name == "-" or name.startswith("<")):
        return next(iter(known.values()))
    some = ", ".join(sorted(known)[:3])
    raise AudioError(
        f"{name} has no turns in the RTTM file, which has those of {some}{', …' if len(known) > 3 else ''}."
    )


def alone(turns: Iterable[Turn]) -> list[Turn]:
    """Returns the stretches in which exactly one speaker speaks, in order of time."""
    changes = sorted(
        change for turn in turns for change in ((turn.start, 1, turn.speaker), (turn.end, -1, turn.speaker))
    )
    found: list[Turn] = []
    speaking: dict[str, int] = {}
    begin = 0.0
    for time, step, speaker in changes:
        if len(speaking) == 1 and time > begin:
            [only] = speaking
            if found and found[-1].speaker == only and found[-1].end == begin:
                found[-1] = Turn(found[-1].start, time, only)
            else:
                found.append(Turn(begin, time, only))
        begin = time
        speaking[speaker] = speaking.get(speaker, 0) + step
        if not speaking[speaker]:
            del speaking[speaker]
    return found


@dataclass(frozen=True)
class SpeakerWindow:
    speaker: str
    samples: np.ndarray
    """(S,)"""
    parts: list[tuple[float, float]]
    """Where they lie in the recording, in seconds; several if short turns were joined."""


def speaker_windows(
    blocks: Iterable[np.ndarray], turns: Sequence[Turn], window_length: int, hop: int, sound: dict[str, float]
) -> Iterator[SpeakerWindow]:
    """
    Cuts blocks (1, S) at 16 kHz into windows that hold one speaker each. A turn of at least a window is cut by itself.
    Shorter ones of a speaker are joined. The turns are those of `alone`. `sound` gets each speaker's seconds of sound.
    """
    joined: dict[str, _Joined] = {}
    segments = [(round(one.start * SAMPLING_RATE), round(one.end * SAMPLING_RATE), one.speaker) for one in turns]

    def heard() -> Iterator[tuple[int, np.ndarray]]:
        for index, piece in _within(blocks, segments):
            speaker = segments[index][2]
            sound[speaker] = sound.get(speaker, 0.0) + seconds_of_sound(piece[0])
            yield index, piece

    for index, pieces in groupby(heard(), lambda piece: piece[0]):
        start, end, speaker = segments[index]
        if end - start >= window_length:
            for offset, window in iter_windows((piece for _, piece in pieces), window_length, hop):
                yield _window(speaker, window[0], [(start + offset, start + offset + window.shape[1])])
        else:
            pool = joined.setdefault(speaker, _Joined(speaker, window_length, hop))
            yield from pool.add(start, np.concatenate([piece for _, piece in pieces], axis=1)[0])
    for pool in joined.values():
        yield from pool.finish()


def _window(speaker: str, samples: np.ndarray, spans: Iterable[tuple[int, int]]) -> SpeakerWindow:
    return SpeakerWindow(speaker, samples, [(a / SAMPLING_RATE, b / SAMPLING_RATE) for a, b in spans])


def _within(
    blocks: Iterable[np.ndarray], segments: Sequence[tuple[int, int, str]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number of a segment and the part of a block that lies in it, in order."""
    offset = index = 0
    for block in blocks:
        end = offset + block.shape[1]
        while index < len(segments) and segments[index][0] < end:
            first, last = max(segments[index][0], offset), min(segments[index][1], end)
            if first < last:
                yield index, block[:, first - offset : last - offset]
            if segments[index][1] > end:
                break
            index += 1
        offset = end


@dataclass
class _Joined:
    """Short turns of a speaker, one after another."""

    speaker: str
    length: int
    hop: int
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of each sample, its place in the recording."""

    def add(self, start: int, samples: np.ndarray) -> Iterator[SpeakerWindow]:
        self.samples = np.concatenate([self.samples, samples])
        self.places = np.concatenate([self.places, np.arange(start, start + len(samples))])
        while len(self.samples) >= 2 * self.length:  # the last windows need more than one
            yield self._cut(0, self.length)
            self.samples, self.places = self.samples[self.hop :], self.places[self.hop :]

    def finish(self) -> Iterator[SpeakerWindow]:
        for start, window in iter_windows([self.samples[None]], self.length, self.hop):
            yield self._cut(start, start + window.shape[1])

    def _cut(self, start: int, end: int) -> SpeakerWindow:
        places = self.places[start:end]
        breaks = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
        spans = [(int(places[a]), int(places[b - 1]) + 1) for a, b in pairwise(breaks)]
        return _window(self.speaker, self.samples[start:end].copy(), spans)
