"""What a checkpoint is: read from its keys and shapes, with what they cannot tell taken from the recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConversionError
from .key_map import AGGREGATION_KEYS, BACKEND_PREFIX
from .systems import FAIRSEQ_XLSR, S3PRL_WAVLM, UNILM_WAVLM, System, has_wavlm_keys

# Share of negative running means from which batch norms were fed by SELU. Behind ReLU none can be negative after
# training; behind SELU about every third is.
_SELU_SHARE = 0.15


@dataclass
class Recognised:
    """The system, fields of `Nes2NetConfig`, what shapes say of the encoder, and what is only assumed."""

    system: System
    config: dict[str, Any]
    encoder: dict[str, Any]
    assumed: dict[str, str] = field(default_factory=dict)  # what → where the value is from, and how to change it


def recognise(tensors: Mapping[str, Tensor], activation: str | None = None, dilation: int | None = None) -> Recognised:
    """
    Args:
        tensors: official keys and tensors of a whole system.
        activation: `"relu"` or `"selu"`, where the user knows better.
        dilation: likewise.

    Raises:
        ConversionError: it is no Nes2Net system, or its back-end is incomplete.
    """
    system = recognise_system(tensors)
    config, assumed = recognise_backend(tensors), dict[str, str]()
    config["layer_aggregation"] = _aggregation(tensors)
    config["score"] = system.score
    if system.class_weights is not None:
        config["class_weights"] = list(system.class_weights)
    config["dilation"] = system.dilation if dilation is None else dilation
    if dilation is None:
        assumed["dilation"] = f"{system.dilation}, the recipe's; weights do not tell it (--dilation)"
    config["hidden_act"], how = _activation(tensors, activation)
    if how:
        assumed["activation"] = how
    encoder = recognise_encoder(tensors, system.encoder_prefix)
    return Recognised(system, config, encoder, assumed)


def recognise_system(tensors: Mapping[str, Tensor]) -> System:
    """The family, from where the encoder's keys lie and what kind of keys they are."""
    if not any(key.startswith(BACKEND_PREFIX) for key in tensors):
        raise ConversionError(
            f"no Nes2Net back-end is in it: no key begins with {BACKEND_PREFIX} "
            f"(its first key is {next(iter(tensors))!r})."
        )
    if any(key.startswith(S3PRL_WAVLM.encoder_prefix) for key in tensors):
        return S3PRL_WAVLM
    if not any(key.startswith(FAIRSEQ_XLSR.encoder_prefix) for key in tensors):
        raise ConversionError(
            f"no encoder is in it: no key begins with {FAIRSEQ_XLSR.encoder_prefix}; "
            "a back-end alone cannot be converted."
        )
    return UNILM_WAVLM if has_wavlm_keys(tensors) else FAIRSEQ_XLSR


def recognise_backend(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Variant, scales, kernel, SE reduction, pooling and logits: fields of `Nes2NetConfig`."""
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
    inner = config["outer_scale"] * config["inner_scale"]
    if inner > len(tensors):  # a model of that many modules is not built only to say so
        raise ConversionError(f"its back-end would have over {inner // 2} convolutions; it has {len(tensors)} keys.")
    if f"{BACKEND_PREFIX}pooling.linear1.weight" in tensors:
        config["pooling"] = "attentive_statistics"
        config["pooling_bottleneck"] = _size(tensors, f"{BACKEND_PREFIX}pooling.linear1.weight")
    return config


def recognise_encoder(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """The fields of a wav2vec 2.0 or WavLM configuration that shapes tell; heads of wav2vec 2.0 and strides do not."""
    layers = {
        int(match[1]) for key in tensors if (match := re.match(rf"{re.escape(prefix)}encoder\.layers\.(\d+)\.", key))
    }
    convolutions = sorted(
        (int(match[1]), key)
        for key in tensors
        if (match := re.match(rf"{re.escape(prefix)}feature_extractor\.conv_layers\.(\d+)\.0\.weight$", key))
    )
    if not layers or not convolutions:
        raise ConversionError(f"its encoder has no layers or no convolutions below {prefix!r}.")
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


def _activation(tensors: Mapping[str, Tensor], wanted: str | None) -> tuple[str, str | None]:
    """The activation, and what to say where it is not certain."""
    pattern = re.compile(rf"{re.escape(BACKEND_PREFIX)}Build_in_Res2Nets\..*\.running_mean$")
    means = torch.cat(
        [tensor.flatten().float() for key, tensor in tensors.items() if pattern.match(key)] or [torch.zeros(1)]
    )
    if not means.any():
        return wanted or "relu", None if wanted else "relu, because its batch norms were never trained (--activation)"
    share = float((means < 0).float().mean())
    told = "selu" if share >= _SELU_SHARE else "relu"
    if wanted is not None and wanted != told:
        return (
            wanted,
            f"{wanted}, as asked, though {share:.0%} negative running means in its batch norms speak for {told}",
        )
    if wanted is not None:
        return wanted, None
    return (
        told,
        f"{told}, from {share:.0%} negative running means in its batch norms; no weight tells it (--activation)",
    )


def _size(tensors: Mapping[str, Tensor], key: str, axis: int = 0) -> int:
    if key not in tensors:
        raise ConversionError(f"the key {key} is missing.")
    shape = tensors[key].shape
    if len(shape) <= axis or not shape[axis]:
        raise ConversionError(f"{key} has the shape {tuple(shape)}: it is too small or has too few axes.")
    return int(shape[axis])
