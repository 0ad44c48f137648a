"""The golden numbers of tests/fixtures/{backends,aggregations}, read into our modules."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nes2net_hf import Nes2NetConfig
from nes2net_hf.conversion.key_map import AGGREGATION_KEYS, BACKEND_PREFIX, official_key
from nes2net_hf.modeling_nes2net import Nes2NetBackend, Nes2NetModel, _build_aggregation
from tests.helpers import FIXTURES, tiny_encoder_config

BACKENDS = sorted(path.stem for path in (FIXTURES / "backends").glob("*.json"))
AGGREGATIONS = {
    "agg_sea": "squeeze_excitation",
    "agg_weightedsum": "weighted_sum",
    "agg_attm": "attentive_merging",
}


def close(actual: Tensor | np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """max|difference| ≤ tolerance · max(1, max|expected|)"""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max()
    assert difference <= tolerance * max(1.0, np.abs(expected).max()), difference


class OfficialBackend(nn.Module):
    """Back-end, pooling and classifier, as the official back-end module holds them together."""

    def __init__(self, config: Nes2NetConfig, logits: int) -> None:
        super().__init__()
        whole = Nes2NetModel(config)
        self.backend: Nes2NetBackend = whole.backend
        self.pooling = whole.pooling
        embedding = config.hidden_size * (2 if config.pooling == "attentive_statistics" else 1)
        self.classifier = nn.Linear(embedding, logits)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) → logits"""
        return self.classifier(self.pooling(self.backend(x), None))


@dataclass
class Golden:
    module: nn.Module
    arrays: dict[str, np.ndarray]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name].astype(np.float32))


def golden_backend(name: str) -> Golden:
    path = FIXTURES / "backends" / name
    options = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    outer, inner = options["Nes_ratio"]
    config = Nes2NetConfig(
        encoder_config=tiny_encoder_config(
            hidden_size=options["input_channel"], num_hidden_layers=1, num_conv_pos_embedding_groups=4
        ),
        backend_variant="nes2net" if options["kind"] == "nes2net" else "nes2net_x",
        outer_scale=outer,
        inner_scale=inner,
        dilation=options["dilation"],
        se_reduction=options["SE_ratio"][0],
        hidden_act="selu" if "selu" in options["kind"] else "relu",
        pooling="attentive_statistics" if options["pool_func"] == "ASTP" else "mean",
    )
    module = OfficialBackend(config, options["n_output_logits"])
    official = load_file(path.with_suffix(".safetensors"))
    state = {}
    for key, ours in module.state_dict().items():
        whole = key if key.startswith("classifier.") else f"nes2net.{key}"
        name = official_key(whole, config, encoder_prefix="").removeprefix(BACKEND_PREFIX)
        state[key] = official.pop(name).reshape(ours.shape).to(ours.dtype)
    assert not official, f"not read: {list(official)}"
    module.load_state_dict(state, strict=True)
    return Golden(module.eval(), dict(np.load(path.with_suffix(".npz"))))


def golden_aggregation(name: str) -> Golden:
    path = FIXTURES / "aggregations" / name
    options = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    config = Nes2NetConfig(
        encoder_config=tiny_encoder_config(hidden_size=options["n_feat"], num_hidden_layers=options["n_layer"] - 1),
        layer_aggregation=AGGREGATIONS[name],
        outer_scale=2,
        inner_scale=2,
    )
    module = _build_aggregation(config)
    official = load_file(path.with_suffix(".safetensors"))
    state = {ours: official.pop(key) for ours, key in AGGREGATION_KEYS[AGGREGATIONS[name]].items()}
    assert not official, f"not read: {list(official)}"
    module.load_state_dict(state, strict=True)
    return Golden(module.eval(), dict(np.load(path.with_suffix(".npz"))))
