"""Training: a recipe (YAML) says what, the loop does it. Needs the extra `train`."""

from .batches import BrokenDataError
from .loop import train
from .recipe import Recipe, RecipeError, load_recipe

__all__ = ["BrokenDataError", "Recipe", "RecipeError", "load_recipe", "train"]
