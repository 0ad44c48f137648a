"""
Two baselines that know nothing about speech: if one separates spoof from bona fide, the corpus leaks.

The trivial baseline is a logistic regression on level, silence, bandwidth and spectral-tilt statistics. The column
baseline sees only the manifest's columns language, style and duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from nes2net_hf.audio.cues import CUES, measure_cues
from nes2net_hf.metrics import auc, equal_error_rate

from . import audio
from .errors import CorpusError
from .manifest import Entry, primary, read_manifest
from .partitions import attack_groups

Report = Callable[[str], None]

# Below these EERs the corpus leaks: of the trivial baseline on any group, of the column baseline trained on train and
# scored on test, and of the column baseline trained and scored on parts of one partition.
LOWEST_EER, LOWEST_COLUMN_EER, LOWEST_INNER_EER = 0.35, 0.45, 0.35
EVALUATED = ("test", "dev", "extra")  # not every corpus has extra
FOLDS = 5
FEATURES = (
    "rms", "peak", "crest", "silent_30", "silent_40", "silent_50", "leading", "trailing", "floor", "rolloff_95",
    "rolloff_99", "above_7k", *CUES["spectrum"],
)  # fmt: skip


def features(wave: np.ndarray) -> np.ndarray:
    """Returns the statistics in `FEATURES` of (S,) at 16 kHz: (23,)."""
    measured = measure_cues(wave)
    return np.array([measured[name] for name in FEATURES])


def baseline_scores(corpus: Path, partitions: Sequence[str]) -> dict[str, float]:
    """Trains on `train`; returns utterance id → score (higher: bona fide) for these partitions."""
    entries = _entries(corpus)
    model = _trained_on_statistics(corpus, _part(entries, "train"))
    return _score(model, corpus, [entry for partition in partitions for entry in _part(entries, partition)])


def column_scores(train: Sequence[Entry], scored: Sequence[Entry]) -> np.ndarray:
    """Trains the column baseline on N entries; returns the scores (M,) of `scored` (higher: bona fide)."""
    return _column_model().fit(_columns(train), _is_bonafide(train)).decision_function(_columns(scored))


def inner_column_scores(entries: Sequence[Entry]) -> np.ndarray:
    """Returns the column baseline's scores (N,) of a partition's entries, each from a model trained on other folds."""
    labels = _is_bonafide(entries)
    if min(labels.sum(), (~labels).sum()) < FOLDS:
        raise CorpusError(f"The check needs {FOLDS} utterances of each class in {entries[0].partition}.")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(_column_model(), _columns(entries), labels, cv=folds, method="decision_function")


def check(corpus: Path, report: Report) -> bool:
    """Reports both baselines and the languages; returns True if no EER is below its limit."""
    entries = _entries(corpus)
    honest = check_statistics(corpus, entries, report)
    report("")
    honest &= check_columns(entries, report)
    report("")
    report_languages(entries, report)
    return honest


def check_statistics(corpus: Path, entries: Sequence[Entry], report: Report) -> bool:
    """Reports the trivial baseline's EER per evaluated partition, pooled and per attack."""
    train = _part(entries, "train")
    seen = {entry.attack for entry in train if entry.attack}
    model = _trained_on_statistics(corpus, train)
    report(f"{'spoofs':34s} {'bona fide':>9s} {'spoof':>6s}  trivial baseline, EER in %")
    honest = True
    for partition in EVALUATED:
        part = _part(entries, partition)
        scores = _score(model, corpus, part) if part else {}
        attacks = {entry.attack for entry in part if entry.attack}
        groups = {"all attacks": sorted(attacks)} if attacks else {}
        for name, members in (groups | attack_groups(attacks, seen)).items():
            spoof = [entry for entry in part if entry.attack in members]
            # Codec2 exists only at 8 kHz, so each group is compared with bona fide of its own codec conditions.
            codecs = {entry.codec for entry in spoof}
            bonafide = [entry for entry in part if entry.label == "bonafide" and entry.codec in codecs]
            eer = equal_error_rate(
                [scores[entry.utterance_id] for entry in bonafide], [scores[entry.utterance_id] for entry in spoof]
            ).eer
            honest &= eer >= LOWEST_EER
            mark = "" if eer >= LOWEST_EER else "  leaks"
            report(f"{f'{partition}, {name}':34s} {len(bonafide):9d} {len(spoof):6d}  {100 * eer:5.1f}{mark}")
    return honest


