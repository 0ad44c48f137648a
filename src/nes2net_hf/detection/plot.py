"""`nes2net detect --plot`: scores over time, with the waveform below. Needs the extra `plot`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import open_audio
from ..audio.windows import envelope
from ..figure_style import BONAFIDE, FAINT, INK, SPOOF, new_figure, strip
from ..files import atomic_file
from .detector import DEMO_NOTICE
from .results import Result
from .words import sentence, signed, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_scores(
    results: Sequence[Result], source: Any, path: str | os.PathLike[str], is_demonstration: bool = False
) -> None:
    """
    Draws the score of each window over time, with the waveform below, for each judged channel of a recording.

    Args:
        results: results of `detect` for the recording. Channels with an error are omitted.
        source: the recording, which is read again for its waveform.
        path: the PNG to write.
        is_demonstration: whether to print the notice of a demonstration model.
    """
    results = [result for result in results if result.error is None]
    by_channel = any(result.channel is not None for result in results)
    with open_audio(source, track=results[0].track) as audio:
        low, high, step = envelope(audio.blocks("each" if by_channel else "mix"))
    figure = new_figure(11, 0.9 + 4.0 * len(results), dpi=150)
    panels = figure.subplots(2 * len(results), 1, sharex=True, squeeze=False, height_ratios=[2, 1] * len(results))[
        :, 0
    ]
    for result, scores, waveform in zip(results, panels[::2], panels[1::2], strict=True):
        _draw_scores(scores, result)
        _draw_waveform(waveform, result, low[result.channel or 0], high[result.channel or 0], step)
    panels[-1].set_xlim(0, results[0].duration)
    panels[-1].set_xlabel("time (min:s)", color=INK, fontsize=9)
    panels[-1].xaxis.set_major_formatter(lambda seconds, _: _clock(seconds))
    notice = f"{sentence(DEMO_NOTICE)} " if is_demonstration else ""
    figure.supxlabel(f"{notice}Model: {results[0].model}", x=0.01, ha="left", color=INK, fontsize=8)
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")


def _draw_scores(panel: Axes, result: Result) -> None:
    """Draws a line for each window, from its start to its end."""
    assert result.score is not None and result.min_window_start is not None and result.min_window_score is not None
    color = {"bonafide": BONAFIDE, "spoof": SPOOF}.get(result.label or "", FAINT)
    judged = [window for window in result.windows if window.score is not None]
    for window in result.windows:
        if window.score is not None:
            panel.plot([window.start, window.end], [window.score, window.score], color=INK, linewidth=2.2)
    for stretch in result.suspicious():
        panel.axvspan(stretch.start, stretch.end, color=SPOOF, alpha=0.13, linewidth=0)
    panel.axhline(result.score, color=color, linewidth=1)
    above = result.threshold is None or result.score >= result.threshold
    pooled = "mean" if result.spoofed is None else "lowest frame"
    lines = [(result.score, f"{pooled} {signed(result.score)}", color, above)]
    if result.threshold is not None:
        panel.axhline(result.threshold, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        lines.append((result.threshold, f"threshold {signed(result.threshold)}", FAINT, not above))
    for value, name, ink, high in lines:  # one above and one below, because the lines may be close together
        va = "bottom" if high else "top"
        panel.text(1.005, value, name, transform=panel.get_yaxis_transform(), color=ink, va=va, fontsize=8)
    place, lowest = next(
        (index, window) for index, window in enumerate(judged) if window.start == result.min_window_start
    )
    middle = (lowest.start + lowest.end) / 2
    panel.plot(middle, result.min_window_score, marker="v", color=SPOOF, markersize=7, zorder=3)
    panel.annotate(
        f"lowest window: {signed(result.min_window_score)}, {_clock(lowest.start)}\N{EN DASH}{_clock(lowest.end)}",
        (middle, result.min_window_score),
        xytext=(0, -13),
        textcoords="offset points",
        ha="left" if place < len(judged) / 4 else "right" if place > 3 * len(judged) / 4 else "center",
        va="center",
        color=SPOOF,
        fontsize=8,
    )
    panel.margins(y=0.2)
    panel.set_title(_short_name(result), loc="left", color=INK, fontsize=11)
    panel.set_title(
        f"{verdict(result)}, score {signed(result.score)}", loc="right", color=color, fontsize=11, fontweight="bold"
    )
    panel.set_ylabel("score of each window\n(higher = bona fide)", color=INK, fontsize=9)
    strip(panel)


def _short_name(result: Result) -> str:
    return dataclasses.replace(result, file=Path(result.file).name).name


def _draw_waveform(panel: Axes, result: Result, low: np.ndarray, high: np.ndarray, step: float) -> None:
    times = (np.arange(len(low)) + 0.5) * step
    panel.fill_between(times, low, high, color=INK, alpha=0.75, linewidth=0.3)
    silences = [window for window in result.windows if window.score is None]
    for window in silences:
        panel.axvspan(window.start, window.end, color=FAINT, alpha=0.25, linewidth=0)
    if silences:
        panel.text(
            1.005, 0, "grey:\nno sound", transform=panel.get_yaxis_transform(), color=FAINT, va="center", fontsize=8
        )
    limit = max(float(np.abs([low, high]).max()) * 1.05, 1e-3)
    panel.set_ylim(-limit, limit)
    panel.set_ylabel("waveform", color=INK, fontsize=9)
    strip(panel)


def _clock(seconds: float) -> str:
    """Returns seconds as min:s, with hundredths if there are any."""
    rest = f"{seconds % 60:05.2f}".rstrip("0").rstrip(".")
    return f"{int(seconds // 60)}:{rest.zfill(2)}"
