"""SAM, averages of the weights and thawing from the top do what their papers say, and resume with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")

from nes2net_hf.modeling_nes2net import MaskedBatchNorm
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.loop import Trainer
from nes2net_hf.trainer.optimisation import held_back
from nes2net_hf.trainer.running_average import RunningAverage
from nes2net_hf.trainer.sharpness import climbed
from tests.helpers import data_of, launch, tiny_model, tiny_recipe, write
from tests.trainer.test_trainer import killed_at, lines, same


def recipe_of(corpus: Path, output: Path, **fields: Any) -> dict:
    recipe = tiny_recipe(corpus, output, data=data_of(corpus, window_length=4000), **{"batch_size": 8, **fields})
    recipe["model"]["encoder"] |= {"hidden_dropout": 0.1}
    return recipe


OPTIONS = {
    "sam": ["optimiser.sam_rho=0.05"],
    "ema": ["average={name: ema, decay: 0.8}"],
    "swa": ["average={name: swa, batch_norm_batches: 2}"],
    "thaw": ["model.thaw_layers=1"],
    "oc_softmax": ["loss.name=oc_softmax", "model.config.classifier_outputs=1", "model.config.cosine_scale=20"],
    "am_softmax": ["loss.name=am_softmax", "model.config.cosine_scale=20"],
    "balance": ["data.mixing={balance: class, utterances: 20}"],
    "lengths": ["data.window_length={min: 0.1, max: 0.3}", "batch_seconds=2"],
}


TOGETHER = "sam ema thaw oc_softmax balance lengths"


@pytest.mark.parametrize("options", [TOGETHER, *(pytest.param(one, marks=pytest.mark.slow) for one in OPTIONS)])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(options: str, corpus: Path, tmp_path: Path) -> None:
    chosen = [override for option in options.split() for override in OPTIONS[option]]

    def run(name: str, resume: bool = False) -> Path:
        path = write(tmp_path / f"{name}.yaml", recipe_of(corpus, tmp_path / name))
        train(load_recipe(path, ["checkpoints.every_steps=1", *chosen]), resume=resume)
        return tmp_path / name

    whole = run("whole")
    steps = [line["step"] for line in lines(whole / "metrics.jsonl")]
    for place in (1, steps[0], steps[0] + 1):
        with killed_at(place):
            run("cut", resume=True)
    cut_off = run("cut", resume=True)
    assert (cut_off / "steps.jsonl").read_text() == (whole / "steps.jsonl").read_text()
    for folder in ("epochs/epoch-0001", "epochs/epoch-0002"):
        assert same(cut_off / folder, whole / folder)


def test_climbing_goes_along_the_gradient_and_comes_back() -> None:
    model = tiny_model().train()
    waves = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    model(waves, labels=torch.tensor([0, 1, 0])).loss.backward()
    model.classifier.bias.grad = None  # as a frozen weight has none
    before = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    learning = [(weight, weight.detach().clone()) for weight in model.parameters() if weight.grad is not None]
    length = torch.sqrt(sum((weight.grad.double() ** 2).sum() for weight, _ in learning)).item()
    with climbed(model, 0.5):
        moved = [weight.detach() - old for weight, old in learning]
        assert torch.sqrt(sum((move.double() ** 2).sum() for move in moved)).item() == pytest.approx(0.5, rel=1e-3)
        weight, move = learning[-1][0], moved[-1]
        assert torch.allclose(move, weight.grad * 0.5 / length, atol=1e-6)
        assert torch.equal(model.classifier.bias, before["classifier.bias"])
        model(waves)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "num_batches" not in name)


def test_averages_are_those_of_the_papers() -> None:
    from nes2net_hf.trainer.recipe import AverageRecipe

    models = [tiny_model(seed=seed) for seed in range(3)]
    ema = RunningAverage(models[0], AverageRecipe("ema", decay=0.75))
    swa = RunningAverage(models[0], AverageRecipe("swa", first_epoch=2))
    waves = torch.randn(4, 4000, generator=torch.Generator().manual_seed(0))
    stream: Any = [{"input_values": waves, "labels": torch.tensor([0, 1, 0, 1])}]
    for epoch, model in enumerate(models, start=1):
        ema.after_step(model)
        swa.after_step(model)
        swa.after_epoch(model, epoch, stream)
        ema.after_epoch(model, epoch, stream)
        assert (swa.model is None) == (epoch == 1)
    first, second, third = (model.state_dict() for model in models)
    for name in ("classifier.weight", "nes2net.backend.norm_out.running_mean"):
        expected = 0.75 * (0.75 * first[name] + 0.25 * second[name]) + 0.25 * third[name]
        assert torch.allclose(ema.model.state_dict()[name], expected, atol=1e-6)
    mean = (second["classifier.weight"] + third["classifier.weight"]) / 2
    assert torch.allclose(swa.model.classifier.weight, mean, atol=1e-6)
    # Its batch-norm statistics are those of the mean weights: evaluation and training mode agree on the same batch.
    with torch.no_grad():
        in_use = swa.model(waves).logits
        for module in swa.model.modules():
            if isinstance(module, MaskedBatchNorm):
                module.train()
        assert torch.allclose(swa.model(waves).logits, in_use, atol=1e-2)


def test_the_averaged_weights_are_evaluated_and_saved(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    trainer = Trainer(load_recipe(path, OPTIONS["ema"]), resume=False)
    assert trainer.judged is trainer.model
    trainer.run(None)
    saved = load_file(tmp_path / "run/epochs/epoch-0002/model.safetensors")["classifier.weight"]
    assert torch.equal(saved, trainer.average.model.classifier.weight)  # type: ignore[union-attr]
    assert not torch.equal(saved, trainer.model.classifier.weight)


def test_encoder_layers_thaw_from_the_top(corpus: Path, tmp_path: Path) -> None:
    """One layer of two in each epoch after the first; the convolutions follow last."""
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    recipe = load_recipe(path, ["model.freeze_epochs=1", "model.thaw_layers=1"]).model
    model = tiny_model()
    frozen = []
    for epoch in range(5):
        weights = {id(weight) for weight in held_back(model, recipe, epoch)}
        names = [name for name, weight in model.named_parameters() if id(weight) in weights]
        assert all(name.startswith("nes2net.encoder.") for name in names)
        parts = (".layers.1.", ".layers.0.", "conv_layers.0.")
        frozen.append([part for part in parts if any(part in name for name in names)])
    assert frozen == [[".layers.1.", ".layers.0.", "conv_layers.0."], [".layers.0.", "conv_layers.0."],
                      ["conv_layers.0."], [], []]  # fmt: skip
    with pytest.raises(RecipeError, match=r"model\.thaw_layers: 1 has no effect if model\.freeze=encoder"):
        load_recipe(path, ["model.freeze=encoder", "model.thaw_layers=1"])


@pytest.mark.slow
def test_two_processes_train_as_one(corpus: Path, tmp_path: Path) -> None:
    """With SAM, a moving average, and batches of a budget, for one epoch: see the test of the same name."""
    curves = []
    for processes in (1, 2):
        recipe = tiny_recipe(corpus, tmp_path / str(processes), data=data_of(corpus), epochs=1, batch_seconds=2.0)
        recipe["data"] |= {"window_length": {"min": 0.1, "max": 0.4}, "mixing": {"balance": "attack"}}
        recipe["model"] |= {"synchronize_batch_norm": True}
        recipe |= {"optimiser": {"learning_rate": 1e-4, "sam_rho": 0.05}, "average": {"name": "ema", "decay": 0.5}}
        process = launch("train.py", "--config", write(tmp_path / f"{processes}.yaml", recipe), processes=processes)
        _, err = process.communicate()
        assert process.returncode == 0, err
        steps = lines(tmp_path / str(processes) / "steps.jsonl")
        curves.append(([line["loss"] for line in steps], lines(tmp_path / str(processes) / "metrics.jsonl")))
    (one, [first]), (two, [second]) = curves
    assert len(one) >= 3 and one[0] == pytest.approx(two[0], abs=1e-6) and one == pytest.approx(two, abs=2e-3)
    assert first["dev_loss"] == pytest.approx(second["dev_loss"], abs=2e-3)
