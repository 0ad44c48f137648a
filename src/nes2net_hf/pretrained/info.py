"""
Describes a model, its measured results and its cost, from its folder, configuration and weights.

Cost is the number of multiply-accumulates (MACs) in one pass over 64,600 samples, batch 1, counted by torch's
FlopCounterMode at 2 FLOPs each. Convolutions and matrix products count: linear layers, both products of attention, and
the column sums of Nes2Net-X. Element-wise operations do not count: biases, norms, activations, softmax, gates, layer
weights and means. The paper's figures (by ptflops) include biases, norms and, twice, ReLU: 4 to 9 % more.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from huggingface_hub import ModelCard, try_to_load_from_cache
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..configuration_nes2net import Nes2NetConfig
from ..errors import InfoError
from ..files import sha256_of
from ..hub import why
from ..modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from ..scores import frame_samples, judges_frames
from .cache import find, locate
from .load import DEMO_MODEL, load_model, settings_of
from .onnx import holds_only_a_graph, load_onnx_model
from .precision import processor, speeds

WINDOW = 64_600  # 4.04 s at 16 kHz, the window of the published systems
_ARCHITECTURE = (
    "backend_variant", "outer_scale", "inner_scale", "kernel_size", "dilation", "se_reduction", "hidden_act",
    "layer_aggregation", "pooling", "pooling_bottleneck", "classifier_outputs", "score",
    "encoder_layers", "split_attention",
)  # fmt: skip
_ENCODER = ("model_type", "num_hidden_layers", "hidden_size")
_EXTRACTOR = ("sampling_rate", "window_length", "length_policy", "do_normalize", "normalize_eps")
_FIGURES = ("n_bonafide", "n_spoof", "eer", "min_dcf", "act_dcf", "cllr", "min_cllr", "auc")
_CONDITION = ("group", "condition", "eer", "low", "high", "unit")


def describe(model: str | os.PathLike[str] | None = None, revision: str | None = None) -> dict[str, Any]:
    """
    Returns what `nes2net info --json` prints. From the Hub, it fetches only what is needed to load the model: `files`
    lists what is in the cache, and the card is read if it is there.

    Args:
        model: Hub id, official checkpoint or folder, including one of `nes2net export`; the bundled demonstration
            model if None.
        revision: branch, tag or commit on the Hub.

    Returns:
        `parameters` and `macs` are integers for the whole model (`total`) and its parts. Rates are fractions. `files`
        has sizes in bytes and SHA-256 in hex. `frame_samples` is the hop between frames. Missing values are None or
        an empty list. `machine` tells how many times as fast as float32 this CPU computes each precision.

    Raises:
        ModelError: the model cannot be loaded.
        InfoError: another file of the model's folder cannot be read.
    """
    name = os.fspath(DEMO_MODEL if model is None else model)
    place, revision = locate(name, revision)
    has_only_a_graph = holds_only_a_graph(Path(place))
    if has_only_a_graph:
        load_onnx_model(place, revision)  # or says what is wrong with the graph
        config, extractor = settings_of(place, revision)
        structure = counted = without_memory(config)
    else:
        counted, extractor = load_model(place, revision, torch.device("cpu"), "float32")
        config = cast(Nes2NetConfig, counted.config)
        structure = without_memory(config)
    folder, commit = _place(place, revision)
    return {
        "model": DEMO_MODEL.name if model is None else name,
        "commit": commit,
        "judges": "frames" if judges_frames(config) else "utterances",
        "weights": "onnx" if has_only_a_graph else "torch",
        "architecture": {key: getattr(config, key) for key in _ARCHITECTURE},
        "encoder": {key: getattr(config.encoder_config, key) for key in _ENCODER},
        "frame_samples": frame_samples(config),
        "feature_extractor": {key: getattr(extractor, key) for key in _EXTRACTOR},
        "parameters": count_parameters(counted),
        "macs": {"samples": WINDOW, **count_macs(structure)},
        "threshold": config.threshold,
        "calibration": config.calibration,
        "averaged_from": getattr(config, "averaged_from", None),
        "recipe": _recipe(folder),
        "evaluations": [_evaluation(path) for path in sorted((folder / "evaluation").glob("*.json"))],
        "robustness": _robustness(folder / "robustness.json"),
        "card": _card(folder / "README.md"),
        "files": list(_files(folder)),
        "machine": {"processor": processor(), "speeds": speeds()},
    }


def without_memory(config: Nes2NetConfig) -> Nes2NetForAudioClassification | Nes2NetForAudioFrameClassification:
    """Builds the model that a configuration describes on the meta device, without weights."""
    config = copy.deepcopy(config)
    # torch does not count its fused attention on a CPU. Eager attention has the same products.
    config._attn_implementation = "eager"
    kind = Nes2NetForAudioFrameClassification if judges_frames(config) else Nes2NetForAudioClassification
    with torch.device("meta"):
        return kind(config).eval()


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Counts the parameters of the whole model and of its parts."""
    parts = {"total": network, **_parts(network)}
    return {name: sum(one.numel() for one in part.parameters()) for name, part in parts.items()}


