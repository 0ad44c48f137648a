"""`encoder_layers`: the aggregation reads a selection, and layers above it are neither built, loaded nor saved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from nes2net_hf import Nes2NetConfig, Nes2NetForAudioClassification
from nes2net_hf.configuration_nes2net import LAYER_AGGREGATIONS
from nes2net_hf.pretrained.info import count_macs, count_parameters, without_memory
from tests.helpers import ENCODER_TYPES, tiny_config, tiny_encoder_config, tiny_model

WAVES = 0.1 * torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
FIELDS: dict[str, Any] = {"outer_scale": 4, "inner_scale": 4}


def four_layers(encoder: str = "wav2vec2", **fields: Any) -> Nes2NetForAudioClassification:
    torch.manual_seed(0)
    config = Nes2NetConfig(tiny_encoder_config(encoder, num_hidden_layers=4), **{**FIELDS, **fields})
    return Nes2NetForAudioClassification(config).eval()


@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_a_selection_reads_the_states_of_the_whole_encoder(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = AutoModel.from_config(tiny_encoder_config(encoder, num_hidden_layers=4)).eval()
    whole.save_pretrained(tmp_path)
    build = Nes2NetForAudioClassification.from_encoder_pretrained
    every = build(str(tmp_path), layer_aggregation="weighted_sum", **FIELDS).eval()
    some = build(str(tmp_path), layer_aggregation="weighted_sum", encoder_layers=[0, 1, 3], **FIELDS).eval()
    to_top = build(str(tmp_path), layer_aggregation="weighted_sum", encoder_layers=[2, 4], **FIELDS).eval()
    one = build(str(tmp_path), encoder_layers=[3], **FIELDS).eval()
    with torch.inference_mode():
        _, states, _, _ = every.nes2net.encode(WAVES)
        for model, layers in ((some, [0, 1, 3]), (to_top, [2, 4]), (one, [3])):
            _, read, _, _ = model.nes2net.encode(WAVES)
            for state, layer in zip(read, layers, strict=True):
                torch.testing.assert_close(state, states[layer], atol=1e-6, rtol=1e-5)
            assert model(WAVES).logits.isfinite().all()
            computed = model.nes2net.encode(WAVES, output_hidden_states=True)[1]
            assert len(computed) == layers[-1] + 1
    assert sum(p.numel() for p in some.nes2net.encoder.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("aggregation", LAYER_AGGREGATIONS)
def test_layers_above_the_selection_are_not_saved_and_padding_changes_nothing(
    aggregation: str, tmp_path: Path
) -> None:
    layers = [2] if aggregation == "last" else [1, 2]
    model = four_layers(layer_aggregation=aggregation, encoder_layers=layers)
    model.save_pretrained(tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    assert {key.split(".")[4] for key in kept if ".encoder.layers." in key} == {"0", "1"}
    assert not any("encoder.encoder.layer_norm" in key for key in kept)  # the final norm belongs to layer 4
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["encoder_layers"] == layers and stored["encoder_config"]["num_hidden_layers"] == 4
    loaded, info = Nes2NetForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    mask = torch.ones(2, 8_000, dtype=torch.long)
    mask[1, 5_000:] = 0
    with torch.inference_mode():
        assert torch.allclose(loaded.eval()(WAVES).logits, model(WAVES).logits, atol=1e-6)
        together, alone = model(WAVES, attention_mask=mask).logits[1:], model(WAVES[1:, :5_000]).logits
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_unset_is_as_before_and_the_top_layer_alone_is_the_last() -> None:
    plain, top = four_layers(), four_layers(encoder_layers=[4])
    assert plain.state_dict().keys() == top.state_dict().keys() and plain.config.encoder_layers is None
    top.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert torch.equal(plain(WAVES).logits, top(WAVES).logits)


def test_kept_states_are_those_of_the_selection() -> None:
    model = four_layers(layer_aggregation="squeeze_excitation", encoder_layers=[0, 3])
    with torch.inference_mode():
        _, states, _, _ = model.nes2net.encode(WAVES)
        kept = model(encoder_hidden_states=torch.stack(states, dim=1)).logits
        assert len(states) == 2
        torch.testing.assert_close(kept, model(WAVES).logits, atol=1e-6, rtol=1e-5)


def test_cost_counts_only_what_is_computed() -> None:
    whole, half = (
        without_memory(Nes2NetConfig(layer_aggregation="weighted_sum", encoder_layers=layers))
        for layers in (None, [3, 6, 9, 12])
    )
    assert 0.5 < count_macs(half)["encoder"] / count_macs(whole)["encoder"] < 0.7
    assert 0.4 < count_parameters(half)["encoder"] / count_parameters(whole)["encoder"] < 0.6


def test_a_whole_step_of_training_leaves_no_weight_without_gradient() -> None:
    """Otherwise distributed training would wait for it."""
    for encoder in ENCODER_TYPES:
        torch.manual_seed(0)
        model = tiny_model(encoder, layer_aggregation="weighted_sum", encoder_layers=[0, 1]).train()
        model(WAVES, labels=torch.tensor([0, 1])).loss.backward()
        without = {
            name
            for name, weight in model.named_parameters()
            if weight.requires_grad and weight.grad is None and not re.search("masked_spec_embed|pos_conv_embed", name)
        }  # a conformer builds these positions and reads others
        assert not without, encoder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder_layers": [1, 3]}, "ascending numbers from 0 to 2, the encoder's top layer"),
        ({"encoder_layers": [2, 1]}, "ascending numbers"),
        ({"encoder_layers": [0]}, "not 0 alone"),
        ({"encoder_layers": []}, "ascending numbers"),
        ({"encoder_layers": [True, 2]}, "ascending numbers"),
        ({"encoder_layers": "1"}, "ascending numbers"),
        ({"encoder_layers": [1, 2], "layer_aggregation": "last"}, "must name one layer with layer_aggregation='last'"),
    ],
)
def test_impossible_selections_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**{"layer_aggregation": "weighted_sum"} | fields)
