"""Several corpora in train and dev: their shares, what is balanced in each, results by corpus, and exact resume."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("accelerate")

from nes2net_hf.corpora.shards.write import shard_corpus
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.mixtures import MixedRows, Mixture
from nes2net_hf.trainer.opening import count_shared, holds_out, open_split, refuse_same_corpora
from nes2net_hf.trainer.order import Plan
from nes2net_hf.trainer.recipe import MixingRecipe
from tests.helpers import data_of, tiny_recipe, write
from tests.trainer.test_trainer import killed_at, lines, same


class Rows:
    """Rows without audio: three speakers and two attacks, unevenly."""

    def __init__(self, bonafide: int, spoof: int) -> None:
        self.labels = np.array([1] * bonafide + [0] * spoof)
        self.group_sizes = np.ones(len(self), int)
        self._columns = {
            "attack": [None] * bonafide + ["A01"] * (spoof - 2) + ["A02"] * min(2, spoof),
            "speaker_id": [f"s{min(number, 2)}" for number in range(len(self))],
        }

    def __len__(self) -> int:
        return len(self.labels)

    def column(self, name: str) -> list[Any]:
        return self._columns[name]

    def sizes(self) -> None:
        return None


def drawn(
    mixing: MixingRecipe, weights: tuple[float | None, ...] = (None, None), epochs: int = 40
) -> list[np.ndarray]:
    rows = MixedRows({"large": Rows(20, 60), "small": Rows(0, 20)})
    mixture = Mixture(rows, mixing, weights, seed=3)
    return [mixture(epoch) for epoch in range(epochs)]


def test_shares_of_corpora() -> None:
    assert all((counts == 1).all() for counts in drawn(MixingRecipe(utterances=100)))
    given = drawn(MixingRecipe(weights="given"), (1.0, 3.0))
    assert all((counts[:80].sum(), counts[80:].sum()) == (25, 75) for counts in given)
    assert all(np.ptp(counts[80:]) == 1 for counts in given)  # 75 draws of 20 rows: three or four times each
    # 80 and 20 utterances: their square roots are as 2 to 1.
    tempered = np.mean([counts[80:].sum() / 100 for counts in drawn(MixingRecipe(temperature=2))])
    assert tempered == pytest.approx(1 / 3, abs=0.01)
    assert all(counts.sum() == 30 for counts in drawn(MixingRecipe(utterances=30)))
    assert not np.array_equal(*drawn(MixingRecipe(utterances=30), epochs=2))


@pytest.mark.parametrize("balance", ["class", "attack", "speaker"])
def test_balance_within_a_corpus(balance: str) -> None:
    mixing = MixingRecipe(balance=balance, utterances=60, weights="given")  # type: ignore[arg-type]
    total = np.sum(drawn(mixing, (2.0, 1.0), epochs=200), axis=0) / 200
    large = Rows(20, 60)
    of: Counter[tuple[int, str]] = Counter()
    for count, label, attack, speaker in zip(
        total, large.labels.tolist(), large.column("attack"), large.column("speaker_id"), strict=False
    ):
        of[label, {"class": "", "attack": attack or "", "speaker": speaker}[balance]] += count
    by_class = {label: sum(count for (one, _), count in of.items() if one == label) for label in (0, 1)}
    assert by_class == pytest.approx({0: 20, 1: 20}, abs=0.3)
    for label in (0, 1):
        shares = [count for (one, _), count in of.items() if one == label]
        assert shares == pytest.approx([20 / len(shares)] * len(shares), abs=0.3)
    assert total[80:].sum() == pytest.approx(20, abs=0.3)  # the other corpus has one class only


def test_repeats_are_spread_over_the_epoch_and_groups_stay_together() -> None:
    """A row that comes three times comes in three places, and rows of shards are still read group by group."""
    groups = np.full(50, 32)
    counts = np.repeat([1, 0, 3, 0, 1], 320)
    plan = Plan(groups, 16, seed=1, draw=lambda epoch: counts)(2)
    rows, repeats = plan.rows, plan.repeats
    assert repeats is not None and np.array_equal(np.bincount(rows, minlength=1600), counts)
    assert len(set(zip(rows.tolist(), repeats.tolist(), strict=True))) == counts.sum()
    places = [np.flatnonzero(rows == row) for row in range(640, 960)]
    assert np.mean([np.ptp(one) for one in places]) > 300
    once = Plan(groups, 16, seed=1, draw=lambda epoch: np.ones(1600, int))(2)
    assert np.array_equal(once.rows, Plan(groups, 16, seed=1)(2).rows)  # as a corpus that is not mixed


@pytest.fixture(scope="module")
def second(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another corpus: quieter, with names and speakers of its own."""
    root = tmp_path_factory.mktemp("second")
    shutil.copytree(corpus, root / "b", dirs_exist_ok=True)
    for path in (root / "b/audio").glob("*.flac"):
        soundfile.write(path, 0.5 * soundfile.read(path)[0], 16_000)
    return root / "b"


