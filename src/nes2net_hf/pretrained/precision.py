"""Which precisions a model can run in, and which of them this machine computes fast."""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import Tensor, nn

from ..errors import ModelError, OutputError
from ..files import atomic_file
from .fast import speed_up
from .int8 import Int8Linear

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16", "int8")
AUTO = "auto"
WORTH_IT = 1.2  # times as fast as float32; less is not worth scores that move
_ROWS, _FEATURES, _HIDDEN = 402, 1024, 4096  # two windows in a feed-forward layer of XLS-R 300M
_ROUNDS = 8
_EXTRAS = ("avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_fp16", "amx_int8")


def settle_dtype(dtype: str, device: torch.device) -> str:
    """
    Returns the precision to run in: `dtype` itself, or, for `"auto"`, the fastest on this device. On a CPU that is
    measured (see `speeds`); a GPU with bfloat16 gets bfloat16.

    Raises:
        ModelError: the dtype is unknown, or is int8 on a device other than a CPU.
    """
    if dtype not in (*DTYPES, AUTO):
        raise ModelError(f"dtype must be one of {', '.join((*DTYPES, AUTO))}, got {dtype!r}.")
    if device.type != "cpu":
        if dtype == "int8":
            raise ModelError(f"dtype int8 runs on a CPU: choose bfloat16 for {device}, or --device cpu.")
        if dtype == AUTO:
            return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "float32"
        return dtype
    return fastest() if dtype == AUTO else dtype


def warn_if_slow(dtype: str, device: torch.device) -> None:
    """Warns if the precision is slower than float32 on this device."""
    if device.type == "cpu" and dtype != "float32" and speeds()[dtype] < 1:
        factor = 1 / speeds()[dtype]
        logger.warning("%s takes %.2g times as long as float32 on this CPU: choose float32 or auto", dtype, factor)


def fastest() -> str:
    """Returns the precision that this CPU computes fastest: float32, unless another is clearly faster."""
    best = max(speeds(), key=speeds().__getitem__)
    return best if speeds()[best] >= WORTH_IT else "float32"


@cache
def speeds() -> dict[str, float]:
    """
    Returns how many times as fast as float32 this CPU computes linear layers in each precision.

    The measurement takes about a second. It is kept in the cache of Hugging Face, for this processor, version of torch
    and number of threads.
    """
    place = Path(constants.HF_HOME) / "nes2net_hf" / "speeds.json"
    known: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError):
        known = json.loads(place.read_text(encoding="utf-8"))
    key = f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        return {dtype: float(known[key][dtype]) for dtype in DTYPES}
    measured = _measure()
    with suppress(OSError, OutputError):  # a cache that cannot be written costs a second each time
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(place) as file:
            json.dump({**(known if isinstance(known, dict) else {}), key: measured}, file, indent=1)
    return measured


def processor() -> str:
    """Returns the name of this CPU and what it can do that matters here, such as `avx512_bf16`."""
    can: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    name = can.get("cpu_name") or platform.processor() or platform.machine()
    extras = [key for key in _EXTRAS if can.get(key)]
    return ", ".join([str(name), torch.backends.cpu.get_cpu_capability(), *extras])


@torch.inference_mode()
def _measure() -> dict[str, float]:
    x = torch.randn(_ROWS, _FEATURES)
    runs: dict[str, tuple[nn.Module, Tensor]] = {}
    for dtype in DTYPES:
        kind = torch.float32 if dtype == "int8" else getattr(torch, dtype)
        layers: list[nn.Module] = [nn.Linear(_FEATURES, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _FEATURES)]
        if dtype == "int8":
            layers = [Int8Linear(layer) if isinstance(layer, nn.Linear) else layer for layer in layers]
            nn.Sequential(*layers)(x)
            layers = [layer.settle() if isinstance(layer, Int8Linear) else layer for layer in layers]
        runs[dtype] = (speed_up(nn.Sequential(*layers)).to(kind), x.to(kind))
    times = dict.fromkeys(DTYPES, math.inf)
    for turn in range(_ROUNDS):
        for dtype, (network, input) in runs.items():
            if turn and times[dtype] > 3 * times["float32"]:
                continue  # it has lost: do not wait for it
            start = time.perf_counter()
            network(input)
            times[dtype] = min(time.perf_counter() - start, times[dtype])
    return {dtype: round(times["float32"] / times[dtype], 2) for dtype in DTYPES}
