"""Plots EERs by condition. Needs the extra `plot`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from ..figure_style import BONAFIDE, FAINT, INK, SPOOF, new_figure, strip
from ..files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .run import Measured


def plot_robustness(rows: Sequence[Measured], path: str | os.PathLike[str], title: str) -> None:
    """
    Plots EERs with their intervals, in one panel per group, with the clean EER (the first row) for comparison.

    Args:
        rows: results of `RobustnessRun.measure`.
        path: PNG to write.
        title: title of the figure.
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
            Line2D([], [], color=INK, marker="o", label=f"EER with 95 % interval by {clean.eer.unit}"),
            Line2D([], [], color=SPOOF, marker="o", label="interval entirely above the clean one"),
        ]
        heading.legend(handles=handles, loc="lower left", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    for line, part in zip(lines, parts, strict=True):
        # With a margin on each side, points are equally far apart in all panels.
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
    """Splits groups, in order, into two lines of about equal length."""
    lengths = np.cumsum([len(members) for _, members in groups])
    cut = 1 + int(np.abs(lengths - lengths[-1] / 2).argmin())
    return [line for line in (groups[:cut], groups[cut:]) if line]


def _draw_rates(panel: Axes, rows: Sequence[Measured], clean: Measured) -> None:
    """Draws one group: the clean EER as a line, its interval as a band, and a point with an interval per condition."""
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
    """Writes text this many points above a place, or below it if negative."""
    va = "bottom" if points > 0 else "top"
    offset = (0, points)
    panel.annotate(
        text, place, xytext=offset, textcoords="offset points", ha="center", va=va, color=color, fontsize=size
    )


def _tick(row: Measured) -> str:
    """Returns the name, on two lines if it is long."""
    return "\n".join(row.name.rsplit(" ", 1)) if len(row.name) > 7 else row.name
