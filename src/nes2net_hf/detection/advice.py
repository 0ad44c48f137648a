"""What a long run could have saved with another precision."""

from __future__ import annotations

import time

import numpy as np

from ..pretrained.load import DEMO_MODEL, load_model, logits_of
from ..pretrained.precision import WORTH_IT, fastest
from ..scores import of_logits
from .detector import Detector


def faster_choice(detector: Detector) -> str | None:
    """
    Returns a sentence about the precision that is clearly faster than float32 for this model on this CPU, with its
    gain and how far it moves scores, both measured on the last batch. None if there is no such precision.

    Raises:
        ModelError: the model can no longer be loaded.
    """
    inputs, dtype = detector.last_inputs, fastest()
    if inputs is None or dtype == "float32":
        return None
    other, _ = load_model(detector.source or DEMO_MODEL, detector.revision, detector.device, dtype)
    taken, scores = [], []
    for network in (detector.model, other):
        logits_of(network, inputs[:1], detector.device)  # what happens only once
        start = time.perf_counter()
        scores.append(of_logits(logits_of(network, inputs, detector.device), network.config)[0])
        taken.append(time.perf_counter() - start)
    gain, moved = taken[0] / taken[1], np.abs(scores[1] - scores[0]).max()
    if gain < WORTH_IT:
        return None
    return (
        f"With --dtype {dtype}, this model runs {gain:.1f} times as fast on this machine. In the last {len(inputs)} "
        f"windows, that moves scores by at most {moved:.2g}."
    )
