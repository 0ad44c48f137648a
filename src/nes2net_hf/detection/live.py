"""
Verdicts while a recording goes on.

    live = LiveDetector(Detector("nes2net-asv21"), sampling_rate=8000)
    for chunk in call:                      # of any length
        for verdict in live.push(chunk):
            print(verdict.time, verdict.score, verdict.state)
    result = live.finish()                  # as `detect` judges the whole recording
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import MIN_DURATION, SAMPLING_RATE, AudioStream, holds_sound, resampler
from ..audio.decoders import as_floats, check_form
from ..calibration import Calibration
from ..errors import AudioError, ModelError
from .batches import Batch
from .deciding import MIN_SOUND
from .detector import Detector
from .recordings import Recording
from .results import Result, WindowScore
from .sequential import ERRORS, SequentialTest

HOP = 0.5  # s
_FRAME = round(MIN_DURATION * SAMPLING_RATE)


@dataclass(frozen=True)
class LiveVerdict:
    """What is known at some time of a recording that goes on."""

    time: float
    """Seconds since the beginning, the end of the window."""
    start: float
    """Seconds, the start of the window; it is shorter than the trained one at the beginning."""
    score: float | None
    """Of the window; higher means bona fide. None if its last `hop` is silent, or it has no speech."""
    label: str | None
    """`bonafide` or `spoof`: what the window looks like by itself."""
    state: str | None
    """`undecided`, `bonafide` or `spoof`: the running verdict. None if the model is not calibrated."""
    evidence: float | None
    """Log-likelihood ratio (natural log) of everything heard. None if the model gives no probabilities."""
    skipped: int
    """Windows before this one that were not judged, because the model is slower than the recording."""
    delay: float
    """Seconds from the push of the window's last sample to this verdict."""


