"""Figures as inline SVG that take their colours from the page, so that they follow light, dark and print."""

from .by_task import metric_by_task
from .curves import curve, dash_array
from .matrix import distance_matrix
from .regions import regions_figure
from .relations import relation_matrix
from .svg import GROUP_COLOURS
from .timeline import NAMED_TASKS, timeline
from .tree import dendrogram

__all__ = [
    "GROUP_COLOURS",
    "NAMED_TASKS",
    "curve",
    "dash_array",
    "dendrogram",
    "distance_matrix",
    "metric_by_task",
    "regions_figure",
    "relation_matrix",
    "timeline",
]
