"""
Runs an exported Nes2Net with onnxruntime on the CPU. This file imports neither torch nor transformers, which take
seconds.

`nes2net export` writes into the graph what its numbers mean, so that only the threshold, the calibration and the
feature extractor are read from files. Graphs of version 0.1.0 lack that: for them, transformers reads the files.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from numpy.typing import NDArray

from ..calibration import Calibration
from ..errors import ModelError
from ..hub import fetch_large
from ..machine import cores
from .cache import locate
from .places import CONFIG_FILE, EXTRACTOR_FILE, check_is_nes2net, check_windows, in_a_sentence

GRAPH = "model.onnx"  # weights too large for one file are in model.onnx.data
NOTE = "nes2net"  # the entry of the graph's metadata that holds a `GraphConfig`
_RATE = 16_000
_LONGEST = 600 * _RATE


@dataclass
class GraphConfig:
    """What detection reads of a configuration. The names are those of `Nes2NetConfig`."""

    architectures: list[str] | None
    id2label: dict[int, str]
    bonafide_index: int
    spoof_indices: list[int]
    score: str
    frame_samples: int
    min_samples: int
    max_samples: int | None
    demonstration: bool
    threshold: float | None = None
    calibration: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: Any) -> GraphConfig:
        """Takes its fields from a `Nes2NetConfig`."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    def to_json(self) -> str:
        """Returns the text for the graph's metadata. The folder's config.json has threshold and calibration."""
        return json.dumps({key: value for key, value in asdict(self).items() if key not in _SETTINGS[CONFIG_FILE]})

    @classmethod
    def from_json(cls, text: str, **settings: Any) -> GraphConfig:
        """
        Reads what `to_json` wrote; later versions may write more.

        Args:
            settings: threshold and calibration.

        Raises:
            ValueError: a field is missing or wrong.
        """
        try:
            note = json.loads(text)
            labels = {int(index): str(label) for index, label in note["id2label"].items()}
            names = cls.__dataclass_fields__.keys() - _SETTINGS[CONFIG_FILE].keys()
            config = cls(**{**{name: note[name] for name in names}, "id2label": labels, **settings})
            if sorted([config.bonafide_index, *config.spoof_indices]) != list(range(len(labels))):
                raise ValueError("indices")
            if not (config.frame_samples >= 1 and config.min_samples >= 1 and (config.max_samples or 1) >= 1):
                raise ValueError("samples")
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError("its graph does not say what its numbers mean: export it again") from error
        return config


