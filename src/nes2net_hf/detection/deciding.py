"""Turns the scores of a recording's windows into its verdict."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..calibration import Calibration, spoof_probability
from ..familiarity import Familiarity
from ..reference import Population
from ..scores import of_file
from .recordings import Recording
from .results import NO_SPEECH, TOO_SHORT, Result, Stretch, WindowScore
from .words import clock

logger = logging.getLogger(__name__)

UNLIKE = "unlike calibration data"  # how the warning begins
MIN_SOUND = 1.0  # s; docs/judging.md says why less is too short to judge


@dataclass(frozen=True)
class DecisionRule:
    """
    How scores become a verdict.

    Args:
        model, dtype: its name and precision, as results show them.
        threshold: lowest score that counts as bona fide. None: log-odds of 0 decide.
        calibration, prior: for the probability of spoofing. Without calibration there is none.
        population: the recordings that the model was calibrated on, if it has kept them.
        familiarity: tells recordings that are unlike those of the calibration.
        band: (low, high), scores that get the label `undecided`, if any; and the share of errors that it allows.
        frame: seconds of a frame, if the model judges frames.
        attacks: names of the kinds of spoof that the model tells apart, in the order of `Recording.kinds`.
    """

    model: str
    dtype: str
    threshold: float | None
    calibration: Calibration | None
    prior: float
    frame: float | None
    attacks: tuple[str, ...] = ()
    population: Population | None = None
    band: tuple[float, float, float] | None = None
    familiarity: Familiarity | None = None

    def verdict(self, recording: Recording) -> Result:
        """Returns the result of a recording once all its windows are judged."""
        low, high, _ = self.band or (None, None, None)
        result = Result(
            recording.name,
            recording.channel,
            recording.track,
            speaker=recording.speaker,
            duration=recording.duration,
            threshold=self.threshold,
            spoof_below=low,
            bonafide_above=high,
            model=self.model,
            dtype=self.dtype,
            error=recording.error,
        )
        if result.error is None:
            try:
                self._decide(recording, result)
            except Exception as error:  # the other recordings are still judged
                logger.debug("%s has no verdict", recording.name, exc_info=error)
                result.error = f"{recording.name} has no verdict: its scores cannot be combined; check the model."
        return result

    def _decide(self, recording: Recording, result: Result) -> None:
        """Fills in the score and the label, or why there is none."""
        judged = [window for window in recording.windows if window.score is not None]
        scores = [window.score for window in judged if window.score is not None]
        if not scores:
            result.error = recording.silent()
            return
        if not all(map(math.isfinite, scores)):
            result.error = (
                f"{recording.name} got a score that is not a finite number: use float32, or check the model's weights."
            )
            return
        lowest = scores.index(min(scores))
        result.score = of_file(scores, self.frame is not None)
        result.min_window_score, result.min_window_start = scores[lowest], judged[lowest].start
        result.windows, result.warnings = recording.windows, recording.warnings
        if recording.sound < MIN_SOUND:
            result.undecided = TOO_SHORT
        elif not recording.has_speech:
            result.undecided = NO_SPEECH
        else:
            self._label(recording, result, judged)

    def _label(self, recording: Recording, result: Result, judged: list[WindowScore]) -> None:
        """Fills in the label, warnings and probabilities of a recording that can be judged."""
        assert result.score is not None
        if self.threshold is None:
            margins = recording.log_odds
            passes = of_file(margins, self.frame is not None) >= 0
        else:
            margins = [(window.score or 0.0) - self.threshold for window in judged]
            passes = result.score >= self.threshold
        result.label = "bonafide" if passes else "spoof"
        if self.band is not None:
            low, high, share = self.band
            # The sides of the band decide, wherever the threshold is.
            result.label = "bonafide" if result.score > high else "spoof" if result.score < low else "undecided"
            if result.label == "undecided":
                result.undecided = (
                    f"its score is between {low:.2f} and {high:.2f}, where a label would let more than "
                    f"{100 * share:g} % of bona fide or spoofed recordings be labelled wrongly"
                )
        if self.population is not None:
            result.standing = self.population.standing(result.score)
        for window, margin in zip(judged, margins, strict=True):
            window.looks_fake = margin < 0
        fake = sum(window.looks_fake for window in judged)
        if result.label != "spoof" and fake:
            overall = "overall it passes" if result.label == "bonafide" else "overall it is undecided"
            looks, them = ("windows look", "them") if fake > 1 else ("windows looks", "it")
            result.warnings.append(
                f"{overall}, but {fake} of {len(judged)} {looks} fake, most of all at "
                f"{clock(judged[int(np.argmin(margins))].start)}: listen to {them}"
            )
        if result.label == "spoof" and len(self.attacks) > 1:
            kinds = [its for its, window in zip(recording.kinds, judged, strict=True) if window.looks_fake]
            result.attack = self.attacks[int(np.mean(kinds, axis=0).argmax())]
        unlike = self.familiarity.reasons(*recording.heard()) if self.familiarity and recording.cues else []
        if unlike:
            result.warnings.append(f"{UNLIKE}: {'; '.join(unlike)}")
        if self.calibration is not None and not unlike:
            result.llr, result.prior = self.calibration.llr(result.score), self.prior
            result.spoof_probability = spoof_probability(result.llr, self.prior)
            result.support = self.population.support(result.llr) if self.population is not None else None
        if self.frame is not None:
            result.spoofed = list(self._stretches(recording))

    def _stretches(self, recording: Recording) -> Iterator[Stretch]:
        """Yields runs of frames below the threshold. Where windows overlap, a frame's score is the mean."""
        assert self.frame is not None and recording.duration is not None
        total = np.zeros(max(start + len(scores) for start, scores in recording.frames))
        count = np.zeros(len(total))
        for start, scores in recording.frames:
            total[start : start + len(scores)] += scores
            count[start : start + len(scores)] += 1
        means = np.divide(total, count, out=np.full(len(total), np.inf), where=count > 0)
        below = np.pad(means < (self.threshold or 0.0), 1).astype(int)
        starts, ends = (np.flatnonzero(np.diff(below) == change).tolist() for change in (1, -1))
        for first, last in zip(starts, ends, strict=True):
            end = min(last * self.frame, recording.duration)
            yield Stretch(first * self.frame, end, float(means[first:last].mean()))
