"""Bootstrap confidence intervals for error rates and costs, and paired comparisons, by speaker or by utterance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cllr import bits, cllr
from .dcf import ASVSPOOF5_COSTS, DetectionCosts, actual_dcf, min_dcf
from .eer import check_scores, equal_error_rate

# Resamples are processed in slabs, so that tables have about this many cells.
_CELLS_PER_SLAB = 2_000_000
RESAMPLES, CONFIDENCE = 1000, 0.95


class Interval(NamedTuple):
    """`estimate` on all trials, bounds `low` and `high`, and the resampled `unit`."""

    estimate: float
    low: float
    high: float
    unit: str


class Difference(NamedTuple):
    """Difference of two systems' EERs on the same trials, with bounds, two-sided p-value and resampled `unit`."""

    estimate: float
    low: float
    high: float
    p_value: float
    unit: str


class Intervals(NamedTuple):
    """Intervals for the metrics of one system."""

    eer: Interval
    min_dcf: Interval
    act_dcf: Interval
    cllr: Interval


def bootstrap_eer(
    bonafide_scores: ArrayLike,
    spoof_scores: ArrayLike,
    *,
    bonafide_speakers: Sequence[str] | None = None,
    spoof_speakers: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """
    Returns the expanded percentile bootstrap interval of the EER (Efron & Tibshirani 1993, chapter 13). It is widened
    like Student's t (Hesterberg 2015, section 3.3), because plain percentiles are too narrow with few speakers.

    Utterances of one speaker are not independent. If speakers are given, whole speakers are drawn with replacement
    (cluster bootstrap); otherwise utterances, separately for each class. Speakers with only bona fide trials, with
    only spoofed trials and with both are three strata, drawn separately, so every resample has both classes.

    Args:
        bonafide_scores: (N,) scores, higher = bona fide.
        spoof_scores: (M,) scores.
        bonafide_speakers: N speaker ids of the bona fide trials; both speaker lists or neither.
        spoof_speakers: M speaker ids (claimed or source speakers) of the spoofed trials.
        resamples: number of bootstrap resamples.
        confidence: coverage of the interval, in (0, 1).
        seed: seed of the resampling.

    Raises:
        ValueError: a class is empty, scores are not finite, or speakers do not match the scores.
    """
    resampler = _Resampler(bonafide_scores, spoof_scores, bonafide_speakers, spoof_speakers)
    [draws] = resampler.draw(resamples, seed, [resampler.system(bonafide_scores, spoof_scores).eer])
    eer = equal_error_rate(bonafide_scores, spoof_scores).eer
    return Interval(eer, *resampler.bounds(draws, confidence), resampler.unit)


def bootstrap(
    bonafide_scores: ArrayLike,
    spoof_scores: ArrayLike,
    *,
    bonafide_speakers: Sequence[str] | None = None,
    spoof_speakers: Sequence[str] | None = None,
    costs: DetectionCosts = ASVSPOOF5_COSTS,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Intervals:
    """
    Returns intervals of EER, minimum and actual DCF and Cllr over the same resamples. Arguments as in `bootstrap_eer`.

    Raises:
        ValueError: as in `bootstrap_eer`.
    """
    resampler = _Resampler(bonafide_scores, spoof_scores, bonafide_speakers, spoof_speakers)
    system = resampler.system(bonafide_scores, spoof_scores)
    estimates = (
        equal_error_rate(bonafide_scores, spoof_scores).eer,
        min_dcf(bonafide_scores, spoof_scores, costs).dcf,
        actual_dcf(bonafide_scores, spoof_scores, costs),
        cllr(bonafide_scores, spoof_scores),
    )
    figures = [system.eer, system.min_dcf(costs), system.actual_dcf(costs), system.cllr()]
    draws = resampler.draw(resamples, seed, figures)
    intervals = (
        Interval(estimate, *resampler.bounds(values, confidence), resampler.unit)
        for estimate, values in zip(estimates, draws, strict=True)
    )
    return Intervals(*intervals)


def compare_eer(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    *,
    bonafide_speakers: Sequence[str] | None = None,
    spoof_speakers: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """
    Compares two systems on the same trials: EER of the second minus EER of the first, over paired resamples.

    The p-value is twice the smaller share of resamples on either side of zero.

    Args:
        first, second: scores of bona fide (N,) and spoofed (M,) trials, the same trials in the same order.
        others: as in `bootstrap_eer`.

    Raises:
        ValueError: as in `bootstrap_eer`, or the systems have different numbers of trials.
    """
    resampler = _Resampler(*first, bonafide_speakers, spoof_speakers)
    one, other = resampler.draw(resamples, seed, [resampler.system(*first).eer, resampler.system(*second).eer])
    difference = other - one
    tail = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    estimate = equal_error_rate(*second).eer - equal_error_rate(*first).eer
    return Difference(
        estimate, *resampler.bounds(difference, confidence), min(1.0, 2 * (tail + 1) / (resamples + 1)), resampler.unit
    )


# How often each cluster was drawn in each resample, (K, R) → a metric of each resample, (R,).
Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class _Resampler:
    """Resamples speakers or utterances (K clusters), for several metrics at once."""

    def __init__(
        self,
        bonafide_scores: ArrayLike,
        spoof_scores: ArrayLike,
        bonafide_speakers: Sequence[str] | None,
        spoof_speakers: Sequence[str] | None,
    ) -> None:
        self.bonafide = check_scores(bonafide_scores, "bonafide_scores").size
        self.spoof = check_scores(spoof_scores, "spoof_scores").size
        if (bonafide_speakers is None) != (spoof_speakers is None):
            raise ValueError("Pass the speakers of both classes or of neither.")
        if bonafide_speakers is not None and spoof_speakers is not None:
            if (len(bonafide_speakers), len(spoof_speakers)) != (self.bonafide, self.spoof):
                raise ValueError(
                    f"{len(bonafide_speakers)} and {len(spoof_speakers)} speakers were passed for "
                    f"{self.bonafide} bona fide and {self.spoof} spoofed scores: pass one speaker per score."
                )
            self.unit = "speaker"
            self._cluster, self._strata = _speaker_strata(bonafide_speakers, spoof_speakers)
        else:
            self.unit = "utterance"
            self._cluster = np.arange(self.bonafide + self.spoof)
            self._strata = [self._cluster[: self.bonafide], self._cluster[self.bonafide :]]

    def system(self, bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> _System:
        """Returns a system with scores on these trials. Raises ValueError if the numbers of trials differ."""
        bonafide = check_scores(bonafide_scores, "bonafide_scores")
        spoof = check_scores(spoof_scores, "spoof_scores")
        if (bonafide.size, spoof.size) != (self.bonafide, self.spoof):
            raise ValueError(
                f"the systems have different trials: {self.bonafide} bona fide and {self.spoof} spoofed scores, but "
                f"{bonafide.size} and {spoof.size} in the other."
            )
        return _System(bonafide, spoof, self._cluster)

    def draw(self, resamples: int, seed: int, figures: Sequence[Figure]) -> list[NDArray[np.float64]]:
        """Returns each metric over the resamples, (R,)."""
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {resamples}.")
        values = [[figure(drawn) for figure in figures] for drawn in self._slabs(resamples, seed)]
        return [np.concatenate(parts) for parts in zip(*values, strict=True)]

    def bounds(self, draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
        """Returns the expanded percentiles that bound `confidence` of the resampled metric (R,)."""
        from scipy.special import ndtr, stdtrit

        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence}.")
        drawn = sum(stratum.size for stratum in self._strata)
        freedom = max(1, drawn - len(self._strata))
        tail = ndtr(stdtrit(freedom, (1 - confidence) / 2) * np.sqrt((freedom + 1) / freedom))
        low, high = np.quantile(draws, [tail, 1 - tail])
        return float(low), float(high)

    def _slabs(self, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
        rng = np.random.default_rng(seed)
        clusters = sum(stratum.size for stratum in self._strata)
        slab = max(1, _CELLS_PER_SLAB // clusters)
        for start in range(0, resamples, slab):
            times = np.zeros((min(slab, resamples - start), clusters))
            for row in times:
                for stratum in self._strata:
                    picks = rng.integers(stratum.size, size=stratum.size)
                    row[stratum] = np.bincount(picks, minlength=stratum.size)
            yield np.ascontiguousarray(times.T)


def _speaker_strata(
    bonafide_speakers: Sequence[str], spoof_speakers: Sequence[str]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Returns the cluster index of each trial (bona fide first), and the cluster indices of each non-empty stratum."""
    names, cluster = np.unique(np.asarray([*bonafide_speakers, *spoof_speakers], dtype=str), return_inverse=True)
    says_bonafide = np.isin(np.arange(names.size), cluster[: len(bonafide_speakers)])
    says_spoof = np.isin(np.arange(names.size), cluster[len(bonafide_speakers) :])
    kinds = (says_bonafide & says_spoof, says_bonafide & ~says_spoof, says_spoof & ~says_bonafide)
    return cluster, [np.flatnonzero(kind) for kind in kinds if kind.any()]


class _System:
    """
    Metrics of one system, with trials repeated as often as their clusters were drawn.

    Trials are in the order of `det_curve`: by score, bona fide first among equal scores. Point p of the curve rejects
    the first p trials.
    """

    def __init__(self, bonafide: NDArray[np.float64], spoof: NDArray[np.float64], cluster: NDArray[np.int64]) -> None:
        self._bonafide, self._spoof = bonafide, spoof
        self._clusters = cluster[: bonafide.size], cluster[bonafide.size :]
        order = np.argsort(np.concatenate([bonafide, spoof]), kind="stable")
        self._is_bonafide, self._cluster = order < bonafide.size, cluster[order]
        self._block = int(np.ceil(np.sqrt(order.size)))  # trials
        self._coarse = self._counts(np.append(np.arange(self._block, order.size, self._block), order.size))

    def eer(self, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns (R,), equal to `equal_error_rate` of the repeated trials (tested)."""
        miss, correct = self._rejected(drawn, self._coarse)
        bonafide, spoof = miss[-1], correct[-1]
        rows = np.arange(drawn.shape[1])
        # The curves cross in the first block at whose end the miss rate reaches the false alarm rate …
        block = np.argmax(miss * spoof >= (spoof - correct) * bonafide, axis=0)
        before = np.maximum(block - 1, 0)
        miss_0 = np.where(block > 0, miss[before, rows], 0)
        correct_0 = np.where(block > 0, correct[before, rows], 0)
        # … and within it at the first such trial.
        trials = np.minimum(block[:, None] * self._block + np.arange(self._block), self._is_bonafide.size - 1)
        weights = drawn[self._cluster[trials], rows[:, None]]
        weights[:, 1:][trials[:, 1:] == trials[:, :-1]] = 0  # the last block may be shorter
        miss = miss_0[:, None] + np.cumsum(weights * self._is_bonafide[trials], axis=1)
        correct = correct_0[:, None] + np.cumsum(weights * ~self._is_bonafide[trials], axis=1)
        at = np.argmax(miss * spoof[:, None] >= (spoof[:, None] - correct) * bonafide[:, None], axis=1)
        crosses_as_bonafide = self._is_bonafide[trials[rows, at]]
        miss_0 = np.where(at > 0, miss[rows, at - 1], miss_0)
        correct_0 = np.where(at > 0, correct[rows, at - 1], correct_0)
        # A repeated trial is several steps of one curve, while the other one does not change. Compare the steps on
        # both sides of the crossing and keep the closer pair, or the earlier one if both are equally close.
        steps_bonafide = _steps_to_cross(miss_0, bonafide, (spoof - correct_0) / spoof)
        steps_spoof = _steps_to_cross(correct_0, spoof, (bonafide - miss_0) / bonafide)
        best_gap, eer = np.full(rows.size, np.inf), np.zeros(rows.size)
        for back in (1, 0):
            rejected_bonafide = np.where(crosses_as_bonafide, miss_0 + steps_bonafide - back, miss_0)
            rejected_spoof = np.where(crosses_as_bonafide, correct_0, correct_0 + steps_spoof - back)
            miss_rate, false_alarm = rejected_bonafide / bonafide, (spoof - rejected_spoof) / spoof
            gap = np.abs(miss_rate - false_alarm)
            closer = gap < best_gap
            best_gap = np.where(closer, gap, best_gap)
            eer = np.where(closer, (miss_rate + false_alarm) / 2, eer)
        return eer

    def min_dcf(self, costs: DetectionCosts) -> Figure:
        """Returns the minimum DCF of resamples."""
        # The cost falls at spoofed trials and rises at bona fide ones, so its minimum is after one and before another.
        after_spoof = np.concatenate([[True], ~self._is_bonafide])
        before_bonafide = np.concatenate([self._is_bonafide, [True]])
        points = np.flatnonzero(after_spoof & before_bonafide)
        counts = self._counts(points)
        slab = max(1, _CELLS_PER_SLAB // points.size)
        totals = [np.bincount(cluster, minlength=self._cluster.max() + 1).astype(float) for cluster in self._clusters]

        def lowest(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
            miss, correct = self._rejected(drawn, counts)
            bonafide, spoof = (total @ drawn for total in totals)
            return costs.cost(miss / bonafide, (spoof - correct) / spoof).min(axis=0)

        return lambda drawn: np.concatenate(
            [lowest(drawn[:, start : start + slab]) for start in range(0, drawn.shape[1], slab)]
        )

    def actual_dcf(self, costs: DetectionCosts) -> Figure:
        """Returns the actual DCF of resamples."""
        missed = self._mean(self._bonafide < costs.threshold, 0)
        accepted = self._mean(self._spoof >= costs.threshold, 1)
        return lambda drawn: costs.cost(missed(drawn), accepted(drawn))

    def cllr(self) -> Figure:
        """Returns the Cllr of resamples, in bits."""
        bonafide, spoof = self._mean(bits(-self._bonafide), 0), self._mean(bits(self._spoof), 1)
        return lambda drawn: (bonafide(drawn) + spoof(drawn)) / 2

    def _mean(self, values: NDArray, which: int) -> Figure:
        """Returns the mean over a class, given a value for each of its trials."""
        cluster, size = self._clusters[which], self._cluster.max() + 1
        sums, counts = np.bincount(cluster, values, size), np.bincount(cluster, minlength=size).astype(float)
        return lambda drawn: (sums @ drawn) / (counts @ drawn)

    def _counts(self, points: NDArray[np.int64]) -> tuple[Any, Any]:
        """Returns the bona fide and spoofed trials of each cluster between consecutive points, (P, K) each."""
        from scipy.sparse import coo_array

        interval = np.searchsorted(points, np.arange(self._cluster.size), side="right")
        kept = interval < points.size  # without trials after the last point
        shape = (points.size, self._cluster.max() + 1)
        return tuple(
            coo_array(
                (np.ones(np.count_nonzero(chosen)), (interval[chosen], self._cluster[chosen])), shape=shape
            ).tocsr()
            for chosen in (kept & self._is_bonafide, kept & ~self._is_bonafide)
        )

    def _rejected(
        self, drawn: NDArray[np.float64], counts: tuple[Any, Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the bona fide and spoofed trials rejected at each point of each resample, (P, R) each."""
        return np.cumsum(counts[0] @ drawn, axis=0), np.cumsum(counts[1] @ drawn, axis=0)


def _steps_to_cross(
    done: NDArray[np.float64], total: NDArray[np.float64], goal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the smallest number of steps, at least one, with which `(done + steps) / total` reaches `goal`."""
    return np.maximum(np.ceil(goal * total - 1e-9) - done, 1)
