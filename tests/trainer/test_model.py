"""Adapters learn instead of the encoder, and are merged into the saved model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft")

from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.model import build_model, without_adapters
from tests.helpers import tiny_encoder_config, tiny_recipe, write


def test_only_adapters_and_back_end_learn_and_the_merged_model_is_the_same(corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path)), ["model.lora={rank: 4}"])
    model = build_model(recipe)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in learning)
    assert all("lora_" in name for name in learning if name.startswith("nes2net.encoder."))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # initially zero, so the adapter would have no effect to test
            torch.nn.init.normal_(parameter, std=0.1)
    plain = Nes2NetForAudioClassification(model.config)
    plain.load_state_dict(without_adapters(model, model.state_dict()))
    waves = torch.randn(2, 8000)
    with torch.no_grad():
        assert torch.allclose(plain.eval()(waves).logits, model.eval()(waves).logits, atol=1e-5)


def test_a_run_with_adapters_saves_ordinary_models_and_resumes(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path / "run"))
    overrides = ["model.lora={rank: 4, targets: [q_proj, v_proj]}", "optimiser.learning_rate=1e-2"]
    best = train(load_recipe(path, overrides))
    weights = load_file(best / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in weights)
    Nes2NetForAudioClassification.from_pretrained(best)
    # In the encoder, only layers with adapters have changed.
    from accelerate.utils import set_seed

    set_seed(12345)
    before = build_model(load_recipe(path)).state_dict()
    moved = {name for name in weights if not torch.equal(weights[name], before[name])}
    encoder = {name.split(".")[-2] for name in moved if name.startswith("nes2net.encoder.")}
    assert encoder == {"q_proj", "v_proj"}
    train(load_recipe(path, [*overrides, "checkpoints.keep_last=1"]), resume=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.lora={rank: 4, targets: [nowhere]}"], r"model\.lora\.targets: .*nowhere"),
        (["model.lora={rnk: 4}"], r"model\.lora\.rnk: recipes have no such key; did you mean model\.lora\.rank"),
        (["model.lora={rank: 4}", "model.freeze=encoder"], "encoder also freezes the adapters of model.lora"),
    ],
)  # fmt: skip
def test_adapters_that_cannot_be(overrides: list[str], message: str, corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path))
    with pytest.raises(RecipeError, match=message):
        build_model(load_recipe(path, overrides))


def test_adapters_in_the_attention_of_wavlm_learn(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(corpus, tmp_path)
    recipe["model"]["encoder"] = {"model_type": "wavlm", **tiny_encoder_config("wavlm").to_diff_dict()}
    model = build_model(load_recipe(write(tmp_path / "recipe.yaml", recipe), ["model.lora={targets: [q_proj]}"]))
    model(torch.randn(2, 8_000)).logits.sum().backward()
    gradients = [parameter.grad for name, parameter in model.named_parameters() if "lora_B" in name]
    assert gradients and all(gradient.abs().max() > 0 for gradient in gradients)
