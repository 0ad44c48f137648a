"""The golden numbers of tests/fixtures/{backends,aggregations}, read into our modules."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nes2net_hf import Nes2NetConfig
from nes2net_hf.modeling_nes2net import Nes2NetBackend, Nes2NetModel, _build_aggregation

from .conftest import FIXTURES, tiny_encoder_config

# Official key, under `Nested_Res2Net_TDNN.` → ours, under the modules of `OfficialBackend` below.
_RULES = [
    (r"^Build_in_Res2Nets\.(\d+)\.", r"backend.blocks.\1."),
    (r"^bns\.", "backend.norms."),
    (r"^bn\.", "backend.norm_out."),
    (r"^fc\.", "classifier."),
    (r"^pooling\.linear1\.", "pooling.squeeze."),
    (r"^pooling\.linear2\.", "pooling.attend."),
    (r"\.convs\.(\d+)\.", r".steps.\1.conv."),
    (r"\.bns\.(\d+)\.", r".steps.\1.norm."),
    (r"\.weighted_sum\.(\d+)$", r".steps.\1.column_weights"),
    (r"\.conv1\.", ".conv_in."),
    (r"\.bn1\.", ".norm_in."),
    (r"\.conv3\.", ".conv_out."),
    (r"\.bn3\.", ".norm_out."),
    (r"\.se\.se\.1\.", ".squeeze_excitation.squeeze."),
    (r"\.se\.se\.3\.", ".squeeze_excitation.excite."),
]
_AGGREGATION_KEYS = {
    "fc_att_merge.0.weight": "squeeze.weight",
    "fc_att_merge.2.weight": "excite.weight",
    "weight_hidd": "layer_weights",
    "W": "feature_weights",
    "W1": "squeeze",
    "W2": "excite",
    "linear_proj.weight": "projection.weight",
    "linear_proj.bias": "projection.bias",
}
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
    ours = module.state_dict()
    state = {}
    for key, tensor in load_file(path.with_suffix(".safetensors")).items():
        for pattern, replacement in _RULES:
            key = re.sub(pattern, replacement, key)
        state[key] = tensor.reshape(ours[key].shape).to(ours[key].dtype)
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
    state = {_AGGREGATION_KEYS[key]: tensor for key, tensor in load_file(path.with_suffix(".safetensors")).items()}
    module.load_state_dict(state, strict=True)
    return Golden(module.eval(), dict(np.load(path.with_suffix(".npz"))))
