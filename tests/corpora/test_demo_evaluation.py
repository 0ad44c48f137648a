"""How the demonstration model is evaluated: which trials, which rows, and scores that `nes2net evaluate` reads."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

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
