"""
Metrics for partially spoofed speech (PartialSpoof): EER over segments, and over time ranges.

A frame model gives a score every 20 ms. Labels are 1 for bona fide, 0 for spoofed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .eer import EqualErrorRate, check_scores, equal_error_rate

FRAME_MS = 20


def segment_eer(
    frame_scores: Sequence[ArrayLike], segment_labels: Sequence[ArrayLike], resolution_ms: int = FRAME_MS
) -> EqualErrorRate:
    """
    Returns the EER over the segments of all utterances at one resolution (Zhang et al. 2022, PartialSpoof).

    A segment's score is the lowest of its frames, because one spoofed frame makes a segment spoofed. If the numbers of
    labels and scored segments differ, the surplus is ignored: the last frame of an utterance may be incomplete.

    Args:
        frame_scores: the scores (T,) of each utterance, higher = bona fide.
        segment_labels: the labels (T',) of each utterance at this resolution.
        resolution_ms: a multiple of 20 ms.

    Raises:
        ValueError: the numbers of utterances differ, the resolution is not a multiple of 20, or a class is absent.
    """
    if resolution_ms < FRAME_MS or resolution_ms % FRAME_MS:
        raise ValueError(f"resolution_ms must be a multiple of {FRAME_MS}, got {resolution_ms}.")
    scores, labels = [], []
    for its_scores, its_labels in _pairs(frame_scores, segment_labels):
        pooled = pool_frames(its_scores, resolution_ms // FRAME_MS)
        both = min(pooled.size, its_labels.size)
        scores.append(pooled[:both])
        labels.append(its_labels[:both])
    all_scores, all_labels = np.concatenate(scores), np.concatenate(labels)
    return equal_error_rate(all_scores[all_labels == 1], all_scores[all_labels == 0])


def range_eer(
    frame_scores: Sequence[ArrayLike], segment_labels: Sequence[ArrayLike], label_ms: int = 10
) -> EqualErrorRate:
    """
    Returns the range-based EER (Zhang et al. 2023), which measures durations instead of counts. The miss rate is the
    share of bona fide time classified as spoofed; the false alarm rate is the share of spoofed time classified as bona
    fide. A frame with a boundary inside counts for each side by the duration there.

    Args:
        frame_scores: the scores (T,) of each utterance, one per 20 ms, higher = bona fide.
        segment_labels: the reference labels (T',) of each utterance, at the finest resolution available.
        label_ms: duration of a label in ms.

    Raises:
        ValueError: the numbers of utterances differ, or a class is absent.
    """
    if label_ms < 1:
        raise ValueError(f"label_ms must be at least 1, got {label_ms}.")
    step = int(np.gcd(FRAME_MS, label_ms))  # divides frames and labels
    pieces = []  # the frames of each utterance, (T, 3): score, bona fide duration, spoofed duration
    for its_scores, its_labels in _pairs(frame_scores, segment_labels):
        is_bonafide = np.repeat(its_labels == 1, label_ms // step)
        frame_of = np.arange(is_bonafide.size) * step // FRAME_MS
        inside = frame_of < its_scores.size
        frame_of, is_bonafide = frame_of[inside], is_bonafide[inside]
        durations = [np.bincount(frame_of[kind], minlength=its_scores.size) for kind in (is_bonafide, ~is_bonafide)]
        pieces.append(np.stack([its_scores, *durations], axis=1))
    scores, bonafide, spoof = np.concatenate(pieces).T
    if not bonafide.any() or not spoof.any():
        raise ValueError("the labels have only one class: an error rate needs bona fide and spoofed time.")
    check_scores(scores, "frame_scores")
    order = np.argsort(scores, kind="stable")
    miss = np.concatenate([[0], np.cumsum(bonafide[order])]) / bonafide.sum()
    false_alarm = (spoof.sum() - np.concatenate([[0], np.cumsum(spoof[order])])) / spoof.sum()
    closest = int(np.argmin(np.abs(miss - false_alarm)))
    thresholds = np.concatenate([[scores[order[0]] - 0.001], scores[order]])
    return EqualErrorRate(float((miss[closest] + false_alarm[closest]) / 2), float(thresholds[closest]))


def pool_frames(scores: ArrayLike, frames: int) -> NDArray[np.float64]:
    """Returns the lowest score of each segment: (T,) → (⌈T / frames⌉,)."""
    values = np.asarray(scores, dtype=np.float64)
    return np.minimum.reduceat(values, np.arange(0, values.size, frames)) if values.size else values


def _pairs(
    scores: Sequence[ArrayLike], labels: Sequence[ArrayLike]
) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} utterances have scores, but {len(labels)} have labels.")
    if not len(scores):
        raise ValueError("there are no utterances.")
    return [(np.asarray(a, np.float64), np.asarray(b, np.int64)) for a, b in zip(scores, labels, strict=True)]
