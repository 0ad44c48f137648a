"""How the demonstration model is evaluated: which trials, which rows, and scores that `nes2net evaluate` reads."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parents[2] / "training/demo"))

pytest.importorskip("sklearn")

from corpus import evaluation
from corpus.manifest import read_manifest

from nes2net_hf.pretrained.places import DEMO_MODEL

AUDIO = Path(__file__).parents[1] / "fixtures/audio"


@pytest.fixture(scope="module")
def utterances():
    return read_manifest(AUDIO / "manifest.csv")


def test_attacks_are_grouped_by_what_training_knew(utterances):
    spoofs = [replace(u, label="spoof", attack=attack) for u, attack in zip(utterances, ["world", "kokoro-unseen"])]
    bonafide = [u for u in utterances if u.label == "bonafide"]
    scores = {u.utterance_id: float(number) for number, u in enumerate(utterances)}
    others = [u for u in utterances if u.attack == "piper-joe"]
    rows = evaluation.conditions("test", {"world"}, [*spoofs, *bonafide, *others], [scores, None, scores])
    assert [row.name for row in rows] == [
        "all seen attacks", "seen: world", "all unseen attacks", "unseen: piper-joe", "unseen styles: kokoro-unseen",
    ]  # fmt: skip
    lines = evaluation.table(rows).splitlines()
    assert lines[0] == "| attack | bona fide | spoof | model | trivial baseline |"
    assert len(lines) == 2 + len(rows)


def test_spoofs_are_compared_with_bona_fide_speech_of_their_codecs(utterances):
    narrow = [u for u in utterances if u.attack == "codec2"]
    bonafide = [u for u in utterances if u.label == "bonafide"]
    scores = dict.fromkeys([u.utterance_id for u in utterances], 0.0)
    row = evaluation.evaluate("test", "codec2", narrow, bonafide, [scores, None, None])
    assert row.bonafide == sum(u.codec == "g722-8k" for u in bonafide) < len(bonafide)


def test_scores_are_those_of_detect_and_nes2net_evaluate_reads_them(utterances, tmp_path, nes2net):
    plain = evaluation.model_scores(DEMO_MODEL, AUDIO, utterances)
    coded = evaluation.model_scores(DEMO_MODEL, AUDIO, utterances, through_mp3=True)
    assert plain.keys() == coded.keys() and plain != coded
    evaluation.write_scores(tmp_path / "scores/test.csv", plain)
    run = nes2net("evaluate", tmp_path / "scores/test.csv", "--keys", AUDIO / "manifest.csv", "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["n_bonafide"] == sum(u.label == "bonafide" for u in utterances)


def script(name):
    # By its path, because a package named `evaluate` is installed.
    spec = importlib.util.spec_from_file_location(f"demo_{name}", Path(evaluation.__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_halved_model_takes_half_the_space_and_scores_alike(utterances, tmp_path):
    halved = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    tensors = {name: tensor.float() for name, tensor in load_file(DEMO_MODEL / "model.safetensors").items()}
    save_file(tensors, halved / "model.safetensors", metadata={"format": "pt"})
    before = (halved / "model.safetensors").stat().st_size
    whole = evaluation.model_scores(halved, AUDIO, utterances[:6])
    script("halve").halve(halved / "model.safetensors")
    assert (halved / "model.safetensors").stat().st_size < 0.55 * before
    scores = evaluation.model_scores(halved, AUDIO, utterances[:6])
    assert scores == pytest.approx(whole, abs=0.05)
    script("halve").halve(halved / "model.safetensors")
    assert evaluation.model_scores(halved, AUDIO, utterances[:6]) == scores


def test_a_weight_that_half_precision_cannot_hold_is_an_error(tmp_path):
    save_file({"a": torch.full((2, 2), 1e6)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"a in .* has values that float16 cannot hold"):
        script("halve").halve(tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors")["a"].dtype == torch.float32


def test_a_damaged_or_missing_model_is_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    for folder, said in ((tmp_path, "is damaged"), (tmp_path / "nowhere", "No such file")):
        monkeypatch.setattr(sys, "argv", ["halve.py", str(folder)])
        assert script("halve").main() == 1
        assert said in capsys.readouterr().err


def test_the_card_has_a_table_for_each_set_of_trials(utterances, tmp_path):
    folder = Path(shutil.copytree(DEMO_MODEL, tmp_path / "best"))
    (tmp_path / "recipe.yaml").write_text("epochs: 1\n", encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 60, "dev_eer": 0.2}\n', encoding="utf-8")
    scores = {u.utterance_id: float(number) for number, u in enumerate(utterances)}
    rows = {
        trials: evaluation.conditions(trials, {"world"}, utterances, [scores, scores, None])
        for trials in ("test", "test through MP3", "extra")
    }
    script("evaluate").write_card(folder, rows, utterances, utterances[:9])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"\n\n{evaluation.table(found)}\n\n" in card for found in rows.values())
    assert "--previous OLD" in card and "{{" not in card
