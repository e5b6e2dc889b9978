"""Targets and losses of many tasks at once."""

from .losses import TaskLosses, check_finite_losses, check_some_label, task_losses, weighted_sum
from .targets import check_targets, pack_targets

__all__ = [
    "TaskLosses",
    "check_finite_losses",
    "check_some_label",
    "check_targets",
    "pack_targets",
    "task_losses",
    "weighted_sum",
]
