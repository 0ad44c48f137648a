"""Loads a model for detection, or explains in one sentence why it cannot be loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers.utils import FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_NAME

from ..audio import SAMPLING_RATE, read_audio
from ..configuration_nes2net import Nes2NetConfig
from ..errors import ModelError
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..hub import bounded_requests, fetch_large, hub_reason
from ..modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from ..samples import BONAFIDE, SPOOF
from ..scores import judges_frames
from .fast import speed_up
from .int8 import quantise
from .onnx import GRAPH, OnnxModel, holds_only_a_graph
from .precision import settle_dtype, warn_if_slow

DEMO_MODEL = Path(__file__).parents[1] / "models" / "nes2net-demo"
BACKENDS = ("torch", "onnx")


def choose_device(device: str | None = None) -> torch.device:
    """Returns the given device, or the first available of cuda, mps and cpu."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ModelError(f"device {device} is not available here: choose another, such as cpu.") from None


def load_model(
    model: str | os.PathLike[str], revision: str | None, device: torch.device, dtype: str
) -> tuple[Nes2NetForAudioClassification | Nes2NetForAudioFrameClassification, Nes2NetFeatureExtractor]:
    """
    Loads an utterance or frame model for inference, and its feature extractor. It uses our own classes, so no code
    from the Hub is run.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit on the Hub.
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, on a CPU also `"int8"`, or `"auto"`: see `settle_dtype`.

    Raises:
        ModelError: the model does not exist, cannot be reached, is not a Nes2Net model, has an invalid setting, or
            has weights that do not match its configuration.
    """
    dtype = settle_dtype(dtype, device)
    warn_if_slow(dtype, device)
    name = os.fspath(model)
    check_place(name)
    if holds_only_a_graph(Path(name)):
        raise ModelError(f"model folder {name} has an ONNX graph but no PyTorch weights: use --backend onnx.")
    loaded: Any
    with _in_a_sentence(name, revision):
        place = _place_of_nes2net(name, revision)
        config, extractor = _settings(name, place)
        kind = Nes2NetForAudioFrameClassification if judges_frames(config) else Nes2NetForAudioClassification
        _check_stored(name, kind, config)
        if not os.path.isdir(name):
            fetch_large(name, r"model(-\d+-of-\d+)?\.safetensors", revision)
        loaded = kind.from_pretrained(**place, dtype=torch.float32, output_loading_info=True)
    network, report = loaded
    mismatched = [key for key, *_ in report["mismatched_keys"]]
    _check_weights(name, report["missing_keys"], report["unexpected_keys"], mismatched)
    # Our code reads only the logits, whatever outputs the configuration requests.
    network.config.return_dict = True
    network.config.output_attentions = network.config.output_hidden_states = False
    network = speed_up(network.to(device).eval())
    if dtype == "int8":
        samples = [read_audio(path) for path in (BONAFIDE, SPOOF)]
        quantise(network, extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt"))
        return network, extractor
    return network.to(getattr(torch, dtype)), extractor


def load_onnx_model(
    model: str | os.PathLike[str], revision: str | None, device: torch.device, dtype: str
) -> tuple[OnnxModel, Nes2NetFeatureExtractor]:
    """
    Loads what `nes2net export` wrote, and its feature extractor. For the arguments, see [`load_model`].

    Raises:
        ModelError: see [`load_model`]; or there is no graph, onnxruntime is not installed, or the device is not the
            CPU or the dtype not float32.
    """
    if device.type != "cpu":
        raise ModelError(f"--backend onnx runs on the CPU: omit --device {device}.")
    if dtype != "float32":
        raise ModelError(f"--backend onnx always uses the precision of the export: omit --dtype {dtype}.")
    name = os.fspath(model)
    check_place(name)
    with _in_a_sentence(name, revision):
        place = _place_of_nes2net(name, revision)
        folder = Path(name)
        if not folder.is_dir():
            fetch_large(name, f"{re.escape(GRAPH)}.*", revision)
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[f"{GRAPH}*"]))
        if not (folder / GRAPH).is_file():
            raise ModelError(f"model {name} has no {GRAPH} for --backend onnx: make one with nes2net export.")
        try:
            config, extractor = _settings(name, place)
            network = OnnxModel(folder, config)
        except ImportError:
            raise ModelError("--backend onnx needs onnxruntime: pip install 'nes2net_hf[onnx]'.") from None
        return network, extractor


