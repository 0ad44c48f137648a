"""Recipes are read strictly, and the training loop trains, validates, saves and is reproducible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.data import WindowDataset
from nes2net_hf.trainer.model import build_model
from nes2net_hf.trainer.opening import open_split
from nes2net_hf.trainer.parts import start_processes
from tests.helpers import ROOT, data_of, tiny_recipe, write

pytest.importorskip("accelerate")


def test_training_lowers_the_loss_and_saves_what_from_pretrained_takes(corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path / "run", epochs=6)))
    best = train(recipe)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["train_loss"] < 0.7 * lines[0]["train_loss"]
    assert lines[-1]["learning_rate"] == 0
    Nes2NetForAudioClassification.from_pretrained(best)
    assert Nes2NetFeatureExtractor.from_pretrained(best).window_length == 8000
    assert {path.suffix for path in best.iterdir()} == {".safetensors", ".json", ".py"}
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


def test_the_same_seed_gives_the_same_run_in_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    curves = []
    for workers in (0, 2):
        augmentation = [{"name": "speed", "probability": 0.5}, {"name": "rawboost", "number": 4}]
        data = data_of(corpus, window_length=4000, augmentation=augmentation, workers=workers)
        recipe = tiny_recipe(corpus, tmp_path / f"run{workers}", epochs=1, data=data)
        train(load_recipe(write(tmp_path / "recipe.yaml", recipe)))
        line = json.loads((tmp_path / f"run{workers}" / "metrics.jsonl").read_text())
        curves.append((line["train_loss"], line["dev_eer"]))
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_the_script_reports_errors_in_a_sentence(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path / "run"))
    command = [sys.executable, str(ROOT / "training" / "train.py"), "--config", str(path)]
    answer = subprocess.run([*command, "epoch=3"], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.splitlines()[-1].startswith("error: epoch: recipes have no such key; did you mean epochs?")
    assert "Traceback" not in answer.stderr


def test_windows_are_cropped_at_random_in_training_and_from_the_start_otherwise(corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path))).data
    recipe.window_length = 4000
    rows = open_split(recipe, "train")
    training, first = (WindowDataset(rows, recipe, kind, seed=1) for kind in ("train", "dev"))
    whole = soundfile.read(rows[0]["audio"]["path"], dtype="float32")[0]
    assert np.array_equal(first.collate([first[0, 0]])["input_values"][0], whole[:4000])
    crops = [training[epoch, 0][0] for epoch in range(3)]
    for crop in crops:
        assert any(np.array_equal(crop, whole[start : start + 4000]) for start in range(4001))
    assert not np.array_equal(crops[0], crops[1])
    assert np.array_equal(training[0, 0][0], crops[0])


def test_short_utterances_are_repeated_and_then_cropped_at_random(tmp_path: Path) -> None:
    """1,500 samples fill a window of 4,000 three times over, so a crop starts at one of the first 501 samples."""
    ramp = np.arange(1500, dtype=np.float32) / 1500
    for label in ("bonafide", "spoof"):
        soundfile.write(tmp_path / f"{label}.wav", ramp, 16_000, subtype="FLOAT")
    (tmp_path / "manifest.csv").write_text("path,label\nbonafide.wav,bonafide\nspoof.wav,spoof\n")
    content = {"model": {"pretrained": "x"}, "data": {"root": str(tmp_path / "manifest.csv"), "window_length": 4000}}
    path = write(tmp_path / "recipe.yaml", content)
    found = {}
    for repeat_from in ("start", "random"):
        recipe = load_recipe(path, [f"data.repeat_from={repeat_from}"]).data
        training, dev = (WindowDataset(open_split(recipe, "train"), recipe, kind, seed=1) for kind in ("train", "dev"))
        windows = [training.collate([training[epoch, 0]])["input_values"][0].numpy() for epoch in range(400)]
        found[repeat_from] = [round(1500 * float(window[0])) for window in windows]
        for window, start in zip(windows, found[repeat_from], strict=True):
            assert np.array_equal(window, np.tile(ramp, 3)[start : start + 4000])
        assert np.array_equal(dev.collate([dev[0, 0]])["input_values"][0], np.tile(ramp, 3)[:4000])
    assert set(found["start"]) == {0}
    assert min(found["random"]) < 20 and 480 < max(found["random"]) <= 500
    assert np.mean(found["random"]) == pytest.approx(250, abs=25)  # 3.5 standard errors

    segments = {"20ms": [0, 1, 1, 1, 0]}
    training.of_frames = True
    labels = training._frame_labels({"segment_labels": segments}, 330, 1500)
    # Frames are 320 samples apart. The middle of the first one is sample 200 of the window, 530 of the utterance.
    middles = [(330 + 200 + 320 * frame) % 1500 for frame in range(12)]
    assert labels.tolist() == [segments["20ms"][middle // 320] for middle in middles]
    with pytest.raises(RecipeError, match=r"data\.repeat_from: random needs data\.crop=random, got first"):
        load_recipe(path, ["data.repeat_from=random", "data.crop=first"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.learning_rate=1"], "optimizer: recipes have no such key; did you mean optimiser"),
        (["optimiser.learning_rat=1"], r"did you mean optimiser\.learning_rate"),
        (["epochs=many"], "epochs: must be int, got 'many'"),
        (["epochs=0"], "epochs: must be at least 1"),
        (["data.crop=last"], r"data\.crop: must be one of random, first"),
        (["data=here"], "data: must be a section of keys"),
        (["epochs"], "has the form key=value"),
        (["epochs.x=1"], "'epochs' is a value, not a section"),
        (["model.encoder.model_type=", "model.pretrained=null"], "model.encoder.model_type"),
    ],
)
def test_recipes_that_cannot_be_followed_are_errors_that_name_the_key(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "recipe.yaml", {"epochs": 1, "data": {}, "model": {"encoder": {"model_type": "wav2vec2"}}})
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, overrides)


def test_a_whole_model_is_trained_further(tiny_model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    """It starts from all weights, with the recipe's dropout. Threshold and calibration are dropped."""
    source = Nes2NetForAudioClassification.from_pretrained(tiny_model_dir)
    source.config.threshold = 1.5
    source.config.calibration = {"scale": 1.0, "offset": 0.0, "prior": 0.5, "provenance": {}}
    source.config.demonstration = True
    source.save_pretrained(tmp_path / "source")
    Nes2NetFeatureExtractor(window_length=8000).save_pretrained(tmp_path / "source")
    content = tiny_recipe(corpus, tmp_path / "run", epochs=1)
    content["model"] = {"pretrained": str(tmp_path / "source"), "encoder": {"hidden_dropout": 0.25}}
    recipe = load_recipe(write(tmp_path / "recipe.yaml", content))
    model = build_model(recipe)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in source.state_dict().items())
    assert model.config.encoder_config.hidden_dropout == 0.25
    assert model.config.threshold is None and model.config.calibration is None
    assert model.config.demonstration is False
    best = Nes2NetForAudioClassification.from_pretrained(train(recipe))
    assert not torch.equal(best.classifier.weight, source.classifier.weight)

    content["model"]["config"] = {"inner_scale": 2}
    with pytest.raises(
        RecipeError, match=r"model\.config\.inner_scale: this recipe says 2, but .* was trained with 4"
    ):
        build_model(load_recipe(write(tmp_path / "recipe.yaml", content)))


def test_numbers_as_yaml_reads_them_are_floats(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", {"model": {"encoder": {"model_type": "wav2vec2"}}})
    recipe = load_recipe(path, ["optimiser.learning_rate=1e-4", "optimiser.max_gradient_norm=5", "mixed_precision=no"])
    assert recipe.mixed_precision == "no"
    assert (recipe.optimiser.learning_rate, recipe.optimiser.max_gradient_norm) == (1e-4, 5.0)


def test_a_run_has_its_own_precision_after_another_run_in_the_same_process(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", {"model": {"encoder": {"model_type": "wav2vec2"}}})
    for precision in ("no", "bf16", "no"):
        assert start_processes(load_recipe(path, [f"mixed_precision={precision}"])).mixed_precision == precision
