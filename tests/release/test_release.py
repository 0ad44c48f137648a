"""A run becomes a folder that works alone, with a card that claims only what was measured, and goes to the Hub."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from huggingface_hub import ModelCard

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioFrameClassification, __version__
from nes2net_hf.cards import sources
from nes2net_hf.pretrained.bases import check_license, describe_base, write_base
from nes2net_hf.pretrained.fingerprint import fingerprint
from nes2net_hf.pretrained.load import DEMO_MODEL, load_model
from nes2net_hf.release.card import ReleaseError, benchmarks, hub_license, write_card
from nes2net_hf.release.contents import check_contents, checksums, without_paths
from nes2net_hf.release.trial import Tried
from nes2net_hf.samples import FOLDER as SAMPLES
from tests.helpers import FIXTURES, at, lively, tiny_config
from tests.loopback_hub import TOKEN, LoopbackHub

REPO = "org/nes2net-tiny"


AS = ("--benchmark", "asvspoof2021-la", "--repo-id", REPO, "--license", "Apache-2.0")


def figures() -> list[dict[str, Any]]:
    """Figures as `nes2net evaluate --report` writes them."""
    intervals = {"eer": [0.05, 0.09], "min_dcf": [0.1, 0.3], "act_dcf": [0.2, 0.4], "cllr": [0.25, 0.35]}
    row = {"group": "attack", "value": "A07", "n_bonafide": 100, "n_spoof": 60, "eer": 0.0625, "min_dcf": 0.1234}
    return [
        {
            "name": "scores", "scored": {}, "n_bonafide": 100, "n_spoof": 900, "eer": 0.0717, "min_dcf": 0.2,
            "act_dcf": 0.3, "cllr": 0.3, "min_cllr": 0.22, "auc": 0.97, "intervals": intervals,
            "interval_unit": "speaker", "costs": {"miss": 1.0, "false_alarm": 10.0, "spoof_prior": 0.05},
            "breakdown": [row | {"eer_interval": [0.01, 0.11]}], "warnings": [],
        }
    ]  # fmt: skip


@pytest.fixture
def run_folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """The folder of a run: best model, curve, and a recipe that names local folders."""
    run = tmp_path / "run"
    shutil.copytree(tiny_model_dir, run / "best")
    recipe = {"output": str(run), "data": {"corpus": "own-data", "root": str(tmp_path / "voices" / "manifest.csv")}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    lines = [
        {"epoch": 1, "step": 5, "train_loss": 0.7, "dev_eer": 0.25, "seconds": 60.0},
        {"epoch": 2, "step": 9, "train_loss": 0.6, "dev_eer": 0.125, "seconds": 120.0},
        {"epoch": 3, "step": 14, "train_loss": 0.5, "dev_eer": 0.2, "seconds": 120.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return run


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is not scored in a process of its own, which takes seconds: other tests do that."""
    monkeypatch.setattr(
        "nes2net_hf.release.release.try_folder", lambda _, expected: Tried(expected, dict.fromkeys(expected, 0.0))
    )


def test_a_dry_run_writes_a_folder_whose_card_the_hub_reads(nes2net: Any, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text(json.dumps(figures()), encoding="utf-8")
    out = tmp_path / "released"
    more = ("--evaluation", tmp_path / "figures.json", "--dataset", "org/voices", "--dry-run", "--out", out)
    run = nes2net("release", run_folder, *AS, *more)
    assert run.code == 0, run.err
    assert "nothing was sent" in run.out and "private" in run.out
    assert set(checksums(out)) == {
        "README.md", "LICENSE", "config.json", "preprocessor_config.json", "model.safetensors", "recipe.yaml",
        "metrics.jsonl", "evaluation/asvspoof2021-la.json", "configuration_nes2net.py", "modeling_nes2net.py",
        "feature_extraction_nes2net.py", "handler.py", "requirements.txt",
    }  # fmt: skip
    assert all(digest[:16] in run.out and name in run.out for name, (_, digest) in checksums(out).items())

    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "audio-classification")
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["org/voices"])
    found = {one.metric_type: one for one in card.data.eval_results or []}
    assert found["eer"].metric_value == 7.17 and found["cllr"].metric_value == 0.3
    assert found["eer"].dataset_type == "asvspoof2021-la" and found["eer"].dataset_name == "ASVspoof 2021 LA"
    measured, published = card.text.split("## Figures measured here")[1].split("## Figures published by the authors")
    assert "| EER, % | 7.17 | 5.00 to 9.00 |" in measured and "| A07 | 100 | 60 | 6.25 | 1.00 to 11.00 |" in measured
    assert "eval: Nes2Net-X | 1.73 | 1.95" in published and "1.73" not in measured and "7.17" not in published
    assert "3 epochs in 5.0 minutes" in card.text and "was 2,\nwith 12.50 % EER" in card.text
    assert "Not calibrated" in card.text and "has no threshold of its own" in card.text
    assert f'model="{REPO}"' in card.text and "@article{liu2025nes2net" in card.text
    recipe = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe == {"data": {"corpus": "own-data", "root": "manifest.csv"}, "output": "run"}
    assert not [path for path in out.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]