def mixed(corpus: Path, second: Path, output: Path, **fields: Any) -> dict:
    """Both corpora in train and dev."""
    data: dict[str, Any] = data_of(corpus, window_length=4000)
    for split in ("train", "dev"):
        data[split] = {
            "corpora": {
                name: {"corpus": "own-data", "root": str(root / "manifest.csv"), "where": {"partition": split}}
                for name, root in (("a", corpus), ("b", second))
            }
        }
    data |= fields.pop("data", {})
    return tiny_recipe(corpus, output, data=data, batch_size=8, **fields)


def test_a_mixture_logs_each_corpus_and_resumes_with_the_same_bits(corpus: Path, second: Path, tmp_path: Path) -> None:
    overrides = ["data.mixing={weights: given, balance: speaker, utterances: 24}", "data.train.corpora.a.weight=3",
                 "data.train.corpora.b.weight=1", "checkpoints.every_steps=1",
                 "validation.select=dev_eer_mean"]  # fmt: skip

    def run(name: str, resume: bool = False) -> Path:
        path = write(tmp_path / f"{name}.yaml", mixed(corpus, second, tmp_path / name))
        train(load_recipe(path, overrides), resume=resume)
        return tmp_path / name

    whole = run("whole")
    for place in (1, 3, 4):
        with killed_at(place):
            run("cut", resume=True)
    cut_off = run("cut", resume=True)
    assert same(cut_off / "best", whole / "best")
    first, again = ([{k: v for k, v in line.items() if k != "seconds"} for line in lines(output / "metrics.jsonl")]
                    for output in (whole, cut_off))  # fmt: skip
    assert first == again
    line = first[-1]
    assert line["dev_eer_mean"] == pytest.approx((line["dev_eer/a"] + line["dev_eer/b"]) / 2, abs=1e-6)
    assert line["train_loss"] == pytest.approx(0.75 * line["train_loss/a"] + 0.25 * line["train_loss/b"], abs=0.02)
    assert line["dev_loss"] == pytest.approx((line["dev_loss/a"] + line["dev_loss/b"]) / 2, abs=1e-5)
    kept = json.loads((sorted((whole / "checkpoints").iterdir())[-1] / "trainer.json").read_text())
    assert sorted(kept["kept"].values()) == pytest.approx(sorted(one["dev_eer_mean"] for one in first), abs=1e-6)


def test_joined_corpora_train_as_one_table_with_all_rows(corpus: Path, second: Path, tmp_path: Path) -> None:
    train(load_recipe(write(tmp_path / "mixed.yaml", mixed(corpus, second, tmp_path / "mixed", epochs=1))))
    text = [(root / "manifest.csv").read_text().replace(",audio/", f",{root}/audio/") for root in (corpus, second)]
    table = text[0] + text[1].partition("\n")[2].replace("\ntrain-", "\nb-train-").replace("\ndev-", "\nb-dev-")
    rows = table.splitlines()
    order = [line for root in (corpus, second) for line in rows[1:] if f"{root}/" in line]
    (tmp_path / "all.csv").write_text("\n".join([rows[0], *(f"{i}-{line}" for i, line in enumerate(order))]) + "\n")
    one = tiny_recipe(corpus, tmp_path / "one", batch_size=8, epochs=1)
    one["data"] = data_of(corpus, window_length=4000) | {"root": str(tmp_path / "all.csv")}
    train(load_recipe(write(tmp_path / "one.yaml", one)))
    assert (tmp_path / "one/steps.jsonl").read_text() == (tmp_path / "mixed/steps.jsonl").read_text()
    assert same(tmp_path / "one/best", tmp_path / "mixed/best")


