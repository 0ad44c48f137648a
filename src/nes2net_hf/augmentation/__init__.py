"""
Augment training audio: pure functions of a waveform (S,) and a random generator, which recipes combine.

The same state of the generator gives the same audio in every process and worker.
"""

from .chain import MOVING, AugmentationError, Chain, OneOf, build_chain, step_names
from .codec import Codec
from .noise import Noise
from .rawboost import RawBoost
from .room import Room
from .silence import Silence
from .speed import Speed

__all__ = [
    "MOVING",
    "AugmentationError",
    "Chain",
    "Codec",
    "Noise",
    "OneOf",
    "RawBoost",
    "Room",
    "Silence",
    "Speed",
    "build_chain",
    "step_names",
]
