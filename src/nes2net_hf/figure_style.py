"""Shared style of all figures: colours, an empty figure, a panel without a frame. Needs the extra `plot`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BONAFIDE, SPOOF, INK, FAINT = "#1b7f5c", "#c0392b", "#2b2f36", "#8a929c"


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """Returns an empty figure, `width` by `height` inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def strip(panel: Axes) -> None:
    """Styles a panel: no frame, small and pale axes."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=INK, labelsize=8)
