"""Plots of an evaluation, each as PNG and SVG. Needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from ..figure_style import BONAFIDE, FAINT, INK, SPOOF, new_figure, strip
from ..metrics import det_curve, optimal_llrs
from .figures import Evaluation, Trials, grid

_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_POINTS = 2000  # per curve: with a million, an SVG would take a hundred megabytes
_ROWS = 80  # of the breakdown: more are not legible


def draw(
    folder: Path, names: Sequence[str], systems: Sequence[Trials], evaluations: Sequence[Evaluation]
) -> list[tuple[str, Path]]:
    """
    Draws DET curves, score histograms and calibration; and for the first system the breakdown of its EER, and the EER
    by attack and codec if the trials have both.

    Returns:
        Captions and paths of the PNGs.
    """
    pictures = [
        ("Detection error trade-off, on normal-deviate axes", "det", lambda: _det(names, systems)),
        ("Distribution of the scores of each class", "scores", lambda: _histograms(names, systems)),
        (
            "Calibration: optimal log-likelihood ratio by score. On the diagonal, scores are log-likelihood ratios",
            "calibration",
            lambda: _calibration(names, systems),
        ),
    ]
    if evaluations[0].breakdown:
        caption = f"EER of {names[0]} by group of trials, with 95 % intervals. The dashed line is the overall EER"
        pictures.append((caption, "breakdown", lambda: _breakdown(evaluations[0])))
    crossed = grid(systems[0], "attack", "codec")
    if crossed is not None:
        pictures.append((f"EER of {names[0]} by attack and codec, %", "attacks", lambda: _heat_map(*crossed)))
    drawn = []
    for caption, name, make in pictures:
        figure = make()
        for suffix in ("png", "svg"):
            figure.savefig(folder / f"{name}.{suffix}")
        drawn.append((caption, folder / f"{name}.png"))
    return drawn


def _figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    figure = new_figure(width, height, dpi=120)
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def _det(names: Sequence[str], systems: Sequence[Trials]) -> Any:
    figure, [axes] = _figure(6.2, 6)
    lowest = 0.4
    for name, trials in zip(names, systems, strict=True):
        bonafide, spoof = trials.by_class
        miss, false_alarm, _ = det_curve(bonafide, spoof)
        inside = (miss > 0) & (miss < 1) & (false_alarm > 0) & (false_alarm < 1)
        if not inside.any():
            axes.plot([], [], label=f"{name} (no errors)")
            continue
        x, y = ndtri(false_alarm[inside]), ndtri(miss[inside])
        kept = _spread(y - x, _POINTS)
        axes.plot(x[kept], y[kept], label=name, linewidth=1.6)
        lowest = min(lowest, float(min(miss[inside].min(), false_alarm[inside].min())))
    limits = ndtri(max(lowest, 5e-4)) - 0.1, ndtri(0.8)
    ticks = [tick for tick in _TICKS if ndtri(tick) >= limits[0]]
    axes.plot(limits, limits, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(np.array(ticks)), [f"{100 * tick:g}" for tick in ticks])
    axes.set(
        xlim=limits, ylim=limits, xlabel="false alarms (spoof accepted), %", ylabel="misses (bona fide rejected), %"
    )
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    strip(axes)
    return figure


def _histograms(names: Sequence[str], systems: Sequence[Trials]) -> Any:
    figure, panels = _figure(8, 0.6 + 2.4 * len(systems), len(systems))
    for axes, name, trials in zip(panels, names, systems, strict=True):
        bonafide, spoof = trials.by_class
        low, high = np.quantile(trials.scores, [0.0005, 0.9995])
        edges = np.linspace(low, high if high > low else low + 1, 80)
        for scores, label, color in ((spoof, "spoof", SPOOF), (bonafide, "bona fide", BONAFIDE)):
            share = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0] / scores.size
            axes.stairs(100 * share, edges, fill=True, alpha=0.35, color=color, label=label)
            axes.stairs(100 * share, edges, color=color, linewidth=1.2)
        axes.set_title(name, loc="left", color=INK, fontsize=11)
        axes.set_ylabel("% of the class")
        strip(axes)
    panels[0].legend(frameon=False)
    panels[-1].set_xlabel("score (higher = bona fide)")
    return figure


def _calibration(names: Sequence[str], systems: Sequence[Trials]) -> Any:
    figure, [axes] = _figure(6.2, 6)
    limit = 1.0
    for name, trials in zip(names, systems, strict=True):
        bonafide, spoof = trials.by_class
        scores, llrs = np.concatenate([bonafide, spoof]), np.concatenate(optimal_llrs(bonafide, spoof))
        order = np.argsort(scores, kind="stable")
        scores, llrs = scores[order], llrs[order]
        finite = np.isfinite(llrs)
        if not finite.any():
            continue
        limit = max(limit, float(np.abs(llrs[finite]).max()), float(np.abs(np.quantile(scores, [0.01, 0.99])).max()))
        # A step curve. It is infinite where only one class has trials.
        kept = np.unique(np.concatenate([_spread(scores, _POINTS), np.flatnonzero(llrs[1:] != llrs[:-1])]))
        shown = kept[finite[kept]]
        axes.plot(scores[shown], llrs[shown], label=name, linewidth=1.6, drawstyle="steps-post")
    axes.plot([-limit, limit], [-limit, limit], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        xlabel="score",
        ylabel="optimal log-likelihood ratio (natural log)",
    )
    axes.grid(alpha=0.3)
    if axes.lines[:-1]:  # more than the diagonal
        axes.legend(frameon=False)
    strip(axes)
    return figure


def _breakdown(evaluation: Evaluation) -> Any:
    rows = evaluation.breakdown[:_ROWS]
    figure, [axes] = _figure(7, 1.1 + 0.24 * len(rows))
    for place, row in enumerate(rows):
        axes.plot(100 * row.eer.estimate, place, "o", color=SPOOF, markersize=4)
        if np.isfinite(row.eer.low):
            axes.plot([100 * row.eer.low, 100 * row.eer.high], [place, place], color=SPOOF, linewidth=1.2)
        if place and row.group != rows[place - 1].group:
            axes.axhline(place - 0.5, color=FAINT, linewidth=0.6)
    axes.axvline(100 * evaluation.intervals.eer.estimate, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [f"{row.group}: {row.value}" for row in rows], fontsize=8)
    axes.set(xlabel="EER, %", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    strip(axes)
    return figure


def _heat_map(rows: list[str], columns: list[str], table: np.ndarray) -> Any:
    figure, [axes] = _figure(2.5 + 0.62 * len(columns), 1.6 + 0.34 * len(rows))
    image = axes.imshow(100 * table, cmap="YlOrRd", vmin=0, aspect="auto")
    for i, j in np.ndindex(*table.shape):
        if np.isfinite(table[i, j]):
            dark = table[i, j] > 0.6 * np.nanmax(table)
            color = "white" if dark else INK
            axes.text(j, i, f"{100 * table[i, j]:.1f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    figure.colorbar(image, ax=axes, label="EER, %")
    return figure


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """Returns indices of about `count` monotone values, evenly spaced by value, including the first and the last."""
    wanted = np.linspace(values[0], values[-1], count)
    rising = values if values[-1] >= values[0] else -values
    return np.unique(np.searchsorted(rising, wanted if rising is values else -wanted).clip(0, values.size - 1))
