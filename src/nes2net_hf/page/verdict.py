"""Render the verdict of one recording for the page: headline, advice, certainty, and a timeline that plays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..audio import SAMPLING_RATE, open_audio
from ..audio.windows import envelope
from ..detection import Result
from ..detection.results import NO_SPEECH, TOO_SHORT
from ..detection.words import chance, clock, sentence, signed

FILES = Path(__file__).parent / "static"
# Verdict → headline, meaning, and what to do next.
VERDICTS = {
    "bonafide": (
        "Bona fide",
        "The model found no sign of synthetic or converted speech. This does not prove that the recording is genuine.",
        "If it is important, judge the original file rather than a copy, and confirm with the speaker in another way, "
        "for example by calling back on a number that you know.",
    ),
    "partly": (
        "Bona fide, but not all of it",
        "Someone may have inserted fake speech into a genuine recording.",
        "Listen to the suspicious passages below. If they are important, judge the original file, and ask the speaker "
        "in another way to confirm what is said there.",
    ),
    "spoof": (
        "Spoof",
        "To the model this sounds like synthetic or converted speech. This does not prove that the recording is fake.",
        "Listen to the passages below, and judge the original file rather than a copy. Before you act, confirm with "
        "the speaker in another way.",
    ),
    "undecided": (
        "Undecided",
        "The score lies where the model is wrong too often, in either direction. Do not read a verdict into it.",
        "Use a longer or better recording of the same speaker, or another way to find out.",
    ),
    TOO_SHORT: (
        "Too short to judge",
        "The recording has less than a second of sound. A score for so little sound is meaningless.",
        "Use a longer recording, with several seconds of speech.",
    ),
    NO_SPEECH: (
        "No speech found",
        "The model judges only speech. Its score for music, tones or noise is meaningless.",
        "Check that this is the right file. For a film or a call, try another audio track or each channel.",
    ),
}


def _kind(result: Result) -> str:
    """Returns the key of the verdict in `VERDICTS`."""
    if result.label == "bonafide" and result.suspicious():
        return "partly"
    return result.label or str(result.undecided)


def facts(result: Result) -> dict[str, str]:
    """Returns the facts about a verdict and its certainty, by name, in the order of the page."""
    assert result.score is not None and result.min_window_start is not None
    scores = [window.score for window in result.windows if window.score is not None]
    fake = sum(window.looks_fake for window in result.windows)
    far = "no threshold is known, so the log-odds decide"
    if result.threshold is not None:
        side = "above" if result.score >= result.threshold else "below"
        far = f"{abs(result.score - result.threshold):.2f} {side} the threshold of {signed(result.threshold)}"
    probability = "none: it needs a verdict, a real calibrated model, and a recording like its calibration data"
    if result.spoof_probability is not None:
        probability = chance(result)
    given = {"Support": result.support, "Compared": result.standing and f"the score is {result.standing}"}
    return {
        "Score": f"{signed(result.score)} (higher = bona fide), {far}",
        **{name: text for name, text in given.items() if text is not None},
        "Windows": f"{fake} of {len(scores)} look fake; scores from {signed(min(scores))} to {signed(max(scores))}",
        "Lowest window": f"{signed(result.min_window_score)} at {clock(result.min_window_start)}",
        "Probability": probability,
        "Length": clock(result.duration or 0),
    }


def remarks(result: Result) -> list[str]:
    """Returns the detector's warnings as sentences."""
    return [sentence(warning) for warning in result.warnings]


def render(result: Result, waveform: tuple[np.ndarray, np.ndarray, float] | None = None) -> str:
    """
    Returns a result as HTML.

    Args:
        waveform: lowest (N,) and highest (N,) sample of equal stretches, and the length of a stretch in seconds. Not
            needed for a result with an error, which has no timeline.
    """
    template = Environment(
        loader=FileSystemLoader(FILES, encoding="utf-8"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("verdict.html")
    shown: dict[str, Any] = {"result": result, "clock": clock, "signed": signed}
    if result.error is None:
        assert waveform is not None
        shown |= {
            "kind": (kind := _kind(result)),
            "verdict": VERDICTS[kind],
            "facts": facts(result),
            "remarks": remarks(result),
            "stretches": result.suspicious(),
            "lowest": next(window for window in result.windows if window.start == result.min_window_start),
            "timeline": _Timeline(result, *waveform),
        }
    return template.render(shown)


def make_playable(
    source: str | os.PathLike[str], path: Path, track: int | None = None, channel: int | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """
    Writes the audio that the model judged (a channel of a track, or the mix, at 16 kHz) as a WAV file. Every browser
    can play and seek in it.

    Returns:
        The waveform for `render`.

    Raises:
        AudioError: the source cannot be read.
    """
    with open_audio(source, track=track) as audio, soundfile.SoundFile(path, "w", SAMPLING_RATE, 1, "PCM_16") as file:

        def written() -> Iterator[np.ndarray]:
            for block in audio.blocks("mix" if channel is None else "each"):
                heard = block[[channel or 0]]
                file.write(np.clip(heard[0], -1.0, 1.0))
                yield heard

        low, high, step = envelope(written(), bins=800)
    return low[0], high[0], step


class _Timeline:
    """Positions in the timeline: times and levels in per cent of its width and height."""

    def __init__(self, result: Result, low: np.ndarray, high: np.ndarray, step: float) -> None:
        assert result.duration and result.score is not None
        self._duration = result.duration
        scores = [window.score for window in result.windows if window.score is not None]
        levels = [*scores, result.score] + ([] if result.threshold is None else [result.threshold])
        margin = 0.2 * (max(levels) - min(levels)) or 1.0
        self._top, self._bottom = max(levels) + margin, min(levels) - margin
        self.windows = " ".join(
            f"M{self.x(window.start):.3f} {self.y(window.score):.2f}H{self.x(window.end):.3f}"
            for window in result.windows
            if window.score is not None
        )
        self.silences = [window for window in result.windows if window.score is None]
        self.ticks = [part * result.duration / 4 for part in range(5)]
        times = (np.arange(len(low)) + 0.5) * step
        peak = max(float(np.abs([low, high]).max()), 1e-3)
        outline = [*zip(times, high, strict=True), *zip(times[::-1], low[::-1], strict=True)]
        self.waveform = "M" + "L".join(f"{self.x(time):.2f} {50 - 48 * value / peak:.1f}" for time, value in outline)

    def x(self, seconds: float) -> float:
        return min(100.0, 100 * seconds / self._duration)

    def y(self, score: float) -> float:
        return 100 * (self._top - score) / (self._top - self._bottom)
