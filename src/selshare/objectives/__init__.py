"""Targets and losses of many tasks at once, and further objectives that tie tasks to each other."""

from .distribution_matching import DistributionMatching, SoftCoAnnotation
from .logit_gradients import logit_gradients, loss_gradients
from .losses import NonFiniteLoss, TaskLosses, check_finite_losses, check_some_label, task_losses, weighted_sum
from .objective import Objective
from .relation_table import RelationTable, estimate_relation
from .saliency import SaliencyRegularizer
from .targets import check_targets, pack_targets
from .task_relations import TaskRelations

__all__ = [
    "DistributionMatching",
    "NonFiniteLoss",
    "Objective",
    "RelationTable",
    "SaliencyRegularizer",
    "SoftCoAnnotation",
    "TaskLosses",
    "TaskRelations",
    "check_finite_losses",
    "check_some_label",
    "check_targets",
    "estimate_relation",
    "logit_gradients",
    "loss_gradients",
    "pack_targets",
    "task_losses",
    "weighted_sum",
]
