"""Sharing: capture → embed → cluster → plan → merge at the end of each epoch, and the lock."""

from .align import align
from .capture import Capture, GradientCapture
from .compose import compose
from .criteria import CRITERIA, Clustering, ClusterSettings, Criterion
from .embed import Embedding, embed
from .epoch_end import EpochEnd
from .events import SharingEvent
from .free_capture import FreeCapture, SGDRule, gradient_sum_from_displacement
from .lock import Lock
from .merge import apply, replay
from .plan import RULES, MergePlan, plan_merges
from .refit import refit_heads
from .selective import SelectiveSharing
from .settings import PRESETS
from .sketched_capture import SketchedCapture
from .step_size import MergedGradient

__all__ = [
    "CRITERIA",
    "PRESETS",
    "RULES",
    "Capture",
    "ClusterSettings",
    "Clustering",
    "Criterion",
    "Embedding",
    "EpochEnd",
    "FreeCapture",
    "GradientCapture",
    "Lock",
    "MergePlan",
    "MergedGradient",
    "SGDRule",
    "SelectiveSharing",
    "SharingEvent",
    "SketchedCapture",
    "align",
    "apply",
    "compose",
    "embed",
    "gradient_sum_from_displacement",
    "plan_merges",
    "refit_heads",
    "replay",
]
