"""Training a model further: settings it brings, recipes that contradict it, own data in one table or two."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

pytest.importorskip("accelerate")

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from nes2net_hf.errors import OutputError
from nes2net_hf.pretrained.bases import read_base
from nes2net_hf.pretrained.load import DEMO_MODEL, load_model
from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.holding_out import divide
from nes2net_hf.trainer.opening import count_shared, holds_out, open_split
from nes2net_hf.trainer.starting import TRAINED_WITH, as_begun, settle
from tests.helpers import FIXTURES, launch, tiny_config, tiny_model

ROOT = Path(__file__).parents[2]
OWN_DATA = ROOT / "training" / "configs" / "own_data.yaml"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without default settings."""
    folder = tmp_path_factory.mktemp("model")
    network = tiny_model(
        classifier_outputs=3, id2label={0: "tts", 1: "bonafide", 2: "vc"}, class_weights=[0.2, 0.8], dilation=2,
        score="bonafide_logit", layer_aggregation="weighted_sum", threshold=1.5, demonstration=True,
    )  # fmt: skip
    network.save_pretrained(folder)
    Nes2NetFeatureExtractor(
        window_length=8000, length_policy="whole", do_normalize=True, normalize_eps=1e-3, min_samples=500
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus without its partitions and speakers."""
    path = tmp_path_factory.mktemp("table") / "mine.csv"
    lines = ["path,label"]
    for audio in sorted((corpus / "audio").glob("train-*.flac")):
        lines.append(f"{audio},{'real' if 'bonafide' in audio.name else 'fake'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def own(model: Path | str, table: Path, output: Path, *more: str) -> Any:
    overrides = (f"model.pretrained={model}", f"data.root={table}", f"output={output}", "trackers=[]", "epochs=1")
    return load_recipe(OWN_DATA, [*overrides, *more])


def test_a_model_brings_its_preprocessing_and_its_configuration(model: Path, table: Path, tmp_path: Path) -> None:
    best = train(own(model, table, tmp_path / "run"))
    before, after = (Nes2NetFeatureExtractor.from_pretrained(folder).to_dict() for folder in (model, best))
    assert before == after
    one, two = (Nes2NetForAudioClassification.from_pretrained(folder).config for folder in (model, best))
    assert all(getattr(one, field) == getattr(two, field) for field in (*TRAINED_WITH, "class_weights"))
    assert two.demonstration is False and two.threshold != 1.5
    kept = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (kept.data.normalize, kept.data.evaluate, kept.data.window_length) == (True, "whole", 8000)
    assert kept.model.config["class_weights"] == [0.2, 0.8] and kept.model.head == "utterance"
    base = read_base(best / "base.json")
    assert base is not None and (base.name, base.license, base.demonstration) == (model.name, None, True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.normalize=false",
            r"data\.normalize: this recipe says false, but .* was trained with true: remove the key",
        ),
        ("data.window_length=64600", r"window_length: this recipe says 64600, but .* was trained with 8000"),
        ("data.evaluate=window", r'data\.evaluate: this recipe says "window", but .* was trained with "whole"'),
        ("model.head=frames", r'model\.head: this recipe says "frames", but .* was trained with "utterance"'),
        ("model.config.dilation=1", r"model\.config\.dilation: this recipe says 1, but .* was trained with 2"),
        ("model.config.score=log_odds", r"model\.config\.score: .* with \"bonafide_logit\""),
        ("model.config.classifier_outputs=2", r"model\.config\.classifier_outputs: .* trained with 3"),
        ("model.config.id2label={0: spoof, 1: bonafide}", r"model\.config\.id2label: .* trained with .*vc"),
        ("model.config.dilatoin=2", r"model\.config\.dilatoin: this recipe says 2, but .* was trained with null"),
        ("model.encoder.hidden_size=128", r"model\.encoder\.hidden_size: this recipe says 128, .* with 64"),
        ("loss.name=focal", r"loss\.name: focal needs a head with one logit"),
    ],
)
def test_a_recipe_that_contradicts_its_model_is_refused(
    override: str, message: str, model: Path, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        train(own(model, table, tmp_path / "run", override))
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_what_agrees_or_says_only_how_to_train_passes(model: Path, table: Path, tmp_path: Path) -> None:
    config = "model.config={dilation: 2, class_weights: null, score: null}"
    more = ("data.normalize=true", "data.window_length=null", config,
            "model.encoder={hidden_dropout: 0.3, mask_time_prob: 0.1}")  # fmt: skip
    recipe = settle(own(model, table, tmp_path / "run", *more))
    assert recipe.model.config["class_weights"] is None and recipe.model.config["score"] == "bonafide_logit"
    assert recipe.model.encoder == {"hidden_dropout": 0.3, "mask_time_prob": 0.1}
    assert settle(recipe) == recipe


def test_a_model_of_frames_stays_one(table: Path, tmp_path: Path) -> None:
    Nes2NetForAudioFrameClassification(tiny_config()).save_pretrained(tmp_path / "frames")
    Nes2NetFeatureExtractor().save_pretrained(tmp_path / "frames")
    assert settle(own(tmp_path / "frames", table, tmp_path / "run")).model.head == "frames"
    with pytest.raises(RecipeError, match=r'model\.head: this recipe says "utterance", but .* with "frames"'):
        settle(own(tmp_path / "frames", table, tmp_path / "run", "model.head=utterance"))


def test_a_model_without_its_preprocessing_is_refused(model: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(RecipeError, match=r"bare has no preprocessor_config\.json"):
        settle(own(tmp_path / "bare", table, tmp_path / "run"))


def test_runs_that_began_before_resume(model: Path, table: Path, tmp_path: Path) -> None:
    """Runs of 0.1.0, which kept the recipe's defaults instead of the model's, and runs whose model has moved."""
    recipe = own(model, table, tmp_path / "run")
    content = yaml.safe_load(recipe.as_yaml())
    content["model"]["head"] = "utterance"
    content["data"] |= {"normalize": False, "window_length": 64_600, "evaluate": "window"}
    for key in ("normalize_eps", "min_samples"):
        del content["data"][key]
    (tmp_path / "before.yaml").write_text(yaml.safe_dump(content))
    begun = as_begun(tmp_path / "before.yaml", recipe).data
    assert (begun.normalize, begun.normalize_eps, begun.min_samples) == (False, 1e-5, 400)
    (tmp_path / "now.yaml").write_text(settle(recipe).as_yaml())
    assert as_begun(tmp_path / "now.yaml", recipe) == settle(recipe)
    with pytest.raises(OutputError, match=r"model\.config\.dilation: .* began with 2, not 3"):
        as_begun(tmp_path / "now.yaml", own(model, table, tmp_path / "run", "model.config.dilation=3"))


def test_dev_is_held_out_by_speaker_or_by_file() -> None:
    rng = np.random.default_rng(0)
    labels = [0, 1] * 60
    names = [f"u{number}" for number in range(120)]
    none: list[str | None] = [None] * 120
    by_file = divide(labels, names, none, none, 0.2)
    assert len(by_file.dev) == 24 and sum(labels[row] for row in by_file.dev) == 12
    assert sorted([*by_file.train, *by_file.dev]) == list(range(120)) and "speakers are unknown" in by_file.said
    more = divide([*labels, 1, 0], [*names, "v", "w"], [*none, None, None], [*none, None, None], 0.2)
    assert len(set(by_file.dev) - set(more.dev)) <= 1  # adding rows moves almost no others
    speakers = [f"s{number}" for number in rng.integers(12, size=120)]
    by_speaker = divide(labels, names, list(speakers), none, 0.2)
    held = {speakers[row] for row in by_speaker.dev}
    assert held and not held & {speakers[row] for row in by_speaker.train} and "no speaker" in by_speaker.said
    assert 12 <= len(by_speaker.dev) <= 40


def test_too_few_speakers_are_said() -> None:
    found = divide([0, 1] * 20, [str(one) for one in range(40)], ["voice", "me"] * 20, [None] * 40, 0.2)
    assert len(found.dev) == 8 and "too few speakers" in found.said


def test_a_column_says_what_is_dev(corpus: Path, tmp_path: Path) -> None:
    lines = (corpus / "manifest.csv").read_text().replace("audio/", f"{corpus}/audio/").replace("partition", "Split")
    (tmp_path / "mine.csv").write_text(lines.replace(",dev\n", ",validation\n"))
    recipe = own("x", tmp_path / "mine.csv", tmp_path / "run").data
    assert (len(open_split(recipe, "train")), len(open_split(recipe, "dev"))) == (24, 12)
    (tmp_path / "mine.csv").write_text(lines.replace(",dev\n", ",check\n"))
    with pytest.raises(
        RecipeError, match=r"column Split .* has check, train, but no dev: write dev there, or choose both"
    ):
        open_split(recipe, "dev")
    (tmp_path / "mine.csv").write_text(lines.replace(",dev\n", ",\n"))
    with pytest.raises(RecipeError, match=r"column Split .* is empty in row 25"):
        open_split(recipe, "dev")


def test_two_tables(corpus: Path, table: Path, tmp_path: Path) -> None:
    lines = [f"{audio},{'real' if 'bonafide' in audio.name else 'fake'}" for audio in corpus.glob("audio/dev-*.flac")]
    (tmp_path / "dev.csv").write_text("\n".join(["path,label", *lines]))
    recipe = own("x", table, tmp_path / "run", f"data.dev.root={tmp_path / 'dev.csv'}").data
    train_rows, dev_rows = open_split(recipe, "train"), open_split(recipe, "dev")
    assert (len(train_rows), len(dev_rows), count_shared(recipe, train_rows, dev_rows)) == (24, 12, 0)
    same = own("x", table, tmp_path / "run", f"data.dev.root={tmp_path / '..' / tmp_path.name / table.name}").data
    assert not holds_out(same)
    (tmp_path / table.name).symlink_to(table)
    assert holds_out(same)  # the same table by another name


def test_dev_never_has_recordings_of_train(corpus: Path, model: Path, table: Path, tmp_path: Path) -> None:
    manifest = corpus / "manifest.csv"
    message = r"data\.dev: 24 of its 36 recordings are also in train, .*: choose other .*\(data\.hold_out divides rows"
    with pytest.raises(RecipeError, match=message):
        train(own(model, manifest, tmp_path / "run", "data.train.where={partition: train}"))
    text = table.read_text().splitlines()
    (tmp_path / "dev.csv").write_text("\n".join(text[:-3]))
    with pytest.raises(RecipeError, match=r"data\.dev: 21 of its 21 recordings are also in train"):
        train(own(model, table, tmp_path / "run", f"data.dev.root={tmp_path / 'dev.csv'}"))
    with pytest.raises(RecipeError, match=r"data\.dev: 21 of its 21 .* judges new recordings: choose other rows with"):
        train(own(model, table, tmp_path / "run", f"data.dev.root={tmp_path / 'dev.csv'}", "data.hold_out=null"))
    twice = [f"a{number},{line}" for number, line in enumerate(text[1:] * 2)]
    (tmp_path / "twice.csv").write_text("\n".join(["utterance_id,path,label", *twice]))
    with pytest.raises(RecipeError, match=r"recordings are also in train, .*: list each file once"):
        train(own(model, tmp_path / "twice.csv", tmp_path / "run"))
    chosen = ("data.train.where={partition: train}", "data.dev.where={partition: dev}")
    train(own(model, manifest, tmp_path / "other", *chosen))


def test_too_few_files_to_hold_any_out_are_said(table: Path, tmp_path: Path) -> None:
    text = table.read_text().splitlines()
    for rows in ([1, -1], [1, 2, 3, -1]):
        (tmp_path / "two.csv").write_text("\n".join([text[0], *(text[row] for row in rows)]))
        with pytest.raises(RecipeError, match=r"data\.hold_out: .*two\.csv has 1 spoof, . bonafide, too few to hold"):
            open_split(own("x", tmp_path / "two.csv", tmp_path / "run").data, "train")
    (tmp_path / "two.csv").write_text("\n".join([text[0], text[1], text[2]]))
    with pytest.raises(RecipeError, match=r"two\.csv has no spoof utterances"):
        open_split(own("x", tmp_path / "two.csv", tmp_path / "run").data, "train")
    columns = "\n".join(["path,label,split", *(f"{line},{'dev' if 'real' in line else 'train'}" for line in text[1:])])
    (tmp_path / "two.csv").write_text(columns)
    with pytest.raises(
        RecipeError, match=r"two\.csv has no bonafide utterances for train \(as column split assigns them"
    ):
        open_split(own("x", tmp_path / "two.csv", tmp_path / "run").data, "train")


def test_a_filter_that_leaves_no_row_is_named(corpus: Path, table: Path, tmp_path: Path) -> None:
    demo = ROOT / "training" / "configs" / "demo.yaml"
    recipe = load_recipe(demo, [f"data.root={table}", "data.augmentation=[]"]).data
    with pytest.raises(
        RecipeError, match=r"data\.train: .*where partition=train matches no row \(column partition is "
    ):
        open_split(recipe, "train")
    recipe = load_recipe(
        demo,
        [
            f"data.root={corpus / 'manifest.csv'}",
            "data.augmentation=[]",
            "data.train.where={partition: [test, eval]}",
        ],
    ).data
    with pytest.raises(
        RecipeError, match=r"partition=eval or test matches no row \(column partition has dev, train\)"
    ):
        open_split(recipe, "train")
    both = {"partition": "dev", "label": "spoof"}
    recipe.train.where = both
    with pytest.raises(RecipeError, match="has no bonafide utterances with partition=dev, label=spoof"):
        open_split(recipe, "train")
    recipe.train.where = {"source": "test", "attack": "vc"}
    with pytest.raises(RecipeError, match=r"attack=vc matches no row \(column attack has reversal\)"):
        open_split(recipe, "train")
    recipe.train.where = {"label": "bonafide", "attack": "reversal"}
    with pytest.raises(RecipeError, match="label=bonafide and attack=reversal match no row together"):
        open_split(recipe, "train")
    recipe = load_recipe(
        ROOT / "training/configs/asvspoof2021.yaml", ["data.corpus=own-data", f"data.root={table}"]
    ).data
    with pytest.raises(
        RecipeError, match=r"data\.train\.split: this recipe says train, but your own data has no splits"
    ):
        open_split(recipe, "train")


@pytest.mark.slow
@pytest.mark.parametrize("override", ["epoch=3", "data.normalize=false", "data.root=absent.csv"])
def test_the_launcher_adds_nothing_to_the_sentence(override: str, table: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--quiet",
        "training/train.py",
        "--config",
        OWN_DATA,
    ]
    answer = subprocess.run(
        [*map(str, command), f"data.root={table}", f"output={tmp_path / 'run'}", override],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error: ") and answer.stderr.count("error: ") == 1


def scores(model: Path, paths: list[Path]) -> dict[str, float]:
    network, extractor = load_model(model, None, torch.device("cpu"), "float32")
    found = {}
    with torch.inference_mode():
        for path in paths:
            wave = soundfile.read(path, dtype="float32")[0]
            features = extractor(wave, sampling_rate=16_000, return_tensors="pt")
            found[path.name] = float(network.score(network(**features).logits))
    return found


@pytest.mark.slow
def test_twenty_files_a_class_teach_the_demonstration_model_what_it_did_not_know(
    speech: list[np.ndarray], tmp_path: Path
) -> None:
    """Real recordings, and Piper, which the demonstration model cannot detect."""
    with open(FIXTURES / "audio" / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(zip(csv.DictReader(file), speech, strict=True))
    kinds = {
        "real": [wave for row, wave in rows if row["label"] == "bonafide"],
        "fake": [wave for row, wave in rows if "piper" in row["path"]],
    }
    lines, paths = ["path,label"], []
    for label, waves in kinds.items():
        cuts = [wave[start : start + 24_000] for wave in waves for start in range(0, wave.size - 23_999, 12_000)]
        for number, wave in enumerate(cuts[:: len(cuts) // 20][:20]):
            path = tmp_path / f"{label}-{number}.wav"
            soundfile.write(path, wave, 16_000)
            lines.append(f"{path.name},{label}")
            paths.append(path)
    assert len(paths) == 40
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    before = scores(DEMO_MODEL, paths)
    process = launch(
        "train.py", "--config", OWN_DATA, f"model.pretrained={DEMO_MODEL}", f"data.root={tmp_path / 'mine.csv'}",
        f"output={tmp_path / 'run'}", "epochs=25",
    )  # fmt: skip
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert (
        "dev: 8 of 40 utterances" in out
        and "dev EER" in out
        and "can change the dev EER by 25 percentage points" in out
    )
    after = scores(tmp_path / "run" / "best", paths)

    def gap(found: dict[str, float]) -> float:
        means = [
            np.mean([score for name, score in found.items() if name.startswith(kind)]) for kind in ("real", "fake")
        ]
        return float(means[0] - means[1])

    assert gap(after) > gap(before) + 0.5
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert config["demonstration"] is False and config["calibration"] is None
    base = read_base(tmp_path / "run" / "best" / "base.json")
    assert base is not None and (base.license, base.demonstration) == ("GPL-3.0-only", True) and base.limits
