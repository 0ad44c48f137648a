"""
What the score of a file is: of a model of utterances the mean of its windows, of a model of frames its lowest frame. A
mean would hide what is spoofed in part, and that is what the frames are there to find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .configuration_nes2net import Nes2NetConfig

_FRAMES = "Nes2NetForAudioFrameClassification"


def judges_frames(config: Nes2NetConfig) -> bool:
    """Whether it is the configuration of a model of frames, and not of utterances."""
    return _FRAMES in (config.architectures or ())


def frame_samples(config: Nes2NetConfig) -> int:
    """Samples from one frame of the encoder to the next: 320 (20 ms) with wav2vec 2.0 and WavLM."""
    return math.prod(config.encoder_config.conv_stride)


def frames_within(samples: int, config: Nes2NetConfig) -> int:
    """How many frames a recording of so many samples has of its own, where a window is filled up; at least one."""
    return max(1, round(samples / frame_samples(config)))


def of_file(scores: Sequence[float], of_frames: bool) -> float:
    """The score of a file from those of its windows, or of its frames (or of windows that are their lowest frames)."""
    return float(np.min(scores) if of_frames else np.mean(scores))
