"""Loads a model for detection, or explains in one sentence why it cannot be loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_NAME

from .. import auto as auto  # registers our classes, which the command line does only where it loads a model
from ..audio import SAMPLING_RATE, read_audio
from ..configuration_nes2net import Nes2NetConfig
from ..errors import ModelError
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..hub import fetch_large
from ..modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from ..samples import BONAFIDE, SPOOF
from ..scores import judges_frames
from .cache import locate
from .fast import speed_up
from .int8 import quantise
from .onnx import holds_only_a_graph
from .places import DEMO_MODEL as DEMO_MODEL
from .places import EXTRACTOR_FILE, check_is_nes2net, check_windows, in_a_sentence
from .precision import settle_dtype, warn_if_slow


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
        model: Hub id, folder or official checkpoint: see `locate`.
        revision: branch, tag or commit on the Hub.
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, on a CPU also `"int8"`, or `"auto"`: see `settle_dtype`.

    Raises:
        ModelError: the model does not exist, cannot be reached, is not a Nes2Net model, has an invalid setting, or
            has weights that do not match its configuration.
    """
    dtype = settle_dtype(dtype, device)
    warn_if_slow(dtype, device)
    name, revision = locate(model, revision)
    if holds_only_a_graph(Path(name)):
        raise ModelError(f"model folder {name} has an ONNX graph but no PyTorch weights: use --backend onnx.")
    loaded: Any
    with in_a_sentence(name, revision):
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


def settings_of(
    model: str | os.PathLike[str], revision: str | None = None
) -> tuple[Nes2NetConfig, Nes2NetFeatureExtractor]:
    """
    Reads a model's configuration and feature extractor.

    Raises:
        ModelError: see [`load_model`].
    """
    name, revision = locate(model, revision)
    with in_a_sentence(name, revision):
        return _settings(name, _place_of_nes2net(name, revision))


@torch.inference_mode()
def logits_of(network: Any, input_values: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
    """Returns a model's logits for waveforms (B, S) of equal length, which therefore need no attention mask."""
    return network(input_values=torch.from_numpy(input_values).to(device)).logits.float().cpu().numpy()


def _place_of_nes2net(name: str, revision: str | None) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` that name the model; raises ModelError if it is not a Nes2Net."""
    place = {"pretrained_model_name_or_path": name, "revision": revision or "main"}
    config, _ = Nes2NetConfig.get_config_dict(**place)
    # From another model's configuration, transformers would build a Nes2Net with random weights.
    check_is_nes2net(name, config)
    return place


def _settings(name: str, place: dict[str, Any]) -> tuple[Nes2NetConfig, Nes2NetFeatureExtractor]:
    """Reads configuration and feature extractor, and checks that they fit together."""
    config = Nes2NetConfig.from_pretrained(**place)
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, EXTRACTOR_FILE)):
        raise ModelError(f"model folder {name} has no {EXTRACTOR_FILE}: copy it there.")
    extractor = Nes2NetFeatureExtractor.from_pretrained(**place)
    check_windows(name, extractor, config)
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
