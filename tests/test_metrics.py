"""EER as the ASVspoof evaluation packages compute it, and its bootstrap interval."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from nes2net_hf.metrics import bootstrap_eer, det_curve, equal_error_rate
from nes2net_hf.metrics.bootstrap import _weighted_eer

from .conftest import FIXTURES

EXPECTED = json.loads((FIXTURES / "metrics" / "expected.json").read_text(encoding="utf-8"))


def trials(name: str) -> tuple[list[float], list[float]]:
    scores: dict[str, list[float]] = {"bonafide": [], "spoof": []}
    with open(FIXTURES / "metrics" / name, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores[row["label"]].append(float(row["score"]))
    return scores["bonafide"], scores["spoof"]


@pytest.mark.parametrize("name", EXPECTED)
def test_eer_equals_the_official_one_ties_included(name: str) -> None:
    eer, threshold = equal_error_rate(*trials(name))
    assert eer == pytest.approx(EXPECTED[name]["eer"], abs=1e-12)
    assert threshold == pytest.approx(EXPECTED[name]["eer_threshold"], abs=1e-12)


@pytest.mark.skipif("NES2NET_SHARED" not in os.environ, reason="NES2NET_SHARED names no folder with their scores")
def test_eer_of_the_asvspoof5_example_scores_is_the_organisers() -> None:
    folder = Path(os.environ["NES2NET_SHARED"]) / "fixtures" / "metrics"
    name = "asvspoof5_dev_sasv_scores.csv"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))[name]
    with open(folder / name, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spoof = [float(row["cm_score"]) for row in rows if float(row["sasv_label"]) == 0]
    bonafide = [float(row["cm_score"]) for row in rows if float(row["sasv_label"]) != 0]
    assert (len(bonafide), len(spoof)) == (expected["n_bonafide"], expected["n_spoof"])
    assert equal_error_rate(bonafide, spoof) == pytest.approx((expected["eer"], expected["eer_threshold"]), abs=1e-9)


def test_det_curve_runs_from_nothing_rejected_to_everything_rejected() -> None:
    miss, false_alarm, thresholds = det_curve([2.0, 3.0], [1.0, 2.0])
    assert miss.tolist() == [0, 0, 0.5, 0.5, 1]
    assert false_alarm.tolist() == [1, 0.5, 0.5, 0, 0]
    assert thresholds.tolist() == [0.999, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("bonafide", "spoof", "message"),
    [
        ([], [1.0], "bonafide_scores is empty"),
        ([1.0], [], "spoof_scores is empty"),
        ([1.0, float("nan")], [0.0], "bonafide_scores holds 1 NaN or infinite"),
        ([1.0], [[0.0]], "must be a vector"),
    ],
)
def test_scores_that_have_no_error_rate_are_errors(bonafide: list, spoof: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(bonafide, spoof)


def test_weighted_eer_is_the_eer_of_repeated_trials() -> None:
    rng = np.random.default_rng(0)
    for turn in range(300):
        bonafide, spoof = rng.integers(1, 30, 2)
        ties = turn % 2 == 0
        scores = rng.integers(0, 8, bonafide + spoof) * 1.0 if ties else rng.normal(size=bonafide + spoof)
        weights = rng.integers(0, 5, bonafide + spoof).astype(np.int32)
        weights[[0, bonafide]] += 1  # no class may vanish
        order = np.argsort(scores, kind="stable")
        expected = equal_error_rate(
            np.repeat(scores[:bonafide], weights[:bonafide]), np.repeat(scores[bonafide:], weights[bonafide:])
        ).eer
        assert _weighted_eer(weights[order][None], order < bonafide)[0] == pytest.approx(expected, abs=1e-12)


def test_interval_holds_the_estimate_and_shrinks_with_more_trials() -> None:
    rng = np.random.default_rng(0)
    few = bootstrap_eer(rng.normal(1, 1, 100), rng.normal(-1, 1, 100))
    many = bootstrap_eer(rng.normal(1, 1, 3000), rng.normal(-1, 1, 3000))
    assert few.unit == many.unit == "utterance"
    assert few.low < few.estimate < few.high and many.low < many.estimate < many.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 0.1587 < many.high  # the true EER of two unit normals two apart


def test_interval_by_speaker_is_wider_where_speakers_differ() -> None:
    rng = np.random.default_rng(1)
    speakers = np.repeat(np.arange(20), 50)
    bonafide = 1 + np.repeat(rng.normal(0, 1, 20), 50) + 0.1 * rng.normal(size=1000)
    spoof = rng.normal(-1, 1, 1000)
    names = [f"speaker-{speaker}" for speaker in speakers]
    by_speaker = bootstrap_eer(bonafide, spoof, bonafide_speakers=names, spoof_speakers=names)
    by_utterance = bootstrap_eer(bonafide, spoof)
    assert by_speaker.unit == "speaker" and by_speaker.estimate == by_utterance.estimate
    assert by_speaker.high - by_speaker.low > 2 * (by_utterance.high - by_utterance.low)


def test_no_resample_lacks_a_class_where_speakers_have_one_class_only() -> None:
    interval = bootstrap_eer(
        [1.0, 2.0, 3.0], [0.0, 1.5], bonafide_speakers=["a", "a", "b"], spoof_speakers=["c", "c"], resamples=200
    )
    assert 0 <= interval.low <= interval.high <= 1


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(2)
    bonafide, spoof = rng.normal(1, 1, 511), rng.normal(-1, 1, 499)
    assert bootstrap_eer(bonafide, spoof, seed=3) == bootstrap_eer(bonafide, spoof, seed=3)
    assert bootstrap_eer(bonafide, spoof, seed=3) != bootstrap_eer(bonafide, spoof, seed=4)


def test_mismatched_speakers_are_errors() -> None:
    with pytest.raises(ValueError, match="both classes or of neither"):
        bootstrap_eer([1.0], [0.0], bonafide_speakers=["a"])
    with pytest.raises(ValueError, match="2 and 1 speakers were given for 1 bona fide and 1 spoofed"):
        bootstrap_eer([1.0], [0.0], bonafide_speakers=["a", "b"], spoof_speakers=["c"])
