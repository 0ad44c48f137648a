"""
Convert bare encoders: fairseq's wav2vec 2.0 and HuBERT of any published size, unilm's WavLM, and those that were
post-trained as AntiDeepfake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from . import anti_deepfake
from .checks import check_keys, settle_encoder_config
from .key_map import official_encoder_key
from .reading import Checkpoint, apart
from .recognition import Recognised, recognise_encoder
from .systems import FAIRSEQ_XLSR, PRETRAINING, UNILM_WAVLM, System, has_wavlm_keys

# Attention heads by features, which no weight shows: the published sizes of wav2vec 2.0, XLS-R, MMS and HuBERT.
_HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}
_HUBERT_ONLY = "label_embs_concat"


def is_bare_encoder(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether the keys are an encoder's, without a prefix, or those of an AntiDeepfake encoder."""
    return "encoder.pos_conv.0.weight_v" in tensors or anti_deepfake.is_anti_deepfake(tensors)


def convert_encoder(
    checkpoint: Checkpoint,
    folder: Path | None,
    encoder_config: str | os.PathLike[str] | None,
    report: Callable[[str], None],
) -> None:
    """
    Writes an encoder folder for `from_encoder_pretrained` and `AutoModel.from_pretrained`. If `folder` is None, only
    checks the checkpoint.

    Raises:
        ConversionError: a key is missing, unexpected or mis-shaped, or the configuration is for another encoder.
    """
    card = None
    if anti_deepfake.is_anti_deepfake(checkpoint.tensors):
        for line in anti_deepfake.remarks(checkpoint):
            report(line)
        checkpoint, card = anti_deepfake.bare_encoder(checkpoint), anti_deepfake.card(checkpoint)
    shown = recognise_encoder(checkpoint.tensors, "")
    system, defaults = _system(checkpoint.tensors, shown)
    recognised = Recognised(system, {}, shown)
    config = settle_encoder_config(system, recognised, encoder_config, defaults)
    report(
        f"encoder   bare {config.model_type}, {config.num_hidden_layers} layers of {config.hidden_size} features: "
        "for training a detector; it is not one itself"
    )
    for what, how in recognised.assumed.items():
        report(f"assumed   {what}: {how}")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    is_grouped = getattr(config, "feat_extract_norm", None) == "group"
    expected = {official_encoder_key(key, is_grouped): key for key in model.state_dict()}
    dropped = {key for key in checkpoint.tensors if key.startswith((*PRETRAINING, _HUBERT_ONLY))}
    check_keys(checkpoint, {name: tuple(model.state_dict()[key].shape) for name, key in expected.items()}, dropped)
    if dropped:
        report(f"dropped   {len(dropped)} keys used only in pre-training ({', '.join(sorted(dropped)[:3])} …)")
    if folder is not None:
        tensors = {key: checkpoint.tensors[name] for name, key in expected.items()}
        model.save_pretrained(folder, state_dict=apart(tensors), max_shard_size="1TB")
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")


def _system(tensors: Mapping[str, Tensor], shown: Mapping[str, Any]) -> tuple[System, dict[str, Any]]:
    """Returns the encoder's family, and its configuration as far as the shapes and the published sizes say."""
    if has_wavlm_keys(tensors):
        return UNILM_WAVLM, UNILM_WAVLM.default_encoder_config()
    defaults = FAIRSEQ_XLSR.default_encoder_config()
    heads = _HEADS.get(shown["hidden_size"])
    if heads is None:  # of no published size: the configuration must be named
        return FAIRSEQ_XLSR, defaults
    has_group_norm = "feature_extractor.conv_layers.0.2.weight" in tensors
    # fairseq's HuBERT has no bias where wav2vec 2.0 with the same norm has one; both compute the same.
    is_hubert = _HUBERT_ONLY in tensors or not (has_group_norm or shown["conv_bias"])
    kind = "hubert" if is_hubert else "wav2vec2"
    norm = {"feat_extract_norm": "group" if has_group_norm else "layer", "do_stable_layer_norm": not has_group_norm}
    fields = {**defaults, **shown, **norm, "model_type": kind, "num_attention_heads": heads}
    name = f"a published {kind} of {shown['hidden_size']} features"
    return replace(FAIRSEQ_XLSR, encoder_type=kind, encoder_name=name), fields
