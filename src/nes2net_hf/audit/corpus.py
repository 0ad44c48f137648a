"""
How far trivial cues tell bona fide from spoofed recordings of a corpus: each alone, and all together.

A classifier that knows nothing about speech is trained on four fifths of the speakers and scores the others, in turn;
of the recordings, if speakers are unknown or a class has fewer than five.
Its EER should be near 50 %. Where it is clearly lower, a detector can be right without listening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ..audio.cues import CUES, measure_cues
from ..corpora.loading import open_rows
from ..corpora.utterances import describe_utterance, read_utterance
from ..errors import AudioError, AuditError
from ..metrics.bootstrap import Interval, bootstrap_eer
from ..robustness.run import choose
from .duplicates import Duplicates, find_duplicates, fingerprint

FOLDS = 5
LEAKS = 0.4  # a cue leaks if the upper bound of its EER is below this
# Columns of the keys that say something about how a recording was made, and may tell its class.
COLUMNS = {"codec": "codec", "transmission": "transmission", "language": "language", "gender": "gender",
           "source": "source", "speaker": "speaker_id"}  # fmt: skip
# What the files say of themselves.
FILES = {"file codec": "codec", "sampling rate": "sampling_rate", "channels": "channels"}
_BY_CONSTRUCTION = ("source", "speaker")  # often tell the class by construction: not among "all columns"


@dataclass(frozen=True)
class Leak:
    """How far one cue tells the classes apart. Rates are fractions."""

    cue: str
    eer: Interval
    folds_by: str
    """What the folds keep together: speaker, or nothing (utterance)."""

    @property
    def leaks(self) -> bool:
        return bool(self.eer.high < LEAKS)


@dataclass(frozen=True)
class AuditedCorpus:
    bonafide: int
    spoof: int
    leaks: list[Leak]
    """In the order of the report: cues of the audio, columns, then all together."""
    duplicates: Duplicates
    unreadable: dict[str, str]
    """Utterance → why it was left out."""

    def to_json(self) -> dict[str, Any]:
        return {
            "bonafide": self.bonafide,
            "spoof": self.spoof,
            "cues": [
                {"cue": one.cue, "eer": one.eer.estimate, "low": one.eer.low, "high": one.eer.high,
                 "unit": one.eer.unit, "folds_by": one.folds_by, "leaks": one.leaks}
                for one in self.leaks
            ],
            **self.duplicates.to_json(),
            "unreadable": self.unreadable,
        }  # fmt: skip


def audit_corpus(
    corpus: str,
    root: str,
    progress: Callable[[int], None] = lambda done: None,
    limit: int | None = None,
    **options: Any,
) -> AuditedCorpus:
    """
    Measures the cues of a corpus and looks for duplicates.

    Args:
        corpus, root: see `load_corpus`.
        progress: called after each recording with 1.
        limit: read at most so many recordings, the ones that a model is judged on with this limit.
        options: `split` and `where`, see `load_corpus`.

    Raises:
        CorpusError: the corpus cannot be opened.
        AuditError: a class has too few recordings.
    """
    named = ("utterance_id", "label", "partition", *COLUMNS.values())
    split, where = options.get("split"), options.get("where")
    names = open_rows(corpus, split, root=root, where=where, columns_read=named)
    rows = open_rows(corpus, split, root=root, where=where, columns_read=("utterance_id", "audio"))
    cues: list[dict[str, float]] = []
    kept: list[dict[str, Any]] = []
    prints = []
    unreadable: dict[str, str] = {}
    everything = [names[number] for number in range(len(names))]  # names only, without audio
    chosen = range(len(names)) if limit is None else choose(everything, names.labels, limit)
    for number in chosen:
        try:
            row = rows[number]
            waveform, info = read_utterance(row), describe_utterance(row)
        except AudioError as error:
            unreadable[str(everything[number]["utterance_id"])] = str(error)
        else:
            cues.append(measure_cues(waveform))
            prints.append(fingerprint(waveform))
            of_file = {column: getattr(info, name) for column, name in FILES.items()}
            kept.append(everything[number] | of_file | {"label": int(names.labels[number])})
        progress(1)
    labels = np.array([row["label"] for row in kept])
    for label, name in ((1, "bona fide"), (0, "spoofed")):
        if (labels == label).sum() < 2 * FOLDS:
            raise AuditError(
                f"{root} has {(labels == label).sum()} readable {name} recordings: an audit needs {2 * FOLDS}."
            )
    found = find_duplicates(prints, kept)
    return AuditedCorpus(
        int(labels.sum()), int((labels == 0).sum()), list(_leaks(cues, kept, labels)), found, unreadable
    )


def _leaks(cues: Sequence[dict[str, float]], rows: Sequence[dict[str, Any]], labels: NDArray[np.int64]) -> Any:
    speakers = [row["speaker_id"] for row in rows]
    several = all(len({one for one, label in zip(speakers, labels) if label == kind}) >= FOLDS for kind in (0, 1))
    known = speakers if all(speakers) and several else None  # else a fold could lack a class
    for cue, statistics in CUES.items():
        yield _leak(cue, [{name: one[name] for name in statistics} for one in cues], labels, known)
    columns = {}
    for column, name in {**{column: column for column in FILES}, **COLUMNS}.items():
        values = [row[name] for row in rows]
        if len(set(values)) > 1:
            columns[column] = values
            # A classifier cannot know the speakers of another fold.
            yield _leak(
                column, [{column: str(value)} for value in values], labels, None if column == "speaker" else known
            )
    yield _leak("all cues of the audio", cues, labels, known)
    plain = [column for column in columns if column not in _BY_CONSTRUCTION]
    if plain:
        told = [{column: str(columns[column][number]) for column in plain} for number in range(len(rows))]
        yield _leak(f"all of {', '.join(['audio', *plain])}", [a | b for a, b in zip(cues, told)], labels, known)


def _leak(cue: str, features: Sequence[dict[str, Any]], labels: NDArray[np.int64], speakers: list[str] | None) -> Leak:
    """Trains and scores in folds, by speaker if the speakers are known."""
    are_numbers = all(isinstance(value, float) for value in features[0].values())
    bends = are_numbers and len(features[0]) < 6  # a few numbers may tell the classes by their middle
    model = make_pipeline(
        DictVectorizer(sparse=not are_numbers),
        StandardScaler(with_mean=are_numbers),
        PolynomialFeatures(2, include_bias=False) if bends else "passthrough",
        LogisticRegression(class_weight="balanced", max_iter=2000),
    )
    folds: Any = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    if speakers is not None:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, features, labels, groups=speakers, cv=folds, method="decision_function")
    its_speakers: dict[str, Any] = {}
    if speakers is not None:
        names = np.array(speakers, dtype=object)
        its_speakers = {"bonafide_speakers": names[labels == 1], "spoof_speakers": names[labels == 0]}
    eer = bootstrap_eer(scores[labels == 1], scores[labels == 0], **its_speakers)
    return Leak(cue, eer, "utterance" if speakers is None else "speaker")