class LiveDetector:
    """
    Judges a recording while it goes on: the last seconds at every hop, from the first second of sound on.

    Args:
        detector: the model. Several recordings can share it if they are judged by one thread.
        sampling_rate: Hz of the samples, 8,000 to 192,000.
        channels: of the samples. Their mean is judged.
        hop: seconds from one verdict to the next.
        errors: see [`SequentialTest`].
        skip: whether windows are skipped while the model is behind a live source: all but the newest that a push
            completes, and all if pushes took longer than the sound by more than `hop`.
        name: of the recording, for the result.

    Raises:
        AudioError: the form of the samples is impossible.
        ModelError: `hop` or `errors` is out of range.
    """

    def __init__(
        self,
        detector: Detector,
        sampling_rate: int,
        *,
        channels: int = 1,
        hop: float = HOP,
        errors: tuple[float, float] = ERRORS,
        skip: bool = False,
        name: str = "<live>",
    ) -> None:
        self._detector, self._skip = detector, skip
        self._hop, self._length = round(hop * SAMPLING_RATE), detector.window_length
        if not _FRAME <= self._hop <= self._length:
            longest = self._length / SAMPLING_RATE
            raise ModelError(f"hop must be between {MIN_DURATION:g} s and a window of {longest:.4g} s, got {hop} s.")
        self._fed = _Fed(name, sampling_rate, channels)
        self._resample = resampler(sampling_rate, 1)
        self._held = np.zeros(0, np.float32)  # the last window's samples at 16 kHz
        self._heard = self._sound = 0  # samples at 16 kHz, and those with sound
        self._due = 0  # the sample at which the next window ends; 0 before the first second of sound
        self.test = _test(detector, errors)
        self._ready: queue.SimpleQueue[Batch | BaseException | None] = queue.SimpleQueue()
        self._recordings: list[Recording] = []
        self._ended = False
        self._behind = 0.0  # seconds behind a live source
        self._skipped = 0  # windows since the last verdict
        threading.Thread(target=self._read, name="reading", daemon=True).start()

    def push(self, samples: Any) -> list[LiveVerdict]:
        """
        Hears more samples, and returns the verdicts on the windows that they complete.

        Args:
            samples: (S,) or (C, S), floats in [-1, 1], int16 or int32; S may be 0.

        Raises:
            AudioError: the samples have another form, or are not finite.
            DetectionError: the model ran out of memory.
        """
        began = time.monotonic()
        if self._ended:
            raise AudioError(f"{self._fed.name} has ended: begin another one.")
        block = self._fed.add(samples)
        self._judge_ready()
        windows = list(self._windows(self._resample(block.mean(axis=1, keepdims=True), False)[:, 0]))
        late = self._behind * SAMPLING_RATE > self._hop
        judged = windows if not self._skip else [] if late else windows[-1:]
        self._skipped += len(windows) - len(judged)
        verdicts = [self._verdict(*window, began) for window in judged]
        # Time between pushes is not counted: the source may pause.
        took, lasted = time.monotonic() - began, len(block) / self._fed.sampling_rate
        self._behind = max(0.0, self._behind + took - lasted)
        return verdicts

    def reset(self) -> None:
        """Forgets the sound and the evidence so far, as for another speaker. Time goes on."""
        self._held, self._sound, self._due = self._held[:0], 0, 0
        if self.test is not None:
            self.test.reset()

    def finish(self) -> Result:
        """
        Ends the recording and returns what `detect` says about the whole. No more samples can follow.

        Raises:
            DetectionError: the model ran out of memory.
        """
        self.close()
        while not self._recordings:
            self._take(self._ready.get())
        return self._detector.rule().verdict(self._recordings[0])

    def close(self) -> None:
        """Ends the recording without a result."""
        self._ended = True
        self._fed.close()

    def __enter__(self) -> LiveDetector:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        """Reads the samples as `detect` does, in a thread."""
        try:
            stream = AudioStream(self._fed.name, lambda track: self._fed)
            for batch in self._detector.batches([stream], live=True):
                self._ready.put(batch)
        except BaseException as error:
            self._ready.put(error)

    def _judge_ready(self) -> None:
        while not self._ready.empty():
            self._take(self._ready.get())

    def _take(self, item: Batch | BaseException | None) -> None:
        if isinstance(item, BaseException):
            raise item
        if item is not None:
            self._detector.judge_windows(item)
            self._recordings += item.finished

    def _windows(self, heard: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yields the ends of the windows that (S,) at 16 kHz complete, and their samples."""
        while len(heard):
            # Up to the next window's end, or before the first second of sound, to that of a frame.
            wanted = self._due - self._heard if self._due else _FRAME - self._heard % _FRAME
            part, heard = heard[:wanted], heard[wanted:]
            self._held = np.concatenate([self._held, part])[-self._length :]
            self._heard += len(part)
            if self._heard == self._due:
                self._due += self._hop
                yield self._heard, self._held
            elif not self._due and self._heard % _FRAME == 0:
                self._sound += _FRAME * bool(holds_sound(self._held[-_FRAME:]))
                if not self._sound:  # a window begins with sound
                    self._held = self._held[:0]
                if self._sound >= MIN_SOUND * SAMPLING_RATE:
                    self._due = self._heard + self._hop
                    yield self._heard, self._held

    def _verdict(self, end: int, window: NDArray[np.float32], began: float) -> LiveVerdict:
        skipped, self._skipped = self._skipped, 0
        detector, score, label = self._detector, None, None
        if holds_sound(window[-self._hop :]) and detector.speech.holds_speech([window])[0]:
            recording = Recording(self._fed.name)
            scored = WindowScore((end - len(window)) / SAMPLING_RATE, end / SAMPLING_RATE, None)
            detector.judge_windows(Batch([(recording, scored)], [window]))
            if scored.score is not None and np.isfinite(scored.score):
                score = scored.score
                far = recording.log_odds[0] if detector.threshold is None else score - detector.threshold
                label = "bonafide" if far >= 0 else "spoof"
                if self.test is not None:
                    self.test.add(scored.end, score)
        evidence = self.test.evidence if self.test is not None and detector.calibration is not None else None
        return LiveVerdict(
            time=end / SAMPLING_RATE,
            start=(end - len(window)) / SAMPLING_RATE,
            score=score,
            label=label,
            state=None if self.test is None else self.test.state,
            evidence=evidence,
            skipped=skipped,
            delay=time.monotonic() - began,
        )


def _test(detector: Detector, errors: tuple[float, float]) -> SequentialTest | None:
    kept = detector.model.config.calibration
    if kept is None:
        return None
    known = (kept.get("population") or {}).get("correlation") or []
    return SequentialTest(Calibration(**kept), [(float(one), float(two)) for one, two in known], errors)


class _Fed:
    """A decoder of samples that are pushed from another thread."""

    codec, tracks, track, is_float = "", 1, 0, True
    duration: float | None = None

    def __init__(self, name: str, sampling_rate: int, channels: int) -> None:
        self.name, self.sampling_rate, self.channels = name, sampling_rate, channels
        check_form(name, sampling_rate, channels)
        self.warnings: list[str] = []
        self._blocks: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()

    def add(self, samples: Any) -> NDArray[np.float32]:
        """Takes (S,) or (C, S) and returns it as (S, C)."""
        block = np.atleast_2d(as_floats(samples)).T.astype(np.float32)
        if block.shape[1] != self.channels:
            raise AudioError(f"{self.name} has {self.channels} channels, but {block.shape[1]} were pushed.")
        if len(block) and not np.abs(block).max() <= 10:  # also if it is not a number
            raise AudioError(f"{self.name} has samples that are not finite, or far above the full scale of 1.")
        if len(block):
            self._blocks.put(block)
        return block

    def blocks(self) -> Iterator[np.ndarray]:
        while (block := self._blocks.get()) is not None:
            yield block

    def close(self) -> None:
        self._blocks.put(None)
