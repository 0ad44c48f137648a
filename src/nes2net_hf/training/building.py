"""A recipe's model, ready to be trained."""

from __future__ import annotations

from typing import Any

from ..configuration_nes2net import Nes2NetConfig
from ..hub import why
from ..modeling_nes2net import (
    MaskedBatchNorm,
    Nes2NetForAudioClassification,
    Nes2NetForAudioFrameClassification,
)
from .adapters import add_adapters
from .recipe import Recipe, RecipeError


def build_model(recipe: Recipe) -> Nes2NetForAudioClassification | Nes2NetForAudioFrameClassification:
    """
    The recipe's model: around a pretrained encoder, or random throughout.

    Raises:
        RecipeError: its configuration is impossible, or the encoder cannot be loaded.
    """
    wanted = recipe.model
    kind = Nes2NetForAudioFrameClassification if wanted.head == "frames" else Nes2NetForAudioClassification
    try:
        if wanted.pretrained:
            model: Any = kind.from_encoder_pretrained(
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
