"""Usual, damaged and hostile checkpoint files give either weights or a one-sentence error, in little memory."""

from __future__ import annotations

import collections
import datetime
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from nes2net_hf.conversion import ConversionError, convert, download
from nes2net_hf.conversion.download import fetch
from nes2net_hf.conversion.reading import read_checkpoint
from tests.helpers import FIXTURES
from tests.loopback_hub import TOKEN, LoopbackHub, Repo

GOLDEN = FIXTURES / "checkpoints" / "e2e_xlsr_nes2netx_mean.pth"
FRONT = "Nested_Res2Net_TDNN.fc."


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Fails a test that uses much memory: most files here have only a few kB."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def system() -> dict[str, Tensor]:
    """Returns a few weights with names of an official system."""
    generator = torch.Generator().manual_seed(1)
    return {
        "ssl_model.model.encoder.pos_conv.0.weight_g": torch.rand(1, 1, 3, generator=generator),
        "ssl_model.model.encoder.pos_conv.0.weight_v": torch.rand(4, 2, 3, generator=generator),
        "Nested_Res2Net_TDNN.bn.weight": torch.rand(6, generator=generator),
        "Nested_Res2Net_TDNN.bn.num_batches_tracked": torch.tensor(7),
        f"{FRONT}weight": torch.rand(2, 6, generator=generator),
    }


def refusal(path: Path) -> str:
    """Returns the error for a file, without its path. It must be one sentence that starts with the path."""
    with pytest.raises(ConversionError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message.removeprefix(str(path)).strip()


def equal(path: Path, expected: dict[str, Tensor]) -> None:
    tensors = read_checkpoint(path).tensors
    assert list(tensors) == list(expected)
    for key, tensor in expected.items():
        assert tensors[key].dtype == tensor.dtype and torch.equal(tensors[key], tensor), key


# --- usual files


def lightning(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Returns the content of Lightning's ModelCheckpoint, with a weighted loss outside the model."""
    state = {f"model.{key}": tensor for key, tensor in tensors.items()}
    return {
        "epoch": 3,
        "global_step": np.int64(1200),
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(state | {"criterion.weight": torch.tensor([0.1, 0.9])}),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'eer'}": {"best_model_score": torch.tensor(0.1), "dirpath": "x"}},
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
        ],
        "lr_schedulers": [],
        "hyper_parameters": {
            "lr": 1e-4,
            "args": Namespace(seed=1),
            "loss": torch.nn.CrossEntropyLoss(),
            "f": np.float32,
        },
    }


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {f"{prefix}{key}": tensor for key, tensor in tensors.items()}


def renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


