"""Convert the bare encoders that the official instructions download: fairseq's XLS-R and unilm's WavLM."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel

from .checks import check_keys, settle_encoder_config
from .key_map import official_encoder_key
from .reading import Checkpoint, apart
from .recognition import Recognised, recognise_encoder
from .systems import FAIRSEQ_XLSR, PRETRAINING, UNILM_WAVLM, has_wavlm_keys


def is_bare_encoder(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether the keys are an encoder's, without a prefix."""
    return "encoder.pos_conv.0.weight_v" in tensors


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
    system = UNILM_WAVLM if has_wavlm_keys(checkpoint.tensors) else FAIRSEQ_XLSR
    recognised = Recognised(system, {}, recognise_encoder(checkpoint.tensors, ""))
    config = settle_encoder_config(system, recognised, encoder_config)
    report(
        f"encoder   bare {config.model_type}, {config.num_hidden_layers} layers of {config.hidden_size} features: "
        "for training a detector; it is not one itself"
    )
    for what, how in recognised.assumed.items():
        report(f"assumed   {what}: {how}")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    expected = {official_encoder_key(key): key for key in model.state_dict()}
    dropped = {key for key in checkpoint.tensors if key.startswith((*PRETRAINING, "label_embs_concat"))}
    check_keys(checkpoint, {name: tuple(model.state_dict()[key].shape) for name, key in expected.items()}, dropped)
    if dropped:
        report(f"dropped   {len(dropped)} keys used only in pre-training ({', '.join(sorted(dropped)[:3])} …)")
    if folder is not None:
        tensors = {key: checkpoint.tensors[name] for name, key in expected.items()}
        model.save_pretrained(folder, state_dict=apart(tensors), max_shard_size="1TB")
