"""AM-Softmax and OC-Softmax, and the cosine classifier that they need."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import pipeline

pytest.importorskip("accelerate")

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.conversion.to_official import to_official
from nes2net_hf.errors import ConversionError
from nes2net_hf.pretrained.export import export
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.losses import AdditiveMargin, OneClass
from tests.helpers import tiny_model, tiny_recipe, write

SCALE = 20.0


def test_additive_margin_is_the_equation_of_the_paper() -> None:
    cosines, labels = torch.tensor([[0.3, -0.2], [0.1, 0.6], [0.4, 0.5]]), [0, 1, 0]
    loss = AdditiveMargin((0.1, 0.9), 0.35 * SCALE)
    total = 0.0
    for (spoof, bonafide), label in zip(cosines.tolist(), labels, strict=True):
        own, other = (bonafide, spoof) if label else (spoof, bonafide)
        target = math.exp(SCALE * (own - 0.35))
        total -= (0.1, 0.9)[label] * math.log(target / (target + math.exp(SCALE * other)))
    assert float(loss(SCALE * cosines, torch.tensor(labels))) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight(torch.tensor(labels))) == pytest.approx(1.1)


def test_one_class_is_the_equation_of_the_paper() -> None:
    cosines, labels = [0.3, 0.95, 0.1, -0.4], [0, 1, 1, 0]
    total = sum(
        math.log1p(math.exp(SCALE * (0.9 - c if label else c - 0.2))) for c, label in zip(cosines, labels, strict=True)
    )
    x = SCALE * torch.tensor(cosines)
    logits = torch.stack([-x / 2, x / 2], -1)
    assert float(OneClass((0.2, 0.9), SCALE)(logits, torch.tensor(labels))) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_scores_of_a_cosine_classifier_are_scaled_cosines(outputs: int, tmp_path: Path) -> None:
    model = tiny_model(classifier_outputs=outputs, cosine_scale=SCALE)
    model.save_pretrained(tmp_path)
    Nes2NetFeatureExtractor(window_length=8000).save_pretrained(tmp_path)
    again = Nes2NetForAudioClassification.from_pretrained(tmp_path).eval()
    waves = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = again.nes2net(waves).pooler_output
        cosines = torch.nn.functional.cosine_similarity(features[:, None], again.classifier.weight[None], dim=-1)
        found = again.score(again(waves).logits)
    expected = cosines[:, 0] if outputs == 1 else cosines[:, 1] - cosines[:, 0]
    assert torch.allclose(found, SCALE * expected, atol=1e-5)
    assert torch.equal(found, model.score(model(waves).logits))


def test_a_trained_one_class_model_is_used_like_any_other(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(corpus, tmp_path / "run", epochs=1, loss={"name": "oc_softmax"})
    recipe["model"]["config"] |= {"classifier_outputs": 1, "cosine_scale": SCALE}
    best = train(load_recipe(write(tmp_path / "recipe.yaml", recipe)))
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)).numpy()
    model = Nes2NetForAudioClassification.from_pretrained(best).eval()
    extractor = Nes2NetFeatureExtractor.from_pretrained(best)
    with torch.no_grad():
        score = float(model.score(model(**extractor(wave, sampling_rate=16_000, return_tensors="pt")).logits))
    assert abs(score) <= SCALE
    said = {one["label"]: one["score"] for one in pipeline("audio-classification", model=str(best))(wave)}
    assert said["bonafide"] == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-5)
    with pytest.raises(ConversionError, match="has a cosine classifier"):
        to_official(best, tmp_path / "official.pth")


@pytest.mark.slow
def test_a_graph_has_the_cosine_classifier(tmp_path: Path) -> None:
    tiny_model(classifier_outputs=1, cosine_scale=SCALE).save_pretrained(tmp_path / "model")
    Nes2NetFeatureExtractor(window_length=8000).save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "onnx")  # refuses a graph with other scores


def test_losses_that_do_not_fit_the_classifier(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path / "run"))
    with pytest.raises(RecipeError, match="oc_softmax needs a head with one logit"):
        load_recipe(path, ["loss.name=oc_softmax"])
    with pytest.raises(RecipeError, match="am_softmax needs a head with two logits"):
        load_recipe(path, ["loss.name=am_softmax", "model.config.classifier_outputs=1"])
    with pytest.raises(RecipeError, match=r"am_softmax needs a cosine classifier: set model\.config\.cosine_scale"):
        load_recipe(path, ["loss.name=am_softmax"])
