"""Data sets made ready for selective sharing: tasks, splits, a trunk and a recipe, by name."""

from .loading import load, names, options
from .problem import Problem, Recipe
from .table import table
from .table_columns import TableColumns
from .task_mixture import TaskMixture

__all__ = ["Problem", "Recipe", "TableColumns", "TaskMixture", "load", "names", "options", "table"]
