"""Excerpts of random length, in batches of so many seconds."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("accelerate")

from nes2net_hf import Nes2NetFeatureExtractor
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.data import WindowDataset
from nes2net_hf.trainer.durations import estimate
from nes2net_hf.trainer.loop import Trainer
from nes2net_hf.trainer.opening import open_split
from nes2net_hf.trainer.order import Excerpts, Plan
from nes2net_hf.trainer.recipe import DataRecipe, LengthRange
from tests.helpers import data_of, tiny_recipe, write
from tests.trainer.test_trainer import same

DURATIONS = np.random.default_rng(0).integers(4_000, 100_000, 1_003)


def plan(excerpts: Excerpts, least: int = 1, keep_last: bool = True) -> Plan:
    return Plan(np.ones(1_003, int), 4, seed=5, least=least, keep_last=keep_last, excerpts=excerpts)


def test_batches_keep_within_their_budget_and_hold_similar_lengths() -> None:
    budget = 320_000
    found = plan(Excerpts(budget, DURATIONS, 16_000, 80_000))(1)
    assert sorted(found.rows.tolist()) == list(range(1_003)) and found.samples is not None
    lengths = np.clip(DURATIONS[found.rows], 16_000, found.samples)
    batches = np.split(lengths, found.ends[1:-1])
    used = [len(batch) * batch.max() / budget for batch in batches]
    assert max(used) <= 1 and np.mean(used) > 0.85
    assert np.mean([batch.min() / batch.max() for batch in batches]) > 0.9
    means = [batch.mean() for batch in batches]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5  # short batches do not come first
    drawn = found.samples
    assert (drawn.min() >= 16_000) and (drawn.max() <= 80_000) and drawn.mean() == pytest.approx(48_000, rel=0.05)
    other = plan(Excerpts(budget, DURATIONS, 16_000, 80_000))(2)
    assert not np.array_equal(found.samples, other.samples)


def test_processes_share_batches_of_different_sizes() -> None:
    found = plan(Excerpts(200_000, DURATIONS, 16_000, 80_000), least=4)(0)
    assert min(np.diff(found.ends)) >= 4
    for batch in range(len(found)):
        shares = [found.keys(batch, process, 2) for process in range(2)]
        assert min(map(len, shares)) >= 2
        assert list(chain(*shares)) == found.keys(batch, 0, 1)


def test_durations_are_estimated_from_the_sizes_of_files(corpus: Path, tmp_path: Path) -> None:
    lines = ["path,label"]
    for number in range(300):
        noise = np.random.default_rng(number).normal(0, 0.1, 2_000 + 40 * number)
        soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
        lines.append(f"{number}.wav,{('real', 'fake')[number % 2]}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    recipe = load_recipe(
        write(tmp_path / "recipe.yaml", tiny_recipe(corpus, tmp_path / "run")),
        [f"data.root={tmp_path / 'all.csv'}", "data.train={}", "data.dev={}"],
    )
    found = estimate(open_split(recipe.data, "train"))
    assert found.mean == pytest.approx(8_000, rel=0.02) and found.durations is not None
    assert found.durations == pytest.approx(2_000 + 40 * np.arange(300), rel=0.02)


def recipe_of(corpus: Path, output: Path, **data: Any) -> dict:
    return tiny_recipe(corpus, output, data=data_of(corpus, **data), epochs=2)


def test_a_range_of_one_length_is_that_length_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    """Longer than some utterances, so that these are repeated. Four of 9,000 samples are 2.25 s."""
    augmentation = [{"name": "speed", "probability": 0.9, "low": 0.7, "high": 1.4}]
    fixed = recipe_of(corpus, tmp_path / "fixed", window_length=9_000, augmentation=augmentation)
    fixed["data"] |= {"normalize": True, "evaluate": "whole"}
    drawn = recipe_of(corpus, tmp_path / "drawn", augmentation=augmentation)
    drawn["data"] |= {"normalize": True, "window_length": {"min": 9_000, "max": 9_000, "unit": "samples"}}
    drawn["batch_seconds"] = 2.25
    runs = [train(load_recipe(write(tmp_path / f"{name}.yaml", one))).parent
            for name, one in (("fixed", fixed), ("drawn", drawn))]  # fmt: skip
    assert (runs[0] / "steps.jsonl").read_text() == (runs[1] / "steps.jsonl").read_text()
    assert same(runs[0] / "best", runs[1] / "best")
    extractor = Nes2NetFeatureExtractor.from_pretrained(runs[1] / "best")
    assert (extractor.window_length, extractor.length_policy) == (9_000, "whole")


def test_each_utterance_counts_once_in_an_epoch(corpus: Path, tmp_path: Path) -> None:
    """The gradients of an epoch's batches add up to the mean gradient of its utterances, times the number of steps."""
    found = []
    for passes in (1, 2):
        recipe = recipe_of(corpus, tmp_path / str(passes)) | {"batch_seconds": 1.6, "passes": passes}
        recipe["data"]["window_length"] = {"min": 0.1, "max": 0.5}
        recipe["model"]["config"]["class_weights"] = [1.0, 1.0]
        recipe["keep_last_batch"] = True
        trainer = Trainer(load_recipe(write(tmp_path / "recipe.yaml", recipe)), resume=False)
        trainer.model.eval()  # batch norm would see each batch separately
        sizes = []
        for batch in trainer.stream:
            trainer._learn_from(batch)
            sizes.append(trainer.stream.size)
        weight = trainer.model.classifier.weight
        found.append((weight.grad.clone(), sizes))
    (one, sizes), (two, again) = found
    assert len(set(sizes)) > 1 and sum(sizes) == sum(again) == 24
    # Passes need batches of at least two, which may change the batches but not the sum.
    assert torch.allclose(one / len(sizes), two / len(again), atol=1e-6)
    trainer.model.zero_grad()
    dataset, planned = trainer.data.train_set, trainer.stream
    planned.start(0)
    for batch in range(len(planned)):
        for key in planned._sampler.planned().keys(batch, 0, 1):
            each = dataset.collate([dataset[key]])
            logits = trainer.model(each["input_values"]).logits
            (trainer.loss(logits, each["labels"]) / 24).backward()
    assert torch.allclose(trainer.model.classifier.weight.grad, one / len(sizes), atol=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_its_utterances(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_of(corpus, tmp_path / "run") | {"batch_seconds": 1.6, "keep_last_batch": True, "epochs": 1}
    recipe["data"]["window_length"] = {"min": 0.1, "max": 0.5}
    trainer = Trainer(load_recipe(write(tmp_path / "recipe.yaml", recipe)), resume=False)
    sizes: list[int] = []
    learn = trainer._learn_from

    def watched(batch: Any) -> Any:
        done = learn(batch)
        sizes.append(trainer.stream.size)
        losses.append(done.loss)
        return done

    losses: list[float] = []
    trainer._learn_from = watched  # type: ignore[method-assign]
    trainer.run(None)
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert line["train_loss"] == pytest.approx(np.average(losses, weights=sizes), abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.window_length={min: 1, max: 5}"], "batch_seconds: missing: with a range in data.window_length"),
        (["data.window_length={min: 5, max: 1}", "batch_seconds=9"], "must be a range from at least 400 samples"),
        (["data.window_length={min: 1, max: 5}", "batch_seconds=4"], "4 s cannot hold the longest excerpt, 5 s"),
        (["data.window_length={min: 1}", "batch_seconds=4"], r"data\.window_length\.max: missing: set it"),
        (
            ["data.window_length={min: 1, max: 5}", "batch_seconds=9", "data.crop=first"],
            "range needs data.crop=random",
        ),
        (["data.window_length=x"], "data.window_length: must be int or a section of keys or null, got 'x'"),
        (
            ["batch_seconds=9", "schedule.name=cosine_epochs", "schedule.period=2"],
            "does not work with schedule.name",
        ),
    ],
)
def test_lengths_that_do_not_fit(overrides: list[str], message: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run")), overrides)


def test_units() -> None:
    assert (LengthRange(1, 50).shortest, LengthRange(1, 50).longest) == (16_000, 800_000)
    assert LengthRange(400, 800, "samples").longest == 800


def test_frame_labels_follow_excerpts() -> None:
    rows: Any = SimpleNamespace(labels=np.array([0, 1]))
    dataset = WindowDataset(rows, DataRecipe(window_length=LengthRange(0.1, 1.0)), "train", of_frames=True)
    segments = list(np.random.default_rng(0).integers(0, 2, 40))
    ramp = np.arange(12_800, dtype=np.float32)
    for drawn, expected in ((1_600, 1_600), (8_000, 8_000), (16_000, 12_800)):
        excerpt, start = dataset._crop(ramp, drawn, np.random.default_rng(drawn))
        labels = dataset._frame_labels({"segment_labels": {"20ms": segments}}, start, ramp.size, drawn)
        assert (excerpt.size, excerpt[0]) == (expected, start) and labels.size == (expected - 400) // 320 + 1
        assert labels.tolist() == [segments[(start + 320 * frame + 200) // 320] for frame in range(labels.size)]
    excerpt, _ = dataset._crop(ramp[:1_000], 8_000, np.random.default_rng(1))
    assert excerpt.tolist() == np.tile(ramp[:1_000], 2)[:1_600].tolist()
