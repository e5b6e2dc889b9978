"""Sharing: capture → embed → cluster → plan → merge at the end of each epoch, and the lock."""

from .capture import Capture, GradientCapture
from .criteria import CRITERIA, Clustering, ClusterSettings, Criterion
from .embed import Embedding, embed
from .events import SharingEvent
from .free_capture import FreeCapture, SGDRule, gradient_sum_from_displacement
from .lock import Lock
from .merge import apply, replay
from .plan import RULES, MergePlan, plan_merges
from .selective import SelectiveSharing
from .sketched_capture import SketchedCapture

__all__ = [
    "CRITERIA",
    "RULES",
    "Capture",
    "ClusterSettings",
    "Clustering",
    "Criterion",
    "Embedding",
    "FreeCapture",
    "GradientCapture",
    "Lock",
    "MergePlan",
    "SGDRule",
    "SelectiveSharing",
    "SharingEvent",
    "SketchedCapture",
    "apply",
    "embed",
    "gradient_sum_from_displacement",
    "plan_merges",
    "replay",
]
