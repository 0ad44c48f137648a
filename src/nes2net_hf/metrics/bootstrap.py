"""Bootstrap confidence intervals of the equal error rate, by speaker or by utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .eer import check_scores, equal_error_rate

# Resamples are handled in slabs so that the trial-by-resample table stays near this many cells (about 200 MB).
_CELLS_PER_SLAB = 8_000_000


class Interval(NamedTuple):
    """`estimate` on all trials, percentile bounds `low` and `high`, and `unit`: what was drawn again."""

    estimate: float
    low: float
    high: float
    unit: str


def bootstrap_eer(
    bonafide_scores: ArrayLike,
    spoof_scores: ArrayLike,
    *,
    bonafide_speakers: Sequence[str] | None = None,
    spoof_speakers: Sequence[str] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the EER (Efron & Tibshirani 1993, chapter 13).

    Utterances of one speaker are not independent, so whole speakers are drawn with replacement where speakers are
    given (cluster bootstrap); otherwise utterances, each class by itself. Speakers with bona fide trials only, with
    spoofed trials only and with both are three strata, each drawn by itself, so no resample lacks a class.

    Args:
        bonafide_scores: (N,) scores, higher = bona fide.
        spoof_scores: (M,) scores.
        bonafide_speakers: N speaker ids of the bona fide trials; both speaker lists or neither.
        spoof_speakers: M speaker ids (claimed or source speakers) of the spoofed trials.
        resamples: number of bootstrap resamples.
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling.

    Raises:
        ValueError: a class is empty, scores are not finite, or speakers do not match the scores.
    """
    bonafide = check_scores(bonafide_scores, "bonafide_scores")
    spoof = check_scores(spoof_scores, "spoof_scores")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    if (bonafide_speakers is None) != (spoof_speakers is None):
        raise ValueError("Give the speakers of both classes or of neither.")
    if bonafide_speakers is not None and spoof_speakers is not None:
        if (len(bonafide_speakers), len(spoof_speakers)) != (bonafide.size, spoof.size):
            raise ValueError(
                f"{len(bonafide_speakers)} and {len(spoof_speakers)} speakers were given for "
                f"{bonafide.size} bona fide and {spoof.size} spoofed scores."
            )
        unit, cluster, strata = "speaker", *_speaker_strata(bonafide_speakers, spoof_speakers)
    else:
        unit, cluster = "utterance", np.arange(bonafide.size + spoof.size)
        strata = [cluster[: bonafide.size], cluster[bonafide.size :]]

    scores = np.concatenate([bonafide, spoof])
    order = np.argsort(scores, kind="stable")
    is_bonafide = order < bonafide.size
    cluster = cluster[order]
    rng = np.random.default_rng(seed)
    slab = max(1, _CELLS_PER_SLAB // scores.size)
    draws: list[NDArray[np.float64]] = []
    for start in range(0, resamples, slab):
        times_drawn = _draw(strata, min(slab, resamples - start), rng)
        draws.append(_weighted_eer(times_drawn[:, cluster], is_bonafide))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(draws), [tail, 100 - tail])
    return Interval(equal_error_rate(bonafide, spoof).eer, float(low), float(high), unit)


def _speaker_strata(
    bonafide_speakers: Sequence[str], spoof_speakers: Sequence[str]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Cluster index per trial (bona fide first), and the cluster indices of the three strata that are not empty."""
    names, cluster = np.unique(np.asarray([*bonafide_speakers, *spoof_speakers], dtype=str), return_inverse=True)
    says_bonafide = np.isin(np.arange(names.size), cluster[: len(bonafide_speakers)])
    says_spoof = np.isin(np.arange(names.size), cluster[len(bonafide_speakers) :])
    kinds = (says_bonafide & says_spoof, says_bonafide & ~says_spoof, says_spoof & ~says_bonafide)
    return cluster, [np.flatnonzero(kind) for kind in kinds if kind.any()]


def _draw(strata: list[NDArray[np.int64]], resamples: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """(R, clusters) how often each cluster was drawn, as many draws per stratum as it has clusters."""
    times_drawn = np.zeros((resamples, sum(stratum.size for stratum in strata)), dtype=np.int32)
    for stratum in strata:
        picks = stratum[rng.integers(stratum.size, size=(resamples, stratum.size))]
        np.add.at(times_drawn, (np.arange(resamples)[:, None], picks), 1)
    return times_drawn


def _weighted_eer(weights: NDArray[np.int32], is_bonafide: NDArray[np.bool_]) -> NDArray[np.float64]:
    """EER of each resample, equal to `equal_error_rate` on trials repeated `weights` times (tested).

    Args:
        weights: (R, N) repetitions of each trial, in ascending order of score.
        is_bonafide: (N,) class of each trial.
    """
    rows = np.arange(weights.shape[0])
    miss = np.cumsum(weights * is_bonafide, axis=1)
    correct = np.cumsum(weights * ~is_bonafide, axis=1)
    n_bonafide, n_spoof = miss[:, -1], correct[:, -1]
    # The curves cross at the first trial after whose rejection the miss rate has caught up with the false alarms.
    crossed = miss * n_spoof[:, None].astype(np.int64) >= (n_spoof[:, None] - correct) * n_bonafide[:, None].astype(
        np.int64
    )
    at = np.argmax(crossed, axis=1)
    before = np.maximum(at - 1, 0)
    miss_0 = np.where(at > 0, miss[rows, before], 0)
    correct_0 = np.where(at > 0, correct[rows, before], 0)
    # A repeated trial is several steps of one of the two curves, while the other stands still: look at each step on
    # either side of the crossing and keep the closer pair, the earlier one where both are as close.
    steps_bonafide = _steps_to_cross(miss_0, n_bonafide, 1 - correct_0 / n_spoof)
    steps_spoof = _steps_to_cross(correct_0, n_spoof, 1 - miss_0 / n_bonafide)
    best_gap = np.full(rows.size, np.inf)
    eer = np.zeros(rows.size)
    for back in (1, 0):
        rejected_bonafide = np.where(is_bonafide[at], miss_0 + steps_bonafide - back, miss_0)
        rejected_spoof = np.where(is_bonafide[at], correct_0, correct_0 + steps_spoof - back)
        miss_rate, false_alarm = rejected_bonafide / n_bonafide, 1 - rejected_spoof / n_spoof
        gap = np.abs(miss_rate - false_alarm)
        closer = gap < best_gap
        best_gap = np.where(closer, gap, best_gap)
        eer = np.where(closer, (miss_rate + false_alarm) / 2, eer)
    return eer


def _steps_to_cross(
    done: NDArray[np.signedinteger], total: NDArray[np.signedinteger], goal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fewest further steps after which `(done + steps) / total` reaches `goal`, at least one."""
    return np.maximum(np.ceil(goal * total - 1e-9) - done, 1)
