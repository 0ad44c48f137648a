"""
Finds recordings that are in a corpus twice: equal samples, and nearly equal ones after coding, trimming or a change of
level.

The fingerprint is that of Haitsma & Kalker (2002, "A Highly Robust Audio Fingerprinting System"): 32 bits for every
11.6 ms of sound, the signs of differences of energy between neighbouring bands and frames.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import SAMPLING_RATE

_WINDOW, _HOP = 5_920, 186  # samples: 0.37 s, and a 32nd of it
_BANDS = 33  # from 300 to 2,000 Hz, equally wide in octaves
_ERRORS = 0.25  # largest share of bits that differ between fingerprints of the same sound
_SHORTEST = 64  # frames to compare, 0.74 s
_STRIDE = 4  # every fourth frame of a recording is looked up
_COMMON = 200  # a word that is at so many places tells nothing
_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)
_VOTES = 3  # words that a candidate shares at one offset


@dataclass(frozen=True)
class Fingerprint:
    digest: str
    """Of the samples in 16 bits."""
    words: NDArray[np.uint32]
    """(T,)"""


@dataclass(frozen=True)
class Duplicates:
    """Pairs of utterances, each with their partitions and classes."""

    equal: list[tuple[str, str]]
    near: list[tuple[str, str]]
    across: int
    """How many pairs are in different partitions."""
    mixed: int
    """How many pairs have different labels."""

    def to_json(self) -> dict[str, Any]:
        return {"equal": self.equal, "near": self.near, "across_partitions": self.across, "across_classes": self.mixed}


def fingerprint(waveform: NDArray[np.float32]) -> Fingerprint:
    """Returns the fingerprint of a waveform (S,) at 16 kHz. Shorter than 0.37 s, it has no words."""
    digest = hashlib.blake2b((waveform * 32_767).round().astype(np.int16).tobytes(), digest_size=16).hexdigest()
    if waveform.size < _WINDOW + _HOP:
        return Fingerprint(digest, np.zeros(0, np.uint32))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _WINDOW)[::_HOP]
    edges = np.round(np.geomspace(300, 2_000, _BANDS + 1) * _WINDOW / SAMPLING_RATE).astype(int)
    energies = np.empty((len(frames), _BANDS), np.float32)
    window = np.hanning(_WINDOW).astype(np.float32)
    for start in range(0, len(frames), 256):  # a long recording does not fit into memory at once
        power = np.abs(np.fft.rfft(frames[start : start + 256] * window, axis=1)) ** 2
        energies[start : start + 256] = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    bits = np.diff(np.diff(energies, axis=1), axis=0) > 0
    words = (bits * (np.uint64(1) << np.arange(32, dtype=np.uint64))).sum(axis=1).astype(np.uint32)
    return Fingerprint(digest, words)


def find_duplicates(prints: Sequence[Fingerprint], rows: Sequence[dict[str, Any]]) -> Duplicates:
    """
    Returns pairs of equal and of nearly equal recordings.

    Args:
        rows: `utterance_id`, `label` and `partition` of each.
    """
    by_digest = defaultdict(list)
    for number, one in enumerate(prints):
        by_digest[one.digest].append(number)
    equal = [(same[0], other) for same in by_digest.values() for other in same[1:]]
    near = [pair for pair in _near(prints) if prints[pair[0]].digest != prints[pair[1]].digest]
    pairs = [(rows[first], rows[second]) for first, second in equal + near]
    named = [
        [(str(rows[a]["utterance_id"]), str(rows[b]["utterance_id"])) for a, b in found] for found in (equal, near)
    ]
    return Duplicates(
        named[0],
        named[1],
        sum(a.get("partition") != b.get("partition") for a, b in pairs),
        sum(a["label"] != b["label"] for a, b in pairs),
    )


def _near(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Returns pairs whose fingerprints agree at one offset. Candidates share several words at that offset."""
    lengths = [len(one.words) for one in prints]
    words = np.concatenate([one.words for one in prints])
    # Words with few or many bits are silence or noise.
    ones = _ONES[words.view(np.uint8)].reshape(-1, 4).sum(axis=1)
    told = np.flatnonzero((ones >= 4) & (ones <= 28))
    told = told[np.argsort(words[told], kind="stable")]
    owners = np.repeat(np.arange(len(prints)), lengths)[told]
    places = (np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths))[told]
    words = words[told]
    found = []
    for number, one in enumerate(prints):
        looked_up = np.arange(0, len(one.words), _STRIDE)
        first, last = (np.searchsorted(words, one.words[looked_up], side) for side in ("left", "right"))
        counts = np.where(last - first < _COMMON, last - first, 0)
        hits = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        others, offsets = owners[hits], places[hits] - np.repeat(looked_up, counts)
        later = others > number
        pairs, votes = np.unique(np.stack([others[later], offsets[later]]), axis=1, return_counts=True)
        best: dict[int, int] = {}
        for place in np.argsort(-votes, kind="stable")[: int((votes >= _VOTES).sum())].tolist():
            best.setdefault(int(pairs[0, place]), int(pairs[1, place]))
        found += [(number, other) for other, offset in best.items() if _agree(one.words, prints[other].words, offset)]
    return found


def _agree(first: NDArray[np.uint32], second: NDArray[np.uint32], offset: int) -> bool:
    """Returns whether most of the shorter recording is in the other: `second[t + offset]` against `first[t]`."""
    start, end = max(0, -offset), min(len(first), len(second) - offset)
    if end - start < max(_SHORTEST, min(len(first), len(second)) // 2):
        return False
    differ = np.bitwise_xor(first[start:end], second[start + offset : end + offset])
    errors = np.unpackbits(differ.view(np.uint8)).mean()
    return bool(errors < _ERRORS)
