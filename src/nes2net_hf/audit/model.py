"""
A model without speech, and without what may have taught it the classes of a corpus: for `nes2net audit --model`.

On ASVspoof 2019 LA, the leading silence alone separates the classes with an EER of 15 %, and trimming it takes a model
from 3.6 to 15.5 % (Müller et al. 2021, arXiv 2106.12914; not reproduced).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..augmentation import Codec, Silence
from ..augmentation.silence import find_speech
from ..corpora.utterances import read_utterance
from ..detection.speech import CHUNK, PROBABILITY, SpeechFinder
from ..errors import AudioError
from ..robustness.conditions import CLEAN, Condition, Narrowband
from ..robustness.run import Measured, RobustnessRun, Trials

LEVEL = -26.0  # dBFS
# Group → how recordings are changed, for the report.
GROUPS = {
    CLEAN: "The unchanged recording.",
    "parts": "Only the stretches of 32 ms in which Silero VAD finds speech, or only the others, joined.",
    "silence": "The silence before and after speech removed; or the silence before it taken from a recording of the "
    "other class.",
    "level": f"Every recording at a power of {LEVEL:g} dBFS.",
    "band": "Every recording resampled to 8 kHz and back.",
    "codec": "Every recording through MP3 at 64 kbit/s.",
}


@dataclass(frozen=True)
class Moved:
    """A condition's EER, and how far it moves the scores of the same recordings."""

    measured: Measured
    shift: float | None
    """Mean absolute change of the score, in standard deviations of the unchanged scores."""
    correlation: float | None
    """Between the scores with and without the change."""


def audit_model(run: AuditRun, rows: Sequence[Measured]) -> list[Moved]:
    """Returns the results of an audit's conditions with the movement of the scores, the clean ones first."""
    clean = run.scores(run.conditions[0])
    spread = float(np.std(list(clean.values()))) or 1.0
    found = []
    for condition, row in zip(run.conditions, rows, strict=True):
        its = run.scores(condition)
        both = [(clean[name], score) for name, score in its.items() if name in clean]
        pairs = np.array(both, dtype=float).reshape(-1, 2)
        if len(pairs) < 3 or pairs.std(axis=0).min() == 0:
            found.append(Moved(row, None, None))
            continue
        shift = float(np.abs(pairs[:, 1] - pairs[:, 0]).mean() / spread)
        found.append(Moved(row, shift, float(np.corrcoef(pairs.T)[0, 1])))
    return found


class AuditRun(RobustnessRun):
    """Measures a model under an audit's conditions: see `RobustnessRun`."""

    def _make_conditions(self) -> tuple[Condition, ...]:
        finder = SpeechFinder()
        return (
            Condition(CLEAN, "unchanged", _unchanged),
            Condition("parts", "speech only", _Parts(finder, speech=True)),
            Condition("parts", "non-speech only", _Parts(finder, speech=False)),
            Condition("silence", "trimmed", Silence(("trim",), kept=(0, 0))),
            _SwappedSilence(
                "silence", "leading, of the other class", _unchanged, self.trials.rows, _others(self.trials)
            ),
            Condition("level", "equal", _equal_level),
            Condition("band", "8 kHz", Narrowband()),
            Condition("codec", "MP3 64 kbit/s", Codec(("mp3",), bit_rates=(64_000,))),
        )


@dataclass(frozen=True)
class _Parts:
    """Keeps only the stretches with speech, or only those without."""

    finder: SpeechFinder
    speech: bool

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chunks = -(-waveform.size // CHUNK)
        has_speech = self.finder.probabilities(waveform) > PROBABILITY
        kept = np.repeat(has_speech[:chunks] == self.speech, CHUNK)[: waveform.size]
        if not kept.any():
            raise AudioError("no speech was found." if self.speech else "it is speech throughout.")
        return waveform[kept]


def _unchanged(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return waveform


def _equal_level(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    power = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    return (waveform * (10 ** (LEVEL / 20) / max(power, 1e-9))).astype(np.float32)


@dataclass(frozen=True)
class _SwappedSilence(Condition):
    """Replaces the silence before speech by that of another recording."""

    rows: Any
    others: Mapping[str, int]
    """Utterance → the number of the other one's row."""

    def __call__(self, waveform: np.ndarray, utterance: str) -> np.ndarray:
        other = read_utterance(self.rows[self.others[utterance]])
        return np.concatenate([other[: find_speech(other)[0]], waveform[find_speech(waveform)[0] :]])


def _others(trials: Trials) -> dict[str, int]:
    """Pairs every utterance with one of the other class; returns utterance → its row number."""
    labels, names = trials.labels, trials.utterances
    classes = [[row for row, label in labels.items() if label == one] for one in (0, 1)]
    return {
        names[row]: other[number % len(other)]
        for own, other in (classes, classes[::-1])
        for number, row in enumerate(own)
    }
