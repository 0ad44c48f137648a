"""Pictures of scores (needs the extra `plot`)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import SAMPLING_RATE, open_audio
from .detection import DEMO_NOTICE, Result
from .files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .robustness import Measured

BONAFIDE, SPOOF, INK, FAINT = "#1b7f5c", "#c0392b", "#2b2f36", "#8a929c"


def plot_scores(
    results: Sequence[Result], source: Any, path: str | os.PathLike[str], is_demonstration: bool = False
) -> None:
    """
    Draws the score of each window over time, with the waveform under it, for each judged channel of one recording.

    Args:
        results: what `detect` gave for the recording; channels that could not be judged are left out.
        source: the recording itself, read once more for its waveform.
        path: the picture, a PNG.
        is_demonstration: whether the picture is to say that nobody should rely on the model.
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
    notice = f"{DEMO_NOTICE[0].upper()}{DEMO_NOTICE[1:]}. " if is_demonstration else ""
    figure.supxlabel(f"{notice}Model: {results[0].model}", x=0.01, ha="left", color=INK, fontsize=8)
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")


def plot_spectrograms(before: np.ndarray, after: np.ndarray, path: str | os.PathLike[str]) -> None:
    """
    Draws two waveforms (S,) at 16 kHz as spectrograms, one above the other, on one scale of time and level.

    Args:
        before, after: the waveforms; their lengths may differ.
        path: the picture, a PNG.
    """
    figure = new_figure(11, 6, dpi=150)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    for panel, waveform, name in zip(panels, (before, after), ("before", "after"), strict=True):
        *_, image = panel.specgram(waveform + 1e-9, NFFT=512, noverlap=384, Fs=SAMPLING_RATE, vmin=-140, vmax=-30)
        panel.set_title(name, loc="left", color=INK, fontsize=11)
        panel.set_ylabel("Hz", color=INK, fontsize=9)
    panels[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=panels, label="dB")
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")


