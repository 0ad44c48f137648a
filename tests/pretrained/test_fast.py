"""A faster encoder computes what transformers' own does: outputs, gradients, padding; and its weights are the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel

from nes2net_hf.pretrained import fast
from nes2net_hf.pretrained.fast import speed_up
from nes2net_hf.pretrained.load import load_model
from tests.helpers import tiny_encoder_config, tiny_model

KINDS = [
    (kind, norm)
    for kind in ("wav2vec2", "wavlm", "hubert", "unispeech", "unispeech-sat", "data2vec-audio", "wav2vec2-conformer")
    for norm in ("layer", "group")
    if (kind, norm) != ("data2vec-audio", "group")
]


def encoders(kind: str, norm: str = "layer", **fields: object) -> tuple[nn.Module, nn.Module]:
    """transformers' own encoder and the faster one, with the same weights."""
    torch.manual_seed(0)
    fields = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", **fields}
    own = AutoModel.from_config(tiny_encoder_config(kind, **fields)).eval()
    for name, parameter in own.named_parameters():
        if "norm" in name:  # not the ones and zeros of initialisation
            nn.init.uniform_(parameter, 0.5, 1.5)
    return own, speed_up(copy.deepcopy(own))


def replaced(model: nn.Module) -> set[str]:
    return {module.__dict__["forward"].func.__name__ for module in model.modules() if "forward" in module.__dict__}


@pytest.mark.parametrize(("kind", "norm"), KINDS)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_outputs_are_those_of_transformers(kind: str, norm: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_has_fused_linear", lambda: fused)
    own, faster = encoders(kind, norm, conv_bias=norm == "layer")
    assert "_front_end" in replaced(faster) and ("_linear" in replaced(faster)) == fused
    assert list(own.state_dict()) == list(faster.state_dict())
    for samples in (400, 719, 64_600, 100_001):  # one frame, two, one block and more
        x = torch.randn(2, samples)
        with torch.inference_mode():
            expected, actual = own(x).last_hidden_state, faster(x).last_hidden_state
        assert expected.shape == actual.shape
        assert (actual - expected).abs().max() <= 2e-5 * max(1, expected.abs().max().item())


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    _, faster = encoders("wav2vec2")
    x = torch.randn(3, 9_000)
    with torch.inference_mode():
        together = faster.feature_extractor(x)
        assert all(torch.equal(faster.feature_extractor(row[None])[0], rows) for row, rows in zip(x, together))


@pytest.mark.parametrize(("kind", "norm"), [("wavlm", "layer"), ("wavlm", "group"), ("wav2vec2", "layer")])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_transformers(kind: str, norm: str, masked: bool) -> None:
    own, faster = encoders(kind, norm, conv_bias=norm == "layer")
    x, mask = torch.randn(2, 8_000), torch.ones(2, 8_000, dtype=torch.long)
    if masked:
        mask[1, 5_000:] = 0
    for model in (own, faster):
        model.train()
        model(x, attention_mask=mask).last_hidden_state[:, :15].square().sum().backward()
    differences, gradients = [], []
    for (name, expected), actual in zip(own.named_parameters(), faster.parameters(), strict=True):
        assert (expected.grad is None) == (actual.grad is None), name
        if expected.grad is not None:
            differences.append((actual.grad - expected.grad).flatten())
            gradients.append(expected.grad.flatten())
            # Some gradients are zero but for rounding, such as that of the bias of the keys.
            assert differences[-1].abs().max() <= 1e-5 * max(gradients[-1].abs().max().item(), 0.1), name
    assert torch.cat(differences).norm() <= 1e-5 * torch.cat(gradients).norm()


def test_wavlm_can_be_quantised_by_torch_and_adapted_by_peft() -> None:
    peft = pytest.importorskip("peft")
    _, faster = encoders("wavlm")
    x = torch.randn(1, 8_000)
    with torch.inference_mode():
        expected = faster(x).last_hidden_state
        quantised = torch.ao.quantization.quantize_dynamic(faster, {nn.Linear}, torch.qint8)
        drift = (quantised(x).last_hidden_state - expected).abs().max()
        assert 0 < drift < 0.2
    adapted = peft.get_peft_model(faster, peft.LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"]))
    adapted(x).last_hidden_state.square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0
        for name, parameter in adapted.named_parameters()
        if "lora_B" in name
    )


def test_a_faster_model_can_be_copied_and_saved(tmp_path) -> None:
    model = speed_up(tiny_model("wavlm"))
    x = torch.randn(1, 8_000)
    with torch.inference_mode():
        expected = model(x).logits
        other = copy.deepcopy(model)
        assert torch.equal(other(x).logits, expected)
        other.base_model.encoder.encoder.layers[0].attention.v_proj.weight.zero_()
        assert not torch.equal(other(x).logits, expected) and torch.equal(model(x).logits, expected)
        model.save_pretrained(tmp_path)
        assert torch.allclose(type(model).from_pretrained(tmp_path)(x).logits, expected, atol=1e-5)


def test_what_load_model_gives_is_fast(tiny_model_dir) -> None:
    network, _ = load_model(tiny_model_dir, None, torch.device("cpu"), "float32")
    assert {"_front_end", "_linear", "_feed_forward"} <= replaced(network)
    network, _ = load_model(tiny_model_dir, None, torch.device("cpu"), "bfloat16")
    assert network.dtype == torch.bfloat16


def test_bfloat16_runs_without_support_for_it(tiny_model_dir, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = load_model(tiny_model_dir, None, torch.device("cpu"), "bfloat16")
    x = torch.randn(1, 8_000)
    with torch.inference_mode():
        expected = network(x).logits
        monkeypatch.setattr(fast, "_has_bfloat16", lambda: False)
        assert torch.allclose(network(x).logits, expected, atol=0.05)
