"""Reads recordings and cuts them into windows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ..audio import SAMPLING_RATE, AudioStream, holds_sound, iter_windows, open_audio
from .batches import Batch, Batcher
from .recordings import SAME_SCENE, Recording, Unreadable, why_unread
from .results import WindowScore
from .turns import Turn, alone, speaker_windows, turns_of

ALL_TRACKS = "all"


@dataclass(frozen=True)
class WindowReader:
    """
    Reads recordings into a batcher.

    Args:
        channels, track, max_duration: as [`Detector`] takes them.
        window_length, hop: samples.
        batcher: gets the windows with sound, and then the recording, or each of its tracks, channels or speakers.
        turns: of the speakers of each recording, who are then judged separately.
    """

    channels: str
    track: int | str | None
    max_duration: float | None
    window_length: int
    hop: int
    batcher: Batcher
    turns: dict[str, list[Turn]] | None = None

    def read(self, source: Any) -> Iterator[Batch]:
        """Yields the batches that this recording completes. Any failure becomes the error of this recording."""
        if isinstance(source, Unreadable):
            yield from self.batcher.finish(Recording(str(source), error=source.problem))
            return
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        track = None if self.track == ALL_TRACKS else self.track
        try:
            with open_audio(source, track=track, max_duration=self.max_duration) as audio:  # type: ignore[arg-type]
                name = audio.info.name
                if self.track == ALL_TRACKS and audio.info.tracks > 1:
                    yield from self._read_tracks(audio)
                else:
                    yield from self._read_channels(audio)
        except Exception as error:  # decoders fail in many ways; the other recordings are still judged
            name = name or "<unnamed>"
            yield from self.batcher.finish(Recording(name, error=why_unread(name, error)))

    def _read_tracks(self, audio: AudioStream) -> Iterator[Batch]:
        for index in range(audio.info.tracks):
            try:
                with audio.on_track(index) as one:
                    yield from self._read_channels(one)
            except Exception as error:
                failed = Recording(audio.info.name, track=index, error=why_unread(audio.info.name, error))
                yield from self.batcher.finish(failed)

    def _read_channels(self, audio: AudioStream) -> Iterator[Batch]:
        """Reads one audio track: the mix of its channels, each channel, or in the mix each speaker."""
        if self.turns is not None:
            yield from self._read_speakers(audio, turns_of(audio.info.name, self.turns))
            return
        chosen, warnings = self._choose_channels(audio)
        track = audio.info.track if audio.info.tracks > 1 else None
        rows = [0] if chosen is None else chosen
        recordings = [
            Recording(audio.info.name, None if chosen is None else row, track, warnings=list(warnings)) for row in rows
        ]
        # A survey has read the track to its end: open it again.
        with audio.on_track(audio.info.track) if audio.summary else nullcontext(audio) as audio:
            blocks = audio.blocks("mix" if chosen is None else "each")
            for start, block in iter_windows((block[rows] for block in blocks), self.window_length, self.hop):
                for recording, samples in zip(recordings, block, strict=True):
                    window = WindowScore(start / SAMPLING_RATE, (start + len(samples)) / SAMPLING_RATE, None)
                    recording.windows.append(window)
                    if holds_sound(samples):
                        yield from self.batcher.add(recording, window, samples)
            mixed, of_several = chosen is None and audio.info.channels > 1, track is not None and self.track is None
            for recording, row in zip(recordings, rows, strict=True):
                recording.conclude(audio, row, mixed=mixed, of_several=of_several)
        for recording in recordings:
            yield from self.batcher.finish(recording)

    def _read_speakers(self, audio: AudioStream, turns: list[Turn]) -> Iterator[Batch]:
        track = audio.info.track if audio.info.tracks > 1 else None
        recordings = {
            speaker: Recording(audio.info.name, track=track, speaker=speaker)
            for speaker in sorted({turn.speaker for turn in turns})
        }
        sound, spoken, undisturbed = dict[str, float](), dict.fromkeys(recordings, 0.0), alone(turns)
        for turn in undisturbed:
            spoken[turn.speaker] += turn.end - turn.start
        for found in speaker_windows(audio.blocks("mix"), undisturbed, self.window_length, self.hop, sound):
            recording, samples = recordings[found.speaker], found.samples
            parts = found.parts if len(found.parts) > 1 else None
            window = WindowScore(found.parts[0][0], found.parts[-1][1], None, parts=parts)
            recording.windows.append(window)
            if holds_sound(samples):
                yield from self.batcher.add(recording, window, samples)
        several = track is not None and self.track is None
        for speaker, recording in recordings.items():
            recording.spoken = spoken[speaker]
            recording.conclude(
                audio, 0, mixed=audio.info.channels > 1, of_several=several, heard=sound.get(speaker, 0.0)
            )
            recording.windows.sort(key=lambda window: window.start)
            yield from self.batcher.finish(recording)

    def _choose_channels(self, audio: AudioStream) -> tuple[list[int] | None, list[str]]:
        """Returns the channels to judge separately, or None for the mix; and a warning about silent channels."""
        count = audio.info.channels
        if count == 1 or self.channels == "mix":
            return None, []
        if self.channels == "each":
            return list(range(count)), []
        found = audio.survey()
        heard = list(found.sounding)
        if not heard or (len(heard) > 1 and found.likeness >= SAME_SCENE):
            return None, []
        silent = [str(channel) for channel in range(count) if channel not in heard]
        are = "channel {} is silent, and was" if len(silent) == 1 else "channels {} are silent, and were"
        return heard, [f"{are.format(', '.join(silent))} not judged"] if silent else []
