"""Check a checkpoint before anything is written: its keys and shapes, and the encoder's configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from ..errors import ConversionError
from .reading import Checkpoint
from .recognition import Recognised
from .systems import System

_LISTED = 8  # wrong keys that a message names; the others are counted


def check_keys(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]], dropped: set[str]) -> None:
    """Raises ConversionError if keys of `checkpoint` are missing, unexpected or mis-shaped; the message lists them."""
    tensors = checkpoint.tensors
    problems = {
        "missing": [key for key in shapes if key not in tensors],
        "unexpected": [key for key in tensors if key not in shapes and key not in dropped],
        "mis-shaped": [
            f"{key} {tuple(tensors[key].shape)} instead of {shape}"
            for key, shape in shapes.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
    }
    if any(problems.values()):
        counts = " and ".join(
            f"{len(keys)} {kind} key{'s' * (len(keys) > 1)}" for kind, keys in problems.items() if keys
        )
        lines = [f"  {kind}: {key}" for kind, keys in problems.items() for key in keys[:_LISTED]]
        rest = sum(max(0, len(keys) - _LISTED) for keys in problems.values())
        lines += [f"  and {rest} more"] if rest else []
        raise ConversionError("\n".join([f"{checkpoint.path} has {counts}; nothing was written.", *lines]))


def settle_encoder_config(
    system: System,
    recognised: Recognised,
    given: str | os.PathLike[str] | None,
    defaults: dict[str, Any] | None = None,
) -> PretrainedConfig:
    """
    Returns the encoder's configuration, checked against the shapes in the checkpoint. Where none is `given`, it is
    `defaults`, or else that of the system.
    """
    if given is None:
        fields = system.default_encoder_config() if defaults is None else defaults
    else:
        fields = _read_config(Path(given), system.encoder_type)
    whose = f"{system.encoder_name}'s" if given is None else str(given)
    if fields.get("model_type") != system.encoder_type:
        raise ConversionError(
            f"the encoder configuration {given} is of type {fields.get('model_type')!r}, but this checkpoint needs "
            f"{system.encoder_type!r}: name its own with --encoder-config."
        )
    try:
        config = AutoConfig.for_model(**fields)
    except Exception as error:  # raised by the checks of transformers; the last line has the reason
        reason = str(error).strip().splitlines()[-1].split("Error: ", 1)[-1].strip()[:200].rstrip(".")
        raise ConversionError(f"the encoder configuration {given} is invalid ({reason}).") from None
    for name, value in recognised.encoder.items():
        said = getattr(config, name)
        said = list(said) if isinstance(said, (list, tuple)) else said
        if said != value:
            raise ConversionError(
                f"the checkpoint's encoder has {name} {value}, but the configuration ({whose}) says {said}: name the "
                "checkpoint's own configuration with --encoder-config."
            )
    if given is None:
        unread = (
            ["conv_stride", "max_bucket_distance"]
            if system.encoder_type == "wavlm"
            else ["num_attention_heads", "conv_stride"]
        )
        recognised.assumed["encoder"] = (
            f"{', '.join(unread)} of {system.encoder_name}; the weights do not show them (--encoder-config)"
        )
    return config


def _read_config(path: Path, encoder_type: str) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConversionError(f"--encoder-config {file} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise ConversionError(f"--encoder-config {file} is not a JSON file.") from None
    if not isinstance(fields, dict):
        raise ConversionError(f"--encoder-config {file} must be a JSON object with the fields of a configuration.")
    fields = fields.get("encoder_config", fields)  # the config of a Nes2Net folder contains its encoder's
    if not isinstance(fields, dict):
        raise ConversionError(f"--encoder-config {file}: encoder_config must be an object with the encoder's fields.")
    return {"model_type": encoder_type, "layerdrop": 0.0, "apply_spec_augment": False, **fields}