def check_columns(entries: Sequence[Entry], report: Report) -> bool:
    """Reports the column baseline's EER and AUC, trained on train, and trained within each partition."""
    train = _part(entries, "train")
    # Extra and, across partitions, dev are only reported.
    trials = [(f"train -> {name}", name, LOWEST_COLUMN_EER if name == "test" else 0.0) for name in EVALUATED]
    trials += [
        (f"within {name}", name, 0.0 if name == "extra" else LOWEST_INNER_EER) for name in ("train", *EVALUATED)
    ]
    report(f"{'trained -> scored':24s} {'bona fide':>9s} {'spoof':>6s}  EER of the column baseline, %; AUC")
    honest = True
    for name, partition, lowest in trials:
        part = _part(entries, partition)
        if not part:
            continue
        labels = _is_bonafide(part)
        scores = inner_column_scores(part) if name.startswith("within") else column_scores(train, part)
        eer = equal_error_rate(scores[labels], scores[~labels]).eer
        honest &= eer >= lowest
        report(
            f"{name:24s} {labels.sum():9d} {(~labels).sum():6d}  {100 * eer:5.1f}  "
            f"{auc(scores[labels], scores[~labels]):.3f}{'' if eer >= lowest else '  leaks'}"
        )
    return honest


def report_languages(entries: Sequence[Entry], report: Report) -> None:
    """Reports how many utterances of each class a language has in each partition, and which only one class has."""
    report(f"{'partition':10s} {'language':10s} {'bona fide':>9s} {'share, %':>9s} {'spoof':>7s} {'share, %':>9s}")
    for partition in ("train", *EVALUATED):
        part = _part(entries, partition)
        bonafide, spoof = (
            Counter(primary(entry.language) for entry in part if entry.label == label)
            for label in ("bonafide", "spoof")
        )
        for language in sorted(bonafide | spoof):
            cells = [(counts[language], 100 * counts[language] / counts.total()) for counts in (bonafide, spoof)]
            alone = "" if cells[0][0] and cells[1][0] else "  only bona fide" if cells[0][0] else "  only spoof"
            (n, n_share), (m, m_share) = cells
            report(f"{partition:10s} {language:10s} {n:9d} {n_share:9.1f} {m:7d} {m_share:9.1f}{alone}")


def _classifier() -> list[Any]:
    return [StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)]


def _trained_on_statistics(corpus: Path, train: Sequence[Entry]) -> Pipeline:
    return make_pipeline(*_classifier()).fit(_measure(corpus, train), _is_bonafide(train))


def _score(model: Pipeline, corpus: Path, scored: Sequence[Entry]) -> dict[str, float]:
    scores = model.decision_function(_measure(corpus, scored)).tolist()
    return {entry.utterance_id: score for entry, score in zip(scored, scores, strict=True)}


def _column_model() -> Pipeline:
    return make_pipeline(DictVectorizer(sparse=False), *_classifier())


def _columns(entries: Sequence[Entry]) -> list[dict[str, str | float]]:
    """Returns what the column baseline sees of each entry: texts become one column per value, seconds stay numbers."""
    return [
        {
            "language": primary(entry.language),
            "style": entry.style,
            "duration": float(entry.duration),
            "duration squared": float(entry.duration) ** 2,
        }
        for entry in entries
    ]


def _is_bonafide(entries: Sequence[Entry]) -> np.ndarray:
    return np.array([entry.label == "bonafide" for entry in entries])


def _part(entries: Sequence[Entry], partition: str) -> list[Entry]:
    return [entry for entry in entries if entry.partition == partition]


def _measure(corpus: Path, entries: Sequence[Entry]) -> np.ndarray:
    return np.stack([features(audio.read(corpus / entry.path)) for entry in entries])


def _entries(corpus: Path) -> list[Entry]:
    manifest = corpus / "manifest.csv"
    if not manifest.is_file():
        raise CorpusError(f"{manifest} does not exist: run build_corpus.py --out {corpus} first.")
    return read_manifest(manifest)
