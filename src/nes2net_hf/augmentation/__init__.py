"""
Augmentation of training audio: pure functions of a waveform (S,) and a random generator, composed by recipes.

The same generator state gives the same audio, whatever process or worker draws it.
"""

from .chain import AugmentationError, Chain, build_chain
from .codec import Codec
from .noise import Noise
from .rawboost import RawBoost
from .room import Room
from .speed import Speed

__all__ = ["AugmentationError", "Chain", "Codec", "Noise", "RawBoost", "Room", "Speed", "build_chain"]
