"""Convert a model folder back to an official state dict, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..configuration_nes2net import ID2LABEL, Nes2NetConfig, rows_by_label
from ..errors import ConversionError, ModelError, OutputError
from ..files import atomic_file
from .key_map import official_key, official_shape
from .reading import read_checkpoint, read_safetensors
from .systems import FAIRSEQ_XLSR, NES2NET_LA, S3PRL_WAVLM, UNILM_WAVLM, System


def to_official(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    original: str | os.PathLike[str] | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """
    Writes a model folder as a plain official state dict (`torch.save`).

    Args:
        folder: a Nes2Net folder with a wav2vec 2.0 or WavLM encoder.
        out: the `.pth` to write.
        original: an official checkpoint of the same system; supplies the pre-training keys and the order of the keys.
        force: replace `out` if it exists.
        report: called with each line that says what is done.

    Raises:
        ModelError: `folder` is not a model folder.
        OutputError, DiskError: `out` exists or cannot be written.
        ConversionError: the model has no official counterpart or no weights, or `original` is another system.
    """
    folder, out = Path(folder), Path(out)
    if out.exists() and not force:
        raise OutputError(f"{out} exists: choose another file, or replace it with --force.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json.")
    config = _config(folder)
    system = _system(config, folder)
    if config.num_labels != len(ID2LABEL):
        raise ConversionError(f"{folder} has {config.num_labels} classes, but the official systems have two.")
    if config.cosine_scale is not None:
        raise ConversionError(f"{folder} has a cosine classifier, but those of the official systems are linear.")
    tensors = _weights(folder)
    official: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        try:
            name = official_key(key, config, system.encoder_prefix)
        except KeyError:
            raise ConversionError(f"{folder}: the official system has no key for its weight {key}.") from None
        if key.startswith("classifier.") and config.classifier_outputs > 1:
            tensor = tensor[rows_by_label(config.id2label or {}, ID2LABEL)]
        official[name] = tensor.reshape(official_shape(key, tuple(tensor.shape), config))
    report(f"system    {system.title}")
    if original is not None:
        official = _with_original(official, Path(original), system, report)
    elif system.dropped:
        unused = f" and those that nothing uses ({', '.join(system.unused)}…)" if system.unused else ""
        report(
            f"absent    the pre-training keys ({', '.join(system.dropped[:3])} …){unused}, which the folder does not "
            "have: use load_state_dict(..., strict=False) in the official code, or add them with --from ORIGINAL.pth"
        )
    with atomic_file(out, "wb") as file:
        torch.save(official, file)
    report(f"written   {out}, {len(official)} keys")


def _config(folder: Path) -> Nes2NetConfig:
    fields, _ = Nes2NetConfig.get_config_dict(folder)
    if fields.get("model_type") != Nes2NetConfig.model_type:
        raise ConversionError(f"{folder} is not a Nes2Net model: its model_type is {fields.get('model_type')!r}.")
    try:
        return Nes2NetConfig.from_pretrained(folder)
    except ValueError as error:
        raise ConversionError(f"{folder}: {error}") from None


def _system(config: Nes2NetConfig, folder: Path) -> System:
    """Returns the official family with this encoder and aggregation."""
    encoder = config.encoder_config.model_type
    if config.encoder_layers is not None:
        raise ConversionError(
            f"{folder} has no official counterpart: it reads the layers {config.encoder_layers} of its encoder."
        )
    if encoder == "wavlm" and not config.split_attention:
        return UNILM_WAVLM if config.layer_aggregation == "last" else S3PRL_WAVLM
    if encoder == "wav2vec2" and config.layer_aggregation == "last":
        return NES2NET_LA if config.split_attention else FAIRSEQ_XLSR
    raise ConversionError(
        f"{folder} has no official counterpart: no published system has a {encoder} encoder with the aggregation "
        f"{config.layer_aggregation!r}."
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConversionError(f"{folder} has no .safetensors weights: convert the checkpoint again.")
    return {key: tensor for path in files for key, tensor in read_safetensors(path).items()}


def _with_original(
    official: dict[str, Tensor], original: Path, system: System, report: Callable[[str], None]
) -> dict[str, Tensor]:
    """Returns the weights in the original's order of keys, with its pre-training keys."""
    theirs = read_checkpoint(original).tensors
    added = [key for key in theirs if system.is_dropped(key)]
    if set(theirs) - set(added) != set(official):
        strange = sorted(set(theirs).symmetric_difference(official) - set(added))
        raise ConversionError(
            f"{original} is a different system ({len(strange)} keys differ, such as {strange[0]}): name the "
            "checkpoint that the folder was converted from."
        )
    report(f"restored  {len(added)} pre-training keys from {original}")
    return {key: theirs[key] if key in added else official[key] for key in theirs}
