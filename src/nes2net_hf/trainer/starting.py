"""
Settles a recipe with the model that it starts from. A Nes2Net model that is trained further keeps the preprocessing
and architecture that its weights were trained with, because the weights only work with these. A recipe that
contradicts them is refused.
"""

from __future__ import annotations

import copy
import json
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..configuration_nes2net import Nes2NetConfig
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..hub import bounded_requests, why
from ..pretrained.cache import locate
from ..scores import judges_frames
from .checks import check
from .recipe import SETTINGS, Recipe, RecipeError, check_same, load_kept, settle_by_default, settle_with, value_of

# Fields of `model.config` that the weights depend on. A run writes them into its recipe.
TRAINED_WITH = (
    "layer_aggregation", "backend_variant", "outer_scale", "inner_scale", "kernel_size", "dilation", "se_reduction",
    "hidden_act", "pooling", "pooling_bottleneck", "classifier_outputs", "cosine_scale", "score", "id2label",
    "encoder_layers", "split_attention",
)  # fmt: skip
_LATER = {"cosine_scale", "encoder_layers", "split_attention"}  # fields that runs of 0.1.0 do not have
# Training settings, which any recipe may change. Encoders have different ones, so `model.encoder` has a pattern.
TRAINING_CONFIG = ("class_weights",)
_TRAINING_ENCODER = re.compile(r".*dropout|.*layerdrop|apply_spec_augment|mask_.*")


def is_nes2net(name: str, revision: str | None) -> bool:
    """Returns whether `model.pretrained` is a whole Nes2Net model rather than an encoder."""
    config, _ = Nes2NetConfig.get_config_dict(name, revision=revision or "main")
    return config.get("model_type") == Nes2NetConfig.model_type


def settle(recipe: Recipe) -> Recipe:
    """
    Returns the recipe with every open key filled in, from the Nes2Net model in `model.pretrained` or else by default.

    Raises:
        RecipeError: the model cannot be read, or the recipe contradicts it. The message names the key and both values.
    """
    recipe, start = copy.deepcopy(recipe), recipe.model
    if start.pretrained:
        try:
            with nullcontext() if os.path.isdir(start.pretrained) else bounded_requests():
                name, revision = locate(start.pretrained, start.revision)
                if is_nes2net(name, revision):
                    _follow(recipe, name, revision or "main")
        except (OSError, ValueError) as error:
            if isinstance(error, RecipeError):
                raise
            raise RecipeError(f"model.pretrained: {start.pretrained} cannot be loaded: {why(error)}.") from error
    settle_by_default(recipe)
    check(recipe)
    return recipe


def as_begun(kept: Path, recipe: Recipe) -> Recipe:
    """
    Returns the recipe with its open keys filled in from the recipe `kept` by the run, even if the model has moved.

    Raises:
        OutputError: the run began with another recipe; the message names the first key that differs.
    """
    begun, recipe = load_kept(kept), copy.deepcopy(recipe)
    settle_with(recipe, {key: value_of(begun, key) for key in SETTINGS})
    if begun.model.config.keys() >= set(TRAINED_WITH) - _LATER:  # of a Nes2Net model
        said = {key: value for key, value in recipe.model.config.items() if value is not None}
        recipe.model.config = {**begun.model.config, **said}
    check_same(kept, recipe)
    return recipe


def _follow(recipe: Recipe, name: str, revision: str) -> None:
    """Fills in the recipe's open keys from the model."""
    config = Nes2NetConfig.from_pretrained(name, revision=revision)
    if os.path.isdir(name) and not Path(name, FEATURE_EXTRACTOR_NAME).is_file():
        raise RecipeError(
            f"model.pretrained: {name} has no {FEATURE_EXTRACTOR_NAME}, which says how to prepare waveforms: "
            "copy it there."
        )
    extractor = Nes2NetFeatureExtractor.from_pretrained(name, revision=revision)
    brought = {
        "model.head": "frames" if judges_frames(config) else "utterance",
        "data.window_length": extractor.window_length,
        "data.evaluate": "whole" if extractor.length_policy == "whole" else "window",
        "data.normalize": extractor.do_normalize,
        "data.normalize_eps": extractor.normalize_eps,
        "data.min_samples": extractor.min_samples,
    }
    for key, value in brought.items():
        said = recipe.data.longest_window if key == "data.window_length" else value_of(recipe, key)
        _compare(key, said, value, name)
    settle_with(recipe, brought)
    model = recipe.model
    for key, value in model.encoder.items():
        if not _TRAINING_ENCODER.fullmatch(key):
            _compare(f"model.encoder.{key}", value, getattr(config.encoder_config, key, None), name)
    said = {key: value for key, value in model.config.items() if value is not None or key in TRAINING_CONFIG}
    for key, value in said.items():
        if key not in TRAINING_CONFIG:
            _compare(f"model.config.{key}", value, getattr(config, key, None), name)
    model.encoder = {key: value for key, value in model.encoder.items() if _TRAINING_ENCODER.fullmatch(key)}
    inherited = {key: getattr(config, key) for key in (*TRAINED_WITH, *TRAINING_CONFIG)}
    model.config = inherited | {key: value for key, value in said.items() if key in TRAINING_CONFIG}


def _compare(key: str, said: Any, brought: Any, name: str) -> None:
    """Raises RecipeError if the recipe contradicts its model."""
    if said is not None and _plain(said) != _plain(brought):
        raise RecipeError(
            f"{key}: this recipe says {_yaml(said)}, but {name} was trained with {_yaml(brought)}: remove the key, or "
            f"add {key}=null to the command, to use the model's value."
        )


def _plain(value: Any) -> Any:
    """Returns the value as JSON has it: tuples become lists, and keys become strings."""
    return json.loads(json.dumps(value, default=str))


def _yaml(value: Any) -> str:
    """Returns the value as a recipe writes it."""
    return json.dumps(value, default=str)
