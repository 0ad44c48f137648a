"""Tests that every row of a corpus is scored, in order and equally, on any number of processes and after any kill."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

import pyarrow.parquet as pq

from nes2net_hf import Nes2NetFeatureExtractor
from nes2net_hf.audio import read_audio
from nes2net_hf.corpora import load_corpus
from nes2net_hf.corpora.shards.write import shard_corpus
from nes2net_hf.errors import OutputError, UsageError
from nes2net_hf.evaluation import scoring
from nes2net_hf.evaluation.scoring import score_corpus
from nes2net_hf.pretrained.load import load_model
from nes2net_hf.trainer import BrokenDataError
from tests.helpers import FIXTURES, kill, launch


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Returns a manifest with each fixture recording three times."""
    lines = ["path,label,utterance_id"]
    for number, voice in enumerate(3 * sorted((FIXTURES / "audio").glob("*.flac"))):
        (tmp_path / "audio").mkdir(exist_ok=True)
        shutil.copy(voice, tmp_path / "audio" / f"{number:03}.flac")
        lines.append(f"audio/{number:03}.flac,{('real', 'fake')[number % 2]},utt {number:03}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    return tmp_path / "data.csv"


def expected(model: Path, manifest: Path) -> list[tuple[str, float]]:
    """Scores one utterance at a time."""
    network, extractor = load_model(str(model), None, torch.device("cpu"), "float32")
    scores = []
    for row in load_corpus("own-data", root=manifest):
        waveform = read_audio(row["audio"]["path"])
        inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            scores.append((row["utterance_id"], float(network.score(network(**inputs).logits))))
    return scores


def read(out: Path) -> list[tuple[str, float]]:
    return [(line.rsplit(" ", 1)[0], float(line.rsplit(" ", 1)[1])) for line in out.read_text().splitlines()]


@pytest.mark.parametrize(
    ("form", "policy"),
    [
        ("folder", "first"),
        ("shards", "whole"),
        pytest.param("folder", "whole", marks=pytest.mark.slow),
        pytest.param("shards", "first", marks=pytest.mark.slow),
    ],
)
def test_every_row_is_scored_in_order(
    policy: str, form: str, manifest: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    Nes2NetFeatureExtractor(length_policy=policy).save_pretrained(model)
    root = manifest
    if form == "shards":
        root = tmp_path / "shards"
        shard_corpus("own-data", root, root=str(manifest), shard_bytes=1_000_000)
    for out in (tmp_path / "scores.txt", tmp_path / "scores.parquet"):
        scored = score_corpus(str(model), out, corpus="own-data", root=str(root), batch_size=4)
        assert scored.utterances == scored.fresh
    by_hand = expected(model, manifest)
    found = read(tmp_path / "scores.txt")
    assert [name for name, _ in found] == [name for name, _ in by_hand]
    assert [score for _, score in found] == pytest.approx([score for _, score in by_hand], abs=1e-5)
    table = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    assert list(zip(table["utterance_id"], map(np.float32, table["score"]))) == [(n, np.float32(s)) for n, s in found]
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.slow
def test_any_model_scores_windows_or_whole_utterances(manifest: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpus": "own-data", "root": str(manifest), "batch_size": 5}
    for length, policy in (("window", "first"), ("whole", "whole")):
        model, out = tmp_path / policy, tmp_path / f"{length}.txt"
        shutil.copytree(tiny_model_dir, model)
        Nes2NetFeatureExtractor(length_policy={"first": "whole", "whole": "first"}[policy]).save_pretrained(model)
        score_corpus(str(model), out, length=length, **options)  # type: ignore[arg-type]
        Nes2NetFeatureExtractor(length_policy=policy).save_pretrained(model)
        assert dict(read(out)) == pytest.approx(dict(expected(model, manifest)), abs=1e-5)
    with pytest.raises(UsageError, match="all_windows and length exclude each other: omit one"):
        score_corpus(str(tiny_model_dir), tmp_path / "no.txt", length="whole", all_windows=True, **options)


def test_what_cannot_be_read_costs_nothing_else(manifest: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = (tmp_path / "audio/007.flac").read_bytes()
    (tmp_path / "audio/007.flac").write_bytes(whole[:3_000])
    options: dict[str, Any] = {"corpus": "own-data", "root": str(manifest), "batch_size": 4}
    out = tmp_path / "scores.txt"
    with pytest.raises(BrokenDataError, match=r"1 of \d+ utterances could not be read \(.*007.flac is truncated"):
        score_corpus(str(tiny_model_dir), out, **options)
    assert not out.exists()
    with pytest.raises(OutputError, match=r'dtype: .* began with "float32", not "bfloat16"'):
        score_corpus(str(tiny_model_dir), out, **options, dtype="bfloat16")
    (tmp_path / "audio/007.flac").write_bytes(whole)
    scored = score_corpus(str(tiny_model_dir), out, **options)
    assert scored.fresh == 1 and dict(read(out)) == pytest.approx(dict(expected(tiny_model_dir, manifest)), abs=1e-5)


def test_a_broken_utterance_is_named_once(manifest: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("003.flac", "007.flac"):
        (tmp_path / "audio" / name).write_bytes(b"no audio")
    with pytest.raises(BrokenDataError, match="2 of 72 utterances could not be read") as broken:
        score_corpus(str(tiny_model_dir), tmp_path / "scores.txt", corpus="own-data", root=str(manifest), batch_size=4)
    assert [str(broken.value).count(name) for name in ("003.flac", "007.flac")] == [1, 1]


LINES = ["a\u2028b", "a\x0bb", "a\x85b", "a\x1cb", "a\nb", "a\rb", "a b"]


@pytest.fixture
def separated(tmp_path: Path) -> Path:
    """Returns a manifest whose ids contain line separators, and one a space."""
    speech = sorted((FIXTURES / "audio").glob("*.flac"))
    rows = [
        {"utterance_id": name, "path": str(speech[row]), "label": ("spoof", "bonafide")[row % 2]}
        for row, name in enumerate(LINES)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path / "data.jsonl"


def test_ids_of_several_lines_are_refused_before_anything_is_scored(
    separated: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nes2net_hf.evaluation.scoring._judge", lambda *_: pytest.fail("it scored"))
    with pytest.raises(OutputError, match=r"utterance 'a\\u2028b' cannot be written to .*ends in \.parquet"):
        score_corpus(str(tiny_model_dir), tmp_path / "scores.txt", corpus="own-data", root=str(separated))
    assert list(tmp_path.iterdir()) == [separated]


@pytest.mark.parametrize("form", ["manifest", "shards"])
def test_a_table_holds_any_id(form: str, separated: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    root, out = separated, tmp_path / "scores.parquet"
    if form == "shards":
        root = tmp_path / "shards"
        shard_corpus("own-data", root, root=str(separated), shard_bytes=200_000)
    options: dict[str, Any] = {"corpus": "own-data", "root": str(root), "batch_size": 2}
    score_corpus(str(tiny_model_dir), out, **options)
    assert pq.read_table(out)["utterance_id"].to_pylist() == LINES


def test_what_the_first_version_had_scored_is_not_scored_again(
    separated: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wrote raw ids into its parts, with line separators, and could not read them."""
    out = tmp_path / "scores.parquet"
    options: dict[str, Any] = {"corpus": "own-data", "root": str(separated), "batch_size": 2}
    monkeypatch.setattr(scoring, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        score_corpus(str(tiny_model_dir), out, **options)
    monkeypatch.undo()
    [part] = Path(f"{out}.parts").glob("*.txt")
    lines = part.read_text(encoding="utf-8").split("\n")[:-1]
    old = "".join(f"{line} {LINES[int(line.split(' ')[0])]}\n" for line in lines)
    with open(part, "w", encoding="utf-8", newline="") as file:
        file.write(old + "5 0.1 2")  # killed in the last line
    scored = score_corpus(str(tiny_model_dir), out, **options)
    assert (scored.utterances, scored.fresh) == (len(LINES), 0)
    assert pq.read_table(out)["utterance_id"].to_pylist() == LINES


@pytest.mark.slow
def test_killed_and_resumed_and_on_two_processes_it_is_the_same_file(
    manifest: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    options = ("--model", tiny_model_dir, "--corpus", "own-data", "--root", manifest, "--batch-size", 2, "--out")
    files = [tmp_path / f"{name}.txt" for name in ("one", "two", "killed")]
    for processes, out in ((1, files[0]), (2, files[1])):
        process = launch("score.py", *options, out, processes=processes)
        said, err = process.communicate()
        assert process.returncode == 0, err
        assert "utterances/s" in said
    process = launch("score.py", *options, files[2], processes=2)
    parts = Path(f"{files[2]}.parts")
    while not any(path.stat().st_size for path in parts.glob("*.txt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    kill(process)
    assert parts.is_dir() and not files[2].exists()
    process = launch("score.py", *options, files[2])
    said, err = process.communicate()
    assert process.returncode == 0, err
    # With another launcher, the last bit of a float32 score may differ.
    one, *others = ([line.rsplit(" ", 1) for line in file.read_text().splitlines()] for file in files)
    assert len(one) == 72
    for other in others:
        assert [name for name, _ in other] == [name for name, _ in one]
        assert [float(score) for _, score in other] == pytest.approx([float(score) for _, score in one], abs=1e-6)


@pytest.mark.slow
def test_errors_are_a_sentence(tiny_model_dir: Path, tmp_path: Path) -> None:
    wrong = ("--model", tiny_model_dir, "--corpus", "asvspoof5", "--root", tmp_path, "--split", "eval")
    process = launch("score.py", *wrong, "--out", tmp_path / "scores.txt")
    _, err = process.communicate()
    assert "error: " in err and "has no ASVspoof5.eval.track_1.tsv" in err