def _place_of_nes2net(name: str, revision: str | None) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` that name the model; raises ModelError if it is not a Nes2Net."""
    place = {"pretrained_model_name_or_path": name, "revision": revision or "main"}
    config, _ = Nes2NetConfig.get_config_dict(**place)
    if not config:
        raise ModelError(f"model {name} is not a Nes2Net model: it has no config.json.")
    # From another model's configuration, transformers would build a Nes2Net with random weights.
    if config.get("model_type") != Nes2NetConfig.model_type:
        raise ModelError(
            f"model {name} is not a Nes2Net model: its model_type is {config.get('model_type')!r}, not "
            f"{Nes2NetConfig.model_type!r}."
        )
    return place


def _settings(name: str, place: dict[str, Any]) -> tuple[Nes2NetConfig, Nes2NetFeatureExtractor]:
    """Reads configuration and feature extractor, and checks that they fit together."""
    config = Nes2NetConfig.from_pretrained(**place)
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, FEATURE_EXTRACTOR_NAME)):
        raise ModelError(f"model folder {name} has no {FEATURE_EXTRACTOR_NAME}: copy it there.")
    extractor = Nes2NetFeatureExtractor.from_pretrained(**place)
    whole = extractor.length_policy == "whole"
    for field in ("window_length", "min_samples") if whole else ("window_length",):
        if getattr(extractor, field) < config.min_samples:
            raise ModelError(
                f"model {name}: preprocessor_config.json: {field} must be at least {config.min_samples} samples, the "
                f"length of one frame of the encoder in config.json, got {getattr(extractor, field)}."
            )
    if config.max_samples is not None and extractor.window_length > config.max_samples:
        raise ModelError(
            f"model {name}: preprocessor_config.json: window_length must be at most {config.max_samples} samples, "
            f"which the {config.encoder_config.model_type} encoder in config.json can read, got "
            f"{extractor.window_length}."
        )
    return config, extractor


def _check_stored(name: str, kind: Any, config: Nes2NetConfig) -> None:
    """
    Compares the shapes of a folder's weights with the configuration, before memory is allocated for the model.
    """
    folder = Path(name)
    if not os.path.isdir(name):
        return
    whole = folder / SAFE_WEIGHTS_NAME
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        return
    stored: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                stored |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged ({error}): copy or download it again.") from None
    with torch.device("meta"):
        wanted = {key: tuple(tensor.shape) for key, tensor in kind(config).state_dict().items()}
    mismatched = [key for key in stored.keys() & wanted.keys() if stored[key] != wanted[key]]
    _check_weights(name, wanted.keys() - stored.keys(), stored.keys() - wanted.keys(), mismatched)


def _check_weights(name: str, missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str]) -> None:
    """Raises ModelError if the names or shapes of weights do not match the configuration."""
    for names, problem in (
        (mismatched, "has {count} weights whose shapes do not match its config.json ({first} ...): use the "
         "config.json that they were trained with"),
        (missing, "lacks {count} of its weights ({first} ...): train or convert it first"),
        (unexpected, "has {count} weights that its config.json does not use ({first} ...): use the config.json that "
         "they were trained with"),
    ):  # fmt: skip
        # Ignored: weight norm, which has two spellings, and the mask embedding, which only training uses.
        found = sorted(key for key in names if not re.search(r"\.(weight_[gv]|original[01]|masked_spec_embed)$", key))
        if found:
            raise ModelError(f"model {name} {problem.format(count=len(found), first=found[0])}.")


def check_place(name: str) -> None:
    """Raises ModelError if `name` is neither a model's folder nor a valid Hub id. It does not contact the Hub."""
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise ModelError(f"model folder {name} is not a Nes2Net model: it has no config.json.")
    elif os.path.exists(name):
        raise ModelError(f"model {name} is a file: name a folder in the Hugging Face layout, or a Hub id.")
    else:
        try:
            validate_repo_id(name)
        except HFValidationError:
            shown = name if name and name.isprintable() else repr(name)
            shown = shown if len(shown) <= 200 else f"{shown[:100]}... (of {len(name):,} characters)"
            raise ModelError(f"model folder {shown} does not exist.") from None


@contextmanager
def _in_a_sentence(name: str, revision: str | None) -> Iterator[None]:
    """Turns errors inside it into a ModelError that names the model, and sets time limits on requests to the Hub."""
    try:
        with nullcontext() if os.path.isdir(name) else bounded_requests():
            yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"model {name}{f' at {revision}' if revision else ''} {_reason(error, name)}.") from None


def _reason(error: BaseException, name: str) -> str:
    """Returns the reason behind a chain of exceptions."""
    if not os.path.isdir(name):
        reason = hub_reason(error)
        if reason is None and isinstance(error, SafetensorError):
            reason = (
                f"one of its files in the cache is damaged: clear it with `hf cache rm model/{name}`, then try again"
            )
        if reason is not None:
            return f"could not be loaded: {reason}"
    if str(error).startswith(("config.json", FEATURE_EXTRACTOR_NAME)):  # our own message, which is one sentence
        return f"could not be loaded: {str(error).rstrip('.')}"
    if "feature extractor" in str(error) and not os.path.isdir(name):
        return f"could not be loaded: it has no valid {FEATURE_EXTRACTOR_NAME}: add one to the repository"
    first: Any = re.split(r"(?<=\w)[.:]?\s*\n|\.\s", str(error).strip())[0]
    return f"could not be loaded: {first.rstrip('.') or type(error).__name__}"
