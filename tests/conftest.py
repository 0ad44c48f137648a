"""Fixtures shared by the suite: tiny random models of every encoder type, and real speech."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: tests never reach for the network

from transformers import AutoConfig

from nes2net_hf import Nes2NetConfig, Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.modeling_nes2net import MaskedBatchNorm

FIXTURES = Path(__file__).parent / "fixtures"
ENCODER_TYPES = ("wav2vec2", "wavlm", "hubert", "data2vec-audio", "unispeech-sat", "wav2vec2-conformer")


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
    if model_type == "wav2vec2-conformer":
        fields["conformer_conv_dropout"] = 0.0
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


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `from_pretrained` and `--model` take it: tiny random model and its feature extractor."""
    folder = tmp_path_factory.mktemp("tiny-nes2net")
    tiny_model().save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fixture_audio_dir() -> Path:
    """About two minutes of licensed real speech, bona fide and spoofed, described by its manifest.csv."""
    return FIXTURES / "audio"


@pytest.fixture(scope="session")
def speech(fixture_audio_dir: Path) -> list[np.ndarray]:
    """The fixture recordings: float32, mono, 16 kHz, of unequal lengths."""
    with open(fixture_audio_dir / "manifest.csv", newline="", encoding="utf-8") as file:
        paths = [fixture_audio_dir / row["path"] for row in csv.DictReader(file)]
    return [soundfile.read(path, dtype="float32")[0] for path in paths]


class Run:
    """What a call of `nes2net` left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def nes2net(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process: `nes2net("detect", path)` → what it left behind."""
    from nes2net_hf import cli

    def run(*arguments: Any) -> Run:
        monkeypatch.setattr(sys, "argv", ["nes2net", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        return Run(ending.value.code or 0, *capsys.readouterr())  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def corpus(speech: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half-second cuts of real speech as bona fide, the same turned back in time as spoof: easy to tell apart."""
    root = tmp_path_factory.mktemp("corpus")
    lines = ["utterance_id,path,label,speaker_id,gender,language,attack,codec,source,partition"]
    for partition, count in (("train", 12), ("dev", 6)):
        for number in range(count):
            waveform = speech[number % 3][8000 * (number // 3 % 3) :][:8000]
            for label in ("bonafide", "spoof"):
                name = f"{partition}-{label}-{number}"
                path = root / "audio" / f"{name}.flac"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, waveform if label == "bonafide" else 0.05 * waveform[::-1], 16_000)
                attack = "" if label == "bonafide" else "reversal"
                lines.append(f"{name},audio/{name}.flac,{label},s{number % 3},,,{attack},,test,{partition}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
