"""Training on kept features of a frozen encoder equals training with the encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")

from nes2net_hf import Nes2NetFeatureExtractor
from nes2net_hf.errors import OutputError
from nes2net_hf.modeling_nes2net import Nes2NetModel
from nes2net_hf.trainer import RecipeError, load_recipe, train
from tests.helpers import data_of, tiny_model, tiny_recipe, write


def frozen(corpus: Path, output: Path, aggregation: str = "weighted_sum", **data: Any) -> Path:
    data = data_of(corpus, window_length=4000, augmentation=[], **{"crop": "first", **data})
    recipe = tiny_recipe(corpus, output, data=data, epochs=2)
    recipe["model"]["freeze"] = "encoder"
    recipe["model"]["config"]["layer_aggregation"] = aggregation
    return write(output.with_suffix(".yaml"), recipe)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("crop", "aggregation"),
    [
        ("first", "last"),
        ("whole", "weighted_sum"),
        pytest.param("first", "weighted_sum", marks=pytest.mark.slow),
        pytest.param("whole", "last", marks=pytest.mark.slow),
    ],
)
def test_training_on_kept_features_is_training_with_the_encoder(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aggregation: str, crop: str
) -> None:
    path = frozen(
        corpus, tmp_path / "plain", aggregation, crop=crop, evaluate="whole" if crop == "whole" else "window"
    )
    train(load_recipe(path))
    features = f"data.features={tmp_path / 'features'}"
    train(load_recipe(path, [features, f"output={tmp_path / 'kept'}"]))
    plain, kept = losses(tmp_path / "plain"), losses(tmp_path / "kept")
    assert kept[0] == pytest.approx(plain[0], abs=5e-4)  # half precision, and the steps amplify its error
    assert kept == pytest.approx(plain, abs=2e-2)
    assert (tmp_path / "kept/best/model.safetensors").stat().st_size == (
        tmp_path / "plain/best/model.safetensors"
    ).stat().st_size  # the saved model includes the encoder

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(Nes2NetModel, "_run_encoder", never)
    train(load_recipe(path, [features, f"output={tmp_path / 'again'}"]))
    assert losses(tmp_path / "again") == kept


def test_features_of_another_encoder_or_corpus_are_refused(corpus: Path, tmp_path: Path) -> None:
    features = f"data.features={tmp_path / 'features'}"
    path = frozen(corpus, tmp_path / "run")
    train(load_recipe(path, [features]))
    for other in ("model.encoder.num_hidden_layers=3", "data.window_length=4800", "seed=7"):
        with pytest.raises(OutputError, match=r"began with .* or name another folder in data\.features"):
            train(load_recipe(path, [features, other, f"output={tmp_path / 'other'}"]))


def test_a_missing_file_is_made_again(corpus: Path, tmp_path: Path) -> None:
    features = f"data.features={tmp_path / 'features'}"
    path = frozen(corpus, tmp_path / "run")
    train(load_recipe(path, [features]))
    files = sorted((tmp_path / "features/train").rglob("*.safetensors"))
    before = load_file(files[3])
    files[3].unlink()
    train(load_recipe(path, [features, f"output={tmp_path / 'again'}"]))
    again = load_file(files[3])
    assert again["label"] == before["label"]
    assert torch.allclose(again["hidden_states"].float(), before["hidden_states"].float(), atol=2e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.freeze=nothing", "set model.freeze=encoder"),
        ("data.crop=random", "random crops change the waveforms"),
        ("data.augmentation=[{name: speed}]", "augmentation and random crops"),
        ("model.config.waveform_stem=[8,8,8,16,16]", "a waveform stem needs the waveforms too"),
    ],
)
def test_what_changes_from_epoch_to_epoch_cannot_be_kept(
    corpus: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(frozen(corpus, tmp_path / "run"), [f"data.features={tmp_path}", override])


@pytest.mark.parametrize("aggregation", ["last", "squeeze_excitation"])
def test_the_model_takes_what_its_encoder_made(speech: list, aggregation: str) -> None:
    model = tiny_model(layer_aggregation=aggregation)
    inputs = Nes2NetFeatureExtractor(length_policy="whole")(
        [speech[0][:9000], speech[1][:14000]], sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        _, states, _, mask = model.nes2net.encode(**inputs)
        kept = model(encoder_hidden_states=torch.stack(states, dim=1), attention_mask=mask.long()).logits
        assert torch.allclose(kept, model(**inputs).logits, atol=1e-5)
    with pytest.raises(ValueError, match="input_values or encoder_hidden_states"):
        model()
