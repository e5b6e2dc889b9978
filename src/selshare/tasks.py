"""What a task is, and where each task's columns lie in packed outputs and targets.

A :class:`Task` is data: a name, a kind, a width, a loss, a metric and a weight. A :class:`TaskLayout` is built once
from a sequence of tasks. It says which columns of the packed outputs ``(B, output_width)`` and the packed targets
``(B, target_width)`` belong to which task, and which tasks have the same kind, width and loss and so are computed
together, without a loop over tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from .kernels.checks import is_one_of, require_integer, require_number

if TYPE_CHECKING:
    import torchmetrics

Kind = Literal["binary", "multiclass", "multilabel", "regression", "ranking"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_OUTPUTS = 2**24
"""Class indices beyond are not exact in float32."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A loss of one's own: outputs ``(B, n, outputs)`` and targets ``(B, n, targets)`` of the n tasks that share it
→ one loss per sample and task ``(B, n)``. See :func:`selshare.objectives.task_losses`."""

Metric: TypeAlias = "torchmetrics.Metric | Callable[[Tensor, Tensor], float]"
"""A metric of one's own. See :func:`selshare.training.metrics.score` for what it is given."""

LOSSES: dict[Kind, tuple[str, ...]] = {
    "binary": ("cross_entropy",),
    "multiclass": ("cross_entropy",),
    "multilabel": ("cross_entropy",),
    "regression": ("mse", "l1", "huber"),
    "ranking": ("logistic", "hinge"),
}
METRICS: dict[Kind, tuple[str, ...]] = {
    "binary": ("accuracy", "auroc", "average_precision"),
    "multiclass": ("accuracy", "auroc", "average_precision"),
    "multilabel": ("average_precision", "accuracy", "auroc"),
    "regression": ("mae", "mse"),
    "ranking": ("pair_accuracy",),
}


