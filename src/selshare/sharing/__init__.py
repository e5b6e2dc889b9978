"""Sharing: capture → embed → cluster → plan → merge at the end of each epoch, and the lock."""

from .capture import Capture, GradientCapture
from .events import SharingEvent
from .lock import Lock
from .merge import apply, replay
from .plan import RULES, MergePlan, plan_merges

__all__ = [
    "RULES",
    "Capture",
    "GradientCapture",
    "Lock",
    "MergePlan",
    "SharingEvent",
    "apply",
    "plan_merges",
    "replay",
]
