"""Turns a corpus's utterances into labelled training windows: reads, augments, and crops or repeats them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio import SAMPLING_RATE, AudioError
from ..augmentation import build_chain
from ..corpora import CorpusError
from ..corpora.utterances import read_utterance
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from .batches import Broken
from .durations import estimate
from .losses import IGNORED
from .mixtures import MixedRows, Rows
from .order import Excerpts
from .recipe import SETTINGS, DataRecipe, LengthRange

FRAME, REACH = 320, 400  # hop and receptive field of an encoder frame, in samples


class WindowDataset(Dataset):
    """
    Item (e, i) is utterance i in epoch e: its waveform (S,) float32 of any length, its label (0 spoof, 1 bona fide)
    and its corpus, or a `Broken` if it cannot be read. Item (e, i, r, s) is its r-th repeat in that epoch, in an
    excerpt of at most s samples (0 if the recipe decides). `collate` makes a batch of items.

    Crops and augmentation depend only on seed, epoch, utterance and repeat, not on the number of workers or processes.

    Args:
        kind: `train` augments and crops as the recipe says. `dev` takes the first window or the whole utterance, as
            `data.evaluate` says. `dev_augmented` also augments.
        of_frames: whether an item has a label for each frame, (T,), taken from the corpus's segment labels.
    """

    def __init__(
        self,
        rows: Rows,
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
        self.names: list[str] = rows.names if isinstance(rows, MixedRows) else []
        """The corpora, if there are several."""
        self.sources: np.ndarray | None = rows.sources if isinstance(rows, MixedRows) else None
        """The corpus of each row, (N,)."""
        self.range = settings["window_length"] if isinstance(settings["window_length"], LengthRange) else None
        longest = settings["window_length"] if self.range is None else self.range.longest
        self.window_length: int = (training and recipe.crop_length) or longest
        self.crops = training and recipe.crop == "random"
        self.repeats = self.crops and recipe.repeat_from == "random"
        self.whole = (recipe.crop if training else settings["evaluate"]) == "whole"
        drawn = training and self.range is not None
        self.extractor = Nes2NetFeatureExtractor(
            window_length=self.window_length,
            length_policy="whole" if self.whole or drawn else "first",
            do_normalize=settings["normalize"],
            normalize_eps=settings["normalize_eps"],
            min_samples=settings["min_samples"],
        )
        self.augment = build_chain(recipe.augmentation if kind != "dev" else [])
        self.seed = [seed, 0 if training else 1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, ...]) -> tuple[np.ndarray, Any, int] | Broken:
        epoch, index, repeat, samples = (*key, 0, 0)[:4]
        try:
            row = self.rows[index]
            rng = np.random.default_rng([*self.seed, epoch, index, *([repeat] if repeat else [])])
            whole = self.augment(read_utterance(row), rng)
            waveform, start = self._crop(whole, samples, rng)
            label = self._frame_labels(row, start, whole.size, samples) if self.of_frames else row["label"]
        except (AudioError, CorpusError) as error:  # also raised, with its name, for an unreadable noise file
            return Broken(error)
        return waveform, label, 0 if self.sources is None else int(self.sources[index])

    def collate(self, items: list[tuple[np.ndarray, Any, int]]) -> dict[str, torch.Tensor]:
        """
        Returns `input_values` (B, S), `labels` (B,) or (B, T), `attention_mask` if lengths differ, and `corpus` (B,),
        an index of `names`, if there are several.
        """
        waveforms, labels, sources = map(list, zip(*items, strict=True))
        features = self.extractor(waveforms, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        if self.of_frames:
            longest = max(label.size for label in labels)
            labels = [np.pad(label, (0, longest - label.size), constant_values=IGNORED) for label in labels]
        # Copied into torch's own memory: CPU kernels choose the order of their sums by memory alignment, and with
        # numpy's memory two identical runs would differ in some bits.
        batch = {"input_values": features["input_values"].clone(), "labels": torch.tensor(np.array(labels))}
        if not features["attention_mask"].all():
            batch["attention_mask"] = features["attention_mask"]
        if self.names:
            batch["corpus"] = torch.tensor(sources)
        return batch

    def excerpts(self, budget: float) -> Excerpts | None:
        """Returns how to plan batches of `budget` samples; None if all windows are equally long."""
        if self.range is None and not self.whole:
            return None
        durations = self.rows.sizes() if self.names else estimate(self.rows).durations
        if self.range is None and durations is None:
            return None
        ends = (None, None) if self.range is None else (self.range.shortest, self.range.longest)
        return Excerpts(budget, durations, *ends)

    def lengths(self) -> np.ndarray | None:
        """Returns the file size of each row, (N,); None if windows are read or the corpus has no file sizes."""
        return self.rows.sizes() if self.whole else None

    def by_length(self) -> np.ndarray:
        """Returns all row numbers (N,), sorted by `lengths` if they are known."""
        lengths = self.lengths()
        return np.arange(len(self.rows)) if lengths is None else np.argsort(lengths, kind="stable")

    def _crop(self, waveform: np.ndarray, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """
        Returns the excerpt (S',) of an utterance (S,), and its start. It is cropped at random if it is longer than its
        window. With excerpts of random length, a shorter one is repeated only up to the shortest length.
        """
        start, window = 0, self._window(waveform.size, samples)
        if (self.repeats or samples) and self.extractor.min_samples <= waveform.size < window:
            waveform = np.tile(waveform, -(-window // waveform.size))
            if not self.repeats:
                waveform = waveform[:window]
        excess = waveform.size - window
        if self.crops and excess > 0:
            start = int(rng.integers(excess + 1))
            waveform = waveform[start : start + window]
        return waveform, start

    def _window(self, samples: int, drawn: int) -> int:
        """Returns the window of an utterance. A drawn length is not longer than the utterance, if that is possible."""
        if not drawn:
            return self.window_length
        assert self.range is not None
        return min(drawn, max(samples, self.range.shortest))

    def _frame_labels(self, row: dict[str, Any], start: int, samples: int, drawn: int = 0) -> np.ndarray:
        """
        Returns the label of each frame of the window, (T,): that of the 20 ms segment around the frame's middle.

        Args:
            start: first sample of the window.
            samples: length of the whole utterance. If it is shorter than the window, it is repeated.
            drawn: longest length of the window, if it is drawn.
        """
        segments = (row["segment_labels"] or {}).get(f"{FRAME * 1000 // SAMPLING_RATE}ms")
        if not segments:
            raise CorpusError(
                f"utterance {row['utterance_id']} has no 20 ms segment labels: unpack the corpus's labels too."
            )
        window = samples if self.whole else self._window(samples, drawn)
        middles = (start + np.arange(REACH // 2, window - REACH // 2 + 1, FRAME)) % samples
        return np.array(segments, np.int64)[np.minimum(middles // FRAME, len(segments) - 1)]
