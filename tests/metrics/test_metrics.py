"""Metrics and their intervals, compared with the organisers' packages and with slow, simple formulations."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nes2net_hf.metrics import (
    ASVSPOOF5_ASV,
    ASVSPOOF5_COSTS,
    DetectionCosts,
    actual_dcf,
    asv_error_rates,
    auc,
    bootstrap,
    bootstrap_eer,
    cllr,
    compare_eer,
    decisions,
    det_curve,
    equal_error_rate,
    min_adcf,
    min_cllr,
    min_dcf,
    min_tdcf,
    optimal_llrs,
    range_eer,
    segment_eer,
    tandem_eer,
)
from nes2net_hf.metrics.bootstrap import _System
from tests.helpers import FIXTURES

EXPECTED = json.loads((FIXTURES / "metrics" / "expected.json").read_text(encoding="utf-8"))


def trials(name: str) -> tuple[list[float], list[float]]:
    scores: dict[str, list[float]] = {"bonafide": [], "spoof": []}
    with open(FIXTURES / "metrics" / name, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores[row["label"]].append(float(row["score"]))
    return scores["bonafide"], scores["spoof"]


@pytest.mark.parametrize("name", EXPECTED)
def test_figures_equal_the_official_ones_ties_included(name: str) -> None:
    bonafide, spoof = trials(name)
    check_against(EXPECTED[name], np.array(bonafide), np.array(spoof))


def check_against(expected: dict, bonafide: np.ndarray, spoof: np.ndarray) -> None:
    assert (bonafide.size, spoof.size) == (expected["n_bonafide"], expected["n_spoof"])
    eer, dcf = equal_error_rate(bonafide, spoof), min_dcf(bonafide, spoof)
    assert eer == pytest.approx((expected["eer"], expected["eer_threshold"]), abs=1e-9)
    assert dcf == pytest.approx((expected["min_dcf"], expected["min_dcf_threshold"]), abs=1e-9)
    assert actual_dcf(bonafide, spoof) == pytest.approx(expected["act_dcf"], abs=1e-9)
    assert cllr(bonafide, spoof) == pytest.approx(expected["cllr_bits"], abs=1e-9)


@pytest.mark.skipif(
    "NES2NET_SHARED" not in os.environ, reason="NES2NET_SHARED is not set to a folder with their scores"
)
def test_figures_of_the_asvspoof5_example_scores_are_the_organisers() -> None:
    folder = Path(os.environ["NES2NET_SHARED"]) / "fixtures" / "metrics"
    name = "asvspoof5_dev_sasv_scores.csv"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))[name]
    table = np.genfromtxt(folder / name, delimiter=",", names=True)
    target, nontarget, spoof = (table[table["sasv_label"] == kind] for kind in (1, 2, 0))
    bonafide_cm = np.concatenate([target["cm_score"], nontarget["cm_score"]])
    check_against(expected, bonafide_cm, spoof["cm_score"])

    asv = tuple(kind["asv_score"] for kind in (target, nontarget, spoof))
    rates, threshold = asv_error_rates(*asv)
    assert (*rates, threshold) == pytest.approx(
        [expected["asv"][key] for key in ("p_miss", "p_fa", "p_fa_spoof", "threshold")], abs=1e-9
    )
    assert min_tdcf(bonafide_cm, spoof["cm_score"], rates) == pytest.approx(expected["min_tdcf_2021"], abs=1e-9)
    legacy = min_tdcf(bonafide_cm, spoof["cm_score"], rates, form="2019")
    assert legacy == pytest.approx(expected["min_tdcf_2019_legacy"], abs=1e-9)
    fused = [10 * kind["asv_score"] + kind["cm_score"] for kind in (target, nontarget, spoof)]
    assert min_adcf(*fused) == pytest.approx(expected["min_a_dcf_of_10asv_plus_cm"], abs=1e-9)
    point = tandem_eer(asv, tuple(kind["cm_score"] for kind in (target, nontarget, spoof)))
    assert 100 * point.eer == pytest.approx(expected["t_eer_accelerated"], abs=1e-6)


# Mostly few values, for many ties, and some arbitrary ones.
SCORES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50)), min_size=1, max_size=25)


def slow_points(bonafide: list[float], spoof: list[float]) -> list[tuple[float, float]]:
    """Returns miss and false alarm rates after rejecting the first k trials; bona fide first among equal scores."""
    ordered = sorted([(score, 0) for score in bonafide] + [(score, 1) for score in spoof])
    points = []
    for k in range(len(ordered) + 1):
        missed = sum(kind == 0 for _, kind in ordered[:k]) / len(bonafide)
        accepted = sum(kind == 1 for _, kind in ordered[k:]) / len(spoof)
        points.append((missed, accepted))
    return points


@given(SCORES, SCORES)
def test_eer_and_dcf_equal_an_obvious_formulation(bonafide: list[float], spoof: list[float]) -> None:
    points = slow_points(bonafide, spoof)
    gap = min(abs(missed - accepted) for missed, accepted in points)
    means = {round((missed + accepted) / 2, 9) for missed, accepted in points if abs(missed - accepted) < gap + 1e-9}
    assert round(equal_error_rate(bonafide, spoof).eer, 9) in means
    costs = DetectionCosts(2.0, 5.0, 0.3)
    slow = min(2.0 * 0.7 * missed + 5.0 * 0.3 * accepted for missed, accepted in points) / 1.4
    assert min_dcf(bonafide, spoof, costs).dcf == pytest.approx(slow, abs=1e-9)
    rejected = [sum(score < costs.threshold for score in scores) / len(scores) for scores in (bonafide, spoof)]
    slow = (1.4 * rejected[0] + 1.5 * (1 - rejected[1])) / 1.4
    assert actual_dcf(bonafide, spoof, costs) == pytest.approx(slow, abs=1e-9)


@given(SCORES, SCORES)
def test_auc_and_cllr_equal_an_obvious_formulation(bonafide: list[float], spoof: list[float]) -> None:
    wins = [1.0 if b > s else 0.5 if b == s else 0.0 for b in bonafide for s in spoof]
    assert auc(bonafide, spoof) == pytest.approx(sum(wins) / len(wins), abs=1e-9)
    bits = [np.log2(1 + np.exp(-b)) for b in bonafide], [np.log2(1 + np.exp(s)) for s in spoof]
    assert cllr(bonafide, spoof) == pytest.approx((np.mean(bits[0]) + np.mean(bits[1])) / 2, abs=1e-9)


@given(SCORES, SCORES)
def test_min_cllr_is_that_of_monotone_ratios_and_no_monotone_recalibration_beats_it(
    bonafide: list[float], spoof: list[float]
) -> None:
    llrs = np.concatenate(optimal_llrs(bonafide, spoof))
    scores = np.array(bonafide + spoof)
    for one, its_llr in zip(scores, llrs, strict=True):
        assert (llrs[scores < one] <= its_llr).all() and (llrs[scores == one] == its_llr).all()
    lowest = min_cllr(bonafide, spoof)
    assert lowest <= 1 + 1e-9
    for scale, offset in ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (3.0, -2.0)):
        assert lowest <= cllr(scale * np.array(bonafide) + offset, scale * np.array(spoof) + offset) + 1e-9


@given(SCORES, SCORES, SCORES)
def test_adcf_and_tdcf_equal_an_obvious_formulation(
    target: list[float], nontarget: list[float], spoof: list[float]
) -> None:
    everything = sorted({*target, *nontarget, *spoof})
    # The official curves have more points between equal scores. At all other points the rates are the same.
    tied = set(target) & (set(nontarget) | set(spoof)) or set(nontarget) & set(spoof)
    costs = []
    for threshold in [*everything, everything[-1] + 1]:
        missed = np.mean(np.array(target) < threshold)
        false, spoofed = np.mean(np.array(nontarget) >= threshold), np.mean(np.array(spoof) >= threshold)
        costs.append(0.9405 * missed + 0.095 * false + 0.5 * spoofed)
    found = min_adcf(target, nontarget, spoof) * 0.595
    assert found <= min(costs) + 1e-9 if tied else found == pytest.approx(min(costs), abs=1e-9)

    bonafide = target + nontarget
    c0 = 0.9405 * ASVSPOOF5_ASV.miss + 0.095 * ASVSPOOF5_ASV.false_alarm
    c1, c2 = 0.9405 - c0, 0.5 * ASVSPOOF5_ASV.spoof_false_alarm
    slow = min(c1 * missed + c2 * accepted for missed, accepted in slow_points(bonafide, spoof))
    assert min_tdcf(bonafide, spoof, ASVSPOOF5_ASV, form="2019") == pytest.approx(slow / min(c1, c2), abs=1e-9)
    full = (c0 + slow) / (c0 + min(c1, c2))
    assert min_tdcf(bonafide, spoof, ASVSPOOF5_ASV) == pytest.approx(full, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=12), min_size=6, max_size=6))
@example([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0, 1.0, 1.0], [0.0] * 3, *[[0.0, 0.0]] * 3])  # equal rates
def test_tandem_eer_equals_a_search_over_all_pairs_of_thresholds(scores: list[list[float]]) -> None:
    asv, cm = scores[:3], scores[3:]
    asv_points = []
    ordered = sorted((score, kind) for kind, its in enumerate(asv) for score in its)
    for k in range(len(ordered) + 1):
        rejected = [sum(kind == wanted for _, kind in ordered[:k]) for wanted in range(3)]
        passed = [(len(asv[wanted]) - rejected[wanted]) / len(asv[wanted]) for wanted in (1, 2)]
        asv_points.append((rejected[0] / len(asv[0]), *passed))
    cm_points = slow_points(cm[0] + cm[1], cm[2])
    pairs, ambiguous = [], False
    for miss, false, spoofed in asv_points:
        if not (miss < (false + spoofed) / 2 and spoofed > 0):
            continue
        gaps = [
            abs(miss + (1 - miss) * cm_miss - ((1 - cm_miss) * false + cm_false * spoofed) / 2)
            for cm_miss, cm_false in cm_points
        ]
        closest = [point for point, gap in zip(cm_points, gaps, strict=True) if gap < min(gaps) + 1e-12]
        ambiguous |= len(closest) > 1
        pairs += [(abs(false / spoofed - y / (1 - x)), spoofed * y) for x, y in closest if x < 1]
    best = min(gap for gap, _ in pairs)
    rates = {round(rate, 9) for gap, rate in pairs if ambiguous or gap < best + 1e-9}
    assert round(tandem_eer(tuple(scores[:3]), tuple(scores[3:])).eer, 9) in rates


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
        ([1.0, float("nan")], [0.0], "bonafide_scores has 1 NaN or infinite"),
        ([1.0], [[0.0]], "must be a vector"),
    ],
)
def test_scores_that_have_no_error_rate_are_errors(bonafide: list, spoof: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(bonafide, spoof)


def test_resampled_figures_are_those_of_repeated_trials() -> None:
    rng = np.random.default_rng(0)
    for turn in range(300):
        bonafide, spoof = rng.integers(1, 30, 2)
        ties, speakers = turn % 2 == 0, turn % 3 == 0
        scores = rng.integers(0, 8, bonafide + spoof) * 1.0 if ties else rng.normal(size=bonafide + spoof)
        cluster = rng.integers(0, 4, bonafide + spoof) if speakers else np.arange(bonafide + spoof)
        drawn = rng.integers(0, 5, cluster.max() + 1)
        drawn[[cluster[0], cluster[bonafide]]] += 1  # keep both classes
        repeated = [
            np.repeat(part, drawn[its]) for part, its in (
                (scores[:bonafide], cluster[:bonafide]), (scores[bonafide:], cluster[bonafide:])
            )
        ]  # fmt: skip
        system = _System(scores[:bonafide], scores[bonafide:], cluster)
        times = drawn[:, None].astype(float)
        assert system.eer(times)[0] == pytest.approx(equal_error_rate(*repeated).eer, abs=1e-12)
        assert system.min_dcf(ASVSPOOF5_COSTS)(times)[0] == pytest.approx(min_dcf(*repeated).dcf, abs=1e-12)
        assert system.actual_dcf(ASVSPOOF5_COSTS)(times)[0] == pytest.approx(actual_dcf(*repeated), abs=1e-12)
        assert system.cllr()(times)[0] == pytest.approx(cllr(*repeated), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("speakers", [None, 40])
def test_intervals_hold_the_true_eer_as_often_as_they_say(speakers: int | None) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for turn in range(2000):
        if speakers is None:
            bonafide, spoof, names = rng.normal(1, 1, 300), rng.normal(-1, 1, 600), {}
        else:  # a quarter of the variance is between speakers
            effects = rng.normal(0, 0.5, (2, speakers))
            bonafide = 1 + np.repeat(effects[0], 10) + rng.normal(0, 0.75**0.5, 10 * speakers)
            spoof = -1 + np.repeat(effects[1], 20) + rng.normal(0, 0.75**0.5, 20 * speakers)
            ids = np.arange(speakers).astype(str)
            names = {"bonafide_speakers": np.repeat(ids, 10), "spoof_speakers": np.repeat(ids, 20)}
        interval = bootstrap_eer(bonafide, spoof, seed=turn, **names)
        held += interval.low <= 0.15865525 <= interval.high  # the true EER of two unit normals with distance two
    assert 0.93 <= held / 2000 <= 0.97, held / 2000


def test_paired_difference_tells_systems_apart_that_intervals_cannot() -> None:
    rng = np.random.default_rng(3)
    bonafide, spoof = rng.normal(1, 1, 500), rng.normal(-1, 1, 1000)
    better = bonafide + 0.25 + 0.1 * rng.normal(size=500), spoof + 0.1 * rng.normal(size=1000)
    first, second = bootstrap(bonafide, spoof), bootstrap(*better)
    assert second.eer.high > first.eer.low  # the separate intervals overlap
    difference = compare_eer((bonafide, spoof), better)
    assert difference.low < difference.estimate < difference.high < 0 and difference.p_value < 0.01
    same = compare_eer((bonafide, spoof), (bonafide + 1e-9, spoof))
    assert same.low <= 0 <= same.high and same.p_value == 1


def test_intervals_of_all_figures_hold_their_estimates() -> None:
    rng = np.random.default_rng(4)
    found = bootstrap(rng.normal(2, 1, 300), rng.normal(-2, 1, 500))
    for interval in found:
        assert interval.low < interval.estimate < interval.high
    eer = bootstrap_eer(*(2 * (rng.normal(1, 1, 50),)), resamples=200)
    assert eer.unit == "utterance" and eer.low <= eer.high


def test_decisions_at_a_threshold() -> None:
    found = decisions([3.0, 1.0, -1.0, 2.0], [-2.0, 0.0, -3.0], 0.0)
    assert (found.miss_rate, found.false_alarm_rate) == (0.25, pytest.approx(1 / 3))
    assert found.accuracy == pytest.approx(5 / 7) and found.f1 == pytest.approx(4 / 6)
    assert decisions([1.0], [1.0], 0.0).f1 == 0


def test_segments_are_as_spoofed_as_their_worst_frame() -> None:
    scores = [[2.0, 2.0, -1.0, 2.0, 3.0], [1.0, -2.0]]
    assert segment_eer(scores, [[1, 1, 0, 1, 1], [1, 0]], 20).eer == 0
    assert segment_eer(scores, [[1, 0, 1], [0]], 40).eer == 0
    swapped = segment_eer(scores, [[0, 1, 1], [1]], 40)
    assert swapped.eer > 0.5
    with pytest.raises(ValueError, match="multiple of 20"):
        segment_eer(scores, [[1], [0]], 30)
    with pytest.raises(ValueError, match="2 utterances have scores, but 1 have labels"):
        segment_eer(scores, [[1]], 20)


def test_range_eer_is_the_eer_weighted_by_durations() -> None:
    rng = np.random.default_rng(5)
    scores = [rng.normal(size=rng.integers(5, 40)) for _ in range(30)]
    labels = [(rng.random(2 * its.size) < 0.6).astype(int) for its in scores]  # every 10 ms
    fine_scores = np.concatenate([np.repeat(its, 2) for its in scores])
    fine_labels = np.concatenate(labels)
    expected = equal_error_rate(fine_scores[fine_labels == 1], fine_scores[fine_labels == 0]).eer
    assert range_eer(scores, labels).eer == pytest.approx(expected, abs=0.02)
    whole = [np.repeat(its[::2], 2) for its in labels]  # boundaries between frames: equal to an EER over frames
    same = segment_eer(scores, [its[::2] for its in whole], 20).eer
    assert range_eer(scores, whole).eer == pytest.approx(same, abs=0.01)
    with pytest.raises(ValueError, match="only one class"):
        range_eer([[1.0, 2.0]], [[1, 1, 1, 1]])


def test_costs_that_mean_nothing_are_errors() -> None:
    for wrong in ((0, 1, 0.5), (1, -1, 0.5), (1, 1, 0), (1, 1, 1.5)):
        with pytest.raises(ValueError, match="must"):
            DetectionCosts(*wrong)
    with pytest.raises(ValueError, match="form must be"):
        min_tdcf([1.0], [0.0], ASVSPOOF5_ASV, form="2020")
    with pytest.raises(ValueError, match="a CM can help"):
        min_tdcf([1.0], [0.0], ASVSPOOF5_ASV._replace(spoof_false_alarm=0.0))


MODULES = Path(bootstrap.__code__.co_filename).parent / "modules"


@pytest.mark.parametrize("name", sorted(path.name for path in MODULES.iterdir() if path.is_dir()))
def test_modules_of_evaluate_give_the_functions_figures(name: str) -> None:
    evaluate = pytest.importorskip("evaluate")
    rng = np.random.default_rng(6)
    kinds = rng.integers(0, 3, 300)
    scores, asv = 2.0 * (kinds > 0) + rng.normal(size=300), 2.0 * (kinds == 1) + rng.normal(size=300)
    by_kind = [[values[kinds == kind] for kind in (1, 2, 0)] for values in (scores, asv)]
    bonafide, spoof = scores[kinds > 0], scores[kinds == 0]
    labels = kinds if name in ("tandem", "adcf") else (kinds > 0).astype(int)
    more = {"asv_scores": asv.tolist()} if name == "tandem" else {}
    found = evaluate.load(str(MODULES / name)).compute(predictions=scores.tolist(), references=labels.tolist(), **more)
    lowest = min_dcf(bonafide, spoof)
    expected = {
        "eer": lambda: equal_error_rate(bonafide, spoof)._asdict(),
        "dcf": lambda: {
            "min_dcf": lowest.dcf, "threshold": lowest.threshold, "act_dcf": actual_dcf(bonafide, spoof)
        },
        "cllr": lambda: {"cllr": cllr(bonafide, spoof), "min_cllr": min_cllr(bonafide, spoof)},
        "adcf": lambda: {"min_adcf": min_adcf(*by_kind[0])},
        "tandem": lambda: {
            "min_tdcf_2021": min_tdcf(bonafide, spoof, asv_error_rates(*by_kind[1])[0]),
            "min_tdcf_2019": min_tdcf(bonafide, spoof, asv_error_rates(*by_kind[1])[0], form="2019"),
            "t_eer": tandem_eer(tuple(by_kind[1]), tuple(by_kind[0])).eer,
            "asv_threshold": tandem_eer(tuple(by_kind[1]), tuple(by_kind[0])).asv_threshold,
            "cm_threshold": tandem_eer(tuple(by_kind[1]), tuple(by_kind[0])).cm_threshold,
        },
    }  # fmt: skip
    assert found == pytest.approx(expected[name](), abs=1e-9)


def test_interval_holds_the_estimate_and_shrinks_with_more_trials() -> None:
    rng = np.random.default_rng(0)
    few = bootstrap_eer(rng.normal(1, 1, 100), rng.normal(-1, 1, 100))
    many = bootstrap_eer(rng.normal(1, 1, 3000), rng.normal(-1, 1, 3000))
    assert few.unit == many.unit == "utterance"
    assert few.low < few.estimate < few.high and many.low < many.estimate < many.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 0.1587 < many.high  # the true EER of two unit normals with distance two


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
    with pytest.raises(ValueError, match="2 and 1 speakers were passed for 1 bona fide and 1 spoofed"):
        bootstrap_eer([1.0], [0.0], bonafide_speakers=["a", "b"], spoof_speakers=["c"])
