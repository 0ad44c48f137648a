"""Turns a corpus's utterances into labelled training windows: reads, augments, and crops or repeats them."""

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
FRAME, REACH = 320, 400  # hop and receptive field of an encoder frame, in samples


def open_split(
    recipe: DataRecipe, name: str, batch_size: int | None = None, of_frames: bool = False
) -> TableRows | ShardedRows:
    """
    Opens the rows of the recipe's `data.train` or `data.dev`.

    Args:
        batch_size: batch size of this process if it reads rows in the order of `epoch_order`; None if in sequence.
        of_frames: whether to read segment labels.

    Raises:
        RecipeError: the corpus cannot be opened, or has no utterances of one class.
    """
    split = getattr(recipe, name)
    corpus, root = _place(recipe, split)
    if corpus == OWN_DATA and split.split is not None and Path(root).is_file():
        raise RecipeError(
            f"data.{name}.split: this recipe says {split.split}, but your own data has no splits: add "
            f"data.{name}.split=null to the command; to choose rows, use data.{name}.where={{COLUMN: VALUE}}."
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
                # Two extra groups, because lanes may start in the middle of a group.
                groups_in_memory=2 if batch_size is None else lane_count(batch_size) + 2,
                **options,
            )
    except CorpusError as error:
        raise RecipeError(f"data.{name}: {str(error).replace(' in Python', '')}") from error
    absent = [label for index, label in ID2LABEL.items() if index not in rows.labels]
    if absent:
        chosen = f" with {', '.join(f'{key}={value}' for key, value in split.where.items())}" if split.where else ""
        if holds_out(recipe):
            # Only a column can cause this: a drawn part always has both classes.
            chosen += f" for {name} (as column {column} assigns them)"
        raise RecipeError(
            f"data.{name}: {root} has no {' or '.join(absent)} utterances{chosen}: training needs both classes."
        )
    return rows


def _place(recipe: DataRecipe, split: SplitRecipe) -> tuple[str, str]:
    """Returns the corpus and root of a split."""
    return split.corpus or recipe.corpus, split.root or recipe.root


def _partition_column(corpus: str, root: Path, split: SplitRecipe) -> str:
    """Returns the name that the user's table has for our column `partition`."""
    if corpus == OWN_DATA and root.is_file():
        return manifest_columns(root, split.columns).get("partition", "partition")
    return our_columns(split.columns).get("partition", "partition")


def same_rows(recipe: DataRecipe) -> bool:
    """Returns whether train and dev use the same rows."""
    train, dev = (
        dataclasses.replace(split, corpus=corpus, root=os.path.realpath(root) if os.path.exists(root) else root)
        for split in (recipe.train, recipe.dev)
        for corpus, root in [_place(recipe, split)]
    )
    return train == dev


def count_shared(recipe: DataRecipe, train: TableRows | ShardedRows, dev: TableRows | ShardedRows) -> int:
    """Counts the dev recordings that are also in train: the same files, or the same utterance ids of one dataset."""
    of_train, of_dev = train.files(), dev.files()
    if of_train is None or of_dev is None:
        if (_place(recipe, recipe.train), recipe.train.split) != (_place(recipe, recipe.dev), recipe.dev.split):
            return 0  # two datasets may use the same ids by chance
        of_train, of_dev = train.utterances(), dev.utterances()
    known = set(of_train)
    return sum(name in known for name in of_dev)


def refuse_shared(recipe: DataRecipe, shared: int, total: int) -> None:
    """
    Raises:
        RecipeError: dev shares recordings with train, unless the recipe uses the same rows for both on purpose.
    """
    if not shared or (same_rows(recipe) and recipe.hold_out is None):
        return
    remedy = "choose other rows with data.dev.where, or other recordings with data.dev.root"
    if holds_out(recipe):
        remedy = "list each file once, or in one part only"
    elif recipe.hold_out is not None:
        remedy += " (data.hold_out divides rows only if data.train and data.dev choose the same rows)"
    raise RecipeError(
        f"data.dev: {shared} of its {total} recordings are also in train, so dev would not show how well the model "
        f"judges new recordings: {remedy}."
    )


