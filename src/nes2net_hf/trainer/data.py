"""Utterances of a corpus as training windows with a label: read, augmented, cropped or repeated."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Dataset

from ..audio import SAMPLING_RATE, AudioError
from ..augmentation import build_chain
from ..configuration_nes2net import ID2LABEL
from ..corpora import CorpusError
from ..corpora.loading import OWN_DATA, TableRows, load_corpus, open_rows
from ..corpora.own_data import manifest_columns, our_columns
from ..corpora.shards.read import ShardedRows
from ..corpora.utterances import read_utterance
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from .batches import Broken, lane_count
from .holding_out import divide
from .losses import IGNORED
from .recipe import SETTINGS, DataRecipe, RecipeError, SplitRecipe

COLUMNS = ("utterance_id", "audio", "label")
FRAME, REACH = 320, 400  # samples from one frame to the next, and samples that a frame sees


def open_split(
    recipe: DataRecipe, name: str, batch_size: int | None = None, of_frames: bool = False
) -> TableRows | ShardedRows:
    """
    The rows of the recipe's `data.train` or `data.dev`.

    Args:
        batch_size: of this process, if it draws rows in the order of `epoch_order`; None if it reads them in sequence.
        of_frames: whether to read the segment labels.

    Raises:
        RecipeError: the corpus cannot be opened, or lacks a class.
    """
    split = getattr(recipe, name)
    corpus, root = _place(recipe, split)
    if corpus == OWN_DATA and split.split is not None and Path(root).is_file():
        raise RecipeError(
            f"data.{name}.split: this recipe says {split.split}, and your own data has no splits: add "
            f"data.{name}.split=null to the command; to choose rows, data.{name}.where={{COLUMN: VALUE}}."
        )
    columns_read = (*COLUMNS, "segment_labels") if of_frames else COLUMNS
    options: dict[str, Any] = {
        "root": root,
        "condition": split.condition,
        "where": split.where,
        "columns": split.columns,
        "label_map": split.label_map or None,
        "allow_missing": recipe.allow_missing,
    }
    try:
        if holds_out(recipe):
            dataset = load_corpus(corpus, split.split, **options)
            column = _partition_column(corpus, Path(root), split)
            labels, utterances, speakers, partitions = (
                list(dataset[name]) for name in ("label", "utterance_id", "speaker_id", "partition")
            )
            division = divide(labels, utterances, speakers, partitions, recipe.hold_out or 0, column, root)
            rows: Any = TableRows(dataset.select(getattr(division, name)), columns_read)
            if name == "dev" and PartialState().is_main_process:
                print(division.said)
        else:
            rows = open_rows(
                corpus,
                split.split,
                columns_read=columns_read,
                groups_in_memory=2 if batch_size is None else lane_count(batch_size) + 2,  # lanes begin within groups
                **options,
            )
    except CorpusError as error:
        raise RecipeError(f"data.{name}: {str(error).replace(' in Python', '')}") from error
    absent = [label for index, label in ID2LABEL.items() if index not in rows.labels]
    if absent:
        chosen = f" with {', '.join(f'{key}={value}' for key, value in split.where.items())}" if split.where else ""
        if holds_out(recipe):
            chosen += f" for {name} (column {column} says which are)"  # what is drawn has both classes
        raise RecipeError(f"data.{name}: {root} has no {' and no '.join(absent)} utterances{chosen}.")
    return rows


def _place(recipe: DataRecipe, split: SplitRecipe) -> tuple[str, str]:
    """Corpus and root of a split."""
    return split.corpus or recipe.corpus, split.root or recipe.root


def _partition_column(corpus: str, root: Path, split: SplitRecipe) -> str:
    """What the user's table calls our column `partition`."""
    if corpus == OWN_DATA and root.is_file():
        return manifest_columns(root, split.columns).get("partition", "partition")
    return our_columns(split.columns).get("partition", "partition")


def same_rows(recipe: DataRecipe) -> bool:
    """Whether train and dev are read from the same rows."""
    train, dev = (
        dataclasses.replace(split, corpus=corpus, root=os.path.realpath(root) if os.path.exists(root) else root)
        for split in (recipe.train, recipe.dev)
        for corpus, root in [_place(recipe, split)]
    )
    return train == dev


def count_shared(recipe: DataRecipe, train: TableRows | ShardedRows, dev: TableRows | ShardedRows) -> int:
    """How many recordings of dev are in train too: the same files, or the same utterances of one data set."""
    of_train, of_dev = train.files(), dev.files()
    if of_train is None or of_dev is None:
        if (_place(recipe, recipe.train), recipe.train.split) != (_place(recipe, recipe.dev), recipe.dev.split):
            return 0  # ids of two data sets may be the same by chance
        of_train, of_dev = train.utterances(), dev.utterances()
    known = set(of_train)
    return sum(name in known for name in of_dev)


