"""
Checkpoints of other groups: AntiDeepfake's encoders and Nes2Net-LA. No published weights are at hand: the files here
have random weights in the published layout of keys (the repositories nii-yamagishilab/AntiDeepfake and
XuepingZhang/MultiAPI-Spoof).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import AutoModel

from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.configuration_nes2net import Nes2NetConfig
from nes2net_hf.conversion import ConversionError, convert, to_official
from nes2net_hf.conversion.key_map import official_encoder_key, official_key, official_shape
from nes2net_hf.pretrained.bases import describe_base
from nes2net_hf.trainer import load_recipe, train
from tests.helpers import lively, tiny_encoder_config, tiny_recipe, write

WAVES = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))


def encoder_of(kind: str, **fields: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    small = {"hidden_size": 768, "num_attention_heads": 12, "num_conv_pos_embeddings": 128}
    config = tiny_encoder_config(kind, **small, num_conv_pos_embedding_groups=16, **fields)
    return AutoModel.from_config(config).eval()


def post_trained(encoder: torch.nn.Module, extra: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's weights under fairseq's names and AntiDeepfake's prefix, with the head."""
    grouped = encoder.config.feat_extract_norm == "group"  # type: ignore[union-attr]
    tensors = {official_encoder_key(key, grouped): tensor for key, tensor in encoder.state_dict().items()}
    tensors = {f"m_ssl.model.{key}": tensor.contiguous() for key, tensor in (tensors | extra).items()}
    return tensors | {"proj_fc.weight": torch.randn(2, 64), "proj_fc.bias": torch.randn(2)}


@pytest.fixture
def encoder_file(tmp_path: Path) -> Callable[[Any], Path]:
    def write_config(config: Any) -> Path:
        path = tmp_path / "encoder.json"
        path.write_text(json.dumps(config.to_dict()))
        return path

    return write_config


GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, torch.Tensor]]] = {
    "small": ("wav2vec2", GROUP, {"quantizer.vars": torch.zeros(1, 4), "project_q.weight": torch.zeros(2, 2)}),
    "large": ("wav2vec2", {}, {"final_proj.weight": torch.zeros(2, 2)}),
    "hubert": ("hubert", {"conv_bias": False}, {"label_embs_concat": torch.zeros(4, 2)}),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_anti_deepfake_encoder_becomes_a_folder_to_train_from(name: str, tmp_path: Path) -> None:
    kind, fields, extra = KINDS[name]
    encoder = encoder_of(kind, **fields)
    tensors = post_trained(encoder, extra)
    norms = [key for key in tensors if "conv_layers.0.2." in key]
    assert norms and all(
        key.startswith("m_ssl.model.feature_extractor.conv_layers.0.2.1.") != (name == "small") for key in norms
    )
    save_file(tensors, tmp_path / "model.safetensors")
    lines: list[str] = []
    assert convert(tmp_path / "model.safetensors", tmp_path / "encoder", report=lines.append) is None
    said = "\n".join(lines)
    assert (
        "CC-BY-NC-SA-4.0: no commercial use" in said and "proj_fc, its own head" in said and "data.normalize" in said
    )
    assert f"dropped   {len(extra)} keys used only in pre-training" in said
    loaded = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    assert loaded.config.model_type == kind and loaded.config.num_attention_heads == 12
    with torch.inference_mode():
        assert torch.equal(loaded(WAVES).last_hidden_state, encoder(WAVES).last_hidden_state)
    assert describe_base(str(tmp_path / "encoder")).license == "CC-BY-NC-SA-4.0"


def test_zenodo_s_form_of_the_file_is_read_and_a_recipe_starts_from_it(
    corpus: Path, tmp_path: Path, encoder_file: Callable[[Any], Path]
) -> None:
    pytest.importorskip("accelerate")
    encoder: Any = AutoModel.from_config(tiny_encoder_config())
    torch.save({"model": post_trained(encoder, {})}, tmp_path / "mms_300m.ckpt")
    convert(tmp_path / "mms_300m.ckpt", tmp_path / "encoder", encoder_config=encoder_file(encoder.config))
    recipe = tiny_recipe(corpus, tmp_path / "run", epochs=1)
    recipe["model"] |= {"pretrained": str(tmp_path / "encoder"), "encoder": {}, "freeze": "encoder"}
    recipe["data"]["normalize"] = True
    best = train(load_recipe(write(tmp_path / "recipe.yaml", recipe)))
    trained = Nes2NetForAudioClassification.from_pretrained(best)
    theirs = encoder.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in trained.nes2net.encoder.state_dict().items())
    assert json.loads((best / "base.json").read_text())["license"] == "CC-BY-NC-SA-4.0"


def test_an_encoder_of_no_published_size_needs_its_configuration(tmp_path: Path) -> None:
    encoder = AutoModel.from_config(tiny_encoder_config())
    tensors = {f"m_ssl.model.{official_encoder_key(key)}": t.contiguous() for key, t in encoder.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match=r"hidden_size 64, but the configuration .* --encoder-config"):
        convert(tmp_path / "model.safetensors", None)