def original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames keys as torch's newer weight norm does."""
    return renamed("weight_g", "parametrizations.weight.original0")(
        renamed("weight_v", "parametrizations.weight.original1")(tensors)
    )


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "module": prefixed("module."),
    "module twice": prefixed("module.module."),
    "compiled": prefixed("_orig_mod."),
    "compiled, then distributed": prefixed("module._orig_mod."),
    "distributed, then compiled": prefixed("_orig_mod.module."),
    "lightning": lightning,
    "lightning, compiled": lambda tensors: {"state_dict": prefixed("model._orig_mod.")(tensors)},
    "attribute of an attribute": prefixed("trainer.detector.net."),
    "fsdp": prefixed("_fsdp_wrapped_module."),
    "encoder alone compiled": renamed("ssl_model.", "ssl_model._orig_mod."),
    "encoder alone distributed": renamed("ssl_model.model.", "ssl_model.module.model."),
    "parametrised": original,
    "parametrised, lightning": lambda tensors: lightning(original(tensors)),
    **{name: lambda tensors, name=name: {name: tensors, "epoch": 3} for name in ("model", "net", "network")},
    "under model_state_dict": lambda tensors: {"model_state_dict": tensors, "optimizer_state_dict": {"state": {}}},
    "under two": lambda tensors: {"model": {"state_dict": prefixed("module.")(tensors)}},
    "deepspeed": lambda tensors: {"module": prefixed("module.")(tensors), "ds_version": "0.15"},
    "numpy outside": lambda tensors: {
        "state_dict": tensors, "eer": np.float64(0.1), "curve": np.ones(3), "best": np.int64(3), "on": np.bool_(True),
        "dtype": np.dtype("float32"), "name": np.str_("x"),
    },
    "python outside": lambda tensors: {
        "model": tensors, "set": {1, 2}, "path": PurePosixPath("/a"), "when": datetime.datetime(2026, 1, 2),
        "counts": collections.Counter("abc"), "slice": slice(1, 2),
        "nested": collections.defaultdict(list, {"a": [1]}),
        "bytes": b"abc", "array": bytearray(b"abc"), "long": 2**70, "complex": 1j, "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16, "size": torch.Size([1, 2]), "frozen": frozenset({1}),
    },
    "optimiser outside": lambda tensors: {
        "model": tensors,
        "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict(),
        "sparse": torch.eye(3).to_sparse(), "meta": torch.empty(9, device="meta"), "ints": torch.arange(3),
    },
}  # fmt: skip


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_what_training_scripts_write_gives_the_same_weights(form: str, is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save(FORMS[form](system()), path, _use_new_zipfile_serialization=is_zip)
    equal(path, system())
    outside = ("criterion.weight",) if form in {"lightning", "parametrised, lightning"} else ()
    assert read_checkpoint(path).outside == outside


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_scalars_of_any_numpy_are_no_code(core: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": system(), "eer": np.float64(0.1)}, path)
    rewrite(path, lambda data: data.replace(b"cnumpy._core.multiarray\n", f"c{core}.multiarray\n".encode()))
    equal(path, system())


def test_tensors_of_every_normal_make_are_read(tmp_path: Path) -> None:
    wide = torch.rand(4, 6)
    tied = torch.rand(3)
    made = {
        "transposed": wide.T,
        "part": wide[1:, 2:4],
        "parameter": torch.nn.Parameter(wide),
        "grad": torch.rand(2, requires_grad=True),
        "tied": tied,
        "to": tied,
        "scalar": torch.tensor(1.5),
        "one": torch.zeros(1).expand(1, 1, 1),
        **{str(dtype): wide.to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)},
        "num_batches_tracked": torch.tensor(3.0),
    }
    made = {f"ssl_model.{key}": tensor for key, tensor in made.items()}
    for is_zip in (True, False):
        torch.save(made, tmp_path / "x.pth", _use_new_zipfile_serialization=is_zip)
        equal(tmp_path / "x.pth", made)
    torch.save(made, tmp_path / "x.pth")
    rewrite(tmp_path / "x.pth", lambda data: data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:3"))
    assert b"cuda:3" in (tmp_path / "x.pth").read_bytes()
    equal(tmp_path / "x.pth", made)


def test_a_checkpoint_without_checksums_and_one_of_safetensors_under_another_name_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(system(), tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    equal(tmp_path / "x.pth", system())
    save_file(system(), tmp_path / "x.safetensors")
    shutil.move(tmp_path / "x.safetensors", tmp_path / "y.pth")
    assert set(read_checkpoint(tmp_path / "y.pth").tensors) == set(system())


def test_a_key_twice_under_different_prefixes_is_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "x.pth", system()
    key = f"{FRONT}weight"
    for other in (f"module.{key}", f"_orig_mod.{key}", f"model.{key}", f"ema.model.{key}", f"module.module.{key}"):
        torch.save(tensors | {other: tensors[key]}, path)
        message = refusal(path)
        assert message.startswith(f"has {key} twice, as ") and other in message
    torch.save(tensors | original(tensors), path)
    assert "weight_g twice" in refusal(path)
    torch.save(prefixed("student.")(tensors) | prefixed("teacher.")(tensors), path)
    assert "twice, as student." in refusal(path)
    save_file(tensors | prefixed("module.")({key: tensors[key].clone()}), tmp_path / "x.safetensors")
    assert "twice" in refusal(tmp_path / "x.safetensors")


# --- tensors that cannot be weights


def misfits() -> dict[str, tuple[Tensor, str]]:
    plain = torch.rand(4, 3)
    return {
        "zero stride": (torch.zeros(1).expand(2**30), "repeats elements"),
        "row stride": (torch.zeros(3).expand(2**28, 3), "repeats elements"),
        "overlap": (torch.zeros(2000).as_strided((1000, 1000), (1, 1)), "repeats elements"),
        "windows": (torch.zeros(2000).unfold(0, 100, 1), "repeats elements"),
        "meta": (torch.empty(2**32, device="meta"), "is a meta tensor"),
        "sparse": (plain.to_sparse(), "is sparse"),
        "compressed": (plain.to_sparse_csr(), "is sparse"),
        "quantised": (torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8), "is quantised"),
        "per channel": (
            torch.quantize_per_channel(plain, torch.ones(4), torch.zeros(4), 0, torch.qint8), "is quantised"
        ),
        "nested": (torch.nested.nested_tensor([plain, plain[:2]]), "is nested"),
        "jagged": (torch.nested.nested_tensor([plain, plain[:2]], layout=torch.jagged), "unknown kind"),
        "complex": (plain.to(torch.complex64), "is of type complex64"),
        "negated": (torch.rand(3, dtype=torch.complex64).conj().imag, "negated"),
        **{
            str(dtype): (plain.to(dtype), f"is of type {str(dtype).removeprefix('torch.')}")
            for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16,
                          torch.float8_e4m3fn)
        },
        **{
            f"{value} in {dtype}": (torch.tensor([[1, value]], dtype=dtype), "has NaN or infinite values")
            for value in (float("nan"), float("inf"), -float("inf"))
            for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        },
        "empty": (plain[:0], "has no elements"),
        "claims much and has nothing": (torch.zeros(0).as_strided((2**40, 0), (0, 1)), "has no elements"),
    }  # fmt: skip


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns about beta and deprecated features
    MISFITS = misfits()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", MISFITS)
def test_what_is_no_plain_weight_is_refused_with_its_key(kind: str, is_zip: bool, tmp_path: Path) -> None:
    tensor, message = MISFITS[kind]
    path = tmp_path / "x.pth"
    torch.save({"model": system() | {f"{FRONT}odd": tensor}}, path, _use_new_zipfile_serialization=is_zip)
    assert path.stat().st_size < 40_000
    assert refusal(path).startswith(f"cannot be converted: its {FRONT}odd ") and message in refusal(path)
    path.unlink()
    torch.save({"model": system(), "outside": tensor}, path, _use_new_zipfile_serialization=is_zip)
    equal(path, system())  # outside the state dict it is ignored


@pytest.mark.parametrize("name", ["claims_4GB.pth", "meta.pth", "zip_named.safetensors"])
def test_the_command_says_why_it_refuses(name: str, tmp_path: Path, nes2net: Any) -> None:
    done = nes2net("convert", FIXTURES / "convert_unexpected" / name, tmp_path / "out")
    assert done.code == 1 and done.err.startswith("Error: ") and "failed" not in done.err
    assert not list(tmp_path.iterdir())


def test_counts_of_other_types_and_misfits_of_safetensors_are_refused(tmp_path: Path) -> None:
    for dtype in (torch.int32, torch.uint8, torch.bool):
        torch.save(system() | {"ssl_model.num_batches_tracked": torch.tensor(1).to(dtype)}, tmp_path / "x.pth")
        assert "num_batches_tracked is of type" in refusal(tmp_path / "x.pth")
    for tensor in (
        torch.tensor([float("nan")]),
        torch.arange(3),
        torch.zeros(0, 4),
        torch.ones(2).to(torch.float8_e5m2),
    ):
        save_file(system() | {"ssl_model.odd": tensor}, tmp_path / "x.safetensors")
        assert refusal(tmp_path / "x.safetensors").startswith("cannot be converted: its ssl_model.odd ")


@pytest.mark.parametrize(
    "content",
    [{"ssl_model.a": 3}, {3: torch.ones(1)}, {"ssl_model.\n": torch.ones(1)}, {"a" * 5000: torch.ones(1)},
     {"ssl_model.a": {"b": torch.ones(1)}}, {"ssl_model.a": np.ones(3)}, {"ssl_model.a": np.float64(3)}, {}, [], 3,
     torch.ones(3), np.ones(3), "text", None, {"state_dict": {}}, {("a",) * 3: torch.ones(1)}],
    ids=str,
)  # fmt: skip
def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    message = refusal(tmp_path / "x.pth")
    assert "state dict" in message and "code" not in message


# --- handmade archives


class Storage:
    """A storage that a pickle claims to be in a record."""

    def __init__(self, elements: Any, key: Any = "0", kind: Any = torch.FloatStorage) -> None:
        self.id = ("storage", kind, key, "cpu", elements)


class Rebuilt:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class _Pickler(pickle._Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.id if isinstance(value, Storage) else None


def pickled(content: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def archive(path: Path, data: bytes, records: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", data)
        for name, content in ({"data/0": bytes(24)} if records is None else records).items():
            file.writestr(f"x/{name}", content)
        file.writestr("x/version", "3\n")
    return path


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Changes the pickle in an archive and keeps the checksum valid."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, change(data) if name.endswith("data.pkl") else data)


def described(elements: Any = 6, offset: Any = 0, shape: Any = (2, 3), stride: Any = (3, 1), **storage: Any) -> Any:
    arguments = (Storage(elements, **storage), offset, shape, stride, False, OrderedDict())
    return {f"{FRONT}odd": Rebuilt(torch._utils._rebuild_tensor_v2, *arguments)}


def test_an_archive_made_by_hand_is_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    for padding in (b"", b"x", b"xyz"):  # so that the record is not aligned
        records = {"data/1": padding, "data/0": values.tobytes()}
        tensors = read_checkpoint(archive(tmp_path / "x.pth", pickled(described()), records)).tensors
        assert torch.equal(tensors[f"{FRONT}odd"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "claim",
    [
        {"elements": 2**30, "shape": (2**30,), "stride": (1,)},
        {"elements": 7},
        {"elements": 5, "shape": (5,), "stride": (1,)},
        {"elements": -1},
        {"elements": 6.0},
        {"elements": True, "shape": (), "stride": ()},
        {"elements": 10**30},
        {"key": "1"},
        {"key": "../version"},
        {"kind": torch.DoubleStorage},
        {"kind": str},
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**70},
        {"shape": (3, 3)},
        {"shape": (2**62, 2**62), "stride": (2**61, 1)},
        {"shape": (-2, -3)},
        {"shape": (2, 3), "stride": (-3, -1)},
        {"shape": (2, 3), "stride": (3,)},
        {"shape": (2, "3")},
        {"shape": 6, "stride": 1},
        {"shape": (1,) * 100, "stride": (1,) * 100},
        {"shape": (1,), "stride": (2**63,)},
        {"shape": None},
    ],
    ids=str,
)
def test_a_tensor_that_is_not_in_the_file_is_refused(claim: dict[str, Any], tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", pickled(described(**claim)))
    assert "damaged" in refusal(path)


HUGE = 4_000_000_000
BOMBS: dict[str, bytes] = {
    "bytearray": pickled(Rebuilt(bytearray, HUGE)),
    "bytearray of protocol 5": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b".",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", HUGE) + b".",
    "text": b"\x80\x02X" + struct.pack("<I", HUGE) + b"a.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b".",
    "memo": b"\x80\x02}r" + struct.pack("<I", HUGE) + b".",
    "number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "tensor": pickled({f"{FRONT}a": Rebuilt(torch.Tensor, HUGE)}),
    "storage": pickled({f"{FRONT}a": Rebuilt(torch.UntypedStorage, HUGE)}),
    "quantised": pickled(
        {f"{FRONT}a": Rebuilt(torch._utils._rebuild_qtensor, Storage(6), 0, (HUGE,), (1,), (3, 0.1, 0), False, None)}
    ),
    "circle": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "hash": b"\x80\x02}" + b")" + b"2\x86" * 60 + b"N" + b"s.",
    "hash of a set": b"\x80\x04(" + b")" + b"2\x86" * 60 + b"\x91.",
    "hash in a set": b"\x80\x04\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
    "marks": b"\x80\x02" + b"(" * 5000 + b".",
    "nothing": b"",
    "no pickle": b"hello",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_pickle_takes_no_memory_by_asking_for_it(kind: str, tmp_path: Path) -> None:
    refusal(archive(tmp_path / "x.pth", BOMBS[kind]))
    legacy = b"".join(map(pickle.dumps, (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})))
    (tmp_path / "y.pth").write_bytes(b"\x80\x02" + legacy[2:] + BOMBS[kind])
    refusal(tmp_path / "y.pth")


def test_a_compressed_archive_and_a_storage_of_the_old_form_take_no_memory(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", bytes(300_000_000), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000 and "compressed" in refusal(path)
    torch.save(system(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    claim = data.replace(b"K\x06N", b"J\x00\x00\x00\x70N")  # the number of elements
    assert claim != data
    path.write_bytes(claim)
    assert "damaged" in refusal(path)


# --- code


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)


def code(folder: Path) -> dict[str, Any]:
    """Objects that would create a folder, or could do so, when loaded."""
    import builtins
    import runpy

    victim = str(folder / "owned")
    return {
        f"{os.mkdir.__module__}.mkdir": Rebuilt(os.mkdir, victim),
        "builtins.eval": Rebuilt(builtins.eval, f"__import__('os').mkdir({victim!r})"),
        "builtins.exec": Rebuilt(builtins.exec, f"import os; os.mkdir({victim!r})"),
        "builtins.getattr": Rebuilt(getattr, 3, "real"),
        "builtins.__import__": Rebuilt(__import__, "antigravity"),
        "subprocess.Popen": Rebuilt(subprocess.Popen, ["mkdir", victim]),
        "runpy.run_path": Rebuilt(runpy.run_path, victim),
        "torch.hub.load": Rebuilt(torch.hub.load, "a/b", "c"),
        "torch.serialization.load": Rebuilt(torch.load, victim),
        "functools.partial": Rebuilt(__import__("functools").partial, os.mkdir, victim),
        "pickle.loads": Rebuilt(pickle.loads, pickle.dumps(Rebuilt(os.mkdir, victim))),
    }


@pytest.mark.parametrize("name", code(Path()))
def test_code_is_named_and_never_run(name: str, tmp_path: Path) -> None:
    bad = code(tmp_path)[name]
    for number, content in enumerate(
        (bad, {"model": system(), "hook": bad}, {"state_dict": {f"{FRONT}a": bad}}, [bad], {"hook": [{"deep": bad}]})
    ):
        for is_zip in (True, False):
            path = tmp_path / f"{number}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=is_zip)
            assert f"would run code when loaded ({name}" in refusal(path)
    assert not (tmp_path / "owned").exists()


def test_a_whole_model_object_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content in (Network(), {"model": Network(), "epoch": 3}, torch.nn.Sequential(torch.nn.Linear(2, 2))):
        for is_zip in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=is_zip)
            message = refusal(path)
            assert message.startswith("has a whole model object (") and "torch.save(model.state_dict()" in message
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    assert "TorchScript" in refusal(path)


# --- other kinds of files, and damage


def test_a_file_of_another_kind_is_a_sentence(tmp_path: Path) -> None:
    torch.save(system(), tmp_path / "good.pth")
    good = (tmp_path / "good.pth").read_bytes()
    files = {
        "page.pth": (b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "a text file"),
        "page.safetensors": (b"<!DOCTYPE html><html>404</html>", "safetensors file"),
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        "empty.pth": (b"", "zero bytes"),
        "byte.pth": (b"\x80", "damaged"),
        "start.pth": (b"PK\x03\x04", "damaged"),
        "noise.pth": (bytes(range(200)) * 40, "not a PyTorch or safetensors checkpoint"),
        "named.safetensors": (good, "a PyTorch file, not a safetensors file"),
        "legacy.safetensors": (b"\x80\x02.", "a PyTorch file, not a safetensors file"),
        "header.safetensors": (struct.pack("<Q", 2**62) + b"{}", "safetensors"),
        "lengths.safetensors": (save(system())[:-4], "safetensors"),
        "longer.safetensors": (save(system()) + b"more", "safetensors"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        assert message in refusal(tmp_path / name), name
    with tarfile.open(tmp_path / "old.pth", "w") as file:
        file.add(tmp_path / "good.pth", "good.pth")
    assert "not a PyTorch or safetensors checkpoint" in refusal(tmp_path / "old.pth")
    with zipfile.ZipFile(tmp_path / "download.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(tmp_path / "good.pth", "Nes2Net/good.pth")
    assert "with Nes2Net/good.pth: unpack it first" in refusal(tmp_path / "download.zip")
    np.savez(tmp_path / "array.npz", a=np.ones(3))
    assert "zip file without a checkpoint" in refusal(tmp_path / "array.npz")
    assert "is a folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "no.pth")
    assert "does not exist" in refusal(Path("/dev/null"))
    assert "cannot be read" in refusal(Path("a" * 5000))


def test_damage_is_told_wherever_it_is(tmp_path: Path) -> None:
    """A file with a changed byte or a missing end is refused, or gives the same weights if the byte is unused."""
    path, generator, told = tmp_path / "x.pth", np.random.default_rng(5), 0
    whole = GOLDEN.read_bytes()
    expected = read_checkpoint(GOLDEN).tensors
    with zipfile.ZipFile(GOLDEN) as file:
        inside = [(info.header_offset + 100, info.file_size) for info in file.infolist() if info.file_size > 200]
    places = [start + int(generator.integers(0, size - 100)) for start, size in inside][:40]
    for place in [*places, *generator.integers(0, len(whole), 40), *range(len(whole) - 120, len(whole), 5)]:
        data = bytearray(whole)
        data[place] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(data)
        try:
            found = read_checkpoint(path).tensors
        except ConversionError as error:
            told += 1
            assert str(error).startswith(str(path)) and "damaged" in str(error)
        else:
            assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
            assert place not in places
    assert told > 60
    for length in [1, 3, 4, 5, 100, *generator.integers(1, len(whole) - 1, 20), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("form", ["legacy", "safetensors", "pickle"])
def test_no_damage_is_unforeseen(form: str, tmp_path: Path) -> None:
    """In formats without checksums damage may go unnoticed, but it only raises one-sentence errors."""
    generator = np.random.default_rng(6)
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(system(), path)
    else:
        torch.save(lightning(system()), path, _use_new_zipfile_serialization=form != "legacy")
    whole = path.read_bytes()
    for _ in range(150):

        def spoilt(data: bytes) -> bytes:
            changed = bytearray(data)
            for place in generator.integers(0, min(len(data), 6000), int(generator.integers(1, 4))):
                changed[place] = int(generator.integers(0, 256))
            return bytes(changed[: int(generator.integers(1, len(data)))] if generator.random() < 0.1 else changed)

        path.write_bytes(whole if form == "pickle" else spoilt(whole))
        if form == "pickle":
            rewrite(path, spoilt)
        try:
            read_checkpoint(path)
        except ConversionError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


# --- the Hub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos["org/nes2net"] = Repo(private=False)
        hub.repos["org/nes2net"].commit("main", {"sub/best.pth": GOLDEN.read_bytes(), "small.txt": b"hello"})
        yield hub


def at(hub: LoopbackHub, scratch: Path, *command: Any) -> subprocess.CompletedProcess[str]:
    """Runs a process that uses the loopback Hub as the Hub."""
    environment = os.environ | {
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(scratch / "hf"),
        "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_damaged_download_is_named_with_the_command_that_clears_it(hub: LoopbackHub, tmp_path: Path) -> None:
    options = ["--encoder-config", encoder_config(tmp_path)]
    command = [
        sys.executable,
        "-m",
        "nes2net_cli",
        "convert",
        "org/nes2net:sub/best.pth",
        tmp_path / "out",
        *options,
    ]
    first = at(hub, tmp_path, *command)
    assert first.returncode == 0, first.stderr
    shutil.rmtree(tmp_path / "out")
    [cached] = (tmp_path / "hf").rglob("best.pth")
    cached.resolve().write_bytes(spoilt(GOLDEN))
    damaged = at(hub, tmp_path, *command)
    assert damaged.returncode == 1 and not (tmp_path / "out").exists()
    assert "is damaged in the cache" in damaged.stderr and "`hf cache rm model/org/nes2net`" in damaged.stderr
    cleared = at(hub, tmp_path, Path(sys.executable).with_name("hf"), "cache", "rm", "model/org/nes2net", "--yes")
    assert cleared.returncode == 0, cleared.stderr
    again = at(hub, tmp_path, *command)
    assert again.returncode == 0 and (tmp_path / "out/model.safetensors").is_file(), again.stderr


def spoilt(path: Path) -> bytes:
    """Returns the file with a wrong time in the first header, which no checksum in the file covers."""
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    return bytes(data)


@pytest.mark.parametrize("layout", ["large", "small", "shared", "no links"])
def test_a_download_is_held_against_the_checksum_in_every_layout_of_the_cache(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = GOLDEN.read_bytes()
    names = {"small": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    blob = tmp_path / "blobs" / names.get(layout, hashlib.sha256(content).hexdigest())
    cached = tmp_path / "snapshots" / "commit" / "sub" / "best.pth"
    stored = {"shared": tmp_path / "shared" / ("0" * 64), "no links": cached}.get(layout, blob)
    for place in (stored, blob, cached):
        place.parent.mkdir(parents=True, exist_ok=True)
    if layout == "shared":  # the name of the content is not a SHA-256
        blob.symlink_to(stored)
    if layout != "no links":
        cached.symlink_to(Path("../../../blobs") / blob.name)
    asked = []

    def metadata(url: str) -> Namespace:
        asked.append(url)
        return Namespace(etag=blob.name)

    monkeypatch.setattr(download, "hf_hub_download", lambda *_, **__: str(cached))
    monkeypatch.setattr(download, "get_hf_file_metadata", metadata)
    stored.write_bytes(content)
    assert fetch("org/nes2net:sub/best.pth", None) == (cached, True)
    stored.write_bytes(spoilt(GOLDEN))
    with pytest.raises(ConversionError, match="clear it with `hf cache rm model/org/nes2net`, then convert again"):
        fetch("org/nes2net:sub/best.pth", None)
    assert len(asked) == (2 if layout == "no links" else 0)
    assert all(url.endswith("/org/nes2net/resolve/commit/sub/best.pth") for url in asked)


# --- conversions


def encoder_config(folder: Path) -> Path:
    """Writes the `--encoder-config` file of the golden checkpoint."""
    options = json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))
    (folder / "encoder.json").write_text(json.dumps(options["hf_config"]), encoding="utf-8")
    return folder / "encoder.json"


def test_counts_of_averages_and_tied_weights_convert(tmp_path: Path) -> None:
    """Averaged checkpoints have fractional counts. A tensor with two keys is written twice."""
    from safetensors.torch import load_file

    tensors = dict(torch.load(GOLDEN, weights_only=True))
    bias = "ssl_model.model.encoder.layers.{}.fc1.bias"
    tensors[bias.format(1)] = tensors[bias.format(0)]
    attention = [f"ssl_model.model.encoder.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    tensors |= dict(zip(attention, torch.cat([tensors[key] for key in attention]).chunk(3), strict=True))
    turned = "ssl_model.model.encoder.layers.0.fc1.weight"
    tensors[turned] = tensors[turned].T.contiguous().T
    for key, tensor in tensors.items():
        if key.endswith("num_batches_tracked"):
            tensors[key] = tensor / 1
    torch.save(tensors, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "out", encoder_config=encoder_config(tmp_path))
    written = load_file(tmp_path / "out/model.safetensors")
    ours = "nes2net.encoder.encoder.layers.{}.feed_forward.intermediate_dense.bias"
    assert torch.equal(written[ours.format(0)], written[ours.format(1)])
    assert torch.equal(written[ours.format(0).replace("bias", "weight")], tensors[turned])
    for part, key in zip("qkv", attention, strict=True):
        assert torch.equal(written[f"nes2net.encoder.encoder.layers.0.attention.{part}_proj.weight"], tensors[key])
    assert {tensor.dtype for key, tensor in written.items() if "num_batches" in key} == {torch.int64}
    front = "ssl_model.model."
    bare = {key.removeprefix(front): tensor for key, tensor in tensors.items() if key.startswith(front)}
    torch.save({"model": {f"model.{key}": tensor for key, tensor in bare.items()}}, tmp_path / "x.pth")
    assert convert(tmp_path / "x.pth", tmp_path / "encoder", encoder_config=encoder_config(tmp_path)) is None
    written = load_file(tmp_path / "encoder/model.safetensors")
    assert torch.equal(written["encoder.layers.0.feed_forward.intermediate_dense.weight"], tensors[turned])


@pytest.mark.slow
def test_half_precision_converts_and_verifies(tmp_path: Path, fixture_audio_dir: Path) -> None:
    tensors = torch.load(GOLDEN, weights_only=True)
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    torch.save(half, tmp_path / "x.pth")
    lines: list[str] = []
    convert(
        tmp_path / "x.pth",
        tmp_path / "out",
        encoder_config=encoder_config(tmp_path),
        verify=next(fixture_audio_dir.glob("*.flac")),
        report=lines.append,
    )
    assert any(line.startswith("verified") for line in lines)


@pytest.mark.parametrize(
    "fields",
    [{"hidden_size": "a"}, {"conv_dim": 3}, {"conv_stride": [1]}, {"encoder_config": 3}, {"model_type": []}],
    ids=str,
)
def test_an_impossible_encoder_configuration_is_a_sentence(fields: dict[str, Any], tmp_path: Path) -> None:
    file = encoder_config(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    with pytest.raises(ConversionError, match=r"encoder.json") as caught:
        convert(GOLDEN, None, encoder_config=file)
    assert "\n" not in str(caught.value)


def test_a_back_end_of_impossible_scales_is_not_built(tmp_path: Path) -> None:
    """A megabyte of ones would create a hundred thousand modules."""
    block = "Nested_Res2Net_TDNN.Build_in_Res2Nets.0."
    shapes = {
        "conv1.weight": (500, 1), "se.se.1.weight": (500, 1), "convs.0.weight": (1, 1, 3), "weighted_sum.0": (1,)
    }  # fmt: skip
    tensors = {f"{block}{name}": torch.ones(shape) for name, shape in shapes.items()}
    tensors |= {"Nested_Res2Net_TDNN.bn.weight": torch.ones(250_000), f"{FRONT}weight": torch.ones(2, 1)}
    tensors |= {"ssl_model.model.layer_norm.weight": torch.ones(1)}
    torch.save(tensors, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"x\.pth: its back-end would have over 125000 convolutions"):
        convert(tmp_path / "x.pth", None)


@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_for_good(tmp_path: Path) -> None:
    script = f"""
import os, signal
from nes2net_hf.conversion import convert, converting
converting.write_card = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
convert({str(GOLDEN)!r}, {str(tmp_path / "out")!r}, encoder_config={str(encoder_config(tmp_path))!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -9 and len(list(tmp_path.iterdir())) > 1
    convert(GOLDEN, tmp_path / "out", encoder_config=encoder_config(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "out"]
