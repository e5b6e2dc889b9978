"""The whole model: trunk → shared representation → bank → heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.checks import require_tensor
from ..objectives import (
    TaskLosses,
    check_finite_losses,
    check_some_label,
    check_targets,
    pack_targets,
    task_losses,
    weighted_sum,
)
from ..tasks import Task, TaskLayout
from .bank import BranchBank
from .branches import mlp_branch
from .heads import Heads
from .predictions import Prediction, as_arrays, read_outputs


class MultiTaskModel(nn.Module):
    """A trunk, one branch and one head per task; branches merge while it trains, heads stay.

    Parameters
    ----------
    trunk
        Any module from inputs to a shared representation ``(B, shared_features)``.
    shared_features
        Width ``H`` of the shared representation, or, with a ``branch`` of your own, its shape without the batch.
    hidden
        Widths of a branch's layers, e.g. ``(100, 50)``.
    tasks
        The tasks, see :class:`selshare.Task`. Task ``t`` starts on branch ``t``.
    branch
        A template branch of your own in place of ``hidden``: a module from the shared representation to ``(B, F)``.
    activation, dropout
        Of the branches built from ``hidden``, see :func:`mlp_branch`.

    Attributes
    ----------
    assignment
        ``(T,)`` int64: the branch of each task.
    loss_sum, loss_count
        ``(T,)`` float64: the record :meth:`loss` keeps in training mode, see :meth:`recorded_losses`.
    """

    assignment: Tensor
    loss_sum: Tensor
    loss_count: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        shared_features: int | tuple[int, ...],
        hidden: Sequence[int] = (100, 50),
        tasks: Sequence[Task] = (),
        *,
        branch: nn.Module | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layout = TaskLayout(tasks)
        self.shared_shape = (shared_features,) if isinstance(shared_features, int) else tuple(shared_features)
        template = branch or mlp_branch(_width(self.shared_shape), hidden, activation=activation, dropout=dropout)
        self.trunk = trunk
        self.bank = BranchBank(template, len(self.layout.tasks))
        self.heads = Heads(self.layout, _branch_features(template, self.shared_shape))
        self.register_buffer("assignment", torch.arange(len(self.tasks)))
        for record in ("loss_sum", "loss_count"):
            self.register_buffer(record, torch.zeros(len(self.tasks), dtype=torch.float64), persistent=False)
        self._one_to_one = True
        self.register_load_state_dict_post_hook(_assign_anew)  # type: ignore[no-untyped-call]  # torch's

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order of the outputs."""
        return self.layout.tasks

    @property
    def branches(self) -> int:
        """How many branches are live."""
        return self.bank.branches

    def forward(self, inputs: Tensor) -> Tensor:
        """Raw outputs ``(B, output_width)``, all tasks side by side in their order; :meth:`split` names them.

        Raises
        ------
        ValueError
            If the trunk's output is not ``(B, shared_features)``, or holds NaN or Inf (checked on the CPU).
        """
        return self.outputs_from(self.shared(inputs))

    def shared(self, inputs: Tensor) -> Tensor:
        """The shared representation of ``inputs``, checked."""
        shared: Tensor = self.trunk(inputs)
        if shared.shape[1:] != self.shared_shape:
            raise ValueError(
                f"the trunk's output has shape {tuple(shared.shape)}, but shared_features asks for (batch, "
                f"{', '.join(map(str, self.shared_shape))}); set shared_features to fit, or end the trunk in "
                "nn.Flatten() if it returns feature maps."
            )
        if not torch.compiler.is_compiling() and shared.device.type == "cpu":
            _check_finite_shared(inputs, shared)
        return shared

    def outputs_from(self, shared: Tensor) -> Tensor:
        """Raw outputs ``(B, output_width)`` for a shared representation."""
        features, rectify = self.bank.unrectified(shared)
        outputs: Tensor = self.heads(features, None if self._one_to_one else self.assignment, rectify=rectify)
        return outputs

    def split(self, outputs: Tensor) -> dict[str, Tensor]:
        """Views of packed outputs by task name, each ``(B, task.outputs)``."""
        return {
            name: outputs[:, columns]
            for name, columns in zip(self.layout.names, self.layout.output_slices, strict=True)
        }

    def task_losses(self, outputs: Tensor, targets: Mapping[str, Tensor] | Tensor) -> TaskLosses:
        """The loss of each task, a mean over its labelled samples, and how many those are."""
        require_tensor(outputs, "outputs")
        packed = pack_targets(self.layout, targets, check=False)
        if packed.device.type == "cpu":
            check_targets(self.layout, packed)
        return task_losses(self.layout, outputs, packed.to(outputs.device))

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor] | Tensor, *, check: bool | None = None) -> Tensor:
        """The sum of the tasks' weighted losses: a scalar to call ``backward`` on.

        Parameters
        ----------
        outputs
            What the model returned.
        targets
            A dict task name → tensor, or one packed tensor (``(B, T)`` where every task has one target column).
            Missing labels are NaN in float and −100 in integer tensors; they add neither loss nor gradient.
        check
            Look at the losses' values. ``None``: on the CPU only, as on a GPU that would wait for the device at every
            step; the Trainer looks once an epoch instead.

        Raises
        ------
        ValueError, TypeError
            If the targets do not fit the tasks, or (``check``) no task has a label in the batch or a loss is NaN or
            Inf (:class:`~selshare.objectives.NonFiniteLoss`). The message names the task. Nothing is recorded then.
        """
        losses = self.task_losses(outputs, targets)
        if check is None:
            check = not torch.compiler.is_compiling() and outputs.device.type == "cpu"
        if check:
            check_some_label(losses)
            check_finite_losses(self.layout, losses)
        if self.training:
            self.record(losses)
        return weighted_sum(self.layout, losses)

    def record(self, losses: TaskLosses) -> None:
        """Add a step's losses to the running record, as :meth:`loss` does."""
        with torch.no_grad():
            self.loss_sum += losses.values.double() * losses.labelled
            self.loss_count += losses.labelled

    def recorded_losses(self) -> Tensor:
        """Mean training loss per labelled sample of each task since :meth:`reset_loss_record`; NaN without a label."""
        return self.loss_sum / self.loss_count

    def reset_loss_record(self) -> None:
        """Start a new record, as the sharing does after each epoch."""
        self.loss_sum.zero_()
        self.loss_count.zero_()

    @overload
    def predict(self, inputs: Tensor, batch_size: int | None = None) -> dict[str, Prediction[Tensor]]: ...

    @overload
    def predict(
        self, inputs: np.ndarray[Any, Any], batch_size: int | None = None
    ) -> dict[str, Prediction[np.ndarray[Any, Any]]]: ...

    @torch.no_grad()
    def predict(self, inputs: Tensor | np.ndarray[Any, Any], batch_size: int | None = None) -> Any:
        """Probabilities, classes and values by task name, in evaluation mode (the mode is put back after).

        Parameters
        ----------
        inputs
            A batch of inputs. With a NumPy array the predictions are NumPy arrays; floating numbers are converted to
            the model's dtype.
        batch_size
            Run that many samples at a time; all at once when ``None``.
        """
        if isinstance(inputs, np.ndarray):
            first = next(self.parameters())
            tensor = torch.tensor(inputs, device=first.device)  # a copy: the array may be read-only
            tensor = tensor.to(first.dtype) if tensor.is_floating_point() else tensor
            return {name: as_arrays(part) for name, part in self.predict(tensor, batch_size).items()}
        was_training = self.training
        self.eval()
        try:
            outputs = torch.cat([self(part) for part in inputs.split(batch_size or max(len(inputs), 1))])
        finally:
            self.train(was_training)
        parts = self.split(outputs)
        return {task.name: read_outputs(task, parts[task.name]) for task in self.tasks}

    def reassign(self, assignment: Tensor) -> None:
        """Set the branch of each task.

        Raises
        ------
        ValueError
            If it does not name a live branch for every task, or leaves a branch without a task.
        """
        _check_assignment(assignment, len(self.tasks), self.bank.branches)
        self.assignment.copy_(assignment)
        self._one_to_one = assignment.tolist() == list(range(len(self.tasks)))

    def lay_out(self, layout: TaskLayout, assignment: Tensor) -> None:
        """Become the model of other tasks, whose branches and heads are, or are to be, in the rows of the parameters.

        For models that have some of the tasks of a larger one (:mod:`selshare.distributed`). The record of losses
        starts anew.
        """
        self.layout = layout
        self.heads.lay_out(layout)
        self.register_buffer("assignment", assignment.to(self.assignment.device))
        for record in ("loss_sum", "loss_count"):
            empty = torch.zeros(len(layout), dtype=torch.float64, device=self.loss_sum.device)
            self.register_buffer(record, empty, persistent=False)
        self._one_to_one = assignment.tolist() == list(range(len(layout)))

    def tasks_by_branch(self) -> tuple[tuple[int, ...], ...]:
        """For each live branch, the indices of its tasks."""
        members: list[list[int]] = [[] for _ in range(self.bank.branches)]
        for task, branch in enumerate(self.assignment.tolist()):
            members[branch].append(task)
        return tuple(map(tuple, members))

    def parameter_count(self) -> int:
        """Number of trainable parameters: trunk, live branches and heads."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def branch_parameter_count(self) -> int:
        """Number of trainable parameters of the live branches, heads not counted."""
        return sum(parameter.numel() for parameter in self.bank.parameters() if parameter.requires_grad)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """As in torch, also inside another module; the bank takes on the number of branches of the loaded state."""
        first = state_dict.get(f"{prefix}bank.stacked.{self.bank._first_name}")
        assignment = state_dict.get(f"{prefix}assignment")
        if first is not None and assignment is not None:
            _check_assignment(assignment, len(self.tasks), len(first))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _assign_anew(model: nn.Module, incompatible: object) -> None:
    """After a state was loaded, perhaps of other merges: what follows from the assignment is made anew."""
    assert isinstance(model, MultiTaskModel)
    model.reassign(model.assignment.clone())


def _check_assignment(assignment: Tensor, tasks: int, branches: int) -> None:
    """Raise unless every task has a live branch and every branch a task."""
    if tuple(assignment.shape) != (tasks,) or sorted(set(assignment.tolist())) != list(range(branches)):
        raise ValueError(
            f"an assignment must give each of the {tasks} tasks one of the {branches} branches and leave no branch "
            f"without a task; got {assignment.tolist()}."
        )


def _check_finite_shared(inputs: Tensor, shared: Tensor) -> None:
    """Raise if the shared representation holds NaN or Inf, and say whether the inputs do."""
    if torch.isfinite(shared.detach().sum()):
        return
    finite = torch.isfinite(shared.detach()).reshape(len(shared), -1).all(dim=1)
    if finite.all():
        return
    sample = int((~finite).nonzero()[0, 0])
    cause = "the trunk's weights have diverged; lower the learning rate"
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and not torch.isfinite(inputs).all():
        cause = "so do the inputs; repair or drop those samples"
    raise ValueError(f"the shared representation holds NaN or Inf, first in sample {sample} of the batch: {cause}.")


def _width(shape: tuple[int, ...]) -> int:
    """The width of a flat shared representation."""
    if len(shape) != 1:
        raise ValueError(f"hidden= builds branches that read a flat shared representation; {shape} needs branch=.")
    return shape[0]


def _branch_features(template: nn.Module, shape: tuple[int, ...]) -> int:
    """Width of a template branch's output, found by running a copy on zeros."""
    parameter = next(template.parameters())
    with torch.no_grad():
        zeros = torch.zeros(2, *shape, dtype=parameter.dtype, device=parameter.device)
        features: Tensor = copy.deepcopy(template).eval()(zeros)
    if features.ndim != 2:
        raise ValueError(f"a branch must return (batch, features); it returned shape {tuple(features.shape)}.")
    return features.shape[1]
