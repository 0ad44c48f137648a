"""What the recordings of a corpus are like, as far as a calibrated model needs to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio import SAMPLING_RATE, AudioInfo
from ..calibration import CalibrationError, halves
from ..corpora.loading import open_rows
from ..corpora.utterances import describe_utterance, read_utterance
from ..detection import Detector
from ..detection.live import HOP
from ..detection.sequential import measure_correlation
from ..errors import AudioError
from ..familiarity import Familiarity, fit_familiarity

SURVEYED = 2_000  # recordings
CORRELATED = 400  # of them, longer than a window


@dataclass(frozen=True)
class Survey:
    familiarity: Familiarity | None
    """None if half of the speakers have too few recordings."""
    correlation: list[tuple[float, float]]
    """Of the scores of two windows of a recording, by their distance: see `measure_correlation`."""


def survey(
    model: str,
    *,
    corpus: str,
    root: str,
    split: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    revision: str | None = None,
) -> Survey:
    """
    Returns what recordings like those of a corpus look like to a model, from at most `SURVEYED` of them. Arguments and
    errors as in `calibrate`.
    """
    place: dict[str, Any] = {"root": root, "where": where}
    names = open_rows(corpus, split, columns_read=("utterance_id", "speaker_id"), **place)
    rows = open_rows(corpus, split, columns_read=("utterance_id", "audio"), **place)
    drawn = _surveyed(len(rows))
    detector = _Surveyor(model, revision=revision)
    detector.watch()
    sources = ({"array": read_utterance(rows[row]), "sampling_rate": SAMPLING_RATE} for row in drawn)
    kept: list[int] = []
    embeddings: list[Any] = []
    cues: list[dict[str, float]] = []
    for row, recording in zip(drawn, detector.recordings(sources), strict=True):
        if recording.error is None and recording.cues and recording.embeddings:
            embedding, its_cues = recording.heard()
            kept.append(row)
            embeddings.append(embedding)
            cues.append(its_cues)
    if not kept:
        return Survey(None, [])
    labels = np.array([names.labels[row] for row in kept], np.int8)
    speakers = [names[row]["speaker_id"] for row in kept]
    ids = [names[row]["utterance_id"] for row in kept]
    familiarity = None
    with suppress(CalibrationError):
        familiarity = fit_familiarity(np.stack(embeddings), cues, labels, first_half(labels, speakers, ids))
    detector.hop = round(HOP * SAMPLING_RATE)
    again = [
        row for row, its in zip(kept, cues, strict=True) if its["duration"] * SAMPLING_RATE > detector.window_length
    ]
    again = sorted(np.random.default_rng(0).permutation(again)[:CORRELATED].tolist())
    sources = ({"array": read_utterance(rows[row]), "sampling_rate": SAMPLING_RATE} for row in again)
    scored = []
    for row, recording in zip(again, detector.recordings(sources), strict=True):
        windows = [(one.end, one.score) for one in recording.windows if one.score is not None]
        scored.append((int(names.labels[row]), [end for end, _ in windows], [score for _, score in windows]))
    return Survey(familiarity, measure_correlation(scored, HOP))


class _Surveyor(Detector):
    """Judges without regard to an earlier survey, which may be missing or damaged."""

    def _load_familiarity(self, source: Any, revision: str | None) -> None:
        return None


def first_half(labels: np.ndarray, speakers: Sequence[str | None], ids: Sequence[str]) -> np.ndarray:
    """Returns which trials are in the first half (N,): of the speakers, or if one is unknown, of each class."""
    if all(speakers):
        return halves(speakers)
    first = np.empty(len(labels), bool)
    for label in (0, 1):
        chosen = np.flatnonzero(labels == label)
        first[chosen] = halves([ids[number] for number in chosen.tolist()])
    return first


def describe(
    corpus: str, root: str, split: str | None, where: Mapping[str, Sequence[str]] | None
) -> Iterator[tuple[int, AudioInfo]]:
    """Yields label and header of at most `SURVEYED` recordings."""
    rows = open_rows(corpus, split, root=root, where=where, columns_read=("utterance_id", "audio"))
    for row in _surveyed(len(rows)):
        with suppress(AudioError):  # it has no score either
            yield int(rows.labels[row]), describe_utterance(rows[row])


def _surveyed(count: int) -> list[int]:
    """Returns the numbers of the rows that are surveyed, in ascending order."""
    return sorted(np.random.default_rng(0).permutation(count)[:SURVEYED].tolist())
