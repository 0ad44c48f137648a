"""Utterances of a corpus as training windows: read, augmented, cropped or repeated, with a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio import AudioError, read_audio
from ..augmentation import build_chain
from ..configuration_nes2net import ID2LABEL
from ..corpora import CorpusError
from ..corpora.loading import TableRows, open_rows
from ..corpora.shards import ShardedRows
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from .batches import Broken, lane_count
from .recipe import DataRecipe, RecipeError

COLUMNS = ("utterance_id", "audio", "label")


def open_split(recipe: DataRecipe, name: str, batch_size: int | None = None) -> TableRows | ShardedRows:
    """
    The rows of the recipe's `data.train` or `data.dev`.

    Args:
        batch_size: of this process, where the rows are drawn in the order of `epoch_order` and not one after another.

    Raises:
        RecipeError: the corpus cannot be opened, or lacks a class.
    """
    split = getattr(recipe, name)
    corpus = split.corpus or recipe.corpus
    try:
        rows = open_rows(
            corpus,
            split.split,
            root=split.root or recipe.root,
            columns_read=COLUMNS,
            groups_in_memory=2 if batch_size is None else lane_count(batch_size) + 2,  # lanes begin within groups
            condition=split.condition,
            where=split.where,
            columns=split.columns,
            label_map=split.label_map or None,
            allow_missing=recipe.allow_missing,
        )
    except CorpusError as error:
        raise RecipeError(f"data.{name}: {error}") from error
    absent = [label for index, label in ID2LABEL.items() if index not in rows.labels]
    if absent:
        raise RecipeError(f"data.{name}: {corpus} has no {' and no '.join(absent)} utterances there.")
    return rows


class WindowDataset(Dataset):
    """
    Item (e, i): waveform (S,) float32 of any length and label (0 spoof, 1 bona fide) of utterance i in epoch e; a
    `Broken` where it cannot be read. `collate` makes a batch of items.

    In training, crops and augmentation are drawn by seed, epoch and utterance, so that they are the same in any
    number of workers and processes.
    """

    def __init__(self, rows: TableRows | ShardedRows, recipe: DataRecipe, training: bool, seed: int = 0) -> None:
        self.rows = rows
        self.recipe = recipe
        self.training = training
        self.window_length = (training and recipe.crop_length) or recipe.window_length
        self.extractor = Nes2NetFeatureExtractor(window_length=self.window_length, do_normalize=recipe.normalize)
        self.augment = build_chain(recipe.augmentation)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int] | Broken:
        epoch, index = key
        try:
            row = self.rows[index]
            waveform = _read(row)
            if self.training:
                waveform = self._vary(waveform, np.random.default_rng([self.seed, epoch, index]))
        except (AudioError, CorpusError) as error:  # also of a noise file, which it then names
            return Broken(error)
        return waveform, row["label"]

    def collate(self, items: list[tuple[np.ndarray, int]]) -> dict[str, torch.Tensor]:
        """B items → `input_values` (B, S), windows from where the waveforms begin, and `labels` (B,)."""
        waveforms, labels = zip(*items, strict=True)
        features = self.extractor(list(waveforms), sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        return {"input_values": features["input_values"], "labels": torch.tensor(labels)}

    def _vary(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (S',): augmented over the whole utterance, then cropped."""
        waveform = self.augment(waveform, rng)
        excess = waveform.size - self.window_length
        if self.recipe.crop == "random" and excess > 0:
            start = int(rng.integers(excess + 1))
            waveform = waveform[start : start + self.window_length]
        return waveform


def _read(row: dict[str, Any]) -> np.ndarray:
    """The audio of a row, (S,) float32 at 16 kHz; errors name the utterance also where it is only bytes."""
    audio = row["audio"]
    if audio["bytes"] is None:
        return read_audio(audio["path"])
    try:
        return read_audio(audio["bytes"])
    except AudioError as error:
        raise AudioError(str(error).replace("<bytes>", f"utterance {row['utterance_id']}", 1)) from None