def refuse_shared(recipe: DataRecipe, shared: int, total: int) -> None:
    """
    Raises:
        RecipeError: dev shares recordings with train, and the recipe does not say that both are the same rows.
    """
    if not shared or (same_rows(recipe) and recipe.hold_out is None):
        return
    remedy = "choose other rows by data.dev.where, or name other recordings by data.dev.root"
    if holds_out(recipe):
        remedy = "list each file once, or in one part only"
    elif recipe.hold_out is not None:
        remedy += " (data.hold_out divides rows only where data.train and data.dev choose the same ones)"
    raise RecipeError(
        f"data.dev: {shared} of its {total} recordings are in train too, so no figure would say how well the model "
        f"judges others: {remedy}."
    )


def holds_out(recipe: DataRecipe) -> bool:
    """Whether a part of the common rows is dev."""
    return recipe.hold_out is not None and same_rows(recipe)


class WindowDataset(Dataset):
    """
    Item (e, i): waveform (S,) float32 of any length and label (0 spoof, 1 bona fide) of utterance i in epoch e; or a
    `Broken` if it cannot be read. `collate` makes a batch of items.

    Crops and augmentation depend on seed, epoch and utterance only: they are the same in any number of workers and
    processes.

    Args:
        kind: `train` augments and crops as the recipe says; `dev` takes the first window, or the whole utterance, as
            `data.evaluate` says; `dev_augmented` augments it first.
        of_frames: whether an item has a label for each frame, (T,), from the corpus's segment labels.
    """

    def __init__(
        self,
        rows: TableRows | ShardedRows,
        recipe: DataRecipe,
        kind: str = "train",
        seed: int = 0,
        of_frames: bool = False,
    ) -> None:
        self.rows, self.labels = rows, rows.labels
        self.of_frames = of_frames
        self.recipe = recipe
        training = kind == "train"
        settings = {key.partition(".")[2]: value for key, value in SETTINGS.items()}
        settings |= {key: value for key, value in vars(recipe).items() if value is not None}
        self.window_length: int = (training and recipe.crop_length) or settings["window_length"]
        self.crops = training and recipe.crop == "random"
        self.whole = (recipe.crop if training else settings["evaluate"]) == "whole"
        self.extractor = Nes2NetFeatureExtractor(
            window_length=self.window_length,
            length_policy="whole" if self.whole else "first",
            do_normalize=settings["normalize"],
            normalize_eps=settings["normalize_eps"],
            min_samples=settings["min_samples"],
        )
        self.augment = build_chain(recipe.augmentation if kind != "dev" else [])
        self.seed = [seed, 0 if training else 1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, Any] | Broken:
        epoch, index = key
        try:
            row = self.rows[index]
            waveform = read_utterance(row)
            waveform, start = self._vary(waveform, np.random.default_rng([*self.seed, epoch, index]))
            label = self._frame_labels(row, start, waveform.size) if self.of_frames else row["label"]
        except (AudioError, CorpusError) as error:  # or a noise file is unreadable: the error names it
            return Broken(error)
        return waveform, label

    def collate(self, items: list[tuple[np.ndarray, Any]]) -> dict[str, torch.Tensor]:
        """B items → `input_values` (B, S), `attention_mask` where lengths differ, and `labels` (B,) or (B, T)."""
        waveforms, labels = map(list, zip(*items, strict=True))
        features = self.extractor(waveforms, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        if self.of_frames:
            longest = max(label.size for label in labels)
            labels = [np.pad(label, (0, longest - label.size), constant_values=IGNORED) for label in labels]
        # Copied into torch's own memory: CPU kernels sum in an order that depends on where the memory lies, and with
        # numpy's a run would not end with the same bits twice.
        batch = {"input_values": features["input_values"].clone(), "labels": torch.tensor(np.array(labels))}
        if not features["attention_mask"].all():
            batch["attention_mask"] = features["attention_mask"]
        return batch

    def lengths(self) -> np.ndarray | None:
        """The file size of each row, (N,); None if utterances are not whole, or the corpus does not know it."""
        return self.rows.sizes() if self.whole else None

    def by_length(self) -> np.ndarray:
        """All row numbers (N,): in their order, or sorted by `lengths`."""
        lengths = self.lengths()
        return np.arange(len(self.rows)) if lengths is None else np.argsort(lengths, kind="stable")

    def _vary(self, waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """(S,) → (S',), augmented over the whole utterance, then cropped; and the first sample of the crop."""
        waveform, start = self.augment(waveform, rng), 0
        excess = waveform.size - self.window_length
        if self.crops and excess > 0:
            start = int(rng.integers(excess + 1))
            waveform = waveform[start : start + self.window_length]
        return waveform, start

    def _frame_labels(self, row: dict[str, Any], start: int, samples: int) -> np.ndarray:
        """For each frame of the item's window, (T,), the label of the 20 ms that hold its middle."""
        segments = (row["segment_labels"] or {}).get(f"{FRAME * 1000 // SAMPLING_RATE}ms")
        if not segments:
            raise CorpusError(
                f"utterance {row['utterance_id']} has no segment labels of 20 ms: unpack the corpus's labels too."
            )
        window = samples if self.whole else self.window_length
        middles = np.arange(REACH // 2, window - REACH // 2 + 1, FRAME) % samples  # a short one is repeated
        return np.array(segments, np.int64)[np.minimum((start + middles) // FRAME, len(segments) - 1)]
