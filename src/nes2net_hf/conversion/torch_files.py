"""
PyTorch's checkpoint files, read without torch.load: nothing is called and no memory taken because a file asks for it.

`torch.load(weights_only=True)` runs no code either, but it makes whatever a pickle describes: a tensor of a billion
elements by a stride of zero, a storage that reaches into the next record, a bytearray of gigabytes. Here a pickle
becomes plain containers, descriptions of tensors, and stand-ins for all other objects. A tensor is made of its
description where its bytes are found in the file.
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
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch before 1.6


@dataclass
class TorchFile:
    """What a checkpoint file holds: its content, with a [`Described`] for each tensor, and where their bytes lie."""

    path: Path
    content: Any
    code: list[str]  # what loading it would import and perhaps run
    records: dict[str, tuple[int, int]]  # storage → offset and bytes in the file

    def tensor(self, described: Described) -> Tensor:
        """
        The tensor of a description, memory-mapped where it is aligned.

        Raises:
            ValueError: it is no plain tensor whose every element lies in the file; says why, and what to do.
        """
        if described.problem is not None:
            raise ValueError(described.problem)
        storage, dtype, offset, shape, stride, _ = described
        assert storage is not None and dtype is not None
        if not (are_sizes([offset]) and are_sizes(shape) and are_sizes(stride) and len(shape) == len(stride) < 10):
            raise ValueError("has an impossible shape: the file is damaged")
        start, length = self.records.get(storage.key, (0, -1))
        if length != storage.elements * storage.dtype.itemsize:
            raise ValueError("is not in the file with as many elements as the file says: the file is damaged")
        if 0 in shape:
            return torch.empty(0, dtype=dtype)
        reach = 0
        for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
            if step <= reach:
                raise ValueError("repeats elements that are stored once (an expanded tensor): save a .clone() of it")
            reach += step * (size - 1)
        if (offset + reach + 1) * dtype.itemsize > length:
            raise ValueError("reaches beyond what the file holds of it: the file is damaged")
        if start % dtype.itemsize:
            part = torch.from_numpy(np.fromfile(self.path, np.uint8, length, offset=start)).untyped_storage()
        else:
            part = self._mapped[start : start + length]
        return torch.empty(0, dtype=dtype).set_(part, offset, shape, stride)

    @cached_property
    def _mapped(self) -> Any:  # an untyped storage
        return torch.UntypedStorage.from_file(str(self.path), False, self.path.stat().st_size)


def is_torch_file(start: bytes) -> bool:
    """Whether a file that begins so is in either of PyTorch's forms: a zip archive, or pickles."""
    return start.startswith((_ZIP, _PICKLE))


def is_legacy_pickle(path: Path) -> bool:
    """Whether the file is in the form that torch wrote before 1.6, which is not aligned and so is read into memory."""
    with open(path, "rb") as file:
        return file.read(1) == _PICKLE


def read_torch_file(path: Path) -> TorchFile:
    """
    Reads what a checkpoint describes. The checksums of an archive's records are compared; the form of torch before
    1.6 has none.

    Raises:
        ConversionError: it is damaged, cut off or compressed, or in neither form.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read_archive(path, data) if data[:4] == _ZIP else _read_legacy(path, data)


def code_error(path: Path, code: list[str]) -> ConversionError:
    return ConversionError(
        f"{path} holds objects that would run code when loaded ({', '.join(dict.fromkeys(code))[:80]}), and was not "
        "loaded: ask its author for the bare state dict."
    )


def _damaged(path: Path, code: list[str] | None = None) -> ConversionError:
    """What is said of a file whose content cannot be read; one with code in it may be made to look so."""
    if code:
        return code_error(path, code)
    return ConversionError(f"{path} is damaged or truncated, or no checkpoint: copy or download it again.")


def _read_archive(path: Path, data: mmap.mmap) -> TorchFile:
    root, records = _records(path, data)

    def record(name: str) -> bytes:
        start, length = records.get(root + name, (0, 0))
        return data[start : start + length]

    _check_byte_order(path, record("byteorder") == b"big")
    reader = PickleReader(record("data.pkl"))
    try:
        content = reader.load()
    except Exception:  # whatever nonsense raises
        raise _damaged(path, reader.code) from None
    storages = {name.removeprefix(f"{root}data/"): place for name, place in records.items()}
    return TorchFile(path, content, reader.code, storages)


def _root(path: Path, names: list[str]) -> str:
    """The folder of the checkpoint in an archive."""
    root = next((name[:-8] for name in names if name.endswith("data.pkl") and name.count("/") <= 1), None)
    if root is None:
        weights = next((name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".safetensors"))), None)
        what = f"that holds {weights[:100]}: unpack it first" if weights else "of something else"
        raise ConversionError(f"{path} is a zip file {what}.")
    if f"{root}constants.pkl" in names:
        raise ConversionError(f"{path} is a TorchScript program, not a state dict.")
    return root


def _records(path: Path, data: mmap.mmap) -> tuple[str, dict[str, tuple[int, int]]]:
    """The folder of the checkpoint, and offset and length of each record in the archive, all of them whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            root = _root(path, archive.namelist())
            if any(member.compress_type or member.flag_bits & 1 for member in members):
                raise ConversionError(
                    f"{path} is a zip file with compressed or encrypted records, as torch.save writes none: unpack "
                    "it, or save the checkpoint again."
                )
            # torch.save can be told to write no checksums: they are all 0 then.
            if any(member.CRC for member in members) and (wrong := archive.testzip()) is not None:
                raise ConversionError(
                    f"{path} is damaged: the checksum of its record {wrong} is wrong; copy or download it again."
                )
    except ConversionError:
        raise
    except Exception:  # zipfile raises half a dozen kinds
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
    """Five pickles (a number, a version, the machine, the content, the order of the storages), then the storages."""
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
    except Exception:  # whatever nonsense raises
        raise _damaged(path, [name for reader in readers for name in reader.code]) from None
    return TorchFile(path, content, readers[3].code, records)


def _check_byte_order(path: Path, is_big: bool) -> None:
    if is_big != (sys.byteorder == "big"):
        raise ConversionError(f"{path} was written by a machine of the other byte order: save it again on this one.")
