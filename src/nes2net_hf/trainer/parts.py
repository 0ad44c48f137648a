"""Sets up the parts of a run: processes, data, and the model with its optimiser and schedule."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LambdaLR

from .batches import BatchStream
from .data import WindowDataset, count_shared, open_split, refuse_shared
from .features import FeatureSet, feature_set
from .model import build_model
from .optimisation import build_optimiser, learning_rate_factor
from .recipe import Recipe, RecipeError


def start_processes(recipe: Recipe) -> Accelerator:
    """
    Starts the accelerator that connects the processes of a run.

    Raises:
        RecipeError: the device does not support the recipe, a tracker is not installed, or a batch cannot be split
            evenly over the processes.
    """
    try:
        accelerator = Accelerator(
            mixed_precision=recipe.mixed_precision,
            log_with=recipe.trackers or None,
            project_dir=recipe.output if recipe.trackers else None,
        )
    except (ValueError, ImportError) as error:
        raise RecipeError(f"mixed_precision, trackers: {' '.join(str(error).split())[:200]}") from error
    if len(accelerator.log_with) < len(recipe.trackers):  # accelerate ignores trackers that it cannot import
        raise RecipeError(
            f"trackers: not all of {', '.join(recipe.trackers)} are installed here: install them with pip, or remove "
            "them (trackers=[])."
        )
    processes = accelerator.num_processes
    if recipe.batch_size % (processes * recipe.passes):
        raise RecipeError(
            f"batch_size: {recipe.batch_size} utterances cannot be split evenly over {processes} processes with "
            f"{recipe.passes} passes each: change one of them."
        )
    if accelerator.device.type == "cpu":
        # accelerate launch gives each process one thread by default: divide the cores instead.
        torch.set_num_threads(max(1, _cores() // processes))
    return accelerator


def _cores() -> int:
    """Returns how many cores this process may use: a cluster or taskset may limit it to a part of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Data:
    """The recordings of a run."""

    train_set: Any
    """A `WindowDataset`, or a `FeatureSet`."""
    stream: BatchStream
    """Training batches of this process."""
    dev_sets: dict[str, Any]
    """`dev`, and `dev_augmented` if dev is also evaluated with augmentation."""
    dev_batch: int
    """Utterances per pass over dev, on this process."""
    shared: int
    """Recordings of dev that are also in train."""

    def store_features(self, accelerator: Accelerator, model: Any) -> None:
        """Computes missing features, if the recipe keeps features."""
        for dataset in (self.train_set, *self.dev_sets.values()):
            if isinstance(dataset, FeatureSet):
                dataset.store(accelerator, model, self.dev_batch)


def open_data(recipe: Recipe, accelerator: Accelerator, resuming: bool = False) -> Data:
    """
    Opens train and dev as the recipe says.

    Args:
        resuming: whether the run is resumed. If so, dev may share recordings with train, as it did at the start.

    Raises:
        RecipeError: a corpus cannot be opened, lacks a class or is smaller than a batch; or dev shares recordings with
            train.
    """
    share = recipe.batch_size // accelerator.num_processes
    of_frames = recipe.model.head == "frames"
    train = open_split(recipe.data, "train", share, of_frames)
    dev = open_split(recipe.data, "dev", of_frames=of_frames)
    shared = count_shared(recipe.data, train, dev)
    if not resuming:
        refuse_shared(recipe.data, shared, len(dev))
    train_set: Any = WindowDataset(train, recipe.data, "train", recipe.seed, of_frames)
    kinds = ("dev", "dev_augmented") if recipe.validation.augmented else ("dev",)
    dev_sets: dict[str, Any] = {kind: WindowDataset(dev, recipe.data, kind, recipe.seed, of_frames) for kind in kinds}
    if recipe.data.features is not None:
        train_set = feature_set(recipe, "train", train_set)
        dev_sets = {"dev": feature_set(recipe, "dev", dev_sets["dev"])}
    stream = BatchStream(
        train_set,
        train.group_sizes,
        recipe.batch_size,
        train_set.collate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        passes=recipe.passes,
        seed=recipe.seed,
        keep_last=recipe.keep_last_batch,
        workers=recipe.data.workers,
        lengths=train_set.lengths(),
        max_broken=recipe.data.max_broken,
        pin_memory=accelerator.device.type == "cuda",
    )
    if not len(stream):
        raise RecipeError(
            f"batch_size: {recipe.batch_size} is more than the {len(train)} training utterances: choose at most that."
        )
    return Data(train_set, stream, dev_sets, recipe.validation.batch_size or 2 * share // recipe.passes, shared)


def build_learner(recipe: Recipe, accelerator: Accelerator, steps_per_epoch: int) -> tuple[Any, Any, LambdaLR]:
    """
    Builds the model, optimiser and learning-rate schedule, and registers them with `accelerator` for saving.

    Raises:
        RecipeError: see `build_model`.
    """
    model = build_model(recipe)
    optimiser = build_optimiser(model, recipe)
    if recipe.model.compile:
        model.compile()  # in place: a wrapper would rename the weights
    model, optimiser = accelerator.prepare(model, optimiser)
    # Not passed to `prepare`: accelerate would step it once per process.
    schedule = LambdaLR(optimiser.optimizer, learning_rate_factor(recipe, steps_per_epoch))
    accelerator.register_for_checkpointing(schedule)
    return model, optimiser, schedule