@dataclass(frozen=True, eq=False)
class Task:
    """One task: what its head puts out, how it is trained and how it is measured.

    Build it with :meth:`binary`, :meth:`multiclass`, :meth:`multilabel`, :meth:`regression` or :meth:`ranking`.

    Parameters
    ----------
    name
        Any non-empty string; unique among the tasks of a model.
    kind
        One of ``"binary"``, ``"multiclass"``, ``"multilabel"``, ``"regression"``, ``"ranking"``.
    outputs
        Width of the head: 1 (binary, ranking), the classes, the labels, or the values of a regression.
    loss
        A name of :data:`LOSSES`, or a callable (:data:`Loss`). Tasks that share a callable, a kind and a width are
        computed together.
    metric
        A name of :data:`METRICS`, a ``torchmetrics.Metric``, or a callable ``(outputs, targets) -> float``.
    weight
        Factor of this task's loss in the sum; finite, 0 or more.

    Raises
    ------
    ValueError, TypeError
        One sentence that names the task.

    Notes
    -----
    Tasks are hashable and compare by value; callables compare as Python compares them, that is, mostly by identity.
    """

    name: str
    kind: Kind
    outputs: int
    loss: str | Loss
    metric: str | Metric
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be a task."""
        if not isinstance(self.name, str):
            raise TypeError(f"A task's name must be a string; {self.name!r} is a {type(self.name).__name__}.")
        if not self.name:
            raise ValueError("A task's name is empty; give every task a name.")
        if not is_one_of(self.kind, KINDS):
            raise ValueError(f"Task {self.name!r} has the unknown kind {self.kind!r}; choose from {', '.join(KINDS)}.")
        self._check_outputs()
        self._check_choice("loss", self.loss, LOSSES[self.kind])
        self._check_choice("metric", self.metric, METRICS[self.kind])
        self._check_weight()

    @classmethod
    def binary(
        cls, name: str, *, loss: str | Loss = "cross_entropy", metric: str | Metric = "accuracy", weight: float = 1.0
    ) -> Task:
        """A yes-or-no task: one logit, targets 0 or 1."""
        return cls(name, "binary", 1, loss, metric, weight)

    @classmethod
    def multiclass(
        cls,
        name: str,
        *,
        classes: int,
        loss: str | Loss = "cross_entropy",
        metric: str | Metric = "accuracy",
        weight: float = 1.0,
    ) -> Task:
        """One of ``classes`` classes: a logit each, targets 0 to ``classes - 1``."""
        return cls(name, "multiclass", classes, loss, metric, weight)

    @classmethod
    def multilabel(
        cls,
        name: str,
        *,
        labels: int,
        loss: str | Loss = "cross_entropy",
        metric: str | Metric = "average_precision",
        weight: float = 1.0,
    ) -> Task:
        """``labels`` yes-or-no labels at once: a logit and a target column (0 or 1) each."""
        return cls(name, "multilabel", labels, loss, metric, weight)

    @classmethod
    def regression(
        cls,
        name: str,
        *,
        outputs: int = 1,
        loss: str | Loss = "mse",
        metric: str | Metric = "mae",
        weight: float = 1.0,
    ) -> Task:
        """``outputs`` real values; loss ``"mse"``, ``"l1"`` or ``"huber"`` (threshold 1)."""
        return cls(name, "regression", outputs, loss, metric, weight)

    @classmethod
    def ranking(
        cls, name: str, *, loss: str | Loss = "logistic", metric: str | Metric = "pair_accuracy", weight: float = 1.0
    ) -> Task:
        """A score that orders samples as their targets do, learned from pairs; loss ``"logistic"`` or ``"hinge"``."""
        return cls(name, "ranking", 1, loss, metric, weight)

    @property
    def targets(self) -> int:
        """Target columns: 1 (binary, multiclass class index, ranking), the labels, or the values."""
        return self.outputs if self.kind in ("multilabel", "regression") else 1

    @property
    def classes(self) -> int:
        """How many classes a target chooses from: 2 (binary, multilabel), the classes, or 0 for real values."""
        return {"binary": 2, "multilabel": 2, "multiclass": self.outputs}.get(self.kind, 0)

    def to_json(self) -> dict[str, Any]:
        """The task as plain data; :meth:`from_json` makes the equal task of it.

        Raises
        ------
        TypeError
            If loss or metric is not a name: code cannot be written as JSON.
        """
        for what in ("loss", "metric"):
            if not isinstance(getattr(self, what), str):
                raise TypeError(
                    f"Task {self.name!r} has a {what} of its own, which cannot be written as JSON; "
                    f"name one of {', '.join((LOSSES if what == 'loss' else METRICS)[self.kind])}, or pickle the task."
                )
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """The task that :meth:`to_json` wrote; ``weight`` may be left out.

        Raises
        ------
        ValueError
            If a key is missing or unknown, or a value is not one a task can have.
        """
        known = {field.name for field in fields(cls)}
        missing, unknown = known - {"weight"} - data.keys(), data.keys() - known
        if missing or unknown:
            raise ValueError(
                f"The JSON of task {data.get('name')!r} lacks {sorted(missing)} and has the unknown keys "
                f"{sorted(unknown)}; it needs {sorted(known)}."
            )
        return cls(**data)

    def _check_outputs(self) -> None:
        """The width is a whole number (NumPy's too) that fits the kind."""
        outputs = require_integer(self.outputs, f"the number of outputs of task {self.name!r}")
        object.__setattr__(self, "outputs", outputs)
        if outputs > MOST_OUTPUTS:
            raise ValueError(
                f"Task {self.name!r} has more than {MOST_OUTPUTS} outputs, which float32 targets cannot tell apart."
            )
        if self.kind in ("binary", "ranking") and self.outputs != 1:
            raise ValueError(f"Task {self.name!r} is {self.kind} and has one output, not {self.outputs}.")
        least = 2 if self.kind == "multiclass" else 1
        if self.outputs < least:
            raise ValueError(
                f"Task {self.name!r} is {self.kind} and needs {least} outputs or more, not {self.outputs}."
            )

    def _check_weight(self) -> None:
        """The weight is a finite number, 0 or more."""
        object.__setattr__(self, "weight", require_number(self.weight, f"the weight of task {self.name!r}"))
        if self.weight < 0:
            raise ValueError(f"Task {self.name!r} has weight {self.weight}; give a finite number, 0 or more.")

    def _check_choice(self, what: str, value: object, names: tuple[str, ...]) -> None:
        """``value`` is one of ``names``, or a hashable callable."""
        if isinstance(value, str):
            if value not in names:
                raise ValueError(
                    f"Task {self.name!r} is {self.kind} and has the unknown {what} {value!r}; "
                    f"choose from {', '.join(names)}, or give a callable."
                )
            return
        if not callable(value):
            raise TypeError(f"Task {self.name!r} has {value!r} as {what}; give {', '.join(names)} or a callable.")
        if getattr(type(value), "__hash__", None) is None:
            raise TypeError(f"Task {self.name!r} has a {what} that is not hashable; give a function or a module.")

    def _fields(self) -> tuple[str, str, int, float]:
        return (self.name, self.kind, self.outputs, self.weight)

    def __eq__(self, other: object) -> bool:
        """By value; a ``torchmetrics.Metric``, which overloads ``==``, equals only itself."""
        if not isinstance(other, Task):
            return NotImplemented
        return self._fields() == other._fields() and _same(self.loss, other.loss) and _same(self.metric, other.metric)

    def __hash__(self) -> int:
        """Equal tasks have equal hashes; loss and metric are left out (see :meth:`__eq__`)."""
        return hash(self._fields())


def _same(first: object, second: object) -> bool:
    """Identical, or equal by an ``==`` that answers with a bool."""
    return first is second or (first == second) is True


Columns: TypeAlias = slice | tuple[int, ...]


@dataclass(frozen=True)
class TaskGroup:
    """Tasks of one kind, width and loss: their losses are computed together.

    ``members`` are task indices, ascending. ``output_columns`` and ``target_columns`` say where their columns lie in
    the packed tensors: a slice where the columns are evenly spaced, indices elsewhere.
    """

    kind: Kind
    outputs: int
    targets: int
    loss: str | Loss
    members: tuple[int, ...]
    output_columns: Columns
    target_columns: Columns
    size: int


class TaskLayout:
    """Where the columns of each task lie in packed outputs and targets.

    Parameters
    ----------
    tasks
        The tasks, in the order of their columns.

    Raises
    ------
    ValueError
        If there are no tasks, or two of one name.
    TypeError
        If one is not a :class:`Task`.

    Attributes
    ----------
    tasks, names, weights
        One entry per task.
    weighted
        Whether a weight is not 1.
    output_slices, target_slices
        Per task, its columns of the packed outputs ``(B, output_width)`` and targets ``(B, target_width)``.
    target_classes
        Per target column, how many classes its values choose from (2 for a binary label); 0 for real values.
    groups
        The :class:`TaskGroup` s, by their first member.
    widths
        Head width → indices of the tasks that have it.
    """

    tasks: tuple[Task, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    weighted: bool
    output_slices: tuple[slice, ...]
    target_slices: tuple[slice, ...]
    output_width: int
    target_width: int
    target_classes: tuple[int, ...]
    groups: tuple[TaskGroup, ...]
    widths: dict[int, tuple[int, ...]]

    def __init__(self, tasks: Iterable[Task]) -> None:
        """Work out all columns and groups, once."""
        self.tasks = _checked(tasks)
        self.names = tuple(task.name for task in self.tasks)
        self.weights = tuple(task.weight for task in self.tasks)
        self.weighted = any(weight != 1.0 for weight in self.weights)
        self.output_slices = _slices([task.outputs for task in self.tasks])
        self.target_slices = _slices([task.targets for task in self.tasks])
        self.output_width = self.output_slices[-1].stop
        self.target_width = self.target_slices[-1].stop
        self.target_classes = tuple(task.classes for task in self.tasks for _ in range(task.targets))
        self.groups = self._grouped()
        widths: dict[int, list[int]] = {}
        for index, task in enumerate(self.tasks):
            widths.setdefault(task.outputs, []).append(index)
        self.widths = {width: tuple(indices) for width, indices in widths.items()}
        self._indices = {name: index for index, name in enumerate(self.names)}
        by_group = [member for group in self.groups for member in group.members]
        self._in_order = by_group == sorted(by_group)
        self._constants = self._make_constants(by_group)
        self._copies: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        self._target_columns: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}

    def __len__(self) -> int:
        """The number of tasks."""
        return len(self.tasks)

    def __eq__(self, other: object) -> bool:
        """Layouts are equal when their tasks are, in order."""
        return self.tasks == other.tasks if isinstance(other, TaskLayout) else NotImplemented

    def __hash__(self) -> int:
        """By the tasks."""
        return hash(self.tasks)

    def __repr__(self) -> str:
        """Tasks, widths and groups in one line."""
        return (
            f"TaskLayout({len(self.tasks)} tasks in {len(self.groups)} groups, "
            f"{self.output_width} output and {self.target_width} target columns)"
        )

    def __reduce__(self) -> tuple[type[TaskLayout], tuple[tuple[Task, ...]]]:
        """Copies and pickles are built anew from the tasks."""
        return TaskLayout, (self.tasks,)

    def index(self, name: str) -> int:
        """The index of the task called ``name``; ``KeyError`` if there is none."""
        if name not in self._indices:
            raise KeyError(f"There is no task {name!r}.")
        return self._indices[name]

    def group_outputs(self, number: int, outputs: Tensor) -> Tensor:
        """The outputs ``(B, n, w)`` of ``groups[number]``, from packed ``(B, output_width)``."""
        group = self.groups[number]
        taken = self._take(outputs, group.output_columns, f"outputs {number}")
        return taken.reshape(taken.shape[0], group.size, group.outputs)

    def group_targets(self, number: int, packed: Tensor) -> Tensor:
        """The targets ``(B, n, d)`` of ``groups[number]``, from packed ``(B, target_width)``."""
        group = self.groups[number]
        taken = self._take(packed, group.target_columns, f"targets {number}")
        return taken.reshape(taken.shape[0], group.size, group.targets)

    def in_task_order(self, values: Sequence[Tensor]) -> Tensor:
        """One tensor ``(n,)`` per group → one ``(T,)`` in the order of the tasks."""
        joined = values[0] if len(values) == 1 else torch.cat(tuple(values))
        return joined if self._in_order else joined.index_select(0, self.constant("positions", joined.device))

    def constant(self, name: str, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
        """One of the layout's constant tensors on ``device``, copied there once.

        ``"weights" (T,)`` and ``"classes" (target_width,)`` hold :attr:`weights` and :attr:`target_classes`.
        """
        if torch.compiler.is_compiling():  # a long list would be slow to trace; a tensor is an input of the graph
            return self._constants[name].to(device, dtype)
        key = (name, device, dtype)
        if key not in self._copies:
            with torch.inference_mode(False):  # a tensor made in inference mode could not be saved for backward
                self._copies[key] = self._constants[name].to(device, dtype)
        return self._copies[key]

    def target_columns_of(self, tasks: tuple[int, ...], device: torch.device) -> Tensor:
        """The packed target columns of some tasks, in their order, int64 on ``device``; copied there once."""
        key = (tasks, device)
        known = None if torch.compiler.is_compiling() else self._target_columns.get(key)
        if known is None:
            slices = [self.target_slices[task] for task in tasks]
            columns = [column for taken in slices for column in range(taken.start, taken.stop)]
            known = torch.tensor(columns, device=device)
            if not torch.compiler.is_compiling():
                self._target_columns[key] = known
        return known

    def _take(self, packed: Tensor, columns: Columns, name: str) -> Tensor:
        if isinstance(columns, slice):
            return packed[:, columns]
        return packed.index_select(1, self.constant(name, packed.device))

    def _make_constants(self, by_group: Sequence[int]) -> dict[str, Tensor]:
        """Weights, classes, where each task stands among ``by_group``, and columns that are no slice; on the CPU."""
        constants: dict[str, Sequence[float]] = {
            "weights": self.weights,
            "classes": self.target_classes,
            "positions": _inverse(by_group),
        }
        for number, group in enumerate(self.groups):
            for what, columns in (("outputs", group.output_columns), ("targets", group.target_columns)):
                if not isinstance(columns, slice):
                    constants[f"{what} {number}"] = columns
        with torch.inference_mode(False):
            return {
                name: torch.tensor(values, device="cpu", dtype=torch.float64 if name == "weights" else torch.int64)
                for name, values in constants.items()
            }

    def _grouped(self) -> tuple[TaskGroup, ...]:
        members: dict[tuple[Kind, int, str | Loss], list[int]] = {}
        for index, task in enumerate(self.tasks):
            members.setdefault((task.kind, task.outputs, task.loss), []).append(index)
        return tuple(
            TaskGroup(
                kind,
                width,
                self.tasks[indices[0]].targets,
                loss,
                tuple(indices),
                _columns([self.output_slices[index] for index in indices]),
                _columns([self.target_slices[index] for index in indices]),
                len(indices),
            )
            for (kind, width, loss), indices in members.items()
        )


def _checked(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """The tasks, if there are any, each is a :class:`Task`, and no name is there twice."""
    if not isinstance(tasks, Iterable):
        raise TypeError(f"Tasks must be a sequence of tasks; they are {tasks!r}.")
    found = tuple(tasks)
    if not found:
        raise ValueError("There are no tasks; give at least one.")
    seen: set[str] = set()
    for task in found:
        if not isinstance(task, Task):
            raise TypeError(f"{task!r} is not a Task; build it with Task.binary, Task.multiclass and so on.")
        if task.name in seen:
            raise ValueError(f"There are two tasks called {task.name!r}; give each task its own name.")
        seen.add(task.name)
    return found


def _slices(widths: Sequence[int]) -> tuple[slice, ...]:
    """Consecutive slices of the given widths."""
    stops = [0]
    for width in widths:
        stops.append(stops[-1] + width)
    return tuple(slice(start, stop) for start, stop in pairwise(stops))


def _columns(slices: Sequence[slice]) -> Columns:
    """All columns of ``slices``: as one slice where they are evenly spaced."""
    columns = [column for part in slices for column in range(part.start, part.stop)]
    step = columns[1] - columns[0] if len(columns) > 1 else 1
    if all(after - before == step for before, after in pairwise(columns)):
        return slice(columns[0], columns[-1] + 1, step)
    return tuple(columns)


def _inverse(permutation: Sequence[int]) -> list[int]:
    """Where each index stands in ``permutation``."""
    return sorted(range(len(permutation)), key=permutation.__getitem__)
