"""The recipes have the published values, and each one trains on its benchmark's layout."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch.nn import functional as F
from transformers import AutoModel

pytest.importorskip("accelerate")

from nes2net_hf.trainer import RecipeError, load_recipe, train
from nes2net_hf.trainer.losses import build_loss
from nes2net_hf.trainer.model import build_model
from nes2net_hf.trainer.optimisation import build_optimiser, learning_rate_factor, validated_epochs
from nes2net_hf.trainer.recipe import SETTINGS, Recipe
from tests.helpers import tiny_encoder_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
CTRSVDD = ("ctrsvdd_nes2net", "ctrsvdd_nes2net_x", "ctrsvdd_nes2net_x_selu")
LA = ("asvspoof2021", "asvspoof2021_nes2net", "asvspoof2021_val_aug", "partialspoof")
PUBLISHED = (*LA, *CTRSVDD, "asvspoof5")

RECIPES = ROOT / "training" / "RECIPES.md"  # has the published values
UNLISTED = {"output", "data.root", "data.workers"}  # names and machines
CONFIG = {
    "la": {"layer_aggregation": "last", "dilation": 2, "classifier_outputs": 2, "score": "bonafide_logit",
           "class_weights": [0.1, 0.9]},
    "ctrsvdd": {"layer_aggregation": "squeeze_excitation", "dilation": 1, "classifier_outputs": 1,
                "class_weights": None},
    "asvspoof5": {"layer_aggregation": "last", "dilation": 1, "classifier_outputs": 2, "score": "bonafide_logit",
                  "class_weights": [0.1, 0.9]},
}  # fmt: skip
VARIANT = {"asvspoof2021_nes2net": "nes2net", "ctrsvdd_nes2net": "nes2net"}


def family(name: str) -> str:
    return "ctrsvdd" if name in CTRSVDD else "la" if name in LA else name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: list[np.ndarray]) -> Path:
    """A working folder with the noises and rooms that the ASVspoof 5 recipe names."""
    for folder in ("musan/noise", "musan/speech", "musan/music", "RIRS_NOISES/simulated_rirs"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        soundfile.write(tmp_path / "data" / folder / "a.wav", 0.3 * speech[5][:16_000], 16_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny_encoder(folder: Path, name: str) -> str:
    """A tiny encoder in the Hub's layout, in place of the recipe's 300 million parameters."""
    kind = "wavlm" if family(name) != "la" else "wav2vec2"
    torch.manual_seed(0)
    # Library defaults, so that the recipe's dropout and masking make a difference.
    config = tiny_encoder_config(
        kind, layerdrop=0.1, hidden_dropout=0.1, attention_dropout=0.1, apply_spec_augment=True
    )
    AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


def load(name: str, *overrides: str) -> Recipe:
    return load_recipe(CONFIGS / f"{name}.yaml", overrides)


def documented(name: str) -> dict[str, tuple[str, ...]]:
    """
    Returns the rows of RECIPES.md for a recipe: key → cells recipe, authors, source, equal. A row of this one recipe
    replaces that of its family.
    """
    _, *sections = RECIPES.read_text(encoding="utf-8").split("\n## ")
    [section] = [section for section in sections if f"`{name}`" in section.splitlines()[0]]
    common: dict[str, tuple[str, ...]] = {}
    own: dict[str, tuple[str, ...]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            key, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
            match = re.fullmatch(r"`([\w.]+)`(?: of `(\w+)`)?", key)
            assert match and len(cells) == 4, line
            rows = common if match[2] is None else own if match[2] == name else {}
            assert match[1] not in rows and match[2] in (None, *PUBLISHED), line
            rows[match[1]] = tuple(cells)
    return common | own


def leaves(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Maps the dotted keys of a recipe to their values."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_of_a_published_recipe_is_compared_with_the_authors(name: str, place: Path) -> None:
    written = leaves(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")))
    used = leaves(dataclasses.asdict(load(name))) | {"model.config.hidden_act": "relu"} | written
    used |= {key: SETTINGS[key] for key in SETTINGS if used[key] is None}
    rows = documented(name)
    assert not written.keys() - rows.keys() - UNLISTED
    for key, (value, authors, source, equal) in rows.items():
        assert used[key] == yaml.safe_load(value.strip("`")), key
        assert source and equal, key
        if equal == "yes" and re.fullmatch("`[^`]*`", authors):
            assert authors == value, key


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_say_what_was_published(name: str, place: Path) -> None:
    recipe = load(name)
    assert (recipe.schedule.warmup_steps, recipe.optimiser.max_gradient_norm, recipe.data.crop_length) == (
        0,
        None,
        None,
    )
    model = build_model(load(name, f"model.pretrained={tiny_encoder(place / 'encoder', name)}"))
    for key, value in CONFIG[family(name)].items():
        assert getattr(model.config, key) == value, key
    assert model.config.backend_variant == VARIANT.get(name, "nes2net_x")
    assert model.config.hidden_act == ("selu" if name.endswith("selu") else "relu")
    assert (model.config.outer_scale, model.config.inner_scale, model.config.se_reduction) == (8, 8, 1)
    encoder = model.config.encoder_config
    for key in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop"):
        assert getattr(encoder, key) == 0 and key in recipe.model.encoder, key
    assert encoder.apply_spec_augment is False and recipe.model.encoder["apply_spec_augment"] is False
    # Everything learns except the unused embedding of masked frames, and WavLM's convolutions.
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    convolutions = {key for key, _ in model.named_parameters() if ".feature_extractor." in key}
    assert convolutions
    assert frozen == {"nes2net.encoder.masked_spec_embed"} | (set() if family(name) == "la" else convolutions)


@pytest.mark.parametrize("name", PUBLISHED)
def test_optimisers_and_schedules(name: str, place: Path) -> None:
    recipe = load(name, f"model.pretrained={tiny_encoder(place / 'encoder', name)}")
    optimiser = build_optimiser(build_model(recipe), recipe)
    [group] = optimiser.param_groups
    assert type(optimiser).__name__ == ("AdamW" if family(name) == "ctrsvdd" else "Adam")
    assert (group["weight_decay"], group["betas"]) == (1e-4, (0.9, 0.999))
    steps = 200
    factor = learning_rate_factor(recipe, steps)
    rates = [recipe.optimiser.learning_rate * factor(step) for step in range(recipe.epochs * steps + 1)]
    if family(name) == "la":
        assert set(rates) == {2.5e-7}
    elif family(name) == "asvspoof5":
        assert (rates[0], rates[-1]) == pytest.approx((1e-6, 1e-7))
        assert rates[50 * steps] == pytest.approx(5.5e-7)
    else:
        by_epoch = rates[::steps]
        assert by_epoch[:6] == pytest.approx(
            [1e-9 + (1e-6 - 1e-9) * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(6)]
        )
        assert (by_epoch[5], by_epoch[10], by_epoch[15]) == pytest.approx((1e-9, 1e-6, 1e-9))
        assert len(set(rates[3 * steps : 4 * steps])) == 1  # the rate changes only between epochs
        assert validated_epochs(recipe)[:8] == [1, 14, 15, 16, 24, 25, 26, 34]
    if family(name) != "ctrsvdd":
        assert validated_epochs(recipe) == list(range(11 if name == "asvspoof5" else 1, 101))


def test_losses_are_those_of_the_papers(place: Path) -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.25], [-3.0, 1.0], [0.0, 4.0]])
    labels = torch.tensor([0, 1, 1, 0])
    entropy = build_loss(load("asvspoof2021"))
    expected = F.cross_entropy(logits, labels, weight=torch.tensor([0.1, 0.9]))
    assert entropy(logits, labels) / entropy.weight(labels) == pytest.approx(float(expected), abs=1e-7)
    # Uneven parts add up to the whole, unlike a mean of their means.
    parts = [(entropy(logits[part], labels[part]), entropy.weight(labels[part])) for part in ([0, 1, 2], [3])]
    assert sum(p[0] for p in parts) / sum(p[1] for p in parts) == pytest.approx(float(expected), abs=1e-7)
    focal = build_loss(load("ctrsvdd_nes2net"))
    total = 0.0
    for (spoof, bonafide), label in zip(logits.tolist(), labels.tolist(), strict=True):
        target, p = (0.05, 0.95)[label], 1 / (1 + math.exp(spoof - bonafide))
        bce = -(target * math.log(p) + (1 - target) * math.log(1 - p))
        total += 0.25 * (1 - math.exp(-bce)) ** 2 * bce
    assert focal(logits, labels) / focal.weight(labels) == pytest.approx(total / 4, abs=1e-7)


def test_layers_learn_at_their_own_rates(place: Path) -> None:
    overrides = ["optimiser.encoder_learning_rate=1e-5", "optimiser.layer_decay=0.5", "optimiser.learning_rate=1e-3"]
    recipe = load("asvspoof2021", f"model.pretrained={tiny_encoder(place / 'encoder', 'asvspoof2021')}", *overrides)
    model = build_model(recipe)
    rate_of = {
        id(parameter): group["lr"]
        for group in build_optimiser(model, recipe).param_groups
        for parameter in group["params"]
    }
    rates = {name: rate_of.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert rates["classifier.weight"] == rates["nes2net.backend.norm_out.weight"] == 1e-3
    assert rates["nes2net.encoder.encoder.layers.1.attention.k_proj.weight"] == 1e-5
    assert rates["nes2net.encoder.encoder.layers.0.attention.k_proj.weight"] == 5e-6
    assert rates["nes2net.encoder.feature_extractor.conv_layers.0.conv.weight"] == 2.5e-6
    frozen = build_model(load_recipe(CONFIGS / "asvspoof2021.yaml", ["model.freeze=encoder",
                                     f"model.pretrained={recipe.model.pretrained}"]))  # fmt: skip
    learning = {name.split(".")[1] for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    assert learning == {"backend", "weight", "bias"}


def test_absent_noise_is_an_error_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = r"data\.augmentation: one_of: choices\[1\]: room: root data/RIRS_NOISES/simulated_rirs is not a folder"
    with pytest.raises(RecipeError, match=message):
        load("asvspoof5")


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_shipped_configurations(path: Path) -> None:
    """accelerate reads its configurations. They need GPUs or DeepSpeed, so they are not run here."""
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED"}
    assert config.distributed_type.value == kinds[path.stem] and config.num_processes > 1


@pytest.mark.slow
def test_the_debug_recipe_takes_seconds(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "training/train.py",
         "--config", "training/configs/debug.yaml", f"output={tmp_path / 'run'}"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert len((tmp_path / "run/steps.jsonl").read_text().splitlines()) == 4
    assert f"training finished: {tmp_path / 'run' / 'best'}" in answer.stdout and "best" not in answer.stdout.replace(
        "/best", ""
    )
    assert "dev_eer" not in answer.stdout and "threshold" not in answer.stdout


# Corpus → partition → protocol, form of a line (speaker, utterance, attack, label), and audio folder.
LAYOUTS: dict[str, dict[str, tuple[str, str, str]]] = {
    "asvspoof2019-la": {
        partition: (
            f"LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{partition}.{kind}.txt",
            "LA_{0:04} {1} - {2} {3}",
            f"LA/ASVspoof2019_LA_{partition}/flac/{{}}.flac",
        )
        for partition, kind in (("train", "trn"), ("dev", "trl"))
    },
    "partialspoof": {
        partition: (
            f"database/protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.{partition}.trl.txt",
            "LA_{0:04} {1} - {2} {3}",
            f"database/{partition}/con_wav/{{}}.wav",
        )
        for partition in ("train", "dev")
    },
    "asvspoof5": {
        "train": ("ASVspoof5.train.tsv", "T_{0:04} {1} F - - - AC1 {2} {3} -", "flac_T/{}.flac"),
        "dev": ("ASVspoof5.dev.track_1.tsv", "D_{0:04} {1} F - - - AC1 {2} {3} -", "flac_D/{}.flac"),
    },
    "ctrsvdd": {
        partition: (f"{partition}.txt", "m4singer S_{0:04} {1} - {2} {3}", f"{partition}_set/{{}}.flac")
        for partition in ("train", "dev")
    },
}


@pytest.fixture
def tree(place: Path, speech: list[np.ndarray]) -> Callable[[str], Path]:
    """Lays out a benchmark as published, with eight and six utterances of speech, and the same reversed."""

    def build(corpus: str) -> Path:
        root = place / corpus
        for partition, (protocol, form, audio) in LAYOUTS[corpus].items():
            lines = []
            for number in range(8 if partition == "train" else 6):
                spoof = number % 2 == 1
                wave = speech[number // 2][8_000:24_000]
                name = f"{partition[0].upper()}_{number:07}"
                label = {True: "deepfake" if corpus == "ctrsvdd" else "spoof", False: "bonafide"}[spoof]
                lines.append(form.format(number, name, "A01" if spoof else "-", label))
                path = root / audio.format(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, 0.1 * wave[::-1] if spoof else wave, 16_000)
            (root / protocol).parent.mkdir(parents=True, exist_ok=True)
            (root / protocol).write_text("\n".join(lines) + "\n")
        return root

    return build


def test_dev_keeps_the_order_of_its_protocol(tree: Callable[[str], Path]) -> None:
    """`validation.loss: batch_means` depends on it."""
    from nes2net_hf.trainer.opening import open_split

    root = tree("asvspoof2019-la")
    protocol = root / LAYOUTS["asvspoof2019-la"]["dev"][0]
    lines = protocol.read_text().splitlines()
    lines = [lines[row] for row in (4, 1, 0, 5, 2, 3)]
    protocol.write_text("\n".join(lines) + "\n")
    rows = open_split(load("asvspoof2021", f"data.root={root}").data, "dev")
    assert list(rows.utterances()) == [line.split()[1] for line in lines]


def evaluated(nes2net: Any, model: Path, corpus: str, root: Path, place: Path) -> Path:
    """The dev report of a briefly trained model."""
    answer = nes2net(
        "evaluate", place / "dev.parquet", "--model", model, "--corpus", corpus, "--root", root, "--split", "dev",
        "--condition", "all", "--resamples", 100, "--report", place / "report",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return place / "report" / "figures.json"


def released(nes2net: Any, name: str, place: Path, figures: Path) -> str:
    """The card of the run."""
    benchmarks = {
        "asvspoof2021": "asvspoof2021-la",
        "asvspoof2021_nes2net": "asvspoof2021-df",
        "asvspoof2021_val_aug": "in-the-wild",
    }
    benchmark = "ctrsvdd" if name in CTRSVDD else benchmarks.get(name, name)
    answer = nes2net(
        "release", place / "run", "--benchmark", benchmark, "--repo-id", "org/short", "--license", "Apache-2.0",
        "--evaluation", f"dev={figures}", "--dry-run", "--out", place / "released",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return (place / "released/README.md").read_text(encoding="utf-8")


def measured(card: str) -> str:
    """The part of a card with the results measured here."""
    part = card.split("## Figures measured here")[1].split("## Figures published by the authors")[0]
    assert "with these very weights" in part
    return "\n".join(line for line in part.splitlines() if line.startswith("|"))


def said_in(figures: Path) -> set[str]:
    """Every number in a file of results, formatted as in cards."""
    found: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)
        elif isinstance(value, (int, float)):
            found.update((f"{100 * value:.2f}", f"{value:.4f}"))

    collect(json.loads(figures.read_text(encoding="utf-8")))
    return found


def test_every_value_of_the_open_world_recipe_names_what_it_rests_on() -> None:
    written = yaml.safe_load((CONFIGS / "open_world.yaml").read_text(encoding="utf-8"))
    [section] = [
        one for one in RECIPES.read_text(encoding="utf-8").split("\n## ") if "`open_world`" in one.splitlines()[0]
    ]
    rows = re.findall(r"^\| `([\w.-]+)` \| `([^`]+)` \|", section, re.MULTILINE)
    said = {key: yaml.safe_load(value) for key, value in rows}
    for split in ("train", "dev"):
        corpora = written["data"][split].pop("corpora")
        assert corpora == {key.split(".")[-1]: said.pop(key) for key in list(said) if f"data.{split}." in key}
    assert said == {key: value for key, value in leaves(written).items() if key not in UNLISTED}
    assert "Not yet run" in section


OPEN_WORLD = {
    "asvspoof5": ["flac_T/T_1.flac", "flac_T/T_2.flac", "flac_D/D_1.flac", "flac_D/D_2.flac"],
    "spoofceleb": [
        f"spoofceleb/flac/{split}/{attack}/id1000{number}/x-00001.flac"
        for number, split in enumerate(("train", "development"))
        for attack in ("a00", "a07")
    ],
    "mlaad": ["fake/de/vits/a.wav", "de_DE/by_book/female/reader/book/wavs/b.wav"],
    "dfadd": [
        f"DATASET_{system}/{split}/p22{number}_001{number}.wav"
        for number, split in enumerate(("train", "valid"))
        for system in ("VCTK_BONAFIDE", "GradTTS")
    ],
    "codecfake-wu": [
        "genuine/p225_001.wav", "encodec/encodec+p225_001.wav", "genuine/p226_001.wav", "encodec/encodec+p226_001.wav",
    ],
}  # fmt: skip
OPEN_WORLD_TEXTS = {
    "asvspoof5/ASVspoof5.train.tsv": "T_1 T_1 F - - - AC1 - bonafide -\nT_1 T_2 F - - - AC1 A01 spoof -\n",
    "asvspoof5/ASVspoof5.dev.track_1.tsv": "D_1 D_1 F - - - AC1 - bonafide -\nD_1 D_2 F - - - AC1 A09 spoof -\n",
    "spoofceleb/spoofceleb/metadata/train.csv": "file,speaker,attack\na00/id10000/x-00001.flac,id10000,a00\n"
    "a07/id10000/x-00001.flac,id10000,a07\n",
    "spoofceleb/spoofceleb/metadata/development.csv": "file,speaker,attack\na00/id10001/x-00001.flac,id10001,a00\n"
    "a07/id10001/x-00001.flac,id10001,a07\n",
    "mlaad/fake/de/vits/meta.csv": "path|original_file|language|is_original_language|duration|training_data|"
    "model_name|architecture|transcript\n./fake/de/vits/a.wav|a|de|True|1|x|VITS|a|Ja\n",
    "codecfake-wu/datalist.csv": "wavpath,label,speaker,codec\ngenuine/p225_001.wav,genuine,p225,genuine\n"
    "encodec/encodec+p225_001.wav,spoof,p225,encodec\ngenuine/p226_001.wav,genuine,p226,genuine\n"
    "encodec/encodec+p226_001.wav,spoof,p226,encodec\n",
}


@pytest.mark.slow
def test_the_first_steps_of_the_open_world_recipe(tmp_path: Path, speech: list[np.ndarray]) -> None:
    """On its five corpora in their layouts, with a few seconds of speech and a small encoder."""
    for corpus, files in OPEN_WORLD.items():
        for number, file in enumerate(files):
            path = tmp_path / corpus / file
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech[number][: 16_000 + 4_000 * number], 16_000)
    for file, text in OPEN_WORLD_TEXTS.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    recipe = load(
        "open_world", f"model.pretrained={tiny_encoder(tmp_path / 'encoder', 'asvspoof2021')}", "batch_seconds=15",
        f"data.root={tmp_path}", f"output={tmp_path / 'run'}", "epochs=2", "data.mixing.utterances=30",
        "schedule.warmup_steps=1", "data.workers=0", "trackers=[]",
    )  # fmt: skip
    train(recipe)
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {f"train_loss/{name}" for name in OPEN_WORLD} <= {key for record in records for key in record}
    assert all(math.isfinite(record["dev_eer_mean"]) for record in records)
    extractor = json.loads((tmp_path / "run/best/preprocessor_config.json").read_text())
    assert (extractor["window_length"], extractor["length_policy"]) == (13 * 16_000, "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_recipe_trains_on_its_benchmarks_layout(
    name: str, tree: Callable[[str], Path], place: Path, nes2net: Any
) -> None:
    """A small encoder with a suitable rate and no augmentation learns a very small set."""
    encoder = tiny_encoder(place / "encoder", name)
    root = tree(load(name).data.corpus)
    recipe = load(
        name, f"model.pretrained={encoder}", f"data.root={root}", "batch_size=4", "epochs=24",
        "data.window_length=16000", "data.workers=0", "data.augmentation=[]", "optimiser.learning_rate=2e-3",
        "schedule.final_learning_rate=0", "validation.patience=null", "checkpoints.keep_best=1",
        f"output={place / 'run'}",
    )  # fmt: skip
    train(recipe)
    losses = [json.loads(line)["loss"] for line in (place / "run/steps.jsonl").read_text().splitlines()]
    assert len(losses) == 48 and np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])
    assert (place / "run/best/model.safetensors").is_file() and (place / "run/curves.png").is_file()
    assert list((place / "run/nes2net").glob("events*"))
    judged = evaluated(nes2net, place / "run/best", load(name).data.corpus, root, place)
    assert set(re.findall(r"\d+\.\d\d+", measured(released(nes2net, name, place, judged)))) <= said_in(judged)
    # Then one step with the recipe's own augmentation.
    recipe = load(
        name, f"model.pretrained={encoder}", f"data.root={root}", "batch_size=4", "epochs=1",
        "data.workers=2", f"output={place / 'augmented'}", "trackers=[]",
    )  # fmt: skip
    train(recipe)