@pytest.mark.usefixtures("untried")
def test_training_corpora_and_what_their_licences_allow_are_said(
    nes2net: Any, run_folder: Path, tmp_path: Path
) -> None:
    mixed = {"mlaad": {"corpus": None, "root": "/data/mlaad"}, "mine": {"corpus": "own-data"}, "dfadd": None}
    recipe = {"data": {"corpus": "own-data", "train": {"corpora": mixed}}}
    (run_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for license, warned in (("Apache-2.0", True), ("CC-BY-NC-4.0", False)):
        (tmp_path / "text").write_text("The licence.")
        more = ("--license", license, "--license-file", tmp_path / "text", "--out", tmp_path / license)
        run = nes2net("release", run_folder, "--repo-id", REPO, "--dry-run", *more)
        assert run.code == 0, run.err
        warning = f"Warning: --license {license}: these weights were trained on MLAAD with M-AILABS. Its licence is"
        assert (warning in run.err) == warned and "DFADD" not in run.err
        text = ModelCard.load(tmp_path / license / "README.md").text
        assert "Corpora `mlaad`, `own-data`, `dfadd`, as the recipe below reads them." in text
        assert "may be published for non-commercial use only" in text and "The corpus `own-data` is not one" in text
        assert "Its licence is MIT (read at its source)." in text


def base_of(folder: Path, license: str | None, **config: Any) -> Path:
    """The folder of a base model, with a card."""
    folder.mkdir()
    content = json.loads((DEMO_MODEL / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(content))
    named = f"license: {license}\n" if license else ""
    limits = "## Limits\n\n- Knows two\n  voices.\n- Deaf in one ear.\n\n## Citation\n"
    (folder / "README.md").write_text(f"---\n{named}tags: [x]\n---\n\n# Base\n\n{limits}")
    return folder


OWN = ("--repo-id", REPO, "--dry-run", "--license")


@pytest.mark.parametrize(
    ("base", "license", "refused"),
    [
        ("gpl-3.0", "Apache-2.0", "which is under GPL-3.0-only: choose GPL-3.0-only, or ask its publisher"),
        ("gpl-3.0", "GPL-3.0-only", None),
        ("gpl-3.0", "GPL-3.0", None),
        ("GPL-3.0-or-later", "MIT", "choose GPL-3.0-only or GPL-3.0-or-later"),
        ("cc-by-nc-4.0", "Apache-2.0", "choose CC-BY-NC-4.0 or CC-BY-NC-SA-4.0"),
        ("cc-by-nc-nd-4.0", "Apache-2.0", "we know of no licence that is possible"),
        ("openrail", "Apache-2.0", "choose openrail"),
        ("apache-2.0", "GPL-3.0-only", None),
        (None, "Apache-2.0", None),
    ],
)
def test_a_licence_follows_from_that_of_the_base(
    base: str | None, license: str, refused: str | None, tmp_path: Path
) -> None:
    bases = [*describe_base(str(base_of(tmp_path / "base", base))).chain()]
    if refused is None:
        check_license(license, bases)
    else:
        with pytest.raises(ReleaseError, match=refused):
            check_license(license, bases)


def test_a_licence_follows_from_all_that_training_began_with(tmp_path: Path) -> None:
    first = base_of(tmp_path / "first", "gpl-3.0")
    second = base_of(tmp_path / "second", None)
    write_base(describe_base(str(first)), second)
    found = [*describe_base(str(second)).chain()]
    assert [(one.name, one.license) for one in found] == [("second", None), ("first", "GPL-3.0-only")]
    with pytest.raises(ReleaseError, match=r"these weights were trained from first, which is under GPL-3\.0-only"):
        check_license("MIT", found)


@pytest.mark.usefixtures("untried")
def test_own_data_without_a_benchmark_and_a_base_that_has_moved(
    nes2net: Any, run_folder: Path, tmp_path: Path
) -> None:
    base = base_of(tmp_path / "nes2net-demo", "gpl-3.0", demonstration=True)
    write_base(describe_base(str(base)), run_folder / "best")
    shutil.rmtree(base)
    run = nes2net("release", run_folder, *OWN, "Apache-2.0", "--out", tmp_path / "refused")
    assert run.code == 1 and "these weights were trained from nes2net-demo, which is under GPL-3.0-only" in run.err
    assert run.err.count("\n") == 1 and not (tmp_path / "refused").exists()
    (tmp_path / "figures.json").write_text(json.dumps(figures()), encoding="utf-8")
    more = ("--evaluation", tmp_path / "figures.json", "--out", tmp_path / "out")
    run = nes2net("release", run_folder, *OWN, "GPL-3.0-only", *more)
    assert run.code == 0, run.err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "gpl-3.0" and "Figures published by the authors" not in card.text
    assert "`nes2net-demo` is a demonstration model: do not rely on it." in card.text
    assert "> - Knows two voices.\n> - Deaf in one ear.\n" in card.text
    own = card.text.replace(card.text.split("## What it was trained from")[1].split("## Recipe")[0], "")
    assert "demonstration" not in own and "blind" not in own and "Deaf" not in own
    assert (tmp_path / "out" / "evaluation" / "own-data.json").is_file()
    again = nes2net("release", tmp_path / "out", *OWN, "MIT", "--out", tmp_path / "again")
    assert again.code == 1 and "which is under GPL-3.0-only" in again.err


@pytest.mark.usefixtures("untried")
def test_a_run_of_0_1_0_is_asked_where_it_began(nes2net: Any, run_folder: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((run_folder / "recipe.yaml").read_text())
    for license, says in (("gpl-3.0", None), (None, "Its licence is not known here: ask its publisher")):
        base = base_of(tmp_path / f"base-{license}", license)
        (run_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"model": {"pretrained": str(base)}}))
        run = nes2net("release", run_folder, *OWN, "Apache-2.0", "--out", tmp_path / "out", "--force")
        assert (run.code == 1 and "under GPL-3.0-only" in run.err) if says is None else run.code == 0, run.err
    assert says in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("untried")
def test_a_demonstration_model_says_so_whatever_it_is_released_for(
    nes2net: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"demonstration": True}))
    run = nes2net("release", tmp_path / "model", *OWN, "Apache-2.0", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    text = (tmp_path / "out" / "README.md").read_text()
    assert "**A demonstration model, not fit for decisions." in text and "- It learnt from a few dozen" in text


@pytest.mark.usefixtures("untried")
def test_a_model_without_a_run_says_what_is_not_known(nes2net: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    config = json.loads((model / "config.json").read_text())
    calibration = {"scale": 0.5, "offset": -1.25, "prior": 0.5, "provenance": {"root": "/srv/corpora/manifest.csv"}}
    (model / "config.json").write_text(json.dumps(config | {"calibration": calibration, "threshold": 2.5}))
    out = tmp_path / "released"
    run = nes2net("release", model, *AS, "--dtype", "bfloat16", "--dry-run", "--out", out)
    assert run.code == 0, run.err
    card = ModelCard.load(out / "README.md")
    assert "What it was trained on is not known here" in card.text
    assert "Nothing was measured for this release." in card.text and card.data.eval_results is None
    assert "0.5 · score +\n-1.25" in card.text and "scores of 2.5 and higher are bona fide" in card.text
    released = json.loads((out / "config.json").read_text())
    assert released["calibration"]["provenance"]["root"] == "manifest.csv" and released["dtype"] == "bfloat16"
    assert (out / "model.safetensors").stat().st_size < 0.6 * (model / "model.safetensors").stat().st_size


def test_a_folder_that_version_0_1_0_released_gives_its_scores(nes2net: Any) -> None:
    expected = json.loads((FIXTURES / "released_scores.json").read_text(encoding="utf-8"))
    recordings = [FIXTURES / "released_samples" / f"{name}.flac" for name in expected]
    rows = nes2net("detect", *recordings, "--model", FIXTURES / "released", "--device", "cpu").rows
    for row, then in zip(rows, expected.values(), strict=True):
        assert row["score"] == pytest.approx(then["score"], abs=1e-5)
        assert row["llr"] == pytest.approx(then["llr"], abs=1e-5)
        assert row["threshold"] == 0.25 and row["label"] == "spoof"


@pytest.mark.slow
def test_and_so_does_the_code_in_it(tmp_path: Path) -> None:
    expected = json.loads((FIXTURES / "released_scores.json").read_text(encoding="utf-8"))
    for name, then in expected.items():
        np.save(
            tmp_path / "sample.npy", soundfile.read(FIXTURES / "released_samples" / f"{name}.flac", dtype="float32")[0]
        )
        answer = subprocess.run(
            [sys.executable, "-c", PIPELINE, str(FIXTURES / "released"), str(tmp_path / "sample.npy")],
            capture_output=True, text=True, check=True, env={**os.environ, "HF_MODULES_CACHE": str(tmp_path)},
        )  # fmt: skip
        logits = {row["label"]: row["score"] for row in json.loads(answer.stdout.splitlines()[-1])}
        assert logits["bonafide"] - logits["spoof"] == pytest.approx(then["first_window"], abs=1e-5)


def scored(weights: str) -> dict[str, Any]:
    """What `training/score.py` stores in a Parquet of scores, and `nes2net evaluate` in its figures."""
    return {"model": "tiny", "weights": weights, "dtype": "float32", "corpus": "in-the-wild", "split": "eval",
            "all_windows": False}  # fmt: skip


@pytest.mark.usefixtures("untried")
def test_figures_and_robustness_are_of_these_weights_or_refused(
    nes2net: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    weights = fingerprint(*load_model(tiny_model_dir, None, torch.device("cpu"), "float32"))
    report, robustness = tmp_path / "report", tmp_path / "robustness"
    for folder, picture in ((report, "breakdown.png"), (robustness, "robustness.png")):
        folder.mkdir()
        shutil.copyfile(Path(__file__).parents[2] / "model_cards" / "images" / "detect-plot.png", folder / picture)
    clean = {"group": "clean", "condition": "as it is", "eer": 0.2, "low": 0.1, "high": 0.3}
    noisy = [
        {"group": "white noise", "condition": f"{ratio} dB", "eer": eer, "low": eer - 0.05, "high": eer + 0.05}
        for ratio, eer in ((20, 0.25), (0, 0.4567), (10, 0.3))
    ]
    lost = {"group": "cut", "condition": "0.5 s", "eer": None, "low": None, "high": None}
    command = f"nes2net robustness {tmp_path}/model --root /srv/itw"
    found = {
        "weights": weights,
        "command": command,
        "corpus": "own-data",
        "split": None,
        "bonafide": 1200,
        "spoof": 30,
    }
    found["conditions"] = [clean, *noisy, lost]
    (report / "figures.json").write_text(json.dumps([figures()[0] | {"scored": scored(weights)}]))
    (robustness / "robustness.json").write_text(json.dumps(found))
    audit = tmp_path / "audit"
    audit.mkdir()
    heard = {"group": "parts", "condition": "non-speech only", "eer": 0.31, "low": 0.25, "high": 0.37, "shift": 0.4}
    cue = {"cue": "silence", "eer": 0.15, "low": 0.1, "high": 0.2, "leaks": True}
    audited = {key: found[key] for key in ("weights", "corpus", "bonafide", "spoof")}
    audited |= {"cues": [cue], "across_partitions": 3, "conditions": [heard, lost | {"shift": None}]}
    (audit / "audit.json").write_text(json.dumps(audited))
    arguments = (
        "--evaluation", report / "figures.json", "--robustness", robustness, "--audit", audit, "--dry-run", "--out"
    )  # fmt: skip
    run = nes2net("release", tiny_model_dir, *AS, *arguments, tmp_path / "out")
    assert run.code == 0, run.err
    text = ModelCard.load(tmp_path / "out" / "README.md").text
    assert "with these very weights" in text and "corpus\n`in-the-wild`, split `eval`" in text
    assert "![EER by group of trials, with 95 % intervals](evaluation/asvspoof2021-la-breakdown.png)" in text
    assert "1,200 bona fide and 30 spoofed utterances of `own-data`" in text
    assert "| white noise | 0 dB | 45.67 | 40.67 to 50.67 |" in text and "| white noise | 20 dB" not in text
    assert "| parts | non-speech only | 31.00 | 25.00 to 37.00 | 0.40 |" in text and "silence (15.0 %)" in text
    assert "3 pairs of duplicates are in different partitions" in text and (tmp_path / "out" / "audit.json").is_file()
    assert "| clean | as it is | 20.00 | 10.00 to 30.00 |" in text and "(robustness.png)" in text
    kept = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert kept["command"] == "nes2net robustness model --root itw"

    (report / "figures.json").write_text(json.dumps([figures()[0] | {"scored": scored("0" * 32)}]))
    run = nes2net("release", tiny_model_dir, *AS, *arguments, tmp_path / "other")
    assert run.code == 1 and "has the figures of other weights, those of tiny" in run.err
    (report / "figures.json").write_text(json.dumps(figures()))
    (robustness / "robustness.json").write_text(json.dumps(found | {"weights": "0" * 32}))
    run = nes2net("release", tiny_model_dir, *AS, *arguments, tmp_path / "other")
    assert run.code == 1 and "was measured with other weights" in run.err
    assert not (tmp_path / "other").exists()


def test_a_calibrated_model_has_the_fingerprint_that_it_had(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    network, extractor = load_model(model, None, torch.device("cpu"), "float32")
    before = fingerprint(network, extractor)
    network.config.threshold = 1.5
    network.config.calibration = {"scale": 0.5, "offset": -1.25, "prior": 0.5, "provenance": {}}
    assert fingerprint(network, extractor) == before
    network.config.dilation += 1
    assert fingerprint(network, extractor) != before


@pytest.mark.slow
def test_a_model_of_frames_is_released_too(nes2net: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = lively(Nes2NetForAudioFrameClassification(tiny_config(layer_aggregation="weighted_sum")))
    network.save_pretrained(tmp_path / "model")
    Nes2NetFeatureExtractor().save_pretrained(tmp_path / "model")
    benchmark = (
        "--benchmark",
        "partialspoof",
        "--repo-id",
        REPO,
        "--license",
        "MIT",
        "--license-file",
        sources() / "release.md",
    )
    run = nes2net("release", tmp_path / "model", *benchmark, "--dry-run", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.pipeline_tag is None and "AutoModelForAudioFrameClassification" in card.text
    assert "bonafide: " in run.out and "difference from the source" in run.out


@pytest.mark.usefixtures("untried")
def test_carbon_is_that_of_codecarbon(nes2net: Any, run_folder: Path, tmp_path: Path) -> None:
    lines = ["timestamp,emissions,duration,latitude", "x,0.0125,60,48.1", "y,0.01,60,48.1", ""]
    (run_folder / "emissions.csv").write_text("\n".join(lines))
    run = nes2net("release", run_folder, *AS, "--dry-run", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "Carbon: 22.5 g CO2 equivalent" in card.text
    kept = (tmp_path / "out" / "emissions.csv").read_text().split()
    assert kept == ["emissions,duration", "0.0125,60", "0.01,60"]
    assert card.data.to_dict()["co2_eq_emissions"] == {"emissions": 22.5, "source": "codecarbon"}
    (run_folder / "emissions.csv").write_text("a,b\n1,2\n")
    run = nes2net("release", run_folder, *AS, "--dry-run", "--out", tmp_path / "other")
    assert run.code == 1 and "emissions.csv has no column `emissions`" in run.err


@pytest.mark.usefixtures("untried")
def test_an_endpoint_judges_the_bytes_of_a_recording(nes2net: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Hugging Face endpoints load `handler.py` from the folder and call its `EndpointHandler`."""
    run = nes2net("release", tiny_model_dir, *AS, "--dry-run", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    assert (tmp_path / "out" / "requirements.txt").read_text() == f"nes2net_hf=={__version__}\n"
    specification = importlib.util.spec_from_file_location("handler", tmp_path / "out" / "handler.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    handler = module.EndpointHandler(str(tmp_path / "out"))
    recording = SAMPLES / "spoof.flac"
    [expected] = nes2net("detect", recording, "--model", tiny_model_dir, "--device", "cpu").rows
    for inputs in (recording.read_bytes(), base64.b64encode(recording.read_bytes()).decode()):
        answer = json.loads(json.dumps(handler({"inputs": inputs})))
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-5) and answer["error"] is None
    assert "not an audio or video file" in handler({"inputs": b"no audio"})["error"]
    for data, message in (({}, "`inputs` is missing"), ({"inputs": "*"}, "`inputs` is not base64")):
        assert message in handler(data)["error"]


@pytest.mark.usefixtures("untried")
def test_a_space_is_written_beside(nes2net: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    run = nes2net("release", tiny_model_dir, *AS, "--space", "--dry-run", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    assert f"{tmp_path / 'out-space'}: would be sent as the Space {REPO}, private." in run.out
    assert f"serve(['{REPO}']" in (tmp_path / "out-space" / "app.py").read_text()


@pytest.mark.parametrize("benchmark", benchmarks())
def test_every_benchmark_makes_a_card(benchmark: str, nes2net: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    network, _ = load_model(tiny_model_dir, None, torch.device("cpu"), "float32")
    write_card(
        tmp_path,
        network,
        repo_id=REPO,
        benchmark=benchmark,
        license="MIT",
        dtype="float32",
        evaluations=[],
        datasets=[],
    )  # type: ignore[arg-type]
    content = yaml.safe_load((sources() / "benchmarks" / f"{benchmark}.yaml").read_text(encoding="utf-8"))
    text = ModelCard.load(tmp_path / "README.md").text
    assert content["note"].strip() in text and content["covers"].strip() in text
    assert all(f"- {limit.strip()}" in text for limit in content["limits"])
    assert "A demonstration model" not in text and "blind" not in text  # only the demonstration model is one
    for condition in content["conditions"]:
        for variant, values in condition["figures"].items():
            cells = " | ".join(f"{value:.2f}" for value in values)
            assert f"| {condition['name']}: {variant} | {cells} |" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--benchmark", "asvspoof2020"), 1, "--benchmark asvspoof2020 is not known: choose one of add2022"),
        (("--repo-id", "nes2net"), 2, "must have the form ORG/NAME"),
        (("--license", "EUPL-1.2"), 1, "--license EUPL-1.2: the package includes only"),
        (("--evaluation", "absent.json"), 1, "absent.json cannot be read"),
        (("--evaluation", "{broken}"), 1, "lacks cllr: run nes2net evaluate --report again"),
        (("--evaluation", "{two}"), 1, "must have the figures of one system"),
    ],
)
def test_what_cannot_be_released_is_said_in_a_sentence_and_leaves_nothing(
    arguments: tuple[str, str], code: int, message: str, nes2net: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    broken = [{key: value for key, value in figures()[0].items() if key != "cllr"}]
    for name, content in (("broken", broken), ("two", 2 * figures())):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    places = {name: str(tmp_path / f"{name}.json") for name in ("broken", "two")}
    option, value = arguments
    run = nes2net(
        "release", tiny_model_dir, *AS, "--dry-run", "--out", tmp_path / "out", option, value.format(**places)
    )
    assert run.code == code and message in run.err and run.err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_a_folder_that_is_there_is_replaced_only_when_asked(
    nes2net: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    run = nes2net("release", tiny_model_dir, *AS, "--dry-run", "--out", out)
    assert run.code == 2 and "exists: remove it" in run.err
    run = nes2net("release", tiny_model_dir, *AS, "--dry-run", "--out", out, "--force")
    assert run.code == 2 and "was not written by nes2net release" in run.err
    assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"by hf_" + b"a1B2" * 9, "access token"),
        ("notes.md", b"trained on /srv/voices/manifest.csv", "path of this machine, /srv/voices/manifest.csv"),
        ("notes.md", b"D:\\voices", "path of this machine"),
        ("state.dat", b"\x80\x04\x95", "is a pickle"),
        ("weights.bin", b"", "is a pickle"),
    ],
)
def test_pickles_tokens_and_paths_are_not_sent(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "fine.md").write_text("see https://arxiv.org/abs/2504.05657, tables 3/4, and/or `data/train.csv`")
    check_contents(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReleaseError, match=message.replace("\\", "\\\\")):
        check_contents(tmp_path)


def test_licences_are_named_as_the_hub_names_them() -> None:
    assert hub_license("GPL-3.0-only") == {"license": "gpl-3.0"}
    assert hub_license("LicenseRef-Ours") == {
        "license": "other",
        "license_name": "licenseref-ours",
        "license_link": "LICENSE",
    }


def test_paths_are_cut_to_their_last_part() -> None:
    assert without_paths({"a": ["/x/y/z.csv", "~/w", "hf://datasets/org/name", 3]}) == {
        "a": ["z.csv", "w", "hf://datasets/org/name", 3]
    }


@pytest.mark.slow
def test_a_folder_that_scores_otherwise_is_refused(
    nes2net: Any, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nes2net_hf.release import trial

    other = tmp_path / "other.py"
    other.write_text(trial.SCRIPT.read_text().replace("scores[name] =", "scores[name] = 0.001 +"))
    monkeypatch.setattr(trial, "SCRIPT", other)
    run = nes2net("release", tiny_model_dir, *AS, "--dry-run", "--out", tmp_path / "out")
    assert run.code == 1 and "scores the sample" in run.err and not list(tmp_path.glob("out*"))


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


def release_to(hub: LoopbackHub, scratch: Path, model: Path, *more: Any, token: str | None = TOKEN) -> Any:
    answer = at(hub, scratch, "-m", "nes2net_cli", "release", model, *AS, *more, token=token)
    assert "Traceback" not in answer.stderr
    return answer


PIPELINE = """
import json, sys
sys.modules["nes2net_hf"] = None
import numpy as np
from transformers import pipeline
revision = sys.argv[3] if len(sys.argv) > 3 else None
classify = pipeline("audio-classification", model=sys.argv[1], revision=revision, trust_remote_code=True)
print(json.dumps(classify(np.load(sys.argv[2]), function_to_apply="none")))
"""


@pytest.mark.slow
def test_a_release_is_private_and_the_pipeline_takes_it_from_the_hub(
    hub: LoopbackHub, tiny_model_dir: Path, tmp_path: Path, speech: list[np.ndarray]
) -> None:
    answer = release_to(hub, tmp_path, tiny_model_dir, "--out", tmp_path / "kept", "--space")
    assert answer.returncode == 0, answer.stderr
    assert f"{hub.endpoint}/{REPO}\n" in answer.stdout
    space = hub.repos[f"spaces/{REPO}"]
    assert space.private and f"serve(['{REPO}']" in hub.files(f"spaces/{REPO}")["app.py"].decode()
    assert hub.repos[REPO].private and len(hub.repos[REPO].commits) == 2
    sent = {name: content for name, content in hub.files(REPO).items() if name != ".gitattributes"}
    assert sent == {path.relative_to(tmp_path / "kept").as_posix(): path.read_bytes()
                    for path in (tmp_path / "kept").rglob("*") if path.is_file()}  # fmt: skip

    np.save(tmp_path / "speech.npy", speech[0])
    local = at(hub, tmp_path, "-c", PIPELINE, tiny_model_dir, tmp_path / "speech.npy")
    remote = at(hub, tmp_path, "-c", PIPELINE, REPO, tmp_path / "speech.npy")
    assert remote.returncode == 0, remote.stderr
    here, there = ({row["label"]: row["score"] for row in json.loads(answer.stdout.splitlines()[-1])}
                   for answer in (local, remote))  # fmt: skip
    assert there == pytest.approx(here)
    stranger = at(hub, tmp_path / "other", "-m", "nes2net_cli", "detect", "--demo", "--model", REPO, token=None)
    assert stranger.returncode == 2 and "or it is private" in stranger.stderr and "Traceback" not in stranger.stderr


PUSH_TWICE = """
import sys
from huggingface_hub import HfApi
from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification
model = Nes2NetForAudioClassification.from_pretrained(sys.argv[1])
model.push_to_hub(sys.argv[2], private=True)
Nes2NetFeatureExtractor.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
HfApi().create_tag(sys.argv[2], tag="first")
model.config.threshold = 1.5
model.classifier.bias.data += 3.0
model.push_to_hub(sys.argv[2])
for revision in ("first", "main"):
    loaded = Nes2NetForAudioClassification.from_pretrained(sys.argv[2], revision=revision)
    print(revision, loaded.config.threshold, round(float((loaded.classifier.bias - model.classifier.bias).mean()), 4))
"""


@pytest.mark.slow
def test_push_to_hub_and_revisions(hub: LoopbackHub, tiny_model_dir: Path, tmp_path: Path) -> None:
    answer = at(hub, tmp_path, "-c", PUSH_TWICE, tiny_model_dir, REPO)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-2:] == ["first None -3.0", "main 1.5 0.0"]
    assert {"modeling_nes2net.py", "feature_extraction_nes2net.py", "README.md"} <= hub.files(REPO).keys()
    detect = (at(hub, tmp_path, "-m", "nes2net_cli", "detect", "--demo", "--model", REPO, "--format", "jsonl",
                 "--revision", revision) for revision in ("first", "main", "second"))  # fmt: skip
    first, main, absent = detect
    thresholds = [json.loads(one.stdout.splitlines()[0])["threshold"] for one in (first, main)]
    assert thresholds == [0, 1.5]
    assert absent.returncode == 2 and "it has no such revision" in absent.stderr


@pytest.mark.slow
def test_a_refused_token_is_one_sentence(hub: LoopbackHub, tiny_model_dir: Path, tmp_path: Path) -> None:
    answer = release_to(hub, tmp_path, tiny_model_dir, token="another")
    assert answer.returncode == 1 and not hub.repos
    assert answer.stderr == (
        f"Error: {REPO} could not be sent: the Hub refused the token: log in with `hf auth login`, and a token that "
        "may write to org.\n"
    )


@pytest.mark.slow
def test_a_dropped_upload_is_taken_up_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    with LoopbackHub(drop_uploads=1) as hub:
        answer = release_to(hub, tmp_path, tiny_model_dir)
        assert answer.returncode == 0, answer.stderr
        puts = [path for method, path in hub.calls if method == "PUT"]
        assert len(puts) == 2 and puts[0] == puts[1] and len(hub.objects) == 1
        hub.calls.clear()
        assert release_to(hub, tmp_path, tiny_model_dir).returncode == 0
        assert not [path for method, path in hub.calls if method == "PUT"]


@pytest.mark.slow
def test_what_is_public_is_not_written_to_unasked(hub: LoopbackHub, tiny_model_dir: Path, tmp_path: Path) -> None:
    assert release_to(hub, tmp_path, tiny_model_dir, "--public").returncode == 0
    assert not hub.repos[REPO].private
    answer = release_to(hub, tmp_path, tiny_model_dir)
    assert answer.returncode == 1 and "on the Hub already, and public" in answer.stderr
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize(
    ("name", "license"),
    [
        ("facebook/mms-300m", "CC-BY-NC-4.0"),
        ("utter-project/mHuBERT-147", "CC-BY-NC-SA-4.0"),
        ("nii-yamagishilab/xls-r-1b-anti-deepfake-nda", "CC-BY-NC-SA-4.0"),
        ("somebody/mms-300m", None),
    ],
)
def test_restrictive_licences_of_encoders_are_known_without_their_cards(name: str, license: str | None) -> None:
    assert describe_base(name).license == license
