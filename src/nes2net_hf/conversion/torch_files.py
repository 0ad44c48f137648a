"""
Read PyTorch's checkpoint files without torch.load. A file cannot make this module call code or allocate memory.

`torch.load(weights_only=True)` does not run code either, but it creates everything that a pickle describes: a tensor
of a billion elements with a stride of zero, a storage that extends into the next record, a bytearray of gigabytes.
This module reads a pickle into plain containers, descriptions of tensors, and stand-ins for all other objects. It
creates a tensor from its description only if the file has all its bytes.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConversionError
from .pickles import Described, PickleReader, are_sizes

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch before 1.6


@dataclass
class TorchFile:
    """A checkpoint file: its content, with a [`Described`] for each tensor, and the location of their bytes."""

    path: Path
    content: Any
    code: list[str]  # names that torch.load would import and perhaps run
    records: dict[str, tuple[int, int]]  # storage → offset and bytes in the file

    def tensor(self, described: Described) -> Tensor:
        """
        Returns the described tensor, memory-mapped if it is aligned.

        Raises:
            ValueError: it is not a plain tensor, or the file lacks elements of it. The message has reason and fix.
        """
        if described.problem is not None:
            raise ValueError(described.problem)
        storage, dtype, offset, shape, stride, _ = described
        assert storage is not None and dtype is not None
        if not (are_sizes([offset]) and are_sizes(shape) and are_sizes(stride) and len(shape) == len(stride) < 10):
            raise ValueError("has an impossible shape: the file is damaged")
        start, length = self.records.get(storage.key, (0, -1))
        if length != storage.elements * storage.dtype.itemsize:
            raise ValueError("has fewer or more elements in the file than declared: the file is damaged")
        if 0 in shape:
            return torch.empty(0, dtype=dtype)
        reach = 0
        for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
            if step <= reach:
                raise ValueError("repeats elements that are stored once (an expanded tensor): save a .clone() of it")
            reach += step * (size - 1)
        if (offset + reach + 1) * dtype.itemsize > length:
            raise ValueError("extends beyond its data in the file: the file is damaged")
        if start % dtype.itemsize:
            part = torch.from_numpy(np.fromfile(self.path, np.uint8, length, offset=start)).untyped_storage()
        else:
            part = self._mapped[start : start + length]
        return torch.empty(0, dtype=dtype).set_(part, offset, shape, stride)

    @cached_property
    def _mapped(self) -> Any:  # an untyped storage
        return torch.UntypedStorage.from_file(str(self.path), False, self.path.stat().st_size)


def is_torch_file(start: bytes) -> bool:
    """Returns whether a file with these first bytes is in one of PyTorch's formats: a zip archive, or pickles."""
    return start.startswith((_ZIP, _PICKLE))


def is_legacy_pickle(path: Path) -> bool:
    """Returns whether the file has the format of torch before 1.6. It is not aligned, so it is read into memory."""
    with open(path, "rb") as file:
        return file.read(1) == _PICKLE


def read_torch_file(path: Path) -> TorchFile:
    """
    Reads the descriptions in a checkpoint. The checksums in an archive are verified; the format of torch before 1.6
    has none.

    Raises:
        ConversionError: the file is damaged, truncated or compressed, or has neither format.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read_archive(path, data) if data[:4] == _ZIP else _read_legacy(path, data)


def code_error(path: Path, code: list[str]) -> ConversionError:
    return ConversionError(
        f"{path} has objects that would run code when loaded ({', '.join(dict.fromkeys(code))[:80]}), so it was not "
        "loaded: ask its author for the state dict alone."
    )


def _damaged(path: Path, code: list[str] | None = None) -> ConversionError:
    """Returns the error for unreadable content. A file with code is reported as such; it may only look damaged."""
    if code:
        return code_error(path, code)
    return ConversionError(f"{path} is damaged, truncated or not a checkpoint: copy or download it again.")


def _read_archive(path: Path, data: mmap.mmap) -> TorchFile:
    root, records = _records(path, data)

    def record(name: str) -> bytes:
        start, length = records.get(root + name, (0, 0))
        return data[start : start + length]

    _check_byte_order(path, record("byteorder") == b"big")
    reader = PickleReader(record("data.pkl"))
    try:
        content = reader.load()
    except Exception:  # invalid pickles raise all kinds of errors
        raise _damaged(path, reader.code) from None
    storages = {name.removeprefix(f"{root}data/"): place for name, place in records.items()}
    return TorchFile(path, content, reader.code, storages)


def _root(path: Path, names: list[str]) -> str:
    """Returns the folder of the checkpoint in an archive."""
    root = next((name[:-8] for name in names if name.endswith("data.pkl") and name.count("/") <= 1), None)
    if root is None:
        weights = next((name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".safetensors"))), None)
        what = f"with {weights[:100]}: unpack it first" if weights else "without a checkpoint"
        raise ConversionError(f"{path} is a zip file {what}.")
    if f"{root}constants.pkl" in names:
        raise ConversionError(f"{path} is a TorchScript program, not a state dict: ask its author for the weights.")
    return root


def _records(path: Path, data: mmap.mmap) -> tuple[str, dict[str, tuple[int, int]]]:
    """Returns the checkpoint's folder in the archive, and offset and length of each record; all are complete."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            root = _root(path, archive.namelist())
            if any(member.compress_type or member.flag_bits & 1 for member in members):
                raise ConversionError(
                    f"{path} is a zip file with compressed or encrypted records, which torch.save never writes: "
                    "unpack it, or save the checkpoint again."
                )
            # An option of torch.save omits the checksums: all are 0 then.
            if any(member.CRC for member in members) and (wrong := archive.testzip()) is not None:
                raise ConversionError(
                    f"{path} is damaged: the checksum of its record {wrong} is wrong; copy or download it again."
                )
    except ConversionError:
        raise
    except Exception:  # zipfile raises many kinds of errors
        raise _damaged(path) from None
    records: dict[str, tuple[int, int]] = {}
    for member in members:
        header = data[member.header_offset : member.header_offset + 30]
        start = member.header_offset + 30 + sum(struct.unpack("<HH", header[26:])) if len(header) == 30 else len(data)
        if (
            member.filename in records
            or member.compress_size != member.file_size
            or start + member.file_size > len(data)
        ):
            raise _damaged(path)
        records[member.filename] = (start, member.file_size)
    return root, records


def _read_legacy(path: Path, data: mmap.mmap) -> TorchFile:
    """Reads five pickles (magic number, version, machine, content, order of the storages), then the storages."""
    readers = [PickleReader(data) for _ in range(5)]
    try:
        if readers[0].load() != _LEGACY_MAGIC or readers[1].load() != _LEGACY_PROTOCOL:
            raise ValueError
        _check_byte_order(path, not readers[2].load().get("little_endian", True))
        content = readers[3].load()
        records: dict[str, tuple[int, int]] = {}
        for key in readers[4].load():
            [elements] = struct.unpack("<q", data.read(8))
            start, length = data.tell(), elements * readers[3].storages[key].dtype.itemsize
            if elements < 0 or start + length > len(data):
                raise ValueError
            data.seek(start + length)
            records[key] = (start, length)
    except ConversionError:
        raise
    except Exception:  # invalid pickles raise all kinds of errors
        raise _damaged(path, [name for reader in readers for name in reader.code]) from None
    return TorchFile(path, content, readers[3].code, records)


def _check_byte_order(path: Path, is_big: bool) -> None:
    if is_big != (sys.byteorder == "big"):
        raise ConversionError(f"{path} was written on a machine with another byte order: save it again on this one.")