@dataclass
class GraphExtractor:
    """Prepares windows as `Nes2NetFeatureExtractor` does; its arguments are explained there."""

    window_length: int = 64_600
    length_policy: str = "first"
    do_normalize: bool = False
    normalize_eps: float = 1e-5
    min_samples: int = 400
    sampling_rate: int = _RATE

    def __call__(
        self, raw_speech: Sequence[NDArray[np.float32]], sampling_rate: int = _RATE, return_tensors: str = "np"
    ) -> dict[str, NDArray[np.float32]]:
        """
        Returns `input_values` (B, S) float32 for B waveforms (S,), which have the same length if the policy is
        `"whole"`.

        Raises:
            ValueError: a waveform is too short.
        """
        return {"input_values": np.stack([self._prepared(waveform) for waveform in raw_speech])}

    def _prepared(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        if waveform.size < self.min_samples:
            raise ValueError(f"a waveform of {waveform.size} samples is too short: {self.min_samples} are needed.")
        if self.length_policy == "first":
            waveform = np.resize(waveform, self.window_length)  # cuts, or repeats
        if self.do_normalize:
            centred = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
            waveform = centred / np.sqrt(centred.var(dtype=np.float64) + self.normalize_eps).astype(np.float32)
        return waveform


class OnnxModel:
    """
    An exported model.

    Args:
        folder: the folder of `model.onnx`. It uses as many threads as torch, if torch is imported; otherwise as many
            as OMP_NUM_THREADS says, or as this process has cores.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: the file is not a graph, or a part of it is missing.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads()
        options.log_severity_level = 3  # errors only: the user cannot fix what its warnings are about
        try:
            self._session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no narrower base
            raise RuntimeError(str(error)) from error
        self.note: str | None = self._session.get_modelmeta().custom_metadata_map.get(NOTE)
        self.config: Any = None  # of the folder, see `load_onnx_model`

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Returns float32 logits (B, C), or (B, T, C) for a frame model, for waveforms (B, S) of equal length.

        Raises:
            RuntimeError: onnxruntime cannot run the graph, e.g. because it is out of memory.
        """
        try:
            [logits] = self._session.run(["logits"], {"input_values": input_values})
        except Exception as error:
            raise RuntimeError(str(error)) from error
        return logits


def holds_only_a_graph(folder: Path) -> bool:
    """Returns whether a folder has an exported graph but no PyTorch weights."""
    weights = [*folder.glob("model*.safetensors"), *folder.glob("*.bin")]
    return (folder / GRAPH).is_file() and not weights


def load_onnx_model(
    model: str | os.PathLike[str], revision: str | None = None, device: str | None = None, dtype: str = "float32"
) -> tuple[OnnxModel, Any]:
    """
    Loads what `nes2net export` wrote, and its feature extractor.

    Args:
        model: Hub id, folder or official checkpoint.
        revision: branch, tag or commit on the Hub.

    Raises:
        ModelError: the model does not exist, cannot be reached, has no graph or an invalid setting; onnxruntime is not
            installed; or the device is not the CPU or the dtype not float32.
    """
    if device is not None and str(device).split(":")[0] != "cpu":
        raise ModelError(f"--backend onnx runs on the CPU: omit --device {device}.")
    if dtype != "float32":
        raise ModelError(f"--backend onnx always uses the precision of the export: omit --dtype {dtype}.")
    name, revision = locate(model, revision)
    with in_a_sentence(name, revision):
        folder = Path(name)
        if folder.is_dir():
            check_is_nes2net(name, _read(folder, CONFIG_FILE, name))
        else:
            # Before the graph, which may be large and of another model.
            check_is_nes2net(name, _read(_fetched(name, revision).parent, CONFIG_FILE, name))
            fetch_large(name, f"{re.escape(GRAPH)}.*", revision)
            wanted = [CONFIG_FILE, EXTRACTOR_FILE, f"{GRAPH}*"]
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        if not (folder / GRAPH).is_file():
            raise ModelError(f"model {name} has no {GRAPH} for --backend onnx: make one with nes2net export.")
        try:
            network = OnnxModel(folder)
        except ImportError:
            raise ModelError("--backend onnx needs onnxruntime: pip install 'nes2net_hf[onnx]'.") from None
        if network.note is None:  # an export of version 0.1.0
            from .load import settings_of

            network.config, extractor = settings_of(name, revision)
            return network, extractor
        network.config = GraphConfig.from_json(network.note, **_settings(folder, CONFIG_FILE, name))
        windows = GraphExtractor(**_settings(folder, EXTRACTOR_FILE, name))
        check_windows(name, windows, network.config)
        return network, windows


def _fetched(name: str, revision: str | None) -> Path:
    """Returns the path of a Hub model's config.json in the cache."""
    try:
        return Path(hf_hub_download(name, CONFIG_FILE, revision=revision))
    except RemoteEntryNotFoundError:
        raise ModelError(f"model {name} is not a Nes2Net model: it has no {CONFIG_FILE}.") from None


def _is_calibration(value: Any) -> bool:
    with suppress(TypeError, ValueError):
        fitted = Calibration(**value)
        numbers = (fitted.scale, fitted.offset, fitted.prior)
        return all(map(_is_finite, numbers)) and fitted.scale > 0 and 0 < fitted.prior < 1
    return value is None


def _is_finite(value: Any) -> bool:
    with suppress(OverflowError):  # an integer too large for a float
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return False


# What is read from each file, and which values are valid. `Nes2NetConfig` and `Nes2NetFeatureExtractor`, which wrote
# the files, explain in more detail what is not.
_SETTINGS: dict[str, dict[str, Callable[[Any], bool]]] = {
    CONFIG_FILE: {
        "threshold": lambda value: value is None or _is_finite(value),
        "calibration": _is_calibration,
    },
    EXTRACTOR_FILE: {
        "window_length": lambda value: type(value) is int and 1 <= value <= _LONGEST,
        "length_policy": lambda value: value in ("first", "whole"),
        "do_normalize": lambda value: isinstance(value, bool),
        "normalize_eps": lambda value: _is_finite(value) and 0 < value < 1,
        "min_samples": lambda value: type(value) is int and 1 <= value <= _LONGEST,
        "sampling_rate": lambda value: type(value) is int and value == _RATE,
    },
}


def _settings(folder: Path, file: str, name: str) -> dict[str, Any]:
    """Reads the settings that a file of an exported model has."""
    written = _read(folder, file, name)
    found = {key: written[key] for key in _SETTINGS[file] if key in written}
    for key, value in found.items():
        if not _SETTINGS[file][key](value):
            raise ModelError(
                f"model {name} could not be loaded: {file}: {key} has an invalid value, {repr(value)[:100]}: export "
                "it again."
            )
    return found


def _read(folder: Path, file: str, name: str) -> dict[str, Any]:
    """Reads a JSON object."""
    try:
        written = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"model {name} has no {file}: export it again.") from None
    except (ValueError, RecursionError):
        raise ModelError(f"model {name} could not be loaded: {file} is not JSON: export it again.") from None
    if not isinstance(written, dict):
        raise ModelError(f"model {name} could not be loaded: {file} is not a JSON object: export it again.")
    return written


def _threads() -> int:
    """Returns the number of threads to run a graph with: see `OnnxModel`."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    with suppress(KeyError, ValueError):
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return cores()
