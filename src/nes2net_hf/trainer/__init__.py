"""Training from a YAML recipe. Needs the extra `train`."""

from typing import TYPE_CHECKING, Any

from .recipe import Recipe, RecipeError, load_recipe

if TYPE_CHECKING:
    from .batches import BrokenDataError
    from .loop import TrainingFailed, TrainingStopped, train

__all__ = ["BrokenDataError", "Recipe", "RecipeError", "TrainingFailed", "TrainingStopped", "load_recipe", "train"]


def __getattr__(name: str) -> Any:
    # `nes2net augment` only reads a recipe and should not wait for accelerate to load.
    if name == "BrokenDataError":
        from .batches import BrokenDataError

        return BrokenDataError
    if name in ("TrainingFailed", "TrainingStopped", "train"):
        from . import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
