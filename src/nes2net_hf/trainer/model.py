"""Builds a recipe's model for training, from given or random weights, with low-rank adapters (LoRA, from peft)."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..configuration_nes2net import Nes2NetConfig
from ..hub import bounded_requests, why
from ..modeling_nes2net import (
    MaskedBatchNorm,
    Nes2NetForAudioClassification,
    Nes2NetForAudioFrameClassification,
)
from ..pretrained.cache import locate
from ..pretrained.fast import speed_up
from .recipe import LoraRecipe, ModelRecipe, Recipe, RecipeError
from .starting import is_nes2net, settle


def build_model(recipe: Recipe) -> Nes2NetForAudioClassification | Nes2NetForAudioFrameClassification:
    """
    Builds the recipe's model: a new back-end on a pretrained encoder, a whole Nes2Net model, or only random weights.

    Raises:
        RecipeError: the configuration is invalid, or `model.pretrained` cannot be loaded.
    """
    if recipe.model.head is None:  # as `load_recipe` returns it
        recipe = settle(recipe)
    wanted = recipe.model
    kind = Nes2NetForAudioFrameClassification if wanted.head == "frames" else Nes2NetForAudioClassification
    try:
        with nullcontext() if os.path.isdir(wanted.pretrained or ".") else bounded_requests():
            if not wanted.pretrained:
                model: Any = kind(Nes2NetConfig(encoder_config=wanted.encoder, **wanted.config))
            else:
                name, revision = locate(wanted.pretrained, wanted.revision)
                if is_nes2net(name, revision):
                    model = _to_train_further(kind, name, revision or "main", wanted)
                else:
                    model = kind.from_encoder_pretrained(
                        name, encoder_overrides=wanted.encoder, revision=revision, **wanted.config
                    )
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error
    except OSError as error:
        raise RecipeError(f"model.pretrained: {wanted.pretrained} cannot be loaded: {why(error)}.") from error
    least = model.config.min_samples
    if "whole" in (recipe.data.crop, recipe.data.evaluate) and (recipe.data.min_samples or 400) < least:
        raise RecipeError(
            f"data.min_samples: must be at least {least}, one frame of the {model.config.encoder_config.model_type} "
            f"encoder, where whole utterances are read: set it to {least}."
        )
    speed_up(model, training=True)
    if wanted.lora is not None:
        add_adapters(model, wanted.lora)
    if wanted.freeze == "encoder":
        model.freeze_encoder()
    elif wanted.freeze == "feature_encoder":
        model.freeze_feature_encoder()
    encoder = model.base_model.encoder
    mask = getattr(encoder, "masked_spec_embed", None)
    if mask is not None and not encoder.config.apply_spec_augment:
        mask.requires_grad_(False)  # unused; otherwise distributed training would wait for its gradient
    if wanted.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.synchronized = wanted.synchronize_batch_norm
    return model


def _to_train_further(kind: Any, name: str, revision: str, wanted: ModelRecipe) -> Any:
    """Loads a released or converted model with all its weights, and applies the recipe's training settings."""
    config = Nes2NetConfig.from_pretrained(name, revision=revision)
    for holder, changes in ((config.encoder_config, wanted.encoder), (config, wanted.config)):
        for field, value in changes.items():
            setattr(holder, field, value)
    # These fields describe the initial weights only.
    config.threshold, config.calibration, config.demonstration = None, None, False
    if hasattr(config, "averaged_from"):
        del config.averaged_from
    model, report = kind.from_pretrained(
        name,
        revision=revision,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below
    )
    wrong = sorted(
        [*report["missing_keys"], *report["unexpected_keys"], *(key for key, *_ in report["mismatched_keys"])]
    )
    if wrong:
        raise ValueError(
            f"the weights of {name} do not match its config.json ({wrong[0]}, {len(wrong)} in all): download or "
            "convert the model again."
        )
    return model


def add_adapters(model: nn.Module, recipe: LoraRecipe) -> None:
    """
    Adds adapters to the encoder's linear layers whose names end with one of `targets`, and freezes the rest of the
    encoder.

    Raises:
        RecipeError: peft is not installed, or no layer has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RecipeError("model.lora needs peft: pip install 'nes2net_hf[lora]'.") from None
    encoder: Any = model.base_model.encoder  # type: ignore[union-attr]
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=list(recipe.targets)
    )
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise RecipeError(f"model.lora.targets: {' '.join(str(error).split())[:200]}") from error
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)


def without_adapters(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the model's `weights` with each adapter merged into the layer that it wraps."""
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + delta.to(plain[f"{name}.weight"])
    return plain
