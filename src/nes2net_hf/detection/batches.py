"""Batches of windows from many recordings, decoded in a background thread."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import SAMPLING_RATE
from ..audio.cues import measure_cues
from .recordings import Recording
from .results import WindowScore
from .speech import SpeechFinder

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """Windows judged together, and the recordings that are then complete."""

    windows: list[tuple[Recording, WindowScore]] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)  # each (S,)
    finished: list[Recording] = field(default_factory=list)
    inputs: NDArray[np.float32] | None = None
    cues: list[dict[str, float]] = field(default_factory=list)  # of each window, if they are wanted

    def close(self, extractor: Any, finder: SpeechFinder, measured: bool = False) -> Batch:
        """Does the work that needs no model, ahead of time. An error shows later, when the windows are judged."""
        if self.samples:
            with suppress(Exception):
                self.inputs = self.prepared(extractor)
            if measured:
                with suppress(Exception):  # it must not withhold a verdict
                    self.cues = [measure_cues(samples) for samples in self.samples]
            self._find_speech(finder)
        return self

    def prepared(self, extractor: Any) -> NDArray[np.float32]:
        """Returns the inputs (B, S) as in training: each window is padded and normalised by itself."""
        if self.inputs is None:
            self.inputs = extractor(self.samples, sampling_rate=SAMPLING_RATE, return_tensors="np")["input_values"]
        return self.inputs

    def _find_speech(self, finder: SpeechFinder) -> None:
        """Looks for speech in recordings where none was found so far. For most, that means only the first windows."""
        asked = [
            (recording, samples)
            for (recording, _), samples in zip(self.windows, self.samples, strict=True)
            if not recording.has_speech
        ]
        if asked:
            try:
                found = finder.holds_speech([samples for _, samples in asked])
            except Exception as error:  # it must not withhold a verdict
                logger.debug("speech could not be looked for", exc_info=error)
                found = [True] * len(asked)
            for (recording, _), speech in zip(asked, found, strict=True):
                recording.has_speech |= speech


class Batcher:
    """
    Gathers windows, across recordings, into batches of equal length. Each call returns the batches that it completed.

    Args:
        size: windows per batch.
        extractor, finder: the feature extractor and the speech finder, which process each complete batch.
        measured: whether to measure the cues of each window.
    """

    def __init__(self, size: int, extractor: Any, finder: SpeechFinder, measured: bool = False) -> None:
        self._size, self._extractor, self._finder, self._measured = size, extractor, finder, measured
        self._batch = Batch()

    def add(self, recording: Recording, window: WindowScore, samples: np.ndarray) -> list[Batch]:
        """Adds a window to judge."""
        held = self._batch.samples
        # Only a recording shorter than a window has another length, and only if the extractor does not pad it.
        differs = held and self._extractor.length_policy == "whole" and len(held[0]) != len(samples)
        completed = [self._take()] if differs else []
        self._batch.windows.append((recording, window))
        self._batch.samples.append(samples)
        if len(self._batch.windows) == self._size:
            completed.append(self._take())
        return completed

    def finish(self, recording: Recording) -> list[Batch]:
        """Adds a recording that has no more windows. It is complete once the batch with its last window is judged."""
        self._batch.finished.append(recording)
        return [] if self._batch.windows else [self._take()]

    def flush(self) -> list[Batch]:
        """Returns the last batch."""
        return [self._take()] if self._batch.windows else []

    def _take(self) -> Batch:
        taken, self._batch = self._batch, Batch()
        return taken.close(self._extractor, self._finder, self._measured)


def in_background(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Runs an iterator in a thread, two items ahead. Closing it ends the thread; its errors are raised here."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    # A daemon thread, because a read of standard input may never return. Everything else is waited for below.
    thread = threading.Thread(target=work, name="decoding", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=0.5)  # without a timeout, Windows could not interrupt it
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        # The interpreter aborts if it exits while a thread runs native code of torch or a decoder.
        thread.join(timeout=5)
