"""Sharing: capture → embed → cluster → plan → merge at the end of each epoch, and the lock."""

from .events import SharingEvent
from .lock import Lock
from .plan import RULES, MergePlan, plan_merges

__all__ = ["RULES", "Lock", "MergePlan", "SharingEvent", "plan_merges"]
