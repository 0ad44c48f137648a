"""Utterances of a corpus folder as training windows: read, augmented, cropped or repeated, with a label."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio import read_audio
from ..augmentation import build_chain
from ..configuration_nes2net import ID2LABEL
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from .recipe import DataRecipe, RecipeError

LABEL2ID = {label: index for index, label in ID2LABEL.items()}


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest."""

    utterance_id: str
    path: Path
    label: str
    speaker_id: str
    attack: str
    codec: str
    partition: str


def read_manifest(root: str | Path, partition: str) -> list[Utterance]:
    """
    The utterances of one partition of `root/manifest.csv`, in its order.

    Raises:
        RecipeError: there is no manifest, a label is unknown, or the partition is empty or lacks a class.
    """
    root = Path(root)
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        raise RecipeError(f"data.root: {manifest} does not exist; build the corpus first (training/README.md).")
    utterances = []
    with open(manifest, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if row["partition"] != partition:
                continue
            if row["label"] not in LABEL2ID:
                raise RecipeError(
                    f"{manifest}, line {number}: label must be {' or '.join(LABEL2ID)}, got {row['label']!r}."
                )
            utterances.append(
                Utterance(
                    row["utterance_id"],
                    root / row["path"],
                    row["label"],
                    row["speaker_id"],
                    row["attack"],
                    row["codec"],
                    row["partition"],
                )
            )
    absent = set(LABEL2ID) - {utterance.label for utterance in utterances}
    if absent:
        raise RecipeError(f"{manifest}: partition {partition!r} has no {' and no '.join(sorted(absent))} utterances.")
    return utterances


class WindowDataset(Dataset):
    """
    Item i: `input_values` (S,) float32 and `labels` (0 spoof, 1 bona fide) of utterance i.

    In training, crops and augmentation are drawn by seed, epoch and utterance, so that they are the same in any
    number of workers and processes; otherwise an utterance gives its first window.
    """

    def __init__(
        self,
        utterances: list[Utterance],
        recipe: DataRecipe,
        training: bool,
        seed: int = 0,
    ) -> None:
        self.utterances = utterances
        self.recipe = recipe
        self.training = training
        self.window_length = (training and recipe.crop_length) or recipe.window_length
        self.extractor = Nes2NetFeatureExtractor(window_length=self.window_length, do_normalize=recipe.normalize)
        self.augment = build_chain(recipe.augmentation)
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> dict[str, Any]:
        utterance = self.utterances[index]
        waveform = read_audio(utterance.path)
        if self.training:
            waveform = self._vary(waveform, np.random.default_rng([self.seed, self.epoch, index]))
        features = self.extractor(waveform, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        return {"input_values": features["input_values"][0], "labels": torch.tensor(LABEL2ID[utterance.label])}

    def _vary(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) → (S',): augmented over the whole utterance, then cropped."""
        waveform = self.augment(waveform, rng)
        excess = waveform.size - self.window_length
        if self.recipe.crop == "random" and excess > 0:
            start = int(rng.integers(excess + 1))
            waveform = waveform[start : start + self.window_length]
        return waveform
