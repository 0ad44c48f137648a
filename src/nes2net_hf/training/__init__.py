"""Training: a recipe (YAML) says what, the loop does it. Needs the extra `train`."""

from .batches import BrokenDataError
from .loop import TrainingFailed, TrainingStopped, train
from .recipe import Recipe, RecipeError, load_recipe

__all__ = ["BrokenDataError", "Recipe", "RecipeError", "TrainingFailed", "TrainingStopped", "load_recipe", "train"]
