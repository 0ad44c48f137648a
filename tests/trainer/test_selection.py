"""The best epoch, by each rule of `validation`, on made-up curves; and the results on dev that it is chosen by."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("accelerate")

from accelerate import Accelerator

from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.averaging import kept_epochs
from nes2net_hf.trainer.checkpoints import STATE, saved_states
from nes2net_hf.trainer.loop import Trainer
from nes2net_hf.trainer.losses import WeightedCrossEntropy
from nes2net_hf.trainer.optimisation import validated_epochs
from nes2net_hf.trainer.selection import is_better, ranked
from nes2net_hf.trainer.validation import Validation, validate
from tests.helpers import data_of, tiny_recipe, write


class MadeUp(torch.nn.Module):
    """A model whose input is its output: logits (B, 2)."""

    def forward(self, logits: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=logits)

    def two_classes(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 1]


class MadeUpDev:
    """Dev with the bona fide utterances first. `odds[epoch - 1][row]` is the log-odds that the model answers."""

    recipe = SimpleNamespace(workers=0)
    names = ()  # of several corpora

    def __init__(self, odds: list[list[float]], labels: list[int]) -> None:
        self.odds, self.labels = odds, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> tuple[float, int]:
        epoch, row = key
        return self.odds[epoch - 1][row], self.labels[row]

    def by_length(self) -> np.ndarray:
        return np.random.default_rng(0).permutation(len(self))  # the order of judging does not matter

    def collate(self, items: list[tuple[float, int]]) -> dict[str, torch.Tensor]:
        odds, labels = zip(*items, strict=True)
        return {"logits": torch.tensor([[0.0, one] for one in odds]), "labels": torch.tensor(labels)}


# Seven bona fide utterances, then seven spoofs. In the second epoch, one spoof gets a high score, and the other scores
# are better than in the first.
LABELS = [1] * 7 + [0] * 7
ODDS = [[1.0] * 7 + [-1.0] * 7, [1.5] * 7 + [-3.0] * 6 + [2.8]]


def judged(epoch: int, loss_batch: int | None, passes: int) -> Validation:
    loss = WeightedCrossEntropy((0.1, 0.9))
    return validate(Accelerator(cpu=True), MadeUp(), MadeUpDev(ODDS, LABELS), loss, passes, epoch, loss_batch)


def expected(epoch: int, batches: list[range]) -> float:
    """The mean over the batches of their weighted mean cross entropy, utterance by utterance."""
    means = []
    for batch in batches:
        weights = [(0.1, 0.9)[LABELS[row]] for row in batch]
        losses = [math.log1p(math.exp((1 - 2 * LABELS[row]) * ODDS[epoch - 1][row])) for row in batch]
        means.append(sum(w * one for w, one in zip(weights, losses, strict=True)) / sum(weights))
    return sum(means) / len(means)


@pytest.mark.parametrize("passes", [1, 4, 14])
def test_the_two_losses_choose_different_epochs(passes: int) -> None:
    """The bona fide utterances outweigh the spoofs in the global mean, but not in batches with spoofs only."""
    rules = {None: [range(14)], 4: [range(4), range(4, 8), range(8, 12), range(12, 14)]}
    best = {}
    for loss_batch, batches in rules.items():
        curve = {str(epoch): judged(epoch, loss_batch, passes).loss for epoch in (1, 2)}
        assert list(curve.values()) == pytest.approx([expected(epoch, batches) for epoch in (1, 2)], abs=1e-6)
        best[loss_batch], _ = ranked(curve, "first")
    assert best == {None: "2", 4: "1"}


def test_other_results_on_dev() -> None:
    found = judged(2, None, 4)
    # Above 2.8, no utterance is accepted. At 1.5, one of seven spoofs is, which costs 10 · 0.05 / min(0.95, 0.5).
    assert found.min_dcf == pytest.approx(1 / 7)
    bits = [[math.log2(1 + math.exp((1 - 2 * LABELS[row]) * ODDS[1][row])) for row in part] for part in
            (range(7), range(7, 14))]  # fmt: skip
    assert found.cllr == pytest.approx((sum(bits[0]) / 7 + sum(bits[1]) / 7) / 2, abs=1e-6)


def test_ties() -> None:
    values = {"a": 0.5, "b": 0.25, "c": 0.5, "d": 0.25}
    assert ranked(values, "first") == ["b", "d", "a", "c"]
    assert ranked(values, "later") == ["d", "b", "c", "a"]
    assert not is_better(0.25, 0.25, "first") and is_better(0.25, 0.25, "later")


def run_with(
    curves: list[dict[str, float]], corpus: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any
) -> Path:
    """Trains a tiny model, whose results on dev are made up: one mapping per epoch."""
    content = tiny_recipe(corpus, output, data=data_of(corpus, window_length=4000), epochs=len(curves), batch_size=12)
    recipe = load_recipe(write(output.with_suffix(".yaml"), content | fields))

    def made_up(self: Trainer, epoch: int) -> dict[str, float]:
        return {"dev_eer": 0.25, "threshold": float(epoch), **curves[epoch - 1]}

    monkeypatch.setattr(Trainer, "_validate", made_up)
    return train(recipe)


def threshold(model: Path) -> float:
    return json.loads((model / "config.json").read_text())["threshold"]


def epochs_in(output: Path) -> list[int]:
    return sorted(int(folder.name[-4:]) for folder in (output / "epochs").iterdir())


@pytest.mark.parametrize(("ties", "best", "last"), [("first", 4, 6), ("later", 5, 7)])
def test_epochs_before_the_first_one_neither_win_nor_count(
    ties: str, best: int, last: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two lowest values come too early. Patience begins at the third epoch, and again at a tie that wins."""
    values = [0.1, 0.1, 0.9, 0.5, 0.5, 0.6, 0.7, 0.4]
    rules = {"select": "dev_min_dcf", "ties": ties, "first_epoch": 3, "patience": 2}
    curves = [{"dev_min_dcf": value} for value in values]
    found = run_with(curves, corpus, tmp_path / "run", monkeypatch, validation=rules, checkpoints={"keep_best": 2})
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert threshold(found) == best
    assert [line["epoch"] for line in lines] == list(range(1, last + 1))
    assert [line["epoch"] for line in lines if "dev_min_dcf" in line] == list(range(3, last + 1))
    assert epochs_in(tmp_path / "run") == [4, 5]
    [chosen] = kept_epochs(tmp_path / "run", 1, best=True)
    assert chosen.name == f"epoch-{best:04}"


