"""Targets and losses of many tasks at once, and further objectives that tie tasks to each other."""

from .logit_gradients import logit_gradients
from .losses import TaskLosses, check_finite_losses, check_some_label, task_losses, weighted_sum
from .objective import Objective
from .saliency import SaliencyRegularizer
from .targets import check_targets, pack_targets
from .task_relations import TaskRelations

__all__ = [
    "Objective",
    "SaliencyRegularizer",
    "TaskLosses",
    "TaskRelations",
    "check_finite_losses",
    "check_some_label",
    "check_targets",
    "logit_gradients",
    "pack_targets",
    "task_losses",
    "weighted_sum",
]
