"""What the page shows of one recording: its verdict, how certain it is, and a timeline to look at and to hear."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .audio import SAMPLING_RATE, open_audio
from .detection import Result, Stretch
from .plotting import envelope
from .reports import clock

FILES = Path(__file__).parent / "page_files"
HEADLINES = {"bonafide": "Bona fide", "spoof": "Spoof"}
MEANINGS = {
    "bonafide": "The model takes this for the recording of a human voice.",
    "spoof": "The model takes this for synthesised or converted speech.",
}


def suspicious_stretches(result: Result) -> list[Stretch]:
    """
    What to listen to: what a model of frames calls spoofed, or else windows in a row below the threshold, with the
    mean of their scores. None where the model has no threshold.
    """
    if result.spoofed is not None:
        return result.spoofed
    stretches = []
    for below, group in groupby(result.windows, lambda window: is_below(window.score, result.threshold)):
        windows = list(group)
        if below:
            mean = float(np.mean([window.score for window in windows if window.score is not None]))
            stretches.append(Stretch(windows[0].start, windows[-1].end, mean))
    return stretches


def is_below(score: float | None, threshold: float | None) -> bool:
    return score is not None and threshold is not None and score < threshold


def facts(result: Result) -> dict[str, str]:
    """What is known of a verdict and its certainty, by name, in the order of the page."""
    assert result.score is not None and result.min_window_start is not None
    scores = [window.score for window in result.windows if window.score is not None]
    far, windows = "no threshold is known, the log-odds decide", f"{len(scores)}"
    if result.threshold is not None:
        side = "above" if result.score >= result.threshold else "below"
        far = f"{abs(result.score - result.threshold):.2f} {side} the threshold of {signed(result.threshold)}"
        windows = f"{sum(is_below(score, result.threshold) for score in scores)} of {len(scores)} below the threshold"
    probability = "none, for the model is not calibrated: a score is no probability"
    if result.spoof_probability is not None:
        probability = (
            f"{result.spoof_probability:.3f} of spoofed speech, where its share is {result.prior:g} beforehand"
        )
    return {
        "Score": f"{signed(result.score)} (higher = bona fide), {far}",
        "Windows": f"{windows}; scores from {signed(min(scores))} to {signed(max(scores))}",
        "Lowest window": f"{signed(result.min_window_score)} at {clock(result.min_window_start)}",
        "Probability": probability,
        "Length": clock(result.duration or 0),
    }


def remarks(result: Result) -> list[str]:
    """The detector's warnings, and whether a passing mean hides windows that do not pass."""
    below = any(is_below(window.score, result.threshold) for window in result.windows)
    hidden = "The recording passes, but not the whole of it: listen to its suspicious stretches."
    return ([hidden] if below and result.label == "bonafide" else []) + [_on_page(what) for what in result.warnings]


def _on_page(warning: str) -> str:
    """A warning of the detector, whose remedies are options of the command line."""
    what, _, choice = re.sub(r"[,:] (choose|judge) [^:]*--.*", "", warning).partition(" audio tracks: ")
    return f"{what} audio tracks: {choice}; you can let each be judged." if choice else f"Weak: {what}"


def named(result: Result) -> str:
    """The file, and which of its audio tracks."""
    return result.file if result.track is None else f"{result.file}, track {result.track}"


def render(result: Result, waveform: tuple[np.ndarray, np.ndarray, float] | None = None) -> str:
    """
    A result as HTML.

    Args:
        waveform: lowest (N,) and highest (N,) sample of equal stretches and the seconds of one; only a result with an
            error, which is a sentence without a timeline, needs none.
    """
    template = Environment(
        loader=FileSystemLoader(FILES, encoding="utf-8"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("verdict.html")
    shown: dict[str, Any] = {"result": result, "name": named(result), "clock": clock, "signed": signed}
    if result.error is None:
        assert waveform is not None
        shown |= {
            "headline": HEADLINES[str(result.label)],
            "meaning": MEANINGS[str(result.label)],
            "facts": facts(result),
            "remarks": remarks(result),
            "stretches": suspicious_stretches(result),
            "lowest": next(window for window in result.windows if window.start == result.min_window_start),
            "timeline": _Timeline(result, *waveform),
        }
    return template.render(shown)


def make_playable(
    source: str | os.PathLike[str], path: Path, track: int | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """
    Writes what the model heard (the mix of a track, 16 kHz) as a WAV file, which every browser plays and seeks in.

    Returns:
        Its waveform, as `render` takes it.

    Raises:
        AudioError: the source cannot be read.
    """
    with open_audio(source, track=track) as audio, soundfile.SoundFile(path, "w", SAMPLING_RATE, 1, "PCM_16") as file:

        def written() -> Iterator[np.ndarray]:
            for block in audio.blocks("mix"):
                file.write(np.clip(block[0], -1.0, 1.0))
                yield block

        low, high, step = envelope(written(), bins=800)
    return low[0], high[0], step


def signed(number: float | None) -> str:
    """Two decimals, with a true minus sign."""
    return "" if number is None else f"{number:.2f}".replace("-", "\N{MINUS SIGN}")


class _Timeline:
    """Where things lie in the picture: times and levels in per cent of its width and height."""

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
