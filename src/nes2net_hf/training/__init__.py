"""Training: a recipe (YAML) says what, the loop does it. Needs the extra `train`."""

from .loop import train
from .recipe import Recipe, RecipeError, load_recipe

__all__ = ["Recipe", "RecipeError", "load_recipe", "train"]
