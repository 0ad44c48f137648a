"""Read checkpoint files: memory-mapped if the format allows it, and without running code from the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import ConversionError
from ..files import sha256_of
from .pickles import Described, StandIn
from .torch_files import TorchFile, code_error, is_torch_file, read_torch_file

# Entries in which training scripts, DeepSpeed and Lightning save the weights.
_UNDER = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
# Names that wrappers add to keys: DataParallel and DDP, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Prefixes that training scripts put before a system's keys, such as Lightning's `model.`
_FRONT = re.compile(r"((?:[^.]+\.)*?)(?:Nested_Res2Net_TDNN|ssl_model)\.")
_WEIGHT_NORM = re.compile(r"\.parametrizations\.weight\.original([01])$")  # names since torch 2.0
_LONGEST_KEY = 300
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file: its tensors under the official keys."""

    path: Path
    tensors: dict[str, Tensor]
    outside: tuple[str, ...] = ()
    """Keys outside the system, such as a loss function's."""

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hex."""
        return sha256_of(self.path)


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Reads a `.pth`, `.pt`, `.ckpt` or `.safetensors` file. The state dict may be the whole file or an entry with one
    of the usual names. Prefixes of DataParallel, torch.compile, FSDP and Lightning are removed.

    Raises:
        ConversionError: the file is missing, damaged, not a checkpoint or would run code when loaded, or a tensor
            cannot be a weight.
    """
    try:
        if path.is_dir():
            raise ConversionError(f"{path} is a folder: name the checkpoint file in it.")
        if not path.is_file():
            raise ConversionError(f"{path} does not exist or is not a file.")
        if path.stat().st_size == 0:
            raise ConversionError(f"{path} is empty (zero bytes): copy or download it again.")
        with open(path, "rb") as opened:
            start = opened.read(512)
        if not is_torch_file(start):
            if path.suffix != ".safetensors" and start[8:9] != b"{":
                raise ConversionError(f"{path} {_problem_of(start)}.")
            return _checkpoint(path, read_safetensors(path), lambda tensor: tensor)
        if path.suffix == ".safetensors":
            raise ConversionError(f"{path} is a PyTorch file, not a safetensors file: rename it to .pth.")
        content, file = _read_torch(path)
        return _checkpoint(path, content, file.tensor)
    except OSError as error:
        raise ConversionError(f"{path} cannot be read ({error.strerror or error}).") from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Returns all tensors of the file. Raises ConversionError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except OSError as error:
        raise ConversionError(f"{path} cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # an invalid header raises other errors than SafetensorError, too
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ConversionError(f"{path} is a damaged or truncated safetensors file ({reason}).") from None


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors in the form that safetensors needs: contiguous, and without shared storages."""
    storages: set[int] = set()
    made = {}
    for key, tensor in tensors.items():
        made[key] = tensor.contiguous()
        if made[key].untyped_storage().data_ptr() in storages:
            made[key] = made[key].clone()
        storages.add(made[key].untyped_storage().data_ptr())
    return made


def _problem_of(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the checkpoint itself: download the checkpoint with `git lfs pull`"
    if b"\0" not in start:
        return "is a text file, not a PyTorch or safetensors checkpoint; the download may have returned an error page"
    return "is not a PyTorch or safetensors checkpoint"


def _read_torch(path: Path) -> tuple[Any, TorchFile]:
    """Returns the content that should be a state dict, and the file that creates its tensors."""
    file = read_torch_file(path)
    content = file.content
    for _ in range(3):  # nested entries; the limit avoids endless cycles
        inner = [content.get(name) for name in _UNDER] if isinstance(content, Mapping) else []
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    objects = file.content.values() if isinstance(file.content, Mapping) else [file.content]
    module = next((value for value in objects if isinstance(value, StandIn) and value.is_module), None)
    if module is not None and content is file.content:
        raise ConversionError(
            f"{path} has a whole model object ({_kind(module)}) instead of weights, and would run code when loaded: "
            "ask its author to save it with torch.save(model.state_dict(), …)."
        )
    if file.code:
        raise code_error(path, file.code)
    return content, file


def _checkpoint(path: Path, content: Any, make: Callable[[Any], Tensor]) -> Checkpoint:
    """Returns a state dict under the official keys. Raises ConversionError if an entry is not a weight."""
    if not isinstance(content, Mapping) or not content:
        raise ConversionError(f"{path} has a {_kind(content)}, not a state dict of named tensors.")
    for key, value in content.items():
        if not isinstance(key, str) or not key.isprintable() or len(key) > _LONGEST_KEY:
            raise ConversionError(f"{path} is not a state dict: one of its keys is a {_kind(key)}, not a valid name.")
        if not isinstance(value, (Described, Tensor)):
            raise ConversionError(
                f"{path} is not a state dict: its entry {key!r} is a {_kind(value)}, not a tensor; save only weights."
            )
    tensors: dict[str, Tensor] = {}
    names, outside = _official_names(content)
    used: dict[str, str] = {}
    for key, name in names.items():
        if name in used:
            raise ConversionError(f"{path} has {name} twice, as {used[name]} and as {key}: remove one of them.")
        used[name] = key
        try:
            tensors[name] = _weight(name, content[key], make)
        except ValueError as error:
            raise ConversionError(f"{path} cannot be converted: its {key} {error}.") from None
    return Checkpoint(path, tensors, outside)


def _official_names(keys: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns each key → its official name, and the keys outside the system."""
    names = {}
    for key in keys:
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        names[key] = _WEIGHT_NORM.sub(lambda match: ".weight_" + "gv"[int(match[1])], name)
    fronts = {key: match[1] for key, name in names.items() if (match := _FRONT.match(name))}
    if not any(fronts.values()):
        while all(name.startswith("model.") for name in names.values()):  # a bare encoder
            names = {key: name.removeprefix("model.") for key, name in names.items()}
        return names, ()
    inside = {key: name.removeprefix(fronts.get(key, "")) for key, name in names.items()}
    outside = tuple(key for key in names if key not in fronts) if "" not in fronts.values() else ()
    return {key: name for key, name in inside.items() if key not in outside}, outside


def _weight(name: str, value: Described | Tensor, make: Callable[[Any], Tensor]) -> Tensor:
    """Returns a tensor of the state dict. Raises ValueError with reason and fix if it cannot be a weight."""
    is_count = name.endswith("num_batches_tracked")
    if value.dtype is not None and value.dtype not in (*_FLOATS, *([torch.int64] if is_count else [])):
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _FLOATS)
        raise ValueError(f"is of type {str(value.dtype).removeprefix('torch.')}: save it as one of {kinds}")
    tensor = make(value)
    if tensor.numel() == 0:
        raise ValueError("has no elements: the file is damaged")
    if tensor.is_floating_point() and not all(end.isfinite() for end in torch.aminmax(tensor)):
        raise ValueError("has NaN or infinite values: use an earlier checkpoint")
    return tensor


def _kind(value: Any) -> str:
    """Returns the kind of an object, in words."""
    if isinstance(value, Described):
        return "tensor"
    if not isinstance(value, StandIn):
        return "dict" if isinstance(value, Mapping) else type(value).__name__
    if type(value).__module__.startswith("numpy."):
        return "numpy array" if type(value).__name__ == "_reconstruct" else "numpy scalar"
    return f"{type(value).__module__}.{type(value).__name__}"
