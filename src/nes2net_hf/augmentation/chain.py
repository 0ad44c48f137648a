"""Combine a recipe's list of augmentations into one function."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import AugmentationError
from .codec import Codec
from .noise import Noise
from .rawboost import RawBoost
from .room import Room
from .speed import Speed

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
AUGMENTATIONS: dict[str, Any] = {
    "codec": Codec, "noise": Noise, "rawboost": RawBoost, "room": Room, "speed": Speed
}  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """Applies augmentations one after the other, each with its probability."""

    steps: tuple[tuple[float, Augmentation], ...]

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S',) float32."""
        for probability, augment in self.steps:
            if rng.random() < probability:
                waveform = augment(waveform, rng)
        return waveform


def build_chain(steps: Sequence[dict[str, Any]]) -> Chain:
    """
    Returns a chain of augmentations.

    Args:
        steps: each with a `name` in `AUGMENTATIONS`, its `probability` (default 1) and the settings of that class.

    Raises:
        AugmentationError: a name or setting is unknown, or a value is invalid.
    """
    return Chain(tuple(_build(step, index) for index, step in enumerate(steps)))


def _build(step: dict[str, Any], index: int) -> tuple[float, Augmentation]:
    settings = dict(step)
    name, probability = settings.pop("name", None), settings.pop("probability", 1.0)
    if name not in AUGMENTATIONS:
        raise AugmentationError(f"augmentation {index}: name must be one of {', '.join(AUGMENTATIONS)}, got {name!r}.")
    if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise AugmentationError(f"{name}: probability must be between 0 and 1, got {probability!r}.")
    known = [field.name for field in dataclasses.fields(AUGMENTATIONS[name]) if field.init]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise AugmentationError(
                f"{name} has no setting {key}; " + (f"did you mean {near[0]}?" if near else f"it has {known}.")
            )
    try:
        return float(probability), AUGMENTATIONS[name](**settings)
    except (TypeError, ValueError) as error:
        raise AugmentationError(f"{name}: {error}") from error
