"""Calibration and fusion of scores, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nes2net_hf.calibration import Calibration, fit_calibration, fit_fusion, halves, spoof_probability
from nes2net_hf.errors import CalibrationError


def normal_scores(shift: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log-likelihood ratio is `shift` · score exactly: two normal distributions of variance 1."""
    draws = np.random.default_rng(3)
    return draws.normal(shift / 2, 1, count), draws.normal(-shift / 2, 1, 3 * count)


@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_scores_of_two_normals_calibrate_to_their_log_likelihood_ratio(prior: float) -> None:
    fitted = fit_calibration(*normal_scores(2.0), prior=prior)
    assert fitted.scale == pytest.approx(2.0, rel=0.06) and fitted.offset == pytest.approx(0.0, abs=0.1)


def test_a_calibrated_score_does_not_depend_on_the_scores_unit() -> None:
    bonafide, spoof = normal_scores(2.0, 500)
    plain, moved = fit_calibration(bonafide, spoof), fit_calibration(10 * bonafide - 3, 10 * spoof - 3)
    np.testing.assert_allclose(plain.llr(spoof), moved.llr(10 * spoof - 3), atol=1e-5)


def test_the_score_of_a_ratio_is_the_inverse_of_the_ratio_of_a_score() -> None:
    calibration = Calibration(scale=0.7, offset=-1.2, prior=0.5)
    assert calibration.score(calibration.llr(3.4)) == pytest.approx(3.4)
    assert Calibration(**calibration.to_dict()) == calibration


@pytest.mark.parametrize(
    ("llr", "prior", "probability"),
    [(0.0, 0.5, 0.5), (0.0, 0.01, 0.01), (math.log(99), 0.5, 0.01), (-math.log(99), 0.5, 0.99), (800, 0.5, 0.0),
     (-800, 0.5, 1.0)],
)  # fmt: skip
def test_the_probability_of_spoofing_follows_bayes_rule(llr: float, prior: float, probability: float) -> None:
    assert spoof_probability(llr, prior) == pytest.approx(probability)


def test_fusion_uses_both_of_two_independent_systems() -> None:
    draws = np.random.default_rng(5)
    bonafide, spoof = draws.normal(0.5, 1, (2, 20_000)), draws.normal(-0.5, 1, (2, 20_000))
    weights, offset = fit_fusion(bonafide, spoof)
    np.testing.assert_allclose(weights, [1.0, 1.0], atol=0.06)
    assert offset == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize(
    ("bonafide", "spoof", "prior", "message"),
    [
        ([1.0, 2.0], [-1.0, -2.0], 0.5, "the classes do not overlap"),
        ([-1.0, 0.5, -2.0], [1.0, 0.4, 2.0], 0.5, "check whether the scores are reversed"),
        ([1.0, 1.0], [1.0, 1.0], 0.5, "a system gives every trial the same score"),
        ([1.0, 0.0], [0.5, -1.0], 1.0, "prior must be between 0 and 1, got 1.0"),
    ],
)
def test_what_cannot_be_calibrated_is_a_sentence(
    bonafide: list[float], spoof: list[float], prior: float, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit_calibration(np.array(bonafide), np.array(spoof), prior)


def test_halves_keep_the_trials_of_a_speaker_together() -> None:
    speakers = ["b", "a", "b", "c", "a", "d"]
    first = halves(speakers)
    assert {speaker: {bool(half) for name, half in zip(speakers, first) if name == speaker} for speaker in "abcd"} == {
        "a": {True}, "b": {False}, "c": {True}, "d": {False},
    }  # fmt: skip