def test_dev_and_train_are_kept_apart_over_several_corpora(corpus: Path, second: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", mixed(corpus, second, tmp_path / "run"))
    clean = load_recipe(path).data
    assert count_shared(clean, open_split(clean, "train"), open_split(clean, "dev")) == 0
    overlapping = "data.dev.corpora.b.where={partition: [dev, train]}"
    with pytest.raises(
        RecipeError, match=r"data\.dev: 24 of its 48 recordings are also in train, .*data\.dev\.corpora"
    ):
        train(load_recipe(path, [overlapping]))
    # Another copy of the same benchmark has other files, but the same recordings.
    part = "{corpora: {x: {corpus: asvspoof2019-la, split: dev, root: %s}}}"
    copies = load_recipe(path, [f"data.train={part % '/one'}", f"data.dev={part % '/two'}"]).data
    with pytest.raises(
        RecipeError, match=r"data\.dev\.corpora\.x: asvspoof2019-la, split dev is in the training data"
    ):
        refuse_same_corpora(copies)
    # A part that both name is divided, and the others stay as they are.
    held = load_recipe(path, ["data.hold_out=0.25", "data.train.corpora.b.where={}", "data.dev.corpora.b.where={}"])
    assert holds_out(held.data)
    train_rows, dev_rows = open_split(held.data, "train"), open_split(held.data, "dev")
    assert [len(part) for part in (*train_rows.parts.values(), *dev_rows.parts.values())] == [24, 24, 12, 12]
    assert count_shared(held.data, train_rows, dev_rows) == 0


def test_shards_and_files_mix(corpus: Path, second: Path, tmp_path: Path) -> None:
    shard_corpus("own-data", tmp_path / "shards", root=str(second / "manifest.csv"))
    recipe = load_recipe(
        write(tmp_path / "recipe.yaml", mixed(corpus, second, tmp_path / "run")),
        [
            f"data.train.corpora.b.root={tmp_path / 'shards'}",
            "data.train.corpora.b.split=train",
            "data.mixing={weights: hours, balance: attack}",
        ],
    )
    rows = open_split(recipe.data, "train", 8)
    assert (
        len(rows) == 48 and rows[30]["utterance_id"] == open_split(recipe.data, "train").parts["b"][6]["utterance_id"]
    )
    mixture = Mixture(rows, recipe.data.mixing, (None, None), 1)
    assert list(mixture.shares.values()) == pytest.approx([0.5, 0.5])  # equally many of half a second
    assert mixture(0).sum() == 48


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.mixing.weights=given"], r"data\.train\.corpora\.a\.weight: missing: set it, because data\.mixing"),
        (["data.train.corpora.a.weight=2"], r"data\.train\.corpora\.a\.weight: has no effect"),
        (["data.train.split=train"], r"data\.train\.split: give it to each of data\.train\.corpora instead"),
        (["data.dev.corpora={}", "validation.select=dev_eer_mean"], "dev_eer_mean needs several corpora in data.dev"),
        (
            ["data.train.corpora.a.rot=x"],
            r"data\.train\.corpora\.a\.rot: recipes have no such key; did you mean .*root",
        ),
        (["data.train.corpora.a=x"], r"data\.train\.corpora\.a: must be a section of keys, got 'x'"),
    ],
)
def test_mixtures_that_cannot_be_followed(
    overrides: list[str], message: str, corpus: Path, second: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "recipe.yaml", mixed(corpus, second, tmp_path / "run"))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, overrides)


def test_a_corpus_without_a_root_is_a_folder_of_its_name(corpus: Path, second: Path, tmp_path: Path) -> None:
    content = mixed(corpus, second, tmp_path / "run")
    for split in ("train", "dev"):
        content["data"][split] = {"corpora": {"spoofceleb": {"split": "train"}, "mine": {"corpus": "own-data"}}}
    recipe = load_recipe(write(tmp_path / "recipe.yaml", content), ["data.root=/data"]).data
    from nes2net_hf.trainer.opening import parts_of

    assert [(part.corpus, part.root) for part in parts_of(recipe, "train").values()] == [
        ("own-data", "/data/mine"),
        ("spoofceleb", "/data/spoofceleb"),
    ]


def test_dev_needs_both_classes_in_each_corpus(corpus: Path, second: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", mixed(corpus, second, tmp_path / "run"))
    only = "{partition: dev, label: spoof}"
    recipe = load_recipe(path, [f"data.dev.corpora.b.where={only}"]).data
    with pytest.raises(RecipeError, match=r"data\.dev\.corpora\.b: .* has no bonafide .*: an EER needs both classes"):
        open_split(recipe, "dev")
    recipe = load_recipe(path, ["data.train.corpora.b.where={partition: train, label: spoof}"]).data
    assert len(open_split(recipe, "train")) == 36  # one class is enough for a part of train
