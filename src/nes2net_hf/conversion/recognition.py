"""Recognise the system in a checkpoint from its keys and shapes. The recipe supplies what they do not show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConversionError
from .key_map import AGGREGATION_KEYS, BACKEND_PREFIX, SPLIT_ATTENTION
from .systems import FAIRSEQ_XLSR, NES2NET_LA, S3PRL_WAVLM, UNILM_WAVLM, System, has_wavlm_keys

# From this share of negative running means on, the batch norms follow SELU. After ReLU no mean can be negative once
# trained; after SELU about a third of them are.
_SELU_SHARE = 0.15


@dataclass
class Recognised:
    """The system, fields of `Nes2NetConfig`, fields of the encoder that shapes show, and the assumed values."""

    system: System
    config: dict[str, Any]
    encoder: dict[str, Any]
    assumed: dict[str, str] = field(default_factory=dict)  # name → value, its source, and the option that changes it
    unknown: set[str] = field(default_factory=set)  # of the assumed ones, those that nothing in the file shows


def recognise(tensors: Mapping[str, Tensor], activation: str | None = None, dilation: int | None = None) -> Recognised:
    """
    Recognises a whole system.

    Args:
        tensors: official keys and tensors.
        activation: `"relu"` or `"selu"`; recognised if None.
        dilation: the recipe's if None.

    Raises:
        ConversionError: it is not a Nes2Net system, or its back-end is incomplete.
    """
    system = recognise_system(tensors)
    config, assumed = recognise_backend(tensors), dict[str, str]()
    config["layer_aggregation"] = _aggregation(tensors)
    config["score"] = system.score
    if system.class_weights is not None:
        config["class_weights"] = list(system.class_weights)
    config["dilation"] = system.dilation if dilation is None else dilation
    if dilation is None:
        assumed["dilation"] = f"{system.dilation}, from the recipe; the weights do not show it (--dilation)"
    config["hidden_act"], how, is_shown = _activation(tensors, activation)
    if how:
        assumed["activation"] = how
    encoder = recognise_encoder(tensors, system.encoder_prefix)
    unknown = {
        name for name, is_known in (("dilation", dilation is not None), ("activation", is_shown)) if not is_known
    }
    return Recognised(system, config, encoder, assumed, unknown)


def recognise_system(tensors: Mapping[str, Tensor]) -> System:
    """Returns the family of systems, recognised from the encoder's prefix and key names."""
    if not any(key.startswith(BACKEND_PREFIX) for key in tensors):
        raise ConversionError(
            f"it has no Nes2Net back-end: no key starts with {BACKEND_PREFIX} "
            f"(its first key is {next(iter(tensors))!r})."
        )
    if any(key.startswith(S3PRL_WAVLM.encoder_prefix) for key in tensors):
        return S3PRL_WAVLM
    if not any(key.startswith(FAIRSEQ_XLSR.encoder_prefix) for key in tensors):
        raise ConversionError(
            f"it has no encoder: no key starts with {FAIRSEQ_XLSR.encoder_prefix}; "
            "a back-end without an encoder cannot be converted."
        )
    if has_wavlm_keys(tensors):
        return UNILM_WAVLM
    return NES2NET_LA if any(key.startswith(SPLIT_ATTENTION) for key in tensors) else FAIRSEQ_XLSR


