"""Finds the keys of a recipe that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audio import SAMPLING_RATE
from ..augmentation import MOVING, AugmentationError, build_chain, step_names
from ..errors import RecipeError

if TYPE_CHECKING:
    from .recipe import Recipe


def check(recipe: Recipe) -> None:
    """Raises RecipeError for the first key that contradicts another. Open keys are not checked."""
    data = recipe.data
    _check_lengths(recipe)
    _check_mixture(recipe)
    if data.repeat_from == "random" and data.crop != "random":
        raise RecipeError(f"data.repeat_from: random needs data.crop=random, got {data.crop}: set it, or use start.")
    try:
        build_chain(data.augmentation)
    except AugmentationError as error:
        raise RecipeError(f"data.augmentation: {error}") from error
    if not recipe.model.pretrained and not recipe.model.encoder.get("model_type"):
        raise RecipeError(
            "model.encoder.model_type: missing: set it, e.g. to wav2vec2, or name an encoder in model.pretrained."
        )
    for key, pair in (
        ("loss.targets", recipe.loss.targets),
        ("loss.margins", recipe.loss.margins),
        ("optimiser.betas", recipe.optimiser.betas),
    ):
        if len(pair) != 2 or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in pair):
            raise RecipeError(f"{key}: must be two numbers between 0 and 1, got {pair}.")
    if recipe.model.head == "frames":
        _check_frames(recipe)
    if recipe.data.features is not None:
        _check_features(recipe)
    if recipe.model.lora is not None and recipe.model.freeze == "encoder":
        raise RecipeError("model.freeze: encoder also freezes the adapters of model.lora: remove one of the two.")
    for key in ("freeze_epochs", "thaw_layers"):
        if getattr(recipe.model, key) and recipe.model.freeze == "encoder":
            raise RecipeError(
                f"model.{key}: {getattr(recipe.model, key)} has no effect if model.freeze=encoder freezes the encoder "
                "in all epochs: remove one of the two."
            )
    if recipe.model.head is not None:
        _check_head(recipe)
    if recipe.schedule.name == "cosine_epochs" and recipe.schedule.period is None:
        raise RecipeError("schedule.period: schedule.name=cosine_epochs needs a period: set it, in epochs.")
    if recipe.validation.epochs == "cosine_minima" and recipe.schedule.name != "cosine_epochs":
        raise RecipeError("validation.epochs: cosine_minima needs schedule.name=cosine_epochs: set it, or use all.")
    if (recipe.validation.loss == "batch_means") != (recipe.validation.loss_batch is not None):
        raise RecipeError(
            f"validation.loss_batch: {recipe.validation.loss_batch} does not fit validation.loss="
            f"{recipe.validation.loss}: set it, in utterances, for batch_means, and only then."
        )
    if recipe.validation.select == "dev_loss_augmented" and not recipe.validation.augmented:
        raise RecipeError("validation.select: dev_loss_augmented needs validation.augmented=true: set it.")


def _check_lengths(recipe: Recipe) -> None:
    """Raises RecipeError for lengths of excerpts, or of batches in seconds, that do not fit together."""
    data, longest = recipe.data, recipe.data.longest_window or recipe.data.crop_length
    if data.crop_length is not None and longest and not 400 <= data.crop_length <= longest:
        raise RecipeError(
            f"data.crop_length: must be from 400 to data.window_length, {data.longest_window} samples, "
            f"got {data.crop_length}."
        )
    if data.window_length is not None and not isinstance(data.window_length, int):
        shortest, longest = data.window_length.shortest, data.window_length.longest
        if not 400 <= shortest <= longest:
            raise RecipeError(
                f"data.window_length: must be a range from at least 400 samples (25 ms) upwards, got {shortest} to "
                f"{longest} samples."
            )
        if recipe.batch_seconds is None:
            raise RecipeError(
                "batch_seconds: missing: with a range in data.window_length, batches have so many seconds of audio "
                "instead of batch_size utterances."
            )
        if data.crop != "random" or data.crop_length is not None:
            raise RecipeError(
                "data.window_length: a range needs data.crop=random, and no data.crop_length: remove the other key."
            )
    if recipe.batch_seconds is None:
        return
    if data.features is not None or recipe.schedule.name == "cosine_epochs":
        other = "schedule.name=cosine_epochs" if data.features is None else "data.features"
        raise RecipeError(f"batch_seconds: does not work with {other}: use batch_size.")
    if data.crop != "whole" and longest and recipe.batch_seconds * SAMPLING_RATE < longest:
        raise RecipeError(
            f"batch_seconds: {recipe.batch_seconds:g} s cannot hold the longest excerpt, {longest / SAMPLING_RATE:g} "
            "s: increase it."
        )


def _check_mixture(recipe: Recipe) -> None:
    """Raises RecipeError for several corpora that do not say what to read of each, or how often."""
    data = recipe.data
    given = data.mixing.weights == "given"
    for name, split in (("train", data.train), ("dev", data.dev)):
        for key, value in vars(split).items():
            if split.corpora and key != "corpora" and value:
                raise RecipeError(f"data.{name}.{key}: give it to each of data.{name}.corpora instead.")
        for corpus, part in split.corpora.items():
            if (part.weight is not None) != (given and name == "train"):
                raise RecipeError(
                    f"data.{name}.corpora.{corpus}.weight: "
                    + ("missing: set it, because" if part.weight is None else "has no effect: only data.train has, if")
                    + " data.mixing.weights=given."
                )
    if given and not data.train.corpora:
        raise RecipeError("data.mixing.weights: given needs several corpora in data.train.corpora: name them.")
    if recipe.validation.select == "dev_eer_mean" and not data.dev.corpora:
        raise RecipeError(
            "validation.select: dev_eer_mean needs several corpora in data.dev.corpora: name them, or use dev_eer."
        )


def _check_head(recipe: Recipe) -> None:
    """Raises RecipeError if the classifier does not fit the loss."""
    config, loss = recipe.model.config, recipe.loss.name
    one = loss in ("focal", "oc_softmax")
    if one and config.get("classifier_outputs", 2) != 1:
        raise RecipeError(f"loss.name: {loss} needs a head with one logit: set model.config.classifier_outputs=1.")
    if loss == "am_softmax" and (config.get("classifier_outputs") or 2) != 2:
        raise RecipeError("loss.name: am_softmax needs a head with two logits: set model.config.classifier_outputs=2.")
    if loss in ("am_softmax", "oc_softmax") and config.get("cosine_scale") is None:
        raise RecipeError(f"loss.name: {loss} needs a cosine classifier: set model.config.cosine_scale, e.g. to 20.")


def _check_features(recipe: Recipe) -> None:
    """Raises RecipeError if the encoder or the waveforms change between epochs."""
    if recipe.model.freeze != "encoder":
        raise RecipeError("data.features: the features change while the encoder learns: set model.freeze=encoder.")
    if recipe.data.augmentation or recipe.data.crop == "random":
        raise RecipeError(
            "data.features: augmentation and random crops change the waveforms in every epoch: set "
            "data.augmentation=[] and data.crop=first (or whole)."
        )
    if recipe.model.config.get("waveform_stem"):
        raise RecipeError("data.features: a waveform stem needs the waveforms too: remove model.config.waveform_stem.")


def _check_frames(recipe: Recipe) -> None:
    wrong = [value for value in recipe.loss.resolutions if not isinstance(value, int) or value < 20 or value % 20]
    if wrong or not recipe.loss.resolutions:
        raise RecipeError(f"loss.resolutions: must be multiples of 20 ms, got {recipe.loss.resolutions}.")
    if recipe.loss.name != "cross_entropy":
        raise RecipeError(f"loss.name: {recipe.loss.name} does not work with model.head=frames: use cross_entropy.")
    if recipe.validation.loss == "batch_means":
        raise RecipeError("validation.loss: batch_means does not work with model.head=frames: use global.")
    moving = step_names(recipe.data.augmentation).intersection(MOVING)
    if moving:
        raise RecipeError(f"data.augmentation: {min(moving)} shifts frames away from their labels: remove it.")
