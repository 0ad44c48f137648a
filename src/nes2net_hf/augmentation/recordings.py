"""Folders of recordings that augmentation mixes in or convolves with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..audio import AudioError, list_audio, read_audio


def find_audio(root: str) -> tuple[str, ...]:
    """
    The audio files below a folder, sorted, in any nesting.

    Raises:
        ValueError: there is no such folder, or no audio in it: said when a recipe is read, not in its third epoch.
    """
    if not Path(root).is_dir():
        raise ValueError(f"root {root} is no folder.")
    files = list_audio(root)
    if not files:
        raise ValueError(f"root {root} holds no audio files.")
    return tuple(files)


def read_drawn(files: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """
    One of the files, each as likely: (S,) float32 at 16 kHz.

    Raises:
        AudioError: it cannot be read, or is silent from end to end.
    """
    path = files[rng.integers(len(files))]
    samples = read_audio(path)
    if not samples.any():
        raise AudioError(f"{path} is silent: remove it from the folder.")
    return samples
