"""The bundled demonstration model: whole, small, honest about itself, and right about the bundled samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nes2net_hf
from nes2net_hf import Nes2NetForAudioClassification, detect

PACKAGE = Path(nes2net_hf.__file__).parent
MODEL = PACKAGE / "models" / "nes2net-demo"


def test_folder_is_small_and_holds_no_pickle() -> None:
    files = [path for path in MODEL.iterdir() if path.is_file()]  # pip leaves a folder of compiled code beside them
    assert sum(path.stat().st_size for path in files) < 10e6
    assert {path.suffix for path in files} == {".json", ".md", ".png", ".py", ".safetensors"}


@pytest.mark.parametrize("name", ["configuration_nes2net.py", "modeling_nes2net.py", "feature_extraction_nes2net.py"])
def test_code_that_travels_with_it_is_the_package_s_own(name: str) -> None:
    assert (MODEL / name).read_text(encoding="utf-8") == (PACKAGE / name).read_text(encoding="utf-8"), (
        f"copy src/nes2net_hf/{name} into {MODEL.name}"
    )


def test_every_weight_is_there_and_used() -> None:
    _, info = Nes2NetForAudioClassification.from_pretrained(MODEL, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_it_judges_the_bundled_samples() -> None:
    results = detect([PACKAGE / "samples" / "bonafide.flac", PACKAGE / "samples" / "spoof.flac"])
    assert [result.label for result in results] == ["bonafide", "spoof"]


def test_the_corpus_does_not_leak_and_the_model_is_better_than_the_trivial_baseline() -> None:
    rows = json.loads((MODEL / "evaluation.json").read_text(encoding="utf-8"))
    compared = {(row["trials"], row["name"]): row for row in rows if row["baseline"]}
    assert len(compared) > 20 and len(rows) > len(compared)  # the baseline is not measured through MP3
    assert all(row["baseline"]["estimate"] >= 0.35 for row in compared.values())
    assert all(row["model"]["estimate"] < row["baseline"]["estimate"] for row in compared.values())
    for pooled in ("all seen attacks", "all unseen attacks"):
        assert compared["test", pooled]["model"]["high"] < compared["test", pooled]["baseline"]["low"]


def test_it_hears_neural_speech_that_it_was_not_trained_on() -> None:
    rows = json.loads((MODEL / "evaluation.json").read_text(encoding="utf-8"))
    found = {row["name"]: row for row in rows if row["trials"] == "test"}
    for name in ("unseen: piper-joe", "unseen styles: kokoro-unseen"):
        assert found[name]["model"]["high"] < found[name]["previous"]["low"]


def test_its_card_shows_every_measured_figure() -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    assert "do not rely on its verdicts" in card and "$" not in card
    for row in json.loads((MODEL / "evaluation.json").read_text(encoding="utf-8")):
        assert f"| {row['name']} | {row['bonafide']} | {row['spoof']} | {100 * row['model']['estimate']:.1f} " in card
