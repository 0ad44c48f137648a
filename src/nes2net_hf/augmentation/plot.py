"""Plot spectrograms before and after augmentation, for `nes2net augment --plot`. Needs the extra `plot`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..audio import SAMPLING_RATE
from ..figure_style import INK, new_figure
from ..files import atomic_file

if TYPE_CHECKING:
    pass


def plot_spectrograms(before: np.ndarray, after: np.ndarray, path: str | os.PathLike[str]) -> None:
    """
    Plots two waveforms (S,) at 16 kHz as spectrograms, one above the other, with the same scales of time and level.

    Args:
        before, after: the waveforms; their lengths may differ.
        path: the PNG file to write.
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
