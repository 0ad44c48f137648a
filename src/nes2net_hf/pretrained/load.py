"""Loading a model for detection, or saying in one sentence why it cannot be."""

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

from ..configuration_nes2net import Nes2NetConfig
from ..errors import ModelError
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..hub import bounded_requests, fetch_large, hub_reason
from ..modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from ..scores import judges_frames
from .onnx import GRAPH, OnnxModel, holds_only_a_graph

DEMO_MODEL = Path(__file__).parents[1] / "models" / "nes2net-demo"


DTYPES = ("float32", "bfloat16", "float16")


BACKENDS = ("torch", "onnx")
# What settings say of where a model came from, and of what is decided from its raw scores.
_NOT_OF_SCORES = (
    "_name_or_path", "architectures", "auto_map", "averaged_from", "calibration", "demonstration", "dtype",
    "threshold", "transformers_version",
)  # fmt: skip


def choose_device(device: str | None = None) -> torch.device:
    """The device asked for, or the first of cuda, mps, cpu that is there."""
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
    Loads a model of utterances, or of frames where its configuration says so, ready to judge, and its feature
    extractor. No code from the Hub is run: the classes are ours.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit on the Hub.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`.

    Raises:
        ModelError: it does not exist, cannot be reached, is no Nes2Net model, holds an impossible value, or other
            weights than its configuration asks for.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    name = os.fspath(model)
    check_place(name)
    if holds_only_a_graph(Path(name)):
        raise ModelError(f"model folder {name} holds an ONNX graph and no weights of PyTorch: use --backend onnx.")
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
    # What a configuration says of outputs is for its own scripts: all of ours reads the logits.
    network.config.return_dict = True
    network.config.output_attentions = network.config.output_hidden_states = False
    return network.to(device=device, dtype=getattr(torch, dtype)).eval(), extractor


def load_onnx_model(
    model: str | os.PathLike[str], revision: str | None, device: torch.device, dtype: str
) -> tuple[OnnxModel, Nes2NetFeatureExtractor]:
    """
    Loads what `nes2net export` wrote, and its feature extractor; arguments as of [`load_model`].

    Raises:
        ModelError: as [`load_model`], there is no graph, onnxruntime is not installed, or anything but float32 on a
            CPU is asked for.
    """
    if device.type != "cpu":
        raise ModelError(f"--backend onnx runs on the CPU: omit --device {device}.")
    if dtype != "float32":
        raise ModelError(f"--backend onnx has the precision it was exported with: omit --dtype {dtype}.")
    name = os.fspath(model)
    check_place(name)
    with _in_a_sentence(name, revision):
        place = _place_of_nes2net(name, revision)
        folder = Path(name)
        if not folder.is_dir():
            fetch_large(name, f"{re.escape(GRAPH)}.*", revision)
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[f"{GRAPH}*"]))
        if not (folder / GRAPH).is_file():
            raise ModelError(f"model {name} holds no {GRAPH} for --backend onnx: make one with nes2net export.")
        try:
            config, extractor = _settings(name, place)
            network = OnnxModel(folder, config)
        except ImportError:
            raise ModelError("--backend onnx needs onnxruntime: pip install 'nes2net_hf[onnx]'.") from None
        return network, extractor


def _place_of_nes2net(name: str, revision: str | None) -> dict[str, Any]:
    """What `from_pretrained` takes to find the model; raises ModelError where it is one of another kind."""
    place = {"pretrained_model_name_or_path": name, "revision": revision or "main"}
    config, _ = Nes2NetConfig.get_config_dict(**place)
    if not config:
        raise ModelError(f"model {name} holds no config.json: it is no Nes2Net model.")
    # transformers would build a Nes2Net of random weights from any other model's configuration.
    if config.get("model_type") != Nes2NetConfig.model_type:
        raise ModelError(
            f"model {name} is no Nes2Net model: its model_type is {config.get('model_type')!r}, not "
            f"{Nes2NetConfig.model_type!r}."
        )
    return place


def _settings(name: str, place: dict[str, Any]) -> tuple[Nes2NetConfig, Nes2NetFeatureExtractor]:
    """Configuration and feature extractor, each possible by itself, and together."""
    config = Nes2NetConfig.from_pretrained(**place)
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, FEATURE_EXTRACTOR_NAME)):
        raise ModelError(f"model folder {name} holds no {FEATURE_EXTRACTOR_NAME}: copy it there.")
    extractor = Nes2NetFeatureExtractor.from_pretrained(**place)
    whole = extractor.length_policy == "whole"
    for field in ("window_length", "min_samples") if whole else ("window_length",):
        if getattr(extractor, field) < config.min_samples:
            raise ModelError(
                f"model {name}: preprocessor_config.json: {field} must be at least {config.min_samples} samples, of "
                f"which the encoder of config.json makes a frame, got {getattr(extractor, field)}."
            )
    return config, extractor


def _check_stored(name: str, kind: Any, config: Nes2NetConfig) -> None:
    """
    Holds what a folder's weights say of themselves against the configuration: before memory is taken for what it asks.
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
                stored |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged ({error}): copy or download it again.") from None
    with torch.device("meta"):
        wanted = {key: tuple(tensor.shape) for key, tensor in kind(config).state_dict().items()}
    mismatched = [key for key in stored.keys() & wanted.keys() if stored[key] != wanted[key]]
    _check_weights(name, wanted.keys() - stored.keys(), stored.keys() - wanted.keys(), mismatched)


def _check_weights(name: str, missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str]) -> None:
    """Raises ModelError where weights are not those that the configuration asks for, by the names of each."""
    for names, problem in (
        (mismatched, "has another shape in {count} of its weights than its config.json asks for ({first} ...): let "
         "config.json be what they were trained with"),
        (missing, "lacks {count} of its weights ({first} ...): train or convert it first"),
        (unexpected, "holds {count} weights that its config.json has no place for ({first} ...): let config.json be "
         "what they were trained with"),
    ):  # fmt: skip
        # The first are written in two ways, the second is of no use but in training.
        found = sorted(key for key in names if not re.search(r"\.(weight_[gv]|original[01]|masked_spec_embed)$", key))
        if found:
            raise ModelError(f"model {name} {problem.format(count=len(found), first=found[0])}.")


def check_place(name: str) -> None:
    """Raises ModelError where it is neither a model's folder nor possible on the Hub; the Hub is not asked."""
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise ModelError(f"model folder {name} holds no config.json: it is no Nes2Net model.")
    elif os.path.exists(name):
        raise ModelError(f"model {name} is a file: give a folder in the Hugging Face layout, or a Hub id.")
    else:
        try:
            validate_repo_id(name)
        except HFValidationError:
            shown = name if name and name.isprintable() else repr(name)
            shown = shown if len(shown) <= 200 else f"{shown[:100]}... (of {len(name):,} characters)"
            raise ModelError(f"model folder {shown} does not exist.") from None


@contextmanager
def _in_a_sentence(name: str, revision: str | None) -> Iterator[None]:
    """What goes wrong inside becomes a ModelError that names the model; requests to the Hub end in time."""
    try:
        with nullcontext() if os.path.isdir(name) else bounded_requests():
            yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"model {name}{f' at {revision}' if revision else ''} {_reason(error, name)}.") from None


def _reason(error: BaseException, name: str) -> str:
    """What a chain of exceptions comes down to."""
    if not os.path.isdir(name):
        reason = hub_reason(error)
        if reason is None and isinstance(error, SafetensorError):
            reason = (
                f"a file of it in the cache is damaged: clear it with `hf cache rm model/{name}`, then run it again"
            )
        if reason is not None:
            return f"could not be loaded: {reason}"
    if str(error).startswith(("config.json", FEATURE_EXTRACTOR_NAME)):  # ours, and one sentence
        return f"could not be loaded: {str(error).rstrip('.')}"
    if "feature extractor" in str(error) and not os.path.isdir(name):
        return f"could not be loaded: it holds no {FEATURE_EXTRACTOR_NAME}, or no whole one: add it to the repository"
    first: Any = re.split(r"(?<=\w)[.:]?\s*\n|\.\s", str(error).strip())[0]
    return f"could not be loaded: {first.rstrip('.') or type(error).__name__}"
