"""Averages are true means or the official combination, and batch-norm statistics can be recomputed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.averaging import average_models, kept_epochs, recalibrate_batch_norm
from nes2net_hf.trainer.data import WindowDataset
from nes2net_hf.trainer.opening import open_split
from tests.helpers import ROOT, tiny_model, tiny_recipe, write


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs that keeps the three best."""
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny_recipe(corpus, folder / "run", epochs=4, checkpoints={"keep_best": 3})
    train(load_recipe(write(folder / "recipe.yaml", recipe)))
    return folder / "run"


@pytest.mark.parametrize("official", [False, True])
def test_means_of_all_tensors(official: bool, tmp_path: Path) -> None:
    models = [tiny_model(seed=seed) for seed in range(4)]
    for number, model in enumerate(models):
        for buffer in (buffer for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")):
            buffer.fill_(10 * number)
        model.save_pretrained(tmp_path / str(number))
    average_models([tmp_path / str(number) for number in range(4)], tmp_path / "mean", official)
    found = Nes2NetForAudioClassification.from_pretrained(tmp_path / "mean").state_dict()
    states = [model.state_dict() for model in models]
    for name, value in found.items():
        if name.endswith("num_batches_tracked"):
            assert value == 30
            continue
        c = [state[name].double() for state in states]
        mean = (2 * c[1] + c[2] + c[3]) / 4 if official else sum(c) / 4
        assert torch.allclose(value.double(), mean, atol=1e-7), name


def test_what_cannot_be_averaged(run: Path, tmp_path: Path) -> None:
    tiny_model(backend_variant="nes2net").save_pretrained(tmp_path / "plain")
    tiny_model().save_pretrained(tmp_path / "x")
    with pytest.raises(RecipeError, match="have different tensors"):
        average_models([tmp_path / "x", tmp_path / "plain"], tmp_path / "out")
    with pytest.raises(RecipeError, match="at least two models, got 1"):
        average_models([tmp_path / "x"], tmp_path / "out")
    with pytest.raises(RecipeError, match=r"has no model\.safetensors"):
        average_models([tmp_path / "x", tmp_path], tmp_path / "out")
    with pytest.raises(RecipeError, match="kept 3 epochs, fewer than 5"):
        kept_epochs(run, 5, best=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_script_averages_a_run_and_measures_its_batch_norms(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "average"
    script = [sys.executable, str(ROOT / "training" / "average_checkpoints.py"), str(run), "--best", "2"]
    answer = subprocess.run([*script, "--out", str(out)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    folders = kept_epochs(run, 2, best=True)
    names = [folder.name for folder in folders]
    assert (
        answer.stdout
        == f"{out}: the average of {', '.join(names)}. It has no threshold: set one with nes2net calibrate.\n"
    )
    config = Nes2NetForAudioClassification.from_pretrained(out).config
    assert config.averaged_from == names and config.threshold is None
    first, second, mean = (load_file(folder / "model.safetensors") for folder in (*folders, out))
    assert torch.allclose(mean["classifier.weight"], (first["classifier.weight"] + second["classifier.weight"]) / 2)
    assert Nes2NetFeatureExtractor.from_pretrained(out).window_length == 8000
    # Over one batch, the statistics are those of that batch, so train and eval mode agree.
    recipe = load_recipe(run / "recipe.yaml", ["batch_size=24"])
    recalibrate_batch_norm(out, recipe, 1)
    dataset = WindowDataset(open_split(recipe.data, "train"), recipe.data, "train", recipe.seed)
    batch = dataset.collate([dataset[0, row] for row in range(24)])
    model = Nes2NetForAudioClassification.from_pretrained(out)
    with torch.no_grad():
        in_use = model.eval()(batch["input_values"]).logits
        in_training = model.train()(batch["input_values"]).logits
    assert torch.allclose(in_use, in_training, atol=1e-2)
    missing = subprocess.run([*script[:2], str(tmp_path), "--last", "2", "--out", str(out)], capture_output=True,
                             text=True, check=False)  # fmt: skip
    assert missing.returncode == 2 and "is not a run" in missing.stderr and "Traceback" not in missing.stderr
