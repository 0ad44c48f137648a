"""Checkpoint files into mappings of tensors: memory-mapped where their form allows it, never running their code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ConversionError
from ..files import sha256_of

_WRAPPERS = ("model_state_dict", "state_dict", "model")  # under which training scripts put the weights
# fairseq's files carry their training configuration as objects of these classes. Stand-ins take the place of the
# classes, so that nothing of argparse or omegaconf runs, and what they hold is thrown away.
_FAIRSEQ_OBJECTS = (
    "argparse.Namespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.EnumNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "typing.Any",
)


class _StandIn:
    """An object of a configuration that nobody reads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_in(path: str) -> type[_StandIn]:
    """A stand-in under the name of another class, by which torch's unpickler knows what it may make."""
    module, _, name = path.rpartition(".")
    return type(name, (_StandIn,), {"__module__": module, "__qualname__": name})


@dataclass(frozen=True)
class Checkpoint:
    """Official keys and their tensors, and where they come from."""

    path: Path
    tensors: dict[str, Tensor]

    @property
    def sha256(self) -> str:
        """Of the file's bytes, in hex."""
        return sha256_of(self.path)


def is_legacy_pickle(path: Path) -> bool:
    """Whether the file is in the form that torch wrote before 1.6, which cannot be memory-mapped."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Reads a `.pth`, `.pt` or `.safetensors` file: a state dict, alone or under one of the usual names, with or without
    DataParallel's `module.`.

    Raises:
        ConversionError: the file is missing, truncated, of another kind, or would run code when loaded.
    """
    if not path.exists():
        raise ConversionError(f"{path} does not exist.")
    if not path.is_file():
        raise ConversionError(f"{path} is a folder: name the checkpoint file in it.")
    if path.stat().st_size == 0:
        raise ConversionError(f"{path} is empty (zero bytes): copy or download it again.")
    with open(path, "rb") as file:
        start = file.read(16)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        content = _read_torch(path)
    elif path.suffix == ".safetensors" or start[8:9] == b"{":
        content = read_safetensors(path)
    else:
        raise ConversionError(f"{path} is no PyTorch or safetensors checkpoint, whatever its name.")
    return Checkpoint(path, _state_dict(content, path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file; raises ConversionError where it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ConversionError(f"{path} is a damaged or truncated safetensors file ({error}).") from None


def _read_torch(path: Path) -> Any:
    is_mapped = not is_legacy_pickle(path)
    try:
        with (
            torch.serialization.safe_globals([_stand_in(name) for name in _FAIRSEQ_OBJECTS]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of storages and numpy that are no concern of the user's
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        text = str(error)
        if "Unsupported" in text or "GLOBAL" in text or "global" in text or "class" in text:
            raise ConversionError(
                f"{path} holds objects that would run code when loaded, and was not loaded: ask its author for the "
                f"bare state dict ({_first_sentence(text)})."
            ) from None
        raise ConversionError(f"{path} is a damaged or truncated checkpoint, or none at all.") from None
    except (
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        AttributeError,
        IndexError,
        OSError,
    ) as error:
        if "TorchScript" in str(error):
            raise ConversionError(f"{path} is a TorchScript program, not a state dict.") from None
        what = (
            "is a zip file of something else, or truncated"
            if is_mapped
            else "is damaged or truncated, or no checkpoint"
        )
        raise ConversionError(f"{path} {what}: copy or download it again.") from None


def _first_sentence(text: str) -> str:
    for line in text.splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip().split(" was not an allowed global")[0].split(". ")[0].rstrip(".")
    return text.splitlines()[0].rstrip(".")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise ConversionError(f"{path} holds a {type(content).__name__}, not a state dict of named tensors.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ConversionError(
                f"{path} is no state dict: its entry {key!r} is a {type(value).__name__}, not a tensor."
            )
    return {key.removeprefix("module."): value for key, value in content.items()}
