"""
The trivial baseline: logistic regression on level, silence, bandwidth and spectral-tilt statistics.

It knows nothing about speech. If it separates spoof from bona fide on held-out speakers, the corpus leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nes2net_hf.metrics import equal_error_rate

from . import activity, audio
from .errors import CorpusError
from .manifest import Entry, read_manifest

LOWEST_EER = 0.35
_BANDS = (100, 300, 600, 1000, 1500, 2200, 3000, 4000, 5000, 6000, 7000)  # Hz
FEATURES = (
    "rms", "peak", "crest", "silent_30", "silent_40", "silent_50", "leading", "trailing", "floor", "rolloff_95",
    "rolloff_99", "above_7k", "tilt", *(f"band_{low}" for low in _BANDS[:-1]),
)  # fmt: skip


def features(wave: np.ndarray) -> np.ndarray:
    """
    Returns the statistics in `FEATURES` of (S,) at 16 kHz: (23,).

    Levels and band energies are in dB, silence as the share of 10 ms frames far below the loudest, leading and
    trailing silence in seconds, roll-off in kHz, and tilt in dB per octave.
    """
    levels = activity.frame_levels(wave)
    rms, peak = 10 * np.log10(np.mean(wave**2) + 1e-12), 20 * np.log10(np.abs(wave).max() + 1e-9)
    relative = levels - np.percentile(levels, 95)
    loud = np.flatnonzero(relative > -30.0)
    power = np.abs(np.fft.rfft(wave)) ** 2
    frequencies = np.fft.rfftfreq(wave.size, 1 / audio.SAMPLE_RATE)
    cumulated = np.cumsum(power) / power.sum()
    rolloff = [frequencies[np.searchsorted(cumulated, share)] / 1000 for share in (0.95, 0.99)]
    above = 10 * np.log10(power[frequencies >= 7000].sum() / power.sum() + 1e-9)
    bands = np.array(
        [
            10 * np.log10(power[(frequencies >= low) & (frequencies < high)].mean() + 1e-12)
            for low, high in pairwise(_BANDS)
        ]
    )
    tilt = np.polyfit(np.log2(np.sqrt(np.multiply(_BANDS[:-1], _BANDS[1:]))), bands, 1)[0]
    return np.array(
        [
            rms, peak, peak - rms, *(np.mean(relative < limit) for limit in (-30, -40, -50)), loud[0] / 100,
            (levels.size - 1 - loud[-1]) / 100, np.percentile(levels, 5), *rolloff, above, tilt,
            *(bands - bands.mean()),
        ]
    )  # fmt: skip


def baseline_scores(corpus: Path) -> list[dict[str, Any]]:
    """Trains on `train`; returns a row per `test` utterance with `utterance_id` and `score` (higher: bona fide)."""
    entries = _entries(corpus)
    train = [entry for entry in entries if entry.partition == "train"]
    test = [entry for entry in entries if entry.partition == "test"]
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(_measure(corpus, train), [entry.label == "bonafide" for entry in train])
    scores = model.decision_function(_measure(corpus, test))
    return [
        {"utterance_id": entry.utterance_id, "score": float(score)} for entry, score in zip(test, scores, strict=True)
    ]


def check(corpus: Path, report: Callable[[str], None]) -> bool:
    """Reports the baseline's EER, pooled and per attack; returns True if none is below 35 %."""
    scores = {row["utterance_id"]: row["score"] for row in baseline_scores(corpus)}
    entries = _entries(corpus)
    seen = {entry.attack for entry in entries if entry.partition == "train" and entry.attack}
    test = [entry for entry in entries if entry.partition == "test"]
    attacks = sorted({entry.attack for entry in test if entry.attack}, key=lambda attack: (attack not in seen, attack))
    groups = {
        "pooled": attacks,
        "pooled, seen attacks": [attack for attack in attacks if attack in seen],
        "pooled, unseen attacks": [attack for attack in attacks if attack not in seen],
        **{attack: [attack] for attack in attacks},
    }
    report(f"{'spoofs':24s} {'bona fide':>9s} {'spoof':>6s}  EER of the trivial baseline, %")
    honest = True
    for name, members in groups.items():
        spoof = [entry for entry in test if entry.attack in members]
        # Codec2 exists only at 8 kHz, so each group is compared with bona fide speech of its own codec conditions.
        codecs = {entry.codec for entry in spoof}
        bonafide = [entry for entry in test if entry.label == "bonafide" and entry.codec in codecs]
        eer = equal_error_rate(
            [scores[entry.utterance_id] for entry in bonafide], [scores[entry.utterance_id] for entry in spoof]
        ).eer
        honest &= eer >= LOWEST_EER
        mark = "" if eer >= LOWEST_EER else "  leaks"
        report(f"{name:24s} {len(bonafide):9d} {len(spoof):6d}  {100 * eer:5.1f}{mark}")
    return honest


def _measure(corpus: Path, entries: list[Entry]) -> np.ndarray:
    return np.stack([features(audio.read(corpus / entry.path)) for entry in entries])


def _entries(corpus: Path) -> list[Entry]:
    manifest = corpus / "manifest.csv"
    if not manifest.is_file():
        raise CorpusError(f"{manifest} does not exist: run build_corpus.py --out {corpus} first.")
    return read_manifest(manifest)
