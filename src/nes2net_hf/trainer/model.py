"""A recipe's model, ready to be trained: from weights or random, and with low-rank adapters (LoRA, by peft)."""

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
from .recipe import LoraRecipe, ModelRecipe, Recipe, RecipeError
from .starting import is_nes2net, settle

# WavLM hands the weights of these to torch's attention itself: adapters around them would never be called.
_BYPASSED_IN_WAVLM = {"q_proj", "k_proj", "v_proj", "out_proj"}


def build_model(recipe: Recipe) -> Nes2NetForAudioClassification | Nes2NetForAudioFrameClassification:
    """
    The recipe's model: around a pretrained encoder, a whole Nes2Net model to train further, or random throughout.

    Raises:
        RecipeError: its configuration is impossible, or what it starts from cannot be loaded.
    """
    if recipe.model.head is None:  # nothing was settled yet
        recipe = settle(recipe)
    wanted = recipe.model
    kind = Nes2NetForAudioFrameClassification if wanted.head == "frames" else Nes2NetForAudioClassification
    try:
        with nullcontext() if os.path.isdir(wanted.pretrained or ".") else bounded_requests():
            if wanted.pretrained and is_nes2net(wanted.pretrained, wanted.revision):
                model: Any = _to_train_further(kind, wanted.pretrained, wanted)
            elif wanted.pretrained:
                model = kind.from_encoder_pretrained(
                    wanted.pretrained, encoder_overrides=wanted.encoder, revision=wanted.revision, **wanted.config
                )
            else:
                model = kind(Nes2NetConfig(encoder_config=wanted.encoder, **wanted.config))
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error
    except OSError as error:
        raise RecipeError(f"model.pretrained: {wanted.pretrained} cannot be loaded: {why(error)}.") from error
    if wanted.lora is not None:
        add_adapters(model, wanted.lora)
    if wanted.freeze == "encoder":
        model.freeze_encoder()
    elif wanted.freeze == "feature_encoder":
        model.freeze_feature_encoder()
    encoder = model.base_model.encoder
    mask = getattr(encoder, "masked_spec_embed", None)
    if mask is not None and not encoder.config.apply_spec_augment:
        mask.requires_grad_(False)  # nothing reads it: processes that average gradients would wait for its own
    if wanted.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.synchronized = wanted.synchronize_batch_norm
    return model


def _to_train_further(kind: Any, name: str, wanted: ModelRecipe) -> Any:
    """A released or converted model with all of its weights, its settings changed as the recipe says."""
    config = Nes2NetConfig.from_pretrained(name, revision=wanted.revision or "main")
    for holder, changes in ((config.encoder_config, wanted.encoder), (config, wanted.config)):
        for field, value in changes.items():
            setattr(holder, field, value)
    # What was settled for the weights that it starts from.
    config.threshold, config.calibration, config.demonstration = None, None, False
    if hasattr(config, "averaged_from"):
        del config.averaged_from
    model, report = kind.from_pretrained(
        name,
        revision=wanted.revision or "main",
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # said below
    )
    wrong = sorted(
        [*report["missing_keys"], *report["unexpected_keys"], *(key for key, *_ in report["mismatched_keys"])]
    )
    if wrong:
        raise ValueError(
            f"the weights of {name} do not fit what the recipe says of the model ({wrong[0]}, "
            f"{len(wrong)} in all): its config.json and its weights are not of one model."
        )
    return model


def add_adapters(model: nn.Module, recipe: LoraRecipe) -> None:
    """
    Puts adapters into the linear layers of the model's encoder whose names end with one of `targets`; of the encoder
    only they learn.

    Raises:
        RecipeError: peft is not installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RecipeError("model.lora needs peft: pip install 'nes2net_hf[lora]'.") from None
    encoder: Any = model.base_model.encoder  # type: ignore[union-attr]
    bypassed = _BYPASSED_IN_WAVLM & set(recipe.targets)
    if encoder.config.model_type == "wavlm" and bypassed:
        raise RecipeError(
            f"model.lora.targets: a WavLM encoder does not call {', '.join(sorted(bypassed))}: "
            "take intermediate_dense and output_dense."
        )
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
    """The model's `weights` as those of one that never had adapters: each added to the layer that it is around."""
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + delta.to(plain[f"{name}.weight"])
    return plain
