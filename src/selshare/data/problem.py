"""What a ready-made problem holds: pure data, no behaviour beyond checking itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from ..tasks import Task
from .table_columns import TableColumns

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Recipe:
    """How to train on a problem.

    The defaults are those of Strezoski et al. (arXiv 1904.03011) for MNIST, CIFAR-10 and OmniGlot: SGD with learning
    rate .02 and momentum .5, batches of 64, 30 epochs. ``momentum`` is read by ``"sgd"`` only. By the ``schedule``
    ``"cosine"`` the learning rate falls to 0 over all the epochs, along half a cosine.

    Raises
    ------
    ValueError
        Where the optimizer is not one of ``"sgd"``, ``"adam"``, ``"adamw"``, the schedule not ``"constant"`` or
        ``"cosine"``, or a number is out of its range.
    """

    optimizer: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.5
    weight_decay: float = 0.0
    batch_size: int = 64
    epochs: int = 30
    schedule: str = "constant"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"The recipe's optimizer is {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"The recipe's schedule is {self.schedule!r}; choose one of {', '.join(SCHEDULES)}.")
        if self.lr <= 0:
            raise ValueError(f"The recipe's learning rate is {self.lr}; it must be above 0.")
        for what in ("batch_size", "epochs"):
            if getattr(self, what) < 1:
                raise ValueError(f"The recipe's {what} is {getattr(self, what)}; it must be at least 1.")


@dataclass(frozen=True)
class Problem:
    """A data set made ready: everything ``selshare train`` needs to know about it.

    Attributes
    ----------
    name
        Short name, used for the run's folder.
    description
        One sentence for the report.
    tasks
        What is learned, in the order of the target columns.
    train, validation, test
        Samples ``(input, packed target row)``; a target row is as wide as the tasks' target columns, NaN where a label
        is missing. The best validation model is tested.
    make_trunk
        Builds a freshly initialised trunk, ``(B, ...) -> (B, shared_features)``.
    shared_features
        Width of the shared representation.
    hidden, dropout
        Widths of a branch's layers, and its dropout rate.
    recipe
        How to train.
    groups
        The true groups, as task names, where they are known (planted), else ``None``.
    relations
        ``(source, target)`` → what is known of how the target's labels go with the source's classes, for distribution
        matching: what :meth:`selshare.objectives.RelationTable.of` takes. Empty: estimated from the training data.
    columns
        For a table, what its columns mean: what it takes to read another table of the same form.
    citation, licence
        Whose data these are, and on what terms they may be used.
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    train: Dataset[tuple[Tensor, ...]]
    validation: Dataset[tuple[Tensor, ...]]
    test: Dataset[tuple[Tensor, ...]]
    make_trunk: Callable[[], nn.Module]
    shared_features: int
    hidden: tuple[int, ...] = (100, 50)
    dropout: float = 0.0
    recipe: Recipe = Recipe()
    groups: tuple[tuple[str, ...], ...] | None = None
    relations: Mapping[tuple[str, str | tuple[str, ...]], Any] = field(default_factory=dict)
    columns: TableColumns | None = None
    citation: str = ""
    licence: str = ""
