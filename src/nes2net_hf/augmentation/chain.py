"""Combine a recipe's list of augmentations into one function."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import AugmentationError
from .codec import Codec
from .noise import Noise
from .rawboost import RawBoost
from .room import Room
from .silence import Silence
from .speed import Speed

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


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


@dataclass(frozen=True)
class OneOf:
    """
    Applies one of several choices, drawn by their weights.

    Args:
        choices: each with a `weight` (default 1), relative to the sum of all, and `steps`, a list of augmentations as
            in `build_chain`. A choice without steps leaves the audio as it is.

    Raises:
        ValueError: there is no choice, or a choice has an unknown key, a weight that is not positive or wrong steps.
    """

    choices: Sequence[dict[str, Any]] = ()
    shares: np.ndarray = field(init=False, repr=False, compare=False)  # (N,), their sum is 1
    chains: tuple[Chain, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.choices, (list, tuple)) or not self.choices:
            raise ValueError(f"choices must be a list of at least one choice, got {self.choices!r}.")
        weights, chains = zip(*map(_choice, range(len(self.choices)), self.choices), strict=True)
        object.__setattr__(self, "shares", np.array(weights) / sum(weights))
        object.__setattr__(self, "chains", chains)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 → (S',) float32"""
        return self.chains[rng.choice(len(self.chains), p=self.shares)](waveform, rng)


AUGMENTATIONS: dict[str, Any] = {
    "codec": Codec, "noise": Noise, "one_of": OneOf, "rawboost": RawBoost, "room": Room, "silence": Silence,
    "speed": Speed,
}  # fmt: skip
MOVING = ("silence", "speed")  # they move sounds to other times, away from their labels


def build_chain(steps: Sequence[dict[str, Any]]) -> Chain:
    """
    Returns a chain of augmentations.

    Args:
        steps: each with a `name` in `AUGMENTATIONS`, its `probability` (default 1) and the settings of that class.

    Raises:
        AugmentationError: a name or setting is unknown, or a value is invalid.
    """
    return Chain(tuple(_build(step, index) for index, step in enumerate(steps)))


def step_names(steps: Sequence[dict[str, Any]]) -> set[str]:
    """Returns the names of valid steps (see `build_chain`), and of the steps in every choice of a `one_of`."""
    names = {step["name"] for step in steps}
    for step in steps:
        for choice in step.get("choices", ()):
            names |= step_names(choice.get("steps", ()))
    return names


def _build(step: dict[str, Any], index: int) -> tuple[float, Augmentation]:
    if not isinstance(step, dict):
        raise AugmentationError(f"augmentation {index}: must be a mapping such as {{name: speed}}, got {step!r}.")
    settings = dict(step)
    name, probability = settings.pop("name", None), settings.pop("probability", 1.0)
    if name not in AUGMENTATIONS:
        raise AugmentationError(f"augmentation {index}: name must be one of {', '.join(AUGMENTATIONS)}, got {name!r}.")
    if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise AugmentationError(f"{name}: probability must be between 0 and 1, got {probability!r}.")
    known = [one.name for one in dataclasses.fields(AUGMENTATIONS[name]) if one.init]
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


def _choice(index: int, choice: Any) -> tuple[float, Chain]:
    """Returns the weight and the chain of one of the choices of `OneOf`."""
    where = f"choices[{index}]"
    if not isinstance(choice, dict) or not choice.keys() <= {"weight", "steps"}:
        raise ValueError(f"{where} may have the keys weight and steps, got {choice!r}.")
    weight, steps = choice.get("weight", 1.0), choice.get("steps", [])
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
        raise ValueError(f"{where}: weight must be a positive number, got {weight!r}.")
    if not isinstance(steps, (list, tuple)):
        raise ValueError(f"{where}: steps must be a list of augmentations, got {steps!r}.")
    try:
        return float(weight), build_chain(steps)
    except AugmentationError as error:
        raise ValueError(f"{where}: {error}") from error
