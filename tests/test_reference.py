"""What a calibrated score means: its standing, the support in words, and the scores that are not decided."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nes2net_hf.errors import CalibrationError
from nes2net_hf.reference import Population

BONAFIDE, SPOOF = np.arange(1.0, 1_000.0), np.arange(1.0, 1_000.0) - 900


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (-500.0, "lower than 99.5 % of bona fide and typical of spoofed speech in dev"),
        (50.0, "lower than 95.5 % of bona fide and higher than 95 % of spoofed speech in dev"),
        (500.0, "typical of bona fide and higher than 99.5 % of spoofed speech in dev"),
        (2_000.0, "higher than 99.5 % of bona fide and higher than 99.5 % of spoofed speech in dev"),
    ],
)
def test_a_score_stands_among_those_of_the_calibration(score: float, words: str) -> None:
    assert Population.of_scores("dev", BONAFIDE, SPOOF).standing(score) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.9, "no support for either"), (2.1, "weak support for bona fide"), (11, "moderate support for bona fide"),
        (101, "moderately strong support for bona fide"), (1_001, "strong support for bona fide"),
        (1.1e4, "very strong support for bona fide"), (1.1e6, "extremely strong support for bona fide"),
        (1 / 11, "moderate support for spoof"), (1 / 1.1e6, "extremely strong support for spoof"),
    ],
)  # fmt: skip
def test_the_verbal_scale_is_that_of_enfsi(ratio: float, words: str) -> None:
    many = Population("dev", [], [], 10**7, 10**7)
    assert many.support(math.log(ratio)) == words


def test_support_is_limited_by_the_recordings_of_the_other_class() -> None:
    few = Population("dev", [], [], n_bonafide=50, n_spoof=500)
    assert few.support(20.0) == "moderately strong support for bona fide (limited by 500 recordings)"
    assert few.support(-1e6) == "moderate support for spoof (limited by 50 recordings)"
    assert few.support(math.log(40)) == "moderate support for bona fide"


@pytest.mark.parametrize("count", [19, 20, 57, 400])
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_the_share_of_errors_holds_on_average(count: int, share: float) -> None:
    """
    Over many calibration sets of `count` recordings a class, at most the share of new recordings is labelled wrongly:
    the bound is exact where (n + 1) times the share is a whole number.
    """
    draws, wrong, rounds = np.random.default_rng(1), np.zeros(2), 3_000
    for _ in range(rounds):
        low, high = Population.of_scores("x", draws.normal(1, 1, count), draws.normal(-1, 1, count)).band(share, 0.0)
        wrong += draws.normal(1, 1) < low, draws.normal(-1, 1) > high
    slack = 3 * math.sqrt(share * (1 - share) / rounds)
    assert (wrong / rounds <= share + slack).all()
    assert (wrong / rounds >= math.floor(share * (count + 1)) / (count + 1) - slack).all()  # and no more is undecided


def test_classes_far_apart_leave_nothing_undecided() -> None:
    apart = Population.of_scores("x", np.arange(100.0) + 1_000, np.arange(100.0))
    low, high = apart.band(0.05, 500.0)
    assert low == high == 500.0
    assert apart.band(0.05, 0.0) == (95.0, 95.0)  # a threshold that would not keep the guarantee moves


def test_a_share_needs_enough_recordings() -> None:
    few = Population.of_scores("x", np.arange(18.0), np.arange(30.0))
    with pytest.raises(CalibrationError, match=r"needs at least 19 recordings of each class .* has 18 and 30"):
        few.band(0.05, 0.0)
    for share in (0.001, 0.5, math.nan):
        with pytest.raises(CalibrationError, match=r"must be at least 0.005 and below 0.5"):
            few.band(share, 0.0)


def test_a_population_is_kept_in_json() -> None:
    population = Population.of_scores("x", BONAFIDE[:50], SPOOF[:150])
    scores = json.loads(json.dumps(population.kept()))
    kept = {"name": "x", "bonafide": {"recordings": 50, "scores": scores["bonafide"]}}
    kept["spoof"] = {"recordings": 150, "scores": scores["spoof"]}
    assert Population.of({"population": kept}) == population and scores["bonafide"][0] is None
    assert Population.of(None) is None and Population.of({"scale": 1.0}) is None
