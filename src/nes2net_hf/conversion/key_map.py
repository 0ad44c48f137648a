"""
Map our key names to those of the official systems.

The rules translate in one direction only, from ours to the official names. The keys that a checkpoint must contain
follow from our own model. The rules are valid for every size that `Nes2NetConfig` can describe.
"""

from __future__ import annotations

import re

from ..configuration_nes2net import Nes2NetConfig

BACKEND_PREFIX = "Nested_Res2Net_TDNN."
SPLIT_ATTENTION = f"{BACKEND_PREFIX}local_block_attn."
ENCODER = "nes2net.encoder."

# (pattern of our key, official key); the first match counts.
_ENCODER_RULES = (
    (r"masked_spec_embed", "mask_emb"),
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.(\w+)", r"feature_extractor.conv_layers.\1.0.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(\w+)", r"feature_extractor.conv_layers.\1.2.1.\2"),
    (r"feature_projection\.layer_norm\.(\w+)", r"layer_norm.\1"),
    (r"feature_projection\.projection\.(\w+)", r"post_extract_proj.\1"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "encoder.pos_conv.0.weight_g"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "encoder.pos_conv.0.weight_v"),
    (r"encoder\.pos_conv_embed\.conv\.bias", "encoder.pos_conv.0.bias"),
    (r"encoder\.layers\.(\d+)\.attention\.gru_rel_pos_const", r"encoder.layers.\1.self_attn.grep_a"),
    (r"encoder\.layers\.(\d+)\.attention\.gru_rel_pos_linear\.(\w+)", r"encoder.layers.\1.self_attn.grep_linear.\2"),
    (
        r"encoder\.layers\.(\d+)\.attention\.rel_attn_embed\.weight",
        r"encoder.layers.\1.self_attn.relative_attention_bias.weight",
    ),
    (r"encoder\.layers\.(\d+)\.attention\.([kvq]|out)_proj\.(\w+)", r"encoder.layers.\1.self_attn.\2_proj.\3"),
    (r"encoder\.layers\.(\d+)\.layer_norm\.(\w+)", r"encoder.layers.\1.self_attn_layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.(\w+)", r"encoder.layers.\1.fc1.\2"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.(\w+)", r"encoder.layers.\1.fc2.\2"),
    (r"(encoder\.layers\.\d+\.final_layer_norm\.\w+|encoder\.layer_norm\.\w+)", r"\1"),
)
_BACKEND_RULES = (
    (r"nes2net\.backend\.blocks\.(\d+)\.conv_in\.(\w+)", r"Build_in_Res2Nets.\1.conv1.\2"),
    (r"nes2net\.backend\.blocks\.(\d+)\.norm_in\.(\w+)", r"Build_in_Res2Nets.\1.bn1.\2"),
    (r"nes2net\.backend\.blocks\.(\d+)\.steps\.(\d+)\.conv\.(\w+)", r"Build_in_Res2Nets.\1.convs.\2.\3"),
    (r"nes2net\.backend\.blocks\.(\d+)\.steps\.(\d+)\.norm\.(\w+)", r"Build_in_Res2Nets.\1.bns.\2.\3"),
    (r"nes2net\.backend\.blocks\.(\d+)\.steps\.(\d+)\.column_weights", r"Build_in_Res2Nets.\1.weighted_sum.\2"),
    (r"nes2net\.backend\.blocks\.(\d+)\.conv_out\.(\w+)", r"Build_in_Res2Nets.\1.conv3.\2"),
    (r"nes2net\.backend\.blocks\.(\d+)\.norm_out\.(\w+)", r"Build_in_Res2Nets.\1.bn3.\2"),
    (r"nes2net\.backend\.blocks\.(\d+)\.squeeze_excitation\.squeeze\.(\w+)", r"Build_in_Res2Nets.\1.se.se.1.\2"),
    (r"nes2net\.backend\.blocks\.(\d+)\.squeeze_excitation\.excite\.(\w+)", r"Build_in_Res2Nets.\1.se.se.3.\2"),
    (r"nes2net\.backend\.norms\.(\d+)\.(\w+)", r"bns.\1.\2"),
    (r"nes2net\.backend\.split_attention\.(q|k|v|out)_proj\.weight", r"local_block_attn.proj_\1.weight"),
    (r"nes2net\.backend\.split_attention\.positions", "local_block_attn.pos_emb"),
    (r"nes2net\.backend\.norm_out\.(\w+)", r"bn.\1"),
    (r"nes2net\.pooling\.squeeze\.(\w+)", r"pooling.linear1.\1"),
    (r"nes2net\.pooling\.attend\.(\w+)", r"pooling.linear2.\1"),
    (r"classifier\.(\w+)", r"fc.\1"),
)
AGGREGATION_KEYS = {
    "squeeze_excitation": {"squeeze.weight": "fc_att_merge.0.weight", "excite.weight": "fc_att_merge.2.weight"},
    "weighted_sum": {"layer_weights": "weight_hidd"},
    "attentive_merging": {
        "feature_weights": "W",
        "squeeze": "W1",
        "excite": "W2",
        "projection.weight": "linear_proj.weight",
        "projection.bias": "linear_proj.bias",
    },
}


def official_encoder_key(key: str, is_grouped: bool = False) -> str:
    """Returns the official key for ours; both without the encoder's prefix. `is_grouped`: with a group norm."""
    name = _translate(key, _ENCODER_RULES)
    return name.replace("conv_layers.0.2.1.", "conv_layers.0.2.") if is_grouped else name


def official_key(key: str, config: Nes2NetConfig, encoder_prefix: str) -> str:
    """Returns the official system's key for a key of [`Nes2NetForAudioClassification`]."""
    if key.startswith(ENCODER):
        return encoder_prefix + official_encoder_key(key.removeprefix(ENCODER))
    if key.startswith("nes2net.aggregation."):
        return "ssl_model." + AGGREGATION_KEYS[config.layer_aggregation][key.removeprefix("nes2net.aggregation.")]
    return BACKEND_PREFIX + _translate(key, _BACKEND_RULES)


def official_shape(key: str, shape: tuple[int, ...], config: Nes2NetConfig) -> tuple[int, ...]:
    """Returns the shape of the official tensor. Variant X has 2-D convolutions there, and α with four axes."""
    if key.endswith(".column_weights"):
        return (1, 1, 1, *shape)
    if config.backend_variant == "nes2net_x" and re.search(r"\.steps\.\d+\.conv\.weight$", key):
        return (*shape, 1)
    return shape


def _translate(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    raise KeyError(f"{key} has no official name.")
