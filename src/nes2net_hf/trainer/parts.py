"""Sets up the parts of a run: processes, data, and the model with its optimiser and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState, is_initialized
from torch.optim.lr_scheduler import LambdaLR

from ..audio import SAMPLING_RATE
from ..machine import cores
from .batches import BatchStream
from .data import WindowDataset
from .features import FeatureSet, feature_set
from .mixtures import mixture_of
from .model import build_model
from .opening import count_shared, open_split, refuse_same_corpora, refuse_shared
from .optimisation import build_optimiser, learning_rate_factor
from .recipe import Recipe, RecipeError
from .running_average import RunningAverage


def start_processes(recipe: Recipe) -> Accelerator:
    """
    Starts the accelerator that connects the processes of a run.

    Raises:
        RecipeError: the device does not support the recipe, a tracker is not installed, or a batch cannot be split
            evenly over the processes.
    """
    # accelerate keeps the precision of the process's first accelerator: forget the one of an earlier run.
    if is_initialized() and AcceleratorState().mixed_precision != recipe.mixed_precision:
        AcceleratorState._reset_state()
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
    if recipe.batch_seconds is not None:
        longest = (recipe.data.longest_window or 0) / SAMPLING_RATE
        if recipe.data.crop != "whole" and recipe.batch_seconds < processes * recipe.passes * longest:
            raise RecipeError(
                f"batch_seconds: {recipe.batch_seconds:g} s cannot hold an excerpt of {longest:g} s for each of "
                f"{processes} processes with {recipe.passes} passes: increase it."
            )
    elif recipe.batch_size % (processes * recipe.passes):
        raise RecipeError(
            f"batch_size: {recipe.batch_size} utterances cannot be split evenly over {processes} processes with "
            f"{recipe.passes} passes each: change one of them."
        )
    if accelerator.device.type == "cpu":
        # accelerate launch gives each process one thread by default: divide the cores instead.
        torch.set_num_threads(max(1, cores() // processes))
    return accelerator


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
    share = max(1, usual_batch(recipe) // accelerator.num_processes)
    of_frames = recipe.model.head == "frames"
    train = open_split(recipe.data, "train", share, of_frames)
    dev = open_split(recipe.data, "dev", of_frames=of_frames)
    shared = count_shared(recipe.data, train, dev)
    if not resuming:
        refuse_shared(recipe.data, shared, len(dev))
        refuse_same_corpora(recipe.data)
    train_set: Any = WindowDataset(train, recipe.data, "train", recipe.seed, of_frames)
    kinds = ("dev", "dev_augmented") if recipe.validation.augmented else ("dev",)
    dev_sets: dict[str, Any] = {kind: WindowDataset(dev, recipe.data, kind, recipe.seed, of_frames) for kind in kinds}
    if recipe.data.features is not None:
        train_set = feature_set(recipe, "train", train_set)
        dev_sets = {"dev": feature_set(recipe, "dev", dev_sets["dev"])}
    pin_memory = accelerator.device.type == "cuda"
    stream = training_stream(
        recipe,
        train_set,
        accelerator.process_index,
        accelerator.num_processes,
        pin_memory,
        announced=accelerator.is_main_process,
    )
    if not len(stream):
        size = f"batch_size: {recipe.batch_size}"
        if recipe.batch_seconds is not None:
            size = f"batch_seconds: {recipe.batch_seconds:g} s"
        raise RecipeError(f"{size} is more than the {len(train)} training utterances: choose at most that.")
    dev_batch = recipe.validation.batch_size or max(1, 2 * share // recipe.passes)
    return Data(train_set, stream, dev_sets, dev_batch, shared)


def usual_batch(recipe: Recipe) -> int:
    """Returns the utterances of a batch; the fewest, if batches have a budget of seconds."""
    if recipe.batch_seconds is None:
        return recipe.batch_size
    longest = recipe.data.crop_length or recipe.data.longest_window
    assert longest is not None
    return max(1, int(recipe.batch_seconds * SAMPLING_RATE // longest))


def training_stream(
    recipe: Recipe,
    train_set: Any,
    process: int = 0,
    processes: int = 1,
    pin_memory: bool = False,
    announced: bool = False,
) -> BatchStream:
    """
    Returns the batches of the recipe's training data.

    Args:
        train_set: a `WindowDataset` or a `FeatureSet`.
        process, processes, pin_memory: see `BatchStream`.
        announced: whether to print the shares of several corpora.

    Raises:
        RecipeError: the batches need durations that are unknown.
    """
    excerpts = None
    if recipe.batch_seconds is not None:
        excerpts = train_set.excerpts(recipe.batch_seconds * SAMPLING_RATE)
        if excerpts is None and recipe.data.crop == "whole":
            raise RecipeError("batch_seconds: the lengths of whole utterances in shards are unknown: use batch_size.")
    batch_size = usual_batch(recipe)
    if excerpts is None and recipe.batch_seconds is not None:
        batch_size -= batch_size % (processes * recipe.passes)
    weights = [part.weight for part in recipe.data.train.corpora.values()] or [None]
    mixture = mixture_of(train_set.rows, recipe.data.mixing, weights, recipe.seed)
    if announced and mixture is not None and train_set.names:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in mixture.shares.items())
        print(f"train: of the utterances of an epoch, {shares}")
    return BatchStream(
        train_set,
        train_set.rows.group_sizes,
        batch_size,
        train_set.collate,
        process=process,
        processes=processes,
        passes=recipe.passes,
        seed=recipe.seed,
        keep_last=recipe.keep_last_batch,
        workers=recipe.data.workers,
        lengths=None if excerpts is not None else train_set.lengths(),
        draw=mixture,
        excerpts=excerpts,
        max_broken=recipe.data.max_broken,
        pin_memory=pin_memory,
    )


def build_learner(
    recipe: Recipe, accelerator: Accelerator, steps_per_epoch: int
) -> tuple[Any, Any, LambdaLR, RunningAverage | None]:
    """
    Builds the model, optimiser, learning-rate schedule and average of the weights, and registers them with
    `accelerator` for saving.

    Raises:
        RecipeError: see `build_model`; or an average does not work with a model that processes share.
    """
    model = build_model(recipe)
    average = None
    if recipe.average is not None:
        if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise RecipeError("average: does not work if processes share the model: use ddp.yaml, or average=null.")
        average = RunningAverage(model, recipe.average)
        average.state.to(accelerator.device)
    optimiser = build_optimiser(model, recipe)
    if recipe.model.compile:
        model.compile()  # in place: a wrapper would rename the weights
    model, optimiser = accelerator.prepare(model, optimiser)
    # Not passed to `prepare`: accelerate would step it once per process.
    schedule = LambdaLR(optimiser.optimizer, learning_rate_factor(recipe, steps_per_epoch))
    accelerator.register_for_checkpointing(schedule)
    if average is not None:
        accelerator.register_for_checkpointing(average.state)
    return model, optimiser, schedule, average
