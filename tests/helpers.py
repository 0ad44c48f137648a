"""What the tests share: tiny random models, and scripts started as the documents start them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoConfig

import nes2net_hf
from nes2net_hf import (
    Nes2NetConfig,
    Nes2NetFeatureExtractor,
    Nes2NetForAudioClassification,
    Nes2NetForAudioFrameClassification,
)
from nes2net_hf.modeling_nes2net import MaskedBatchNorm
from tests.loopback_hub import TOKEN, LoopbackHub

FIXTURES = Path(__file__).parent / "fixtures"


ENCODER_TYPES = (
    "wav2vec2", "wavlm", "hubert", "data2vec-audio", "unispeech-sat", "wav2vec2-conformer", "wav2vec2-bert", "whisper",
)  # fmt: skip


def tiny_encoder_config(model_type: str = "wav2vec2", **overrides: Any) -> Any:
    """A random encoder of two layers and 64 features, without dropout, layerdrop or SpecAugment."""
    fields: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "conv_bias": True,
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "apply_spec_augment": False,
        **overrides,
    }
    if model_type == "data2vec-audio":
        fields |= {"conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 2}
    if model_type in ("wav2vec2-conformer", "wav2vec2-bert"):
        fields["conformer_conv_dropout"] = 0.0
    if model_type in ("wav2vec2-bert", "whisper"):  # they read features
        fields = {name: value for name, value in fields.items() if "conv_" not in name or "conformer" in name}
    if model_type == "whisper":
        names = {"hidden_size": "d_model", "num_hidden_layers": "encoder_layers"}
        names |= {"num_attention_heads": "encoder_attention_heads", "intermediate_size": "encoder_ffn_dim"}
        names |= {"hidden_dropout": "dropout", "layerdrop": "encoder_layerdrop"}
        fields = {names.get(name, name): value for name, value in fields.items()}
        fields |= {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": 100}
        fields |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    return AutoConfig.for_model(model_type, **fields)


def tiny_config(encoder: str = "wav2vec2", **fields: Any) -> Nes2NetConfig:
    return Nes2NetConfig(encoder_config=tiny_encoder_config(encoder), **{"outer_scale": 4, "inner_scale": 4} | fields)


def lively(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives the batch norms statistics that differ from those at initialisation, so that tests can see them."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return model


def tiny_model(encoder: str = "wav2vec2", seed: int = 0, **fields: Any) -> Nes2NetForAudioClassification:
    torch.manual_seed(seed)
    model = Nes2NetForAudioClassification(tiny_config(encoder, **fields))
    return lively(model, seed).eval()  # type: ignore[return-value]


def launch(script: str, *arguments: Any, processes: int = 1) -> subprocess.Popen[str]:
    """
    A script of `training/` as the documents start it, in a session of its own, so that all of it can be killed.
    Without a GPU `accelerate launch` starts one process whatever it is told; `torchrun` starts several.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    if processes > 1:  # with a port that is free
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(FIXTURES.parents[1] / "training" / script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, start_new_session=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a launched script and all that it started; `torchrun` gives each of its processes its own group."""
    import psutil  # accelerate brings it

    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def uninstall(monkeypatch: pytest.MonkeyPatch, package: str, module: str) -> None:
    """Makes `package` impossible to import, and `module`, which needs it, imported anew, until the test ends."""
    parent, _, name = module.rpartition(".")
    monkeypatch.setattr(sys.modules[parent], name, importlib.import_module(module))  # the new import replaces it
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)


class Run:
    """What a call of `nes2net` left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


KEYS = [
    "file",
    "channel",
    "track",
    "speaker",
    "duration",
    "score",
    "label",
    "attack",
    "undecided",
    "standing",
    "llr",
    "spoof_probability",
    "support",
    "prior",
    "threshold",
    "spoof_below",
    "bonafide_above",
    "min_window_score",
    "min_window_start",
    "windows",
    "spoofed",
    "warnings",
    "model",
    "dtype",
    "schema_version",
    "error",
]


ROOT = Path(__file__).parents[1]


def data_of(corpus: Path, **fields: object) -> dict:
    splits = {split: {"where": {"partition": split}} for split in ("train", "dev")}
    return {"root": str(corpus / "manifest.csv"), **splits, "window_length": 8000, **fields}


def tiny_recipe(corpus: Path, output: Path, **fields: object) -> dict:
    encoder = {"model_type": "wav2vec2", **tiny_encoder_config().to_diff_dict()}
    return {
        "output": str(output),
        "epochs": 2,
        "batch_size": 4,
        "model": {"encoder": encoder, "config": {"outer_scale": 4, "inner_scale": 4}},
        "data": data_of(corpus),
        "optimiser": {"learning_rate": 1e-3},
        "schedule": {"name": "cosine"},
        "trackers": [],
        **fields,
    }


def write(path: Path, recipe: dict) -> Path:
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


# The package's `__init__` would import torch for seconds.
LIGHT = f"""
import sys, types
package = types.ModuleType("nes2net_hf")
package.__path__ = {list(nes2net_hf.__path__)!r}
sys.modules["nes2net_hf"] = package
"""


HOLD = (
    LIGHT
    + """
from nes2net_hf.files import claim
with claim(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""
)


@contextmanager
def held(path: Path, kind: str = "file") -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed `path`."""
    command = [sys.executable, "-c", HOLD, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def at(hub: LoopbackHub, scratch: Path, *command: Any, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    """A Python of its own, for which the loopback Hub is the Hub; any other address is a proxy that is not there."""
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(scratch / "hf"),
        "HF_TOKEN": token or "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


WINDOW = 16_000


# Two convolutions for seven, of the same frame of 20 ms: most of the time of tracing goes into their lengths.
SHORT_ENCODER = {"conv_dim": [16, 16], "conv_kernel": [20, 20], "conv_stride": [20, 16]}


def quick_model(encoder: str = "wav2vec2", seed: int = 0, **fields: Any) -> Nes2NetForAudioClassification:
    torch.manual_seed(seed)
    config = Nes2NetConfig(tiny_encoder_config(encoder, **SHORT_ENCODER), outer_scale=2, inner_scale=4, **fields)
    return lively(Nes2NetForAudioClassification(config), seed).eval()  # type: ignore[return-value]


def saved(model: Any, folder: Path, **extractor: Any) -> Path:
    model.save_pretrained(folder)
    Nes2NetFeatureExtractor(**{"window_length": WINDOW, **extractor}).save_pretrained(folder)
    return folder


def frame_model(encoder: str = "wav2vec2", **fields: Any) -> Nes2NetForAudioFrameClassification:
    torch.manual_seed(0)
    model = Nes2NetForAudioFrameClassification(tiny_config(encoder, **fields))
    return lively(model).eval()  # type: ignore[return-value]


RATE = 16_000


def band_power(wave: np.ndarray, low: float, high: float) -> float:
    power, frequencies = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(wave.size, 1 / RATE)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


def blocks(document: str, language: str) -> Iterator[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    yield from re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(document: str) -> Iterator[list[str]]:
    """The words of each command in the blocks of a document, with what `&&` joins taken apart."""
    for block in blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                place = words.index("&&")
                yield words[:place]
                words = words[place + 1 :]
            if words:
                yield words


def tiny_graph(folder: Path, config: Nes2NetConfig) -> Path:
    """A folder like those of `nes2net export`, with two logits from the mean of the samples; made without torch."""
    from onnx import TensorProto, helper, save

    from nes2net_hf.pretrained.onnx import GRAPH, NOTE, GraphConfig

    nodes = [
        helper.make_node("ReduceMean", ["input_values", "axis"], ["mean"], keepdims=1),
        helper.make_node("Neg", ["mean"], ["other"]),
        helper.make_node("Concat", ["mean", "other"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {NOTE: GraphConfig.of(config).to_json()})
    config.save_pretrained(folder)
    Nes2NetFeatureExtractor(window_length=WINDOW).save_pretrained(folder)
    save(model, folder / GRAPH)
    return folder
