"""Sharing: capture → embed → cluster → plan → merge at the end of each epoch, and the lock."""

from .capture import Capture, GradientCapture
from .criteria import CRITERIA, Clustering, ClusterSettings, Criterion
from .embed import Embedding, embed
from .events import SharingEvent
from .lock import Lock
from .merge import apply, replay
from .plan import RULES, MergePlan, plan_merges
from .selective import SelectiveSharing

__all__ = [
    "CRITERIA",
    "RULES",
    "Capture",
    "ClusterSettings",
    "Clustering",
    "Criterion",
    "Embedding",
    "GradientCapture",
    "Lock",
    "MergePlan",
    "SelectiveSharing",
    "SharingEvent",
    "apply",
    "embed",
    "plan_merges",
    "replay",
]
