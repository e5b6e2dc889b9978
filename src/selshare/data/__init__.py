"""Data sets made ready for selective sharing: tasks, splits, a trunk and a recipe, by name."""

from .loading import load, names, options
from .problem import Problem, Recipe

__all__ = ["Problem", "Recipe", "load", "names", "options"]
