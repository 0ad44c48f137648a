"""Plots the losses and EERs of a run. Needs the extra `plot`."""

from __future__ import annotations

import json
from pathlib import Path

from ..figure_style import new_figure
from ..files import atomic_file


def plot_curves(metrics: Path, path: Path) -> None:
    """Plots a run's losses and EERs per epoch, read from its `metrics.jsonl`, as a PNG."""
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