def holds_out(recipe: DataRecipe) -> bool:
    """Returns whether dev is held out from rows that train and dev share."""
    return recipe.hold_out is not None and same_rows(recipe)


class WindowDataset(Dataset):
    """
    Item (e, i) is utterance i in epoch e: its waveform (S,) float32 of any length and its label (0 spoof, 1 bona
    fide), or a `Broken` if it cannot be read. `collate` makes a batch of items.

    Crops and augmentation depend only on seed, epoch and utterance, not on the number of workers or processes.

    Args:
        kind: `train` augments and crops as the recipe says. `dev` takes the first window or the whole utterance, as
            `data.evaluate` says. `dev_augmented` also augments.
        of_frames: whether an item has a label for each frame, (T,), taken from the corpus's segment labels.
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
        self.repeats = self.crops and recipe.repeat_from == "random"
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
            row, rng = self.rows[index], np.random.default_rng([*self.seed, epoch, index])
            whole = self.augment(read_utterance(row), rng)
            waveform, start = self._crop(whole, rng)
            label = self._frame_labels(row, start, whole.size) if self.of_frames else row["label"]
        except (AudioError, CorpusError) as error:  # also raised, with its name, for an unreadable noise file
            return Broken(error)
        return waveform, label

    def collate(self, items: list[tuple[np.ndarray, Any]]) -> dict[str, torch.Tensor]:
        """Returns `input_values` (B, S), `labels` (B,) or (B, T) and, if lengths differ, `attention_mask`."""
        waveforms, labels = map(list, zip(*items, strict=True))
        features = self.extractor(waveforms, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        if self.of_frames:
            longest = max(label.size for label in labels)
            labels = [np.pad(label, (0, longest - label.size), constant_values=IGNORED) for label in labels]
        # Copied into torch's own memory: CPU kernels choose the order of their sums by memory alignment, and with
        # numpy's memory two identical runs would differ in some bits.
        batch = {"input_values": features["input_values"].clone(), "labels": torch.tensor(np.array(labels))}
        if not features["attention_mask"].all():
            batch["attention_mask"] = features["attention_mask"]
        return batch

    def lengths(self) -> np.ndarray | None:
        """Returns the file size of each row, (N,); None if windows are read or the corpus has no file sizes."""
        return self.rows.sizes() if self.whole else None

    def by_length(self) -> np.ndarray:
        """Returns all row numbers (N,), sorted by `lengths` if they are known."""
        lengths = self.lengths()
        return np.arange(len(self.rows)) if lengths is None else np.argsort(lengths, kind="stable")

    def _crop(self, waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Crops an utterance (S,) at random if it is longer than the window; returns (S',) and the crop's start."""
        start = 0
        if self.repeats and self.extractor.min_samples <= waveform.size < self.window_length:
            waveform = np.tile(waveform, -(-self.window_length // waveform.size))
        excess = waveform.size - self.window_length
        if self.crops and excess > 0:
            start = int(rng.integers(excess + 1))
            waveform = waveform[start : start + self.window_length]
        return waveform, start

    def _frame_labels(self, row: dict[str, Any], start: int, samples: int) -> np.ndarray:
        """
        Returns the label of each frame of the window, (T,): that of the 20 ms segment around the frame's middle.

        Args:
            start: first sample of the window.
            samples: length of the whole utterance. If it is shorter than the window, it is repeated.
        """
        segments = (row["segment_labels"] or {}).get(f"{FRAME * 1000 // SAMPLING_RATE}ms")
        if not segments:
            raise CorpusError(
                f"utterance {row['utterance_id']} has no 20 ms segment labels: unpack the corpus's labels too."
            )
        window = samples if self.whole else self.window_length
        middles = (start + np.arange(REACH // 2, window - REACH // 2 + 1, FRAME)) % samples
        return np.array(segments, np.int64)[np.minimum(middles // FRAME, len(segments) - 1)]
