"""Thresholds and calibrations of one corpus, applied to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nes2net_hf.errors import EvaluationError
from nes2net_hf.evaluation.crossing import cross
from nes2net_hf.metrics import equal_error_rate


def write(path: Path, shift: float, count: int = 400, sources: bool = False) -> Path:
    """Scores of a system that tells the classes equally well everywhere, but whose scores are shifted."""
    draws = np.random.default_rng(len(path.name))
    lines = ["utterance_id,label,score"]
    keys = ["utterance_id,label,source"]
    for number in range(count):
        real = number % 2 == 0
        offset = 1.5 if sources and number % 4 < 2 else 0.0  # one source of both classes scores higher
        lines.append(f"u{number},{'bonafide' if real else 'spoof'},{draws.normal(1 if real else -1) + shift + offset}")
        keys.append(f"u{number},{'bonafide' if real else 'spoof'},{'loud' if number % 4 < 2 else 'soft'}")
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".keys.csv").write_text("\n".join(keys) + "\n")
    return path


def test_a_threshold_that_does_not_travel_shows(tmp_path: Path) -> None:
    paths = [write(tmp_path / "near.csv", 0.0), write(tmp_path / "far.csv", 3.0)]
    found = cross(paths)
    own, other = found.cells[0]
    assert own.hter == pytest.approx(found.eers[0], abs=0.01) and other.hter == pytest.approx(0.5, abs=0.03)
    assert own.act_dcf is not None and other.act_dcf is not None and other.act_dcf > 2 * own.act_dcf
    assert own.cllr is not None and other.cllr is not None and own.cllr < 0.65 < 1 < other.cllr
    assert found.eers[1] == pytest.approx(found.eers[0], abs=0.05) and not found.sources


def test_the_command_prints_what_json_has(nes2net: Any, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.csv", shift, sources=True) for name, shift in (("near", 0.0), ("far", 3.0))]
    keys = [word for path in paths for word in ("--keys", path.with_suffix(".keys.csv"))]
    run = nes2net("evaluate", "--cross", *paths, *keys)
    assert run.code == 0 and max(map(len, run.out.splitlines())) <= 80, run.err
    for title in ("Half total error rate on", "Actual DCF on", "Cllr in bits on", "EER in near, attacks from"):
        assert title in run.out
    found = json.loads(nes2net("evaluate", "--cross", *paths, *keys, "--json").out)
    assert found["names"] == ["near", "far"]
    first = found["sources"][0]
    crossed = dict(zip(first["bonafide"], first["eers"], strict=True))
    places = {name: number for number, name in enumerate(first["spoof"])}
    # Soft bona fide speech against loud attacks is harder than loud speech against soft attacks.
    assert crossed["soft"][places["loud"]] > 0.3 > 0.1 > crossed["loud"][places["soft"]]
    assert f"{100 * crossed['soft'][places['loud']]:.2f} %" in run.out


def test_the_corpus_that_was_scored_has_the_keys(
    nes2net: Any, tmp_path: Path, corpus: Path, tiny_model_dir: Path
) -> None:
    options = ["--model", tiny_model_dir, "--corpus", "own-data", "--root", corpus / "manifest.csv"]
    paths = [tmp_path / "train.parquet", tmp_path / "dev.parquet"]
    for path in paths:
        assert nes2net("evaluate", path, *options, "--where", f"partition={path.stem}").code == 0
    found = json.loads(nes2net("evaluate", "--cross", *paths, "--json").out)
    assert (len(found["eers"]) == 2 and not found["warnings"]) or "calibrated" in found["warnings"][0]


def test_classes_that_do_not_overlap_cannot_be_calibrated(tmp_path: Path) -> None:
    apart = tmp_path / "apart.csv"
    apart.write_text("utterance_id,label,score\na,bonafide,2\nb,spoof,-2\nc,bonafide,3\nd,spoof,-3\n")
    found = cross([write(tmp_path / "near.csv", 0.0), apart])
    assert found.cells[1][0].cllr is None and found.cells[1][0].hter < 0.5
    assert "apart cannot be calibrated" in found.warnings[0].replace(".csv", "")
    assert equal_error_rate([2, 3], [-2, -3]).eer == found.eers[1] == found.cells[1][1].hter == 0


def test_what_cannot_be_crossed_is_a_sentence(nes2net: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "near.csv", 0.0)
    with pytest.raises(EvaluationError, match="at least two corpora"):
        cross([path])
    plain = tmp_path / "plain.txt"
    plain.write_text("u0 1.0\nu1 -1.0\n")
    with pytest.raises(EvaluationError, match=r"plain\.txt does not record which corpus was scored"):
        cross([path, plain])
    run = nes2net("evaluate", "--cross", path, plain, "--keys", path)
    assert run.code == 1 and "2 score files and 1 keys" in run.err
    for unused in (["--report", tmp_path / "r"], ["--threshold", 0], ["--resamples", 1000], ["--where", "a=b"],
                   ["--asv-scores", path], ["--all-windows"]):  # fmt: skip
        run = nes2net("evaluate", "--cross", path, path, *unused)
        assert run.code == 2 and f"--cross has no use for {unused[0]}: omit it" in run.err
    run = nes2net("evaluate", path, "--keys", path, "--keys", path)
    assert run.code == 2 and "add --cross" in run.err
