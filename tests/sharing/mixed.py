"""A model of tasks of several kinds and widths, and a plan to merge its branches, for suites of merging."""

import torch
from torch import nn

from selshare.model import MultiTaskModel
from selshare.sharing import MergePlan
from selshare.tasks import Task

PLAN = MergePlan(6, ((0, 2, 3), (1, 4)), (2, 4))


def mixed_model(hidden: tuple[int, ...] = (12, 9), *, activation: str = "relu", **options: float) -> MultiTaskModel:
    """Six tasks of three widths over 8 shared features, every branch and head with weights of its own."""
    tasks = [
        Task.binary("b0"),
        Task.multiclass("c1", classes=4),
        Task.multiclass("c2", classes=4),
        Task.binary("b3"),
        Task.regression("r4", outputs=2),
        Task.binary("b5"),
    ]
    model = MultiTaskModel(nn.Linear(5, 8), 8, hidden, tasks, activation=activation, **options)
    with torch.no_grad():
        for parameter in (*model.bank.parameters(), *model.heads.parameters()):
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)
    return model.double()