@pytest.mark.parametrize(
    ("keep", "select", "kept", "best"),
    [
        ("best", "dev_loss", [6, 7, 8], 6),
        ("records", "dev_loss", [3, 6, 7], 6),
        ("records", "dev_loss_augmented", [2, 5, 7], 7),
    ],
)
def test_only_epochs_that_broke_a_record_are_kept(
    keep: str, select: str, kept: list[int], best: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records on dev: epochs 1, 3 and 6; on augmented dev: 1, 2, 5 and 7. Epochs 4 and 8 break none."""
    clean = [0.6, 0.7, 0.5, 0.51, 0.56, 0.4, 0.41, 0.42]
    augmented = [0.9, 0.6, 0.8, 0.7, 0.58, 0.95, 0.5, 0.51]
    curves = [{"dev_loss": one, "dev_loss_augmented": two} for one, two in zip(clean, augmented, strict=True)]
    rules = {"select": select, "augmented": True}
    checkpoints = {"keep": keep, "keep_best": 3}
    found = run_with(curves, corpus, tmp_path / "run", monkeypatch, validation=rules, checkpoints=checkpoints)
    assert (threshold(found), epochs_in(tmp_path / "run")) == (best, kept)
    [*_, state] = saved_states(tmp_path / "run")
    assert json.loads((state / STATE).read_text())["records"] == {"dev_loss": 0.4, "dev_loss_augmented": 0.5}


def test_a_run_shorter_than_its_first_epoch_still_has_a_best(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", {"model": {"pretrained": "x"}, "validation": {"first_epoch": 11}})
    assert validated_epochs(load_recipe(path, ["epochs=4"])) == [4]
    assert validated_epochs(load_recipe(path, ["epochs=13"])) == [11, 12, 13]


def results(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_every_run_logs_all_results_and_runs_of_0_1_0_continue(corpus: Path, tmp_path: Path) -> None:
    """Recipes and states of 0.1.0 lack the keys of later versions, whose defaults mean what 0.1.0 did."""
    content = tiny_recipe(corpus, tmp_path / "run", data=data_of(corpus, window_length=4000), epochs=2, batch_size=12)
    path = write(tmp_path / "recipe.yaml", content)
    train(load_recipe(path, ["validation.augmented=true"]))
    lines = results(tmp_path / "run")
    names = {f"dev_{name}{suffix}" for name in ("loss", "eer", "min_dcf", "cllr") for suffix in ("", "_augmented")}
    assert [names] * 2 == [{name for name in line if name.startswith("dev")} for line in lines]

    kept = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    for section, names_of_later in LATER.items():
        for name in names_of_later:
            del kept[section][name]
    (tmp_path / "run/recipe.yaml").write_text(yaml.safe_dump(kept))
    state, last = saved_states(tmp_path / "run")
    shutil.rmtree(last)
    progress = json.loads((state / STATE).read_text())
    assert progress.keys() >= PROGRESS_OF_0_1_0
    (state / STATE).write_text(json.dumps({name: progress[name] for name in PROGRESS_OF_0_1_0}))
    train(load_recipe(path, ["validation.augmented=true"]), resume=True)
    assert results(tmp_path / "run") == lines


LATER = {
    "model": ["freeze_epochs"],
    "data": ["repeat_from"],
    "validation": ["ties", "first_epoch", "loss", "loss_batch"],
    "checkpoints": ["keep"],
}
PROGRESS_OF_0_1_0 = {"step", "epoch_loss", "epoch_seconds", "kept", "stale", "stream"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["validation.loss=batch_means"], r"validation\.loss_batch: None does not fit validation\.loss=batch_means"),
        (["validation.loss_batch=12"], r"validation\.loss_batch: 12 does not fit validation\.loss=global"),
        (
            ["validation.loss=batch_means", "validation.loss_batch=12", "model.head=frames"],
            r"validation\.loss: batch_means does not work with model\.head=frames",
        ),
    ],
)
def test_rules_that_contradict_each_other(overrides: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", {"model": {"pretrained": "x"}})
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, overrides)
