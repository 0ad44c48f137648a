"""Windows of many recordings, judged together and decoded in a thread of their own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..audio import SAMPLING_RATE
from .recordings import Recording
from .results import WindowScore
from .speech import SpeechFinder

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """Windows judged together, and the recordings that are complete once they are."""

    windows: list[tuple[Recording, WindowScore]] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)  # (S,) of each
    finished: list[Recording] = field(default_factory=list)
    inputs: Tensor | None = None

    def close(self, extractor: Any, finder: SpeechFinder) -> Batch:
        """Does ahead of time what the model is not needed for; what goes wrong is met where the windows are judged."""
        if self.samples:
            with suppress(Exception):
                self.inputs = self.prepared(extractor)
            self._find_speech(finder)
        return self

    def prepared(self, extractor: Any) -> Tensor:
        """The inputs (B, S) as in training: each window filled up and normalised by itself."""
        if self.inputs is None:
            self.inputs = extractor(self.samples, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]
        return self.inputs

    def _find_speech(self, finder: SpeechFinder) -> None:
        """Looks for speech in recordings in which none was found so far: mostly in their first windows only."""
        asked = [
            (recording, samples)
            for (recording, _), samples in zip(self.windows, self.samples, strict=True)
            if not recording.has_speech
        ]
        if asked:
            try:
                found = finder.holds_speech([samples for _, samples in asked])
            except Exception as error:  # no verdict is withheld because of it
                logger.debug("speech could not be looked for", exc_info=error)
                found = [True] * len(asked)
            for (recording, _), speech in zip(asked, found, strict=True):
                recording.has_speech |= speech


def in_background(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Runs an iterator in a thread, two items ahead; closing it ends the thread, an error in it is raised here."""
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

    # A daemon because a read of standard input may never return; all else is waited for below.
    thread = threading.Thread(target=work, name="decoding", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=0.5)  # with a timeout because Windows cannot interrupt it otherwise
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        # The interpreter aborts where it ends while a thread is inside native code of torch or of a decoder.
        thread.join(timeout=5)
