"""How the scores of windows and frames become a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nes2net_hf.calibration import Calibration
from nes2net_hf.detection.deciding import MIN_SOUND, DecisionRule
from nes2net_hf.detection.recordings import Recording
from nes2net_hf.detection.results import NO_SPEECH, TOO_SHORT, WindowScore
from nes2net_hf.reference import Population


def recording(*scores: float | None, sound: float = 60.0, **fields: Any) -> Recording:
    """A recording of four-second windows with speech; a window without a score holds no sound."""
    windows = [WindowScore(4.0 * place, 4.0 * place + 4, score) for place, score in enumerate(scores)]
    known: dict[str, Any] = {"has_speech": True, "sound": sound, "duration": 4.0 * len(scores)}
    known["log_odds"] = [score for score in scores if score is not None]
    return Recording("call.wav", windows=windows, **known | fields)


def rule(**fields: Any) -> DecisionRule:
    return DecisionRule(
        **{"model": "m", "dtype": "float32", "threshold": 0.0, "calibration": None, "prior": 0.5, "frame": None}
        | fields
    )


@pytest.mark.parametrize(
    ("scores", "threshold", "label"),
    [((1.0, 3.0), 2.0, "bonafide"), ((1.0, 2.9), 2.0, "spoof"), ((-1.0, None, 1.0), 0.0, "bonafide")],
)
def test_the_mean_over_windows_with_sound_meets_the_threshold(
    scores: tuple[float, ...], threshold: float, label: str
) -> None:
    assert rule(threshold=threshold).verdict(recording(*scores)).label == label


def test_without_a_threshold_the_log_odds_decide_whatever_the_scores_are() -> None:
    above = recording(-7.0, -7.0, log_odds=[1.0, 3.0])
    below = recording(7.0, 7.0, log_odds=[-3.0, 1.0])
    results = [rule(threshold=None).verdict(one) for one in (above, below)]
    assert [(result.score, result.label) for result in results] == [(-7.0, "bonafide"), (7.0, "spoof")]
    assert [window.looks_fake for window in results[1].windows] == [True, False]


def test_the_likeliest_kind_of_spoof_is_that_of_the_windows_that_look_fake() -> None:
    kinds = [[0.0, 3.0], [5.0, -5.0], [2.0, 1.0]]  # logits of two kinds; the second window passes
    tracing = rule(attacks=("A07", "A08"))
    result = tracing.verdict(recording(-4.0, 1.0, -4.0, kinds=kinds))
    assert (result.label, result.attack) == ("spoof", "A08")
    assert tracing.verdict(recording(4.0, 1.0, -1.0, kinds=kinds)).attack is None
    assert rule(attacks=("spoof",)).verdict(recording(-4.0, kinds=[[1.0]])).attack is None


def test_a_window_that_looks_fake_is_named_where_the_recording_passes() -> None:
    result = rule().verdict(recording(5.0, -1.0, 5.0, -2.0, 5.0))
    assert result.label == "bonafide" and (result.min_window_score, result.min_window_start) == (-2.0, 12.0)
    [warning] = result.warnings
    assert warning == "overall it passes, but 2 of 5 windows look fake, most of all at 0:12.0: listen to them"
    assert not rule().verdict(recording(-5.0, 1.0)).warnings  # a label says it already


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"sound": MIN_SOUND - 0.01}, TOO_SHORT), ({"has_speech": False}, NO_SPEECH),
     ({"sound": 0.1, "has_speech": False}, TOO_SHORT)],
)  # fmt: skip
def test_a_recording_that_cannot_be_judged_keeps_its_score_and_has_no_label(fields: Any, reason: str) -> None:
    calibrated = rule(calibration=Calibration(1.0, 0.0, 0.5), frame=0.02)
    result = calibrated.verdict(recording(-2.0, frames=[(0, [-2.0])], **fields))
    assert (result.undecided, result.score, result.label, result.error) == (reason, -2.0, None, None)
    assert result.llr is None and result.spoof_probability is None and result.spoofed is None
    assert not any(window.looks_fake for window in result.windows)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_a_number_is_an_error(score: float) -> None:
    result = rule().verdict(recording(1.0, score))
    assert result.score is None and "not a finite number" in (result.error or "")


def test_a_recording_without_sound_or_with_an_error_has_no_verdict() -> None:
    assert "is silent" in (rule().verdict(recording(None, None)).error or "")
    result = rule().verdict(recording(1.0, error="call.wav is damaged."))
    assert result.error == "call.wav is damaged." and result.score is None


def test_a_failure_here_is_an_error_of_this_recording() -> None:
    broken = recording(1.0, 2.0, log_odds=[1.0])  # lost one
    assert "has no verdict" in (rule(threshold=None).verdict(broken).error or "")


def test_the_prior_moves_the_probability_and_not_the_ratio() -> None:
    calibration = Calibration(scale=2.0, offset=1.0, prior=0.5)
    even, rare = (rule(calibration=calibration, prior=prior).verdict(recording(0.5)) for prior in (0.5, 0.01))
    assert even.llr == rare.llr == 2.0
    assert even.spoof_probability == pytest.approx(1 / (1 + 7.389), rel=1e-3)
    assert rare.spoof_probability == pytest.approx(0.01 / (0.01 + 0.99 * 7.389), rel=1e-3)


POPULATION = Population.of_scores("dev", np.linspace(-1, 4, 499), np.linspace(-4, 1, 499))


@pytest.mark.parametrize(("score", "label"), [(-3.0, "spoof"), (0.0, "undecided"), (3.0, "bonafide")])
def test_scores_that_allow_too_many_errors_are_undecided(score: float, label: str) -> None:
    low, high = POPULATION.band(0.05, 0.0)
    careful = rule(calibration=Calibration(1.0, 0.0, 0.5), population=POPULATION, band=(low, high, 0.05))
    result = careful.verdict(recording(score))
    assert result.label == label and (result.undecided is not None) == (label == "undecided")
    assert result.llr == score and result.support and "in dev" in str(result.standing)
    if label == "undecided":
        assert "more than 5 % of bona fide or spoofed recordings" in str(result.undecided)


@pytest.mark.parametrize(("score", "label"), [(0.1, "spoof"), (0.3, "undecided"), (0.6, "bonafide")])
def test_the_band_decides_wherever_the_threshold_is(score: float, label: str) -> None:
    assert rule(threshold=0.0, band=(0.2, 0.5, 0.05)).verdict(recording(score)).label == label


def test_an_undecided_recording_names_its_windows_too() -> None:
    result = rule(band=(-1.0, 1.0, 0.05)).verdict(recording(0.4, 0.4, -0.4))
    assert result.label == "undecided" and result.attack is None
    [warning] = result.warnings
    assert warning.startswith("overall it is undecided, but 1 of 3 windows looks fake, most of all at 0:08.0")


def test_without_a_calibration_there_are_no_words_for_its_strength() -> None:
    result = rule(population=POPULATION).verdict(recording(3.0))
    assert result.support is None and result.llr is None and result.standing is not None
    assert rule(calibration=Calibration(1.0, 0.0, 0.5)).verdict(recording(3.0)).support is None  # of version 0.1.0


def test_frames_below_the_threshold_in_a_row_are_a_passage() -> None:
    # Two windows overlap in frames 3 and 4, where the mean of both counts: -1 and 1.
    frames = [(0, [5.0, -1.0, -3.0, -4.0, -2.0]), (3, [2.0, 4.0, 5.0, -6.0])]
    result = rule(frame=0.5).verdict(recording(-4.0, -6.0, frames=frames, duration=3.4))
    assert result.score == -6.0 and result.label == "spoof"
    assert [(one.start, one.end, one.score) for one in result.spoofed or []] == [
        (0.5, 2.0, pytest.approx(-5 / 3)),
        (3.0, 3.4, -6.0),  # not past the end of the recording
    ]
