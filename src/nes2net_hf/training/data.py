"""Utterances of a corpus as training windows: read, augmented, cropped or repeated, with a label."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio import AudioError
from ..augmentation import build_chain
from ..configuration_nes2net import ID2LABEL
from ..corpora import CorpusError
from ..corpora.loading import TableRows, open_rows
from ..corpora.shards import ShardedRows
from ..corpora.utterances import audio_bytes, read_utterance
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
    Item (e, i): waveform (S,) float32 of any length and label (0 spoof, 1 bona fide) of utterance i in epoch e; or a
    `Broken` where it cannot be read. `collate` makes a batch of items.

    Crops and augmentation are drawn by seed, epoch and utterance, so that they are the same in any number of workers
    and processes.

    Args:
        kind: `train` crops and augments as the recipe says; `dev` takes the first window, or the whole utterance where
            the recipe evaluates so; `dev_augmented` augments before.
    """

    def __init__(self, rows: TableRows | ShardedRows, recipe: DataRecipe, kind: str = "train", seed: int = 0) -> None:
        self.rows = rows
        self.recipe = recipe
        training = kind == "train"
        self.window_length = (training and recipe.crop_length) or recipe.window_length
        self.crops = training and recipe.crop == "random"
        self.whole = not training and recipe.evaluate == "whole"
        self.extractor = build_extractor(recipe, self.window_length, "whole" if self.whole else "first")
        self.augment = build_chain(recipe.augmentation if kind != "dev" else [])
        self.seed = [seed, 0 if training else 1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int] | Broken:
        epoch, index = key
        try:
            row = self.rows[index]
            waveform = read_utterance(row)
            waveform = self._vary(waveform, np.random.default_rng([*self.seed, epoch, index]))
        except (AudioError, CorpusError) as error:  # also of a noise file, which it then names
            return Broken(error)
        return waveform, row["label"]

    def collate(self, items: list[tuple[np.ndarray, int]]) -> dict[str, torch.Tensor]:
        """B items → `input_values` (B, S), `attention_mask` where lengths differ, and `labels` (B,)."""
        waveforms, labels = zip(*items, strict=True)
        features = self.extractor(list(waveforms), sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        batch = {"input_values": features["input_values"], "labels": torch.tensor(labels)}
        if not features["attention_mask"].all():
            batch["attention_mask"] = features["attention_mask"]
        return batch

    def by_length(self) -> np.ndarray:
        """All row numbers (N,): as they come, or by the size of the files where utterances are judged whole."""
        if not self.whole or not isinstance(self.rows, TableRows):
            return np.arange(len(self.rows))
        return np.argsort([audio_bytes(self.rows[index]) for index in range(len(self.rows))], kind="stable")

    def _vary(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (S',): augmented over the whole utterance, then cropped."""
        waveform = self.augment(waveform, rng)
        excess = waveform.size - self.window_length
        if self.crops and excess > 0:
            start = int(rng.integers(excess + 1))
            waveform = waveform[start : start + self.window_length]
        return waveform


def build_extractor(recipe: DataRecipe, window_length: int, length_policy: str) -> Nes2NetFeatureExtractor:
    """The feature extractor that does what the recipe says."""
    return Nes2NetFeatureExtractor(
        window_length=window_length, length_policy=length_policy, do_normalize=recipe.normalize
    )
