"""Read the pickles of checkpoints without importing or calling what they name."""

from __future__ import annotations

import io
import mmap
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

# Harmless objects that training scripts save with the weights: modules whose classes are harmless, and single names.
_CLASSES_OF = (
    *("collections", "decimal", "fairseq", "fractions", "lightning", "numpy.dtypes", "omegaconf", "pathlib"),
    *("pytorch_lightning", "lightning_fabric", "torch._dynamo", "torch.distributed", "torch.nested", "torch.nn"),
    *("torch.optim", "torchao", "typing", "uuid"),
)
_HARMLESS = {
    *("_codecs.encode", "argparse.Namespace", "collections.defaultdict", "copyreg._reconstructor"),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *("torch.Tensor", "torch.device", "torch._C.Generator", "torch.serialization._get_layout"),
    "torch.torch_version.TorchVersion",
    *(f"builtins.{name}" for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int")),
    *(f"builtins.{name}" for name in ("list", "object", "range", "set", "slice", "str", "tuple")),
}
_STORAGES = {
    **{"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
    **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
    **{"QInt8": torch.qint8, "QUInt8": torch.quint8, "QInt32": torch.qint32, "Untyped": torch.uint8},
}
_PLAIN = "save it as a plain tensor"


# Tuples, because a pickle could set attributes of other objects.
class Storage(NamedTuple):
    """A storage as its pickle describes it: a run of elements, stored in the file under `key`."""

    key: str
    dtype: torch.dtype
    elements: int


class Described(NamedTuple):
    """A tensor as its pickle describes it. `problem` says why it is not a plain tensor, and how to fix that."""

    storage: Storage | None = None
    dtype: torch.dtype | None = None
    offset: Any = 0
    shape: Any = ()
    stride: Any = ()
    problem: str | None = None


class StandIn:
    """Replaces an object that a pickle names and that the conversion does not need."""

    is_module = False
    """Whether the object is a whole torch.nn.Module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.is_module = isinstance(state, dict) and "_modules" in state

    def _ignore(self, *args: Any) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


class Entries(OrderedDict[Any, Any]):
    """A dict that ignores keys that are tuples: deeply nested tuples take years to hash."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, tuple):
            super().__setitem__(key, value)


class PickleReader(pickle._Unpickler):
    """
    Reads one pickle into lists, tuples, [`Entries`], [`Described`] tensors and stand-ins.

    Uses the unpickler written in Python, because the one in C allocates memory for the largest index that a pickle
    names. Two operations are removed, because no checkpoint needs them: a bytearray of a length given in the pickle,
    and dicts in the text format of Python 2.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: lambda self: self.append(Entries()),
        pickle.EMPTY_SET[0]: lambda self: self.append(StandIn()),
        pickle.FROZENSET[0]: lambda self: (self.pop_mark(), self.append(StandIn())),
    }
    del dispatch[pickle.BYTEARRAY8[0]], dispatch[pickle.DICT[0]]
    proto = 0

    def __init__(self, data: bytes | mmap.mmap) -> None:
        super().__init__(io.BytesIO(data) if isinstance(data, bytes) else data, encoding="latin1")
        self.code: list[str] = []  # names that may run code
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # torch writes protocol 2, with the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = f"{module}.{name}"
        if path in _READERS:
            return partial(_READERS[path])  # a copy, because a pickle may change it
        if module in {"torch", "torch.storage"} and name.endswith("Storage"):
            return _STORAGES[name.removesuffix("Storage")]
        if module == "torch" and isinstance(getattr(torch, name, None), (torch.dtype, torch.layout, torch.qscheme)):
            return getattr(torch, name)
        if module.startswith("torch.") and name.startswith("_rebuild"):
            return partial(_problem, f"is an unknown kind of tensor: {_PLAIN}")
        if path == "collections.OrderedDict":
            return type("OrderedDict", (Entries,), {})
        if path == "torch.Size":
            return tuple
        if not _is_harmless(module, name):
            self.code.append(path)
        return type(name, (StandIn,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # before torch 1.6: the class of a whole model, with its source
            return pid[1]
        kind, dtype, key, _, elements, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view) or not are_sizes([elements]):
            raise pickle.UnpicklingError("no storage")
        return self.storages.setdefault(str(key), Storage(str(key), dtype, elements))


def are_sizes(values: Any) -> bool:
    """Returns whether these are non-negative integers in a tuple or list, none too large for a file."""
    return isinstance(values, (tuple, list)) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _is_harmless(module: str, name: str) -> bool:
    if f"{module}.{name}" in _HARMLESS or (module == "numpy" and isinstance(getattr(np, name, None), type)):
        return True
    is_class = name.rpartition(".")[2].lstrip("_")[:1].isupper()
    return is_class and any(module == known or module.startswith(f"{known}.") for known in _CLASSES_OF)


# Replacements for torch's functions that rebuild tensors, with the same arguments.


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any = None, hooks: Any = None, metadata: Any = None
) -> Described:
    return _tensor_v3(storage, offset, shape, stride, grad, hooks, storage.dtype, metadata)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Described:
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("no storage")
    problem = "is a negated or conjugated view: save a .clone() of it" if metadata else None
    return Described(storage, dtype, offset, shape, stride, problem)


def _of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    return function(*arguments)


def _first(data: Any, *_: Any) -> Any:
    return data


def _problem(problem: str, *_: Any) -> Described:
    return Described(problem=problem)


_READERS: dict[str, Any] = {
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    **{
        f"torch._utils._rebuild_{name}": _first
        for name in ("parameter", "parameter_with_state", "device_tensor_from_cpu_tensor")
    },
    **{
        f"torch._utils._rebuild_{name}": partial(_problem, f"{problem}: {fix}")
        for name, problem, fix in (
            ("meta_tensor_no_storage", "is a meta tensor, which has no values", "save the model with its weights"),
            ("sparse_tensor", "is sparse", "save its .to_dense()"),
            ("qtensor", "is quantised", "save its .dequantize()"),
            ("nested_tensor", "is nested", _PLAIN),
            ("wrapper_subclass", "is a distributed or wrapped tensor", _PLAIN),
            ("device_tensor_from_numpy", "was saved on another kind of device", "save its .cpu()"),
        )
    },
}