# Nes2Net-LA ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nes2net_la() -> Nes2NetForAudioClassification:
    torch.manual_seed(0)
    fields: dict[str, Any] = {"outer_scale": 4, "inner_scale": 4, "dilation": 2, "split_attention": True}
    fields |= {"score": "bonafide_logit", "class_weights": [0.1, 0.9]}
    return lively(Nes2NetForAudioClassification(Nes2NetConfig(tiny_encoder_config(), **fields))).eval()  # type: ignore[return-value]


def as_published(model: Nes2NetForAudioClassification) -> dict[str, torch.Tensor]:
    """Official keys of a model of DDP inside DDP, with the attention that nothing calls."""
    prefix = "ssl_model.model."
    tensors = {
        official_key(key, model.config, prefix): tensor.reshape(official_shape(key, tuple(tensor.shape), model.config))
        for key, tensor in model.state_dict().items()
    }
    dead = {"in_proj_weight": (192, 64), "in_proj_bias": (192,), "out_proj.weight": (64, 64), "out_proj.bias": (64,)}
    tensors |= {f"Nested_Res2Net_TDNN.global_attn.{key}": torch.ones(shape) for key, shape in dead.items()}
    return {f"module.module.{key}": tensor for key, tensor in tensors.items()}


def test_nes2net_la_is_converted_and_goes_back(
    nes2net_la: Nes2NetForAudioClassification, tmp_path: Path, encoder_file: Callable[[Any], Path]
) -> None:
    published = as_published(nes2net_la)
    assert published["module.module.Nested_Res2Net_TDNN.local_block_attn.pos_emb"].shape == (4, 16)
    torch.save(published, tmp_path / "epoch_5.pth")
    lines: list[str] = []
    options: dict[str, Any] = {
        "encoder_config": encoder_file(nes2net_la.config.encoder_config),
        "report": lines.append,
    }
    options["activation"] = "relu"  # the random batch norms look like SELU's
    convert(tmp_path / "epoch_5.pth", tmp_path / "model", **options)
    assert "Nes2Net-LA" in lines[0] and any("split attention" in line for line in lines)
    assert any(line.startswith("dropped   4 keys") for line in lines)
    model = Nes2NetForAudioClassification.from_pretrained(tmp_path / "model").eval()
    assert model.config.split_attention and model.config.score == "bonafide_logit" and model.config.dilation == 2
    with torch.inference_mode():
        assert torch.equal(model(WAVES).logits, nes2net_la(WAVES).logits)
    card = (tmp_path / "model/README.md").read_text(encoding="utf-8")
    assert "chosen on In-the-Wild\nitself" in card and "CC BY-NC 4.0" in card and "at a random place" in card
    back: list[str] = []
    to_official(tmp_path / "model", tmp_path / "back.pth", original=tmp_path / "epoch_5.pth", report=back.append)
    kept = torch.load(tmp_path / "back.pth", weights_only=True)
    plain = {key.removeprefix("module.module."): tensor for key, tensor in published.items()}
    assert kept.keys() == plain.keys() and all(torch.equal(kept[key], plain[key]) for key in plain)


def test_its_attention_is_that_of_the_paper(nes2net_la: Nes2NetForAudioClassification) -> None:
    """Each split by itself, in the words of the paper: itself and its neighbours, the edge twice."""
    attention = nes2net_la.nes2net.backend.split_attention
    splits = [torch.randn(2, 16, 1, 11, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    lengths = [11, 6]
    mask = (torch.arange(11) < torch.tensor(lengths)[:, None]).float()[:, None, None]
    with torch.inference_mode():
        ours = attention(splits, mask)
    for row, length in enumerate(lengths):
        tokens = [split[row, :, 0, :length].mean(-1) for split in splits]
        table = attention.positions
        for k in range(4):
            query = attention.q_proj.weight @ tokens[k] + table[k]
            around = [max(k - 1, 0), k, min(k + 1, 3)]
            keys = [attention.k_proj.weight @ tokens[n] + table[n] for n in around]
            values = [attention.v_proj.weight @ tokens[n] + table[n] for n in around]
            weights = F.softmax(torch.stack([query @ key for key in keys]) / 4, dim=0)  # the root of 16
            context = sum(weight * value for weight, value in zip(weights, values, strict=True))
            expected = splits[k][row, :, 0] + (attention.out_proj.weight @ context)[:, None]
            torch.testing.assert_close(ours[k][row, :, 0], expected, atol=1e-5, rtol=1e-5)


def test_its_size_is_the_published_one_and_padding_changes_nothing(nes2net_la: Nes2NetForAudioClassification) -> None:
    with torch.device("meta"):
        plain, attentive = (
            Nes2NetForAudioClassification(Nes2NetConfig(split_attention=on, outer_scale=8)) for on in (False, True)
        )
    added = sum(p.numel() for p in attentive.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == 4 * 128 * 128 + 8 * 128  # about 66.6 thousand
    mask = torch.ones(2, 16_000, dtype=torch.long)
    mask[1, 9_000:] = 0
    with torch.inference_mode():
        together = nes2net_la(WAVES, attention_mask=mask).logits[1:]
        torch.testing.assert_close(together, nes2net_la(WAVES[1:, :9_000]).logits, atol=1e-5, rtol=1e-5)