def recognise_backend(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the fields of `Nes2NetConfig` for variant, scales, kernel, SE reduction, pooling and logits."""
    block = f"{BACKEND_PREFIX}Build_in_Res2Nets.0."
    channels, bottleneck = (_size(tensors, f"{block}{name}.weight") for name in ("conv1", "se.se.1"))
    config: dict[str, Any] = {
        "backend_variant": "nes2net_x" if f"{block}weighted_sum.0" in tensors else "nes2net",
        "outer_scale": _size(tensors, f"{BACKEND_PREFIX}bn.weight") // channels,
        "inner_scale": channels // _size(tensors, f"{block}convs.0.weight"),
        "kernel_size": _size(tensors, f"{block}convs.0.weight", axis=2),
        "se_reduction": channels // bottleneck,
        "pooling": "mean",
        "classifier_outputs": _size(tensors, f"{BACKEND_PREFIX}fc.weight"),
    }
    if any(key.startswith(SPLIT_ATTENTION) for key in tensors):
        config["split_attention"] = True
    inner = config["outer_scale"] * config["inner_scale"]
    if inner > len(tensors):  # refuse before a model with that many modules is built
        raise ConversionError(f"its back-end would have over {inner // 2} convolutions; it has {len(tensors)} keys.")
    if f"{BACKEND_PREFIX}pooling.linear1.weight" in tensors:
        config["pooling"] = "attentive_statistics"
        config["pooling_bottleneck"] = _size(tensors, f"{BACKEND_PREFIX}pooling.linear1.weight")
    return config


def recognise_encoder(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """
    Returns the fields of a wav2vec 2.0 or WavLM configuration that shapes show. They do not show the strides, or the
    number of heads of wav2vec 2.0.
    """
    layers = {
        int(match[1]) for key in tensors if (match := re.match(rf"{re.escape(prefix)}encoder\.layers\.(\d+)\.", key))
    }
    convolutions = sorted(
        (int(match[1]), key)
        for key in tensors
        if (match := re.match(rf"{re.escape(prefix)}feature_extractor\.conv_layers\.(\d+)\.0\.weight$", key))
    )
    if not layers or not convolutions:
        raise ConversionError(f"its encoder has no layers or no convolutions under {prefix!r}.")
    positions = f"{prefix}encoder.pos_conv.0.weight_v"
    hidden = _size(tensors, positions)
    fields: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": max(layers) + 1,
        "intermediate_size": _size(tensors, f"{prefix}encoder.layers.0.fc1.weight"),
        "conv_dim": [_size(tensors, key) for _, key in convolutions],
        "conv_kernel": [_size(tensors, key, axis=2) for _, key in convolutions],
        "conv_bias": f"{prefix}feature_extractor.conv_layers.0.0.bias" in tensors,
        "num_conv_pos_embeddings": _size(tensors, positions, axis=2),
        "num_conv_pos_embedding_groups": hidden // _size(tensors, positions, axis=1),
    }
    if has_wavlm_keys(tensors):
        fields["num_attention_heads"] = _size(tensors, f"{prefix}encoder.layers.0.self_attn.grep_a", axis=1)
        buckets = f"{prefix}encoder.layers.0.self_attn.relative_attention_bias.weight"
        fields["num_buckets"] = _size(tensors, buckets)
    return fields


def _aggregation(tensors: Mapping[str, Tensor]) -> str:
    for name, keys in AGGREGATION_KEYS.items():
        if any(f"ssl_model.{key}" in tensors for key in keys.values()):
            return name
    return "last"


def _activation(tensors: Mapping[str, Tensor], wanted: str | None) -> tuple[str, str | None, bool]:
    """Returns the activation, a remark if it is not certain, and whether it is stated or the file indicates it."""
    pattern = re.compile(rf"{re.escape(BACKEND_PREFIX)}Build_in_Res2Nets\..*\.running_mean$")
    means = torch.cat(
        [tensor.flatten().float() for key, tensor in tensors.items() if pattern.match(key)] or [torch.zeros(1)]
    )
    if not means.any():
        if wanted:
            return wanted, None, True
        return "relu", "relu, because the batch norms were never trained (--activation)", False
    share = float((means < 0).float().mean())
    likely = "selu" if share >= _SELU_SHARE else "relu"
    if wanted is not None and wanted != likely:
        return (
            wanted,
            f"{wanted}, as requested, but {share:.0%} negative running means in the batch norms indicate {likely}",
            True,
        )
    if wanted is not None:
        return wanted, None, True
    return (
        likely,
        f"{likely}, from {share:.0%} negative running means in the batch norms; no weight shows it (--activation)",
        True,
    )


def _size(tensors: Mapping[str, Tensor], key: str, axis: int = 0) -> int:
    if key not in tensors:
        raise ConversionError(f"the key {key} is missing.")
    shape = tensors[key].shape
    if len(shape) <= axis or not shape[axis]:
        raise ConversionError(f"the key {key} has the shape {tuple(shape)}, which is too small or has too few axes.")
    return int(shape[axis])