def count_macs(network: Any, samples: int = WINDOW) -> dict[str, int]:
    """Counts the MACs of one pass over one waveform, for a model from `without_memory` and for its parts."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = network.nes2net(torch.empty(1, samples, device="meta"))
        # Called separately: the whole model switches autocast off around it, which does not support the meta device.
        network.classifier(output.last_hidden_state if judges_frames(network.config) else output.pooler_output)
    macs = {module: sum(flops.values()) // 2 for module, flops in counter.get_flop_counts().items()}
    before_the_classifier = type(network.nes2net).__name__
    parts = {name: macs.get(f"{before_the_classifier}.{name}", 0) for name in _parts(network)}
    return {"total": macs["Global"], **parts, "classifier": macs["Global"] - macs[before_the_classifier]}


def _parts(network: Any) -> dict[str, nn.Module]:
    base = network.nes2net
    return {
        "encoder": base.encoder,
        "aggregation": base.aggregation,
        "backend": base.backend,
        "pooling": base.pooling,
        "classifier": network.classifier,
    }


def _place(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Returns the folder that the model was loaded from. For a Hub model: its folder in the cache, and its commit."""
    if Path(name).is_dir():
        return Path(name), None
    config = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    if not isinstance(config, str):
        raise InfoError(
            f"model {name} was loaded, but is not in the cache: get it with hf download and name its folder."
        )
    return Path(config).parent, Path(config).parent.name


# --------------------------------------------------------------------------------------------------------------------
# Other files of the model's folder
# --------------------------------------------------------------------------------------------------------------------


def read_recipe(name: str, revision: str | None = None) -> dict[str, Any] | None:
    """
    Returns the recipe of a model on this machine, in its folder or in the run that contains it; None if it has none.

    Raises:
        InfoError: the model is not on this machine, or its recipe cannot be read.
    """
    return _recipe(_place(*find(name, revision))[0])


def _recipe(folder: Path) -> dict[str, Any] | None:
    """Reads the recipe in a released folder, or in the run that contains the model's folder."""
    paths = [place / "recipe.yaml" for place in (folder, folder.absolute().parent)]
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        return None
    with _reading(path, "fix it, or remove it"):
        return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))


def _evaluation(path: Path) -> dict[str, Any]:
    """Reads the pooled results of an evaluation, without the breakdown."""
    with _reading(path, "run nes2net evaluate --report again, or remove it"):
        figures = _json(path)
        low, high = figures["intervals"]["eer"]
        bounds = {"low": low, "high": high, "unit": figures["interval_unit"]}  # EER interval
        return {"name": path.stem, **{key: figures[key] for key in _FIGURES}, **bounds}


def _robustness(path: Path) -> dict[str, Any] | None:
    """Reads what robustness was measured on, the unmodified condition, and the worst one."""
    if not path.is_file():
        return None
    with _reading(path, "run nes2net robustness again, or remove it"):
        found = _json(path)
        rows = [{key: row[key] for key in _CONDITION} for row in found["conditions"] if row["eer"] is not None]
        return {
            **{key: found[key] for key in ("corpus", "split", "where", "bonafide", "spoof")},
            "conditions": len(rows),
            "clean": next((row for row in rows if row["group"] == "clean"), None),
            "worst": max(rows, key=lambda row: row["eer"], default=None),
        }


def _card(path: Path) -> dict[str, Any] | None:
    """Reads the licence and the results in the card's metadata."""
    if not path.is_file():
        return None
    with _reading(path, "fix its metadata, or remove it"):
        data = ModelCard.load(path).data
    license = data.get("license_name") if data.get("license") == "other" else data.get("license")
    results = [
        {"dataset": one.dataset_name, "metric": one.metric_name or one.metric_type, "value": one.metric_value}
        for one in data.get("eval_results") or []
    ]
    return {"license": license, "results": results}


def _files(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts[:-1])  # e.g. .git
        if path.is_file() and not hidden:
            yield {"name": name.as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _json(path: Path) -> dict[str, Any]:
    # A bound that could not be estimated is written as NaN, which is not valid JSON.
    return _mapping(json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None))


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it is not a mapping of keys to values")
    return content


@contextmanager
def _reading(path: Path, fix: str) -> Iterator[None]:
    """Turns errors inside it into an InfoError that names the file."""
    try:
        yield
    except KeyError as error:
        raise InfoError(f"{path} has no {error.args[0]}: {fix}.") from None
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InfoError(f"{path} cannot be read ({why(error)}): {fix}.") from None