def envelope(blocks: Iterable[np.ndarray], bins: int = 3000) -> tuple[np.ndarray, np.ndarray, float]:
    """
    The lowest and highest sample of up to `bins` equal stretches; it keeps 100 values a second, not the samples.

    Args:
        blocks: float32 (C, S) at 16 kHz.

    Returns:
        Lowest (C, N), highest (C, N), and the seconds of one stretch.
    """
    stretch = SAMPLING_RATE // 100
    parts = [(part.min(axis=2), part.max(axis=2)) for part in _stretches(blocks, stretch)]
    low, high = (np.concatenate(values, axis=1) for values in zip(*parts, strict=True))
    group = -(-low.shape[1] // bins)
    padding = ((0, 0), (0, -low.shape[1] % group))
    low, high = (np.pad(values, padding, mode="edge").reshape(len(values), -1, group) for values in (low, high))
    return low.min(axis=2), high.max(axis=2), group * stretch / SAMPLING_RATE


def _stretches(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Blocks (C, S) → (C, N, length); the last one is filled up with its last sample."""
    rest: np.ndarray | None = None
    for block in blocks:
        rest = block if rest is None else np.concatenate([rest, block], axis=1)
        whole = rest.shape[1] - rest.shape[1] % length
        if whole:
            yield rest[:, :whole].reshape(len(rest), -1, length)
            rest = rest[:, whole:].copy()
    if rest is not None and rest.shape[1]:
        yield np.pad(rest, ((0, 0), (0, length - rest.shape[1])), mode="edge")[:, None]


def _draw_scores(panel: Axes, result: Result) -> None:
    """A line for each window, from its start to its end."""
    assert result.score is not None and result.min_window_start is not None and result.min_window_score is not None
    color = {"bonafide": BONAFIDE, "spoof": SPOOF, None: FAINT}[result.label]
    judged = [window for window in result.windows if window.score is not None]
    for window in result.windows:
        if window.score is not None:
            panel.plot([window.start, window.end], [window.score, window.score], color=INK, linewidth=2.2)
    for stretch in result.suspicious():
        panel.axvspan(stretch.start, stretch.end, color=SPOOF, alpha=0.13, linewidth=0)
    panel.axhline(result.score, color=color, linewidth=1)
    above = result.threshold is None or result.score >= result.threshold
    pooled = "mean" if result.spoofed is None else "lowest frame"
    lines = [(result.score, f"{pooled} {result.score:.2f}", color, above)]
    if result.threshold is not None:
        panel.axhline(result.threshold, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        lines.append((result.threshold, f"threshold {result.threshold:.2f}", FAINT, not above))
    for value, name, ink, high in lines:  # on either side of their lines because these may lie close together
        va = "bottom" if high else "top"
        panel.text(1.005, value, name, transform=panel.get_yaxis_transform(), color=ink, va=va, fontsize=8)
    place, lowest = next(
        (index, window) for index, window in enumerate(judged) if window.start == result.min_window_start
    )
    middle = (lowest.start + lowest.end) / 2
    panel.plot(middle, result.min_window_score, marker="v", color=SPOOF, markersize=7, zorder=3)
    panel.annotate(
        f"lowest window: {result.min_window_score:.2f}, {_clock(lowest.start)}\N{EN DASH}{_clock(lowest.end)}",
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
    verdict = {"bonafide": "bona fide", "spoof": "spoof"}.get(str(result.label), result.undecided)
    panel.set_title(f"{verdict}, score {result.score:.2f}", loc="right", color=color, fontsize=11, fontweight="bold")
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


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty picture of so many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def strip(panel: Axes) -> None:
    """The look of all our panels: no frame, thin ink."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=INK, labelsize=8)


def _clock(seconds: float) -> str:
    """Seconds as min:s, with hundredths where there are any."""
    rest = f"{seconds % 60:05.2f}".rstrip("0").rstrip(".")
    return f"{int(seconds // 60)}:{rest.zfill(2)}"


def plot_curves(metrics: Path, path: Path) -> None:
    """Losses and EERs of a run by epoch, from its `metrics.jsonl`, as a picture."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure = new_figure(8, 5, dpi=120)
    losses, rates = figure.subplots(2, 1, sharex=True)
    for axes, prefix, factor in ((losses, "loss", 1), (rates, "eer", 100)):
        for name in sorted({key for line in lines for key in line if prefix in key}):
            points = [(line["epoch"], factor * line[name]) for line in lines if name in line]
            axes.plot(*zip(*points), marker=".", label=name.replace("_", " "))
        axes.legend()
        axes.grid(alpha=0.3)
    losses.set_ylabel("loss")
    rates.set_ylabel("EER, %")
    rates.set_xlabel("epoch")
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")


def plot_robustness(rows: Sequence[Measured], path: str | os.PathLike[str], title: str) -> None:
    """
    Draws EERs with their intervals, a panel for each group of conditions, beside that of the first row, the clean one.

    Args:
        rows: as `nes2net_hf.robustness` measures them.
        path: the picture, a PNG.
        title: of the whole.
    """
    from matplotlib.lines import Line2D

    clean = rows[0]
    groups = [(name, list(members)) for name, members in groupby(rows[1:], key=lambda row: row.group)]
    lines = _in_two_lines(groups)
    highest = max([1.0, *(100 * row.eer.high for row in rows if row.eer is not None)])
    figure = new_figure(12, 7, dpi=150)
    shares = [0.2, *[1] * len(lines)]
    heading, *parts = figure.subfigures(len(shares), 1, squeeze=False, height_ratios=shares)[:, 0]
    heading.text(0.005, 0.95, title, ha="left", va="top", color=INK, fontsize=13, fontweight="bold")
    if clean.eer is not None:
        rate, low, high = (100 * value for value in clean.eer[:3])
        handles = [
            Line2D([], [], color=BONAFIDE, label=f"clean: {rate:.1f} % ({low:.1f} to {high:.1f})"),
            Line2D([], [], color=INK, marker="o", label=f"EER with its 95 % interval by {clean.eer.unit}"),
            Line2D([], [], color=SPOOF, marker="o", label="interval wholly above the clean one"),
        ]
        heading.legend(handles=handles, loc="lower left", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    for line, part in zip(lines, parts, strict=True):
        # Half a condition more on each side: points are as far apart in all panels.
        widths = [len(members) + 0.6 for _, members in line]
        panels = part.subplots(1, len(line), sharey=True, squeeze=False, width_ratios=widths)[0]
        for panel, (name, members) in zip(panels, line, strict=True):
            _draw_rates(panel, members, clean)
            panel.set_title(name, loc="left", color=INK, fontsize=11)
            panel.set_ylim(0, 1.12 * highest)
            panel.tick_params(axis="y", length=0)
        panels[0].set_ylabel("EER, %", color=INK, fontsize=9)
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")


def _in_two_lines(groups: list[tuple[str, list[Measured]]]) -> list[list[tuple[str, list[Measured]]]]:
    """Groups in their order, on two lines as nearly of one length as can be."""
    lengths = np.cumsum([len(members) for _, members in groups])
    cut = 1 + int(np.abs(lengths - lengths[-1] / 2).argmin())
    return [line for line in (groups[:cut], groups[cut:]) if line]


def _draw_rates(panel: Axes, rows: Sequence[Measured], clean: Measured) -> None:
    """One group: the clean rate as a line in the band of its interval, then a point with its interval a condition."""
    if clean.eer is not None:
        panel.axhspan(100 * clean.eer.low, 100 * clean.eer.high, color=BONAFIDE, alpha=0.12, linewidth=0)
        panel.axhline(100 * clean.eer.estimate, color=BONAFIDE, linewidth=1.2)
    for place, row in enumerate(rows):
        if row.eer is None:
            _note(panel, "none", (place, 0), 3, FAINT, 8)
            continue
        rate, low, high = (100 * value for value in row.eer[:3])
        worse = clean.eer is not None and row.eer.low > clean.eer.high
        color = SPOOF if worse else INK
        panel.vlines(place, low, high, color=color, linewidth=1.6, alpha=0.6)
        panel.plot(place, rate, marker="o", color=color, markersize=6)
        _note(panel, f"{rate:.1f}", (place, high), 3, color, 8)
        if row.left_out:
            _note(panel, f"{len(row.left_out):,} left out", (place, low), -3, FAINT, 7)
    panel.set_xlim(-0.8, len(rows) - 0.2)
    panel.set_xticks(range(len(rows)), [_tick(row) for row in rows])
    panel.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.8)
    panel.set_axisbelow(True)
    strip(panel)


def _note(panel: Axes, text: str, place: tuple[float, float], points: int, color: str, size: int) -> None:
    """Text so many points above a place, or below it."""
    va = "bottom" if points > 0 else "top"
    offset = (0, points)
    panel.annotate(
        text, place, xytext=offset, textcoords="offset points", ha="center", va=va, color=color, fontsize=size
    )


def _tick(row: Measured) -> str:
    """The name, on two lines where it is long."""
    return "\n".join(row.name.rsplit(" ", 1)) if len(row.name) > 7 else row.name
