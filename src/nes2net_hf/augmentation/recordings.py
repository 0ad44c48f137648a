"""Draw recordings from a folder or dataset, for noise and room responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..audio import list_audio, read_audio
from ..hub import why


class Recordings:
    """
    The audio files in a folder and its subfolders, or the column `audio` of a dataset.

    Args:
        root: the folder, e.g. `musan/noise`.
        dataset: Hub id or folder for `datasets.load_dataset`, instead of `root`.
        split: split of the dataset.

    Raises:
        ValueError: it is missing or empty. This is raised when a recipe is read, not in the third epoch.
    """

    def __init__(self, root: str | None, dataset: str | None, split: str) -> None:
        if (root is None) == (dataset is None):
            raise ValueError("set either root, a folder of recordings, or dataset.")
        self._sources: Any = _files(root) if root is not None else _rows(str(dataset), split)

    def __len__(self) -> int:
        return len(self._sources)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """
        Returns one recording at random, all equally likely: (S,) float32 at 16 kHz.

        Raises:
            AudioError: it cannot be read or is silent.
        """
        source = self._sources[int(rng.integers(len(self)))]
        if isinstance(source, dict):
            source = source["audio"]["bytes"] or source["audio"]["path"]
        return read_audio(source)


def _files(root: str) -> list[str]:
    if not Path(root).is_dir():
        raise ValueError(f"root {root} is not a folder.")
    files = list_audio(root)
    if not files:
        raise ValueError(f"root {root} has no audio files.")
    return files


def _rows(name: str, split: str) -> Any:
    from datasets import Audio, load_dataset

    try:
        dataset = load_dataset(name, split=split)
    except Exception as error:
        raise ValueError(f"dataset {name} could not be loaded: {why(error)}.") from None
    if not isinstance(dataset.features.get("audio"), Audio):
        raise ValueError(f"dataset {name} has no column audio of type Audio (it has {', '.join(dataset.features)}).")
    if not len(dataset):
        raise ValueError(f"dataset {name} has no rows in its split {split}.")
    return dataset.cast_column("audio", Audio(decode=False)).select_columns(["audio"])
