"""
The score of a file. For an utterance model it is the mean over windows. For a frame model it is the lowest frame
score, because a mean would hide the partial spoofs that frame models are meant to find.

Any configuration will do: a `Nes2NetConfig`, or what an exported graph says of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FRAMES = "Nes2NetForAudioFrameClassification"


def judges_frames(config: Any) -> bool:
    """Returns whether the configuration is for a frame model, not an utterance model."""
    return _FRAMES in (config.architectures or ())


def frame_samples(config: Any) -> int:
    """Returns the hop between encoder frames in samples: 320 (20 ms) for all published encoders."""
    return config.frame_samples


def frames_within(samples: int, config: Any) -> int:
    """Returns the number of frames in a recording of `samples`, without those of a window's padding; at least one."""
    return max(1, round(samples / frame_samples(config)))


def of_file(scores: Sequence[float], of_frames: bool) -> float:
    """Returns a file's score from the scores of its windows, or of its frames (or their lowest in each window)."""
    return float(np.min(scores) if of_frames else np.mean(scores))


def of_logits(logits: NDArray[np.float32], config: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (..., C) → scores (...), as `score` of the torch models gives them, and log-odds of bona fide (...)."""
    bonafide = logits[..., config.bonafide_index]
    with np.errstate(invalid="ignore"):  # of infinite logits; a score that is no number is an error elsewhere
        log_odds = bonafide - np.logaddexp.reduce(logits[..., config.spoof_indices], axis=-1)
    return (bonafide if config.score == "bonafide_logit" else log_odds), log_odds
