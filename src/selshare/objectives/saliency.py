"""Saliency-regularised multi-task learning: tasks that are related see the shared representation alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ..tasks import Task
from .logit_gradients import logit_gradients
from .objective import require_finite_objective
from .pair_distances import DISTANCES, Distance, weighted_distances
from .task_relations import Form, MakeOptimizer, RelationWeights, TaskRelations

if TYPE_CHECKING:
    from ..model import MultiTaskModel

Reduction = Literal["mean", "sum"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


class SaliencyRegularizer(nn.Module):
    """The regulariser of SRDML (Bai and Zhao, KDD 2022, arXiv 2207.01117), an :class:`~selshare.objectives.Objective`.

    ``λ Σ_{i<j} ŵ_ij · Σ_b dist(s_ib, s_jb)``: ``s_tb`` is the gradient of task t's logit with respect to the shared
    representation of sample b, summed over the positions of a feature map to a vector of channels. The weights ŵ are
    learned along: a call in training mode also takes one step of ω, on the distances it has found. All tasks'
    gradients come from one vectorised pass that is differentiated again by ``backward``, whatever the number of tasks.

    Known from the paper and its released code: the gradient of the logit at the shared feature map, sums over
    positions, l1, ω from 1 by Adam clipped at 0, weights ``ω/Σω``, the sum over the samples of a batch, λ = .1, a
    warm-up with hard sharing alone. *Ours*: ω learns in the warm-up already (``learn_in_warmup``); l2 and cosine, the
    mean over samples, what a task of several outputs counts as (see
    :func:`~selshare.objectives.logit_gradients.logit_gradients`), branches in evaluation mode, the constrained form's
    projection.

    Parameters
    ----------
    tasks
        The model's tasks, or their names; two or more.
    strength
        λ.
    distance
        ``"l1"``, ``"l2"`` or ``"cosine"``; see :func:`~selshare.objectives.pair_distances.weighted_distances`.
    channels
        For a flat representation that is a flattened feature map ``(channels, positions)``: how many channels it has;
        its gradients are then summed over positions. Shared representations of three or more dimensions
        ``(B, channels, …)`` are summed over positions anyway; other flat ones are taken as they are.
    reduction
        Over the samples of a batch: ``"mean"``, *ours*, which does not depend on the batch's size, or ``"sum"``, as
        released, which at λ = .1 may drown the tasks' losses (docs/results.md has a case).
    warmup
        Steps in training mode before the regulariser sets in.
    learn_in_warmup
        Let ω learn from the distances of the warm-up. While ω is level the regulariser draws all tasks together, unlike
        ones too, and where data do not undo that it stays (docs/objectives.md has the figures). Adam of rate η takes
        1/η steps to bring a pair's ω from 1 to 0; choose the rate and the warm-up so that it gets there. ``False``, as
        released: the warm-up costs nothing and ω stays.
    form, total, largest, optimizer
        Of ω: see :class:`~selshare.objectives.task_relations.RelationWeights`. ``optimizer`` builds ω's optimizer.
    learn
        Learn ω; otherwise all pairs weigh the same.

    Attributes
    ----------
    weights
        The :class:`~selshare.objectives.task_relations.RelationWeights` with ω; ``state_dict`` holds them, their
        optimizer's state and the steps made.
    steps
        Calls in training mode so far.

    Raises
    ------
    ValueError
        Where an option is unknown or out of its range, there are fewer than two tasks, or ω's constraints exclude each
        other.

    Notes
    -----
    A step takes a forward and a backward more of every task's branch, and O(T²·B·C) for the distances, with C the
    length of a vector. Memory O(T² + T·B·H).
    """

    def __init__(
        self,
        tasks: Sequence[Task] | Sequence[str],
        *,
        strength: float = 0.1,
        distance: Distance = "l1",
        channels: int | None = None,
        reduction: Reduction = "mean",
        warmup: int = 0,
        learn_in_warmup: bool = True,
        form: Form = "normalized",
        total: float = 1.0,
        largest: float | None = None,
        optimizer: MakeOptimizer = torch.optim.Adam,
        learn: bool = True,
    ) -> None:
        super().__init__()
        _check(strength, distance, channels, reduction, warmup)
        names = [task.name if isinstance(task, Task) else task for task in tasks]
        self.weights = RelationWeights(names, form=form, total=total, largest=largest, optimizer=optimizer)
        self.strength, self.channels = strength, channels
        self.distance, self.reduction = distance, reduction
        self.warmup, self.learn_in_warmup, self.learn = warmup, learn_in_warmup, learn
        self.steps = 0

    def forward(self, model: MultiTaskModel, shared: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """The regulariser of a batch; in the model's training mode also a step of ω.

        ``outputs`` and ``targets`` do not matter: every sample counts, labelled or not.

        Raises
        ------
        ValueError
            If the model's tasks are not those given, ``channels`` does not divide the shared representation, or (on
            the CPU) the result is not finite.
        """
        if model.layout.names != self.weights.names:
            raise ValueError(
                f"The saliency regulariser was made for the tasks {_few(self.weights.names)}, but the model has "
                f"{_few(model.layout.names)}; make one of model.tasks."
            )
        if model.training:
            self.steps += 1
            if self.steps <= self.warmup:
                if self.learn and self.learn_in_warmup:
                    with torch.no_grad():
                        self.of_gradients(logit_gradients(model, shared))
                return shared.new_zeros(())
        return self.of_gradients(logit_gradients(model, shared), learn=model.training)

    def of_gradients(self, gradients: Tensor, *, learn: bool = True) -> Tensor:
        """The regulariser of logit gradients ``(T, B, …)`` however they were come by; with a step of ω if ``learn``."""
        vectors = self._channel_vectors(gradients)
        scale = self.strength / (vectors.shape[1] if self.reduction == "mean" else 1)
        weights = self.weights().to(vectors)
        total, distances = weighted_distances(vectors, weights, self.distance)
        value = require_finite_objective(scale * total, "saliency regulariser")
        if learn and self.learn:
            self.weights.update(distances, scale)
        return value

    def relations(self) -> TaskRelations:
        """The weights of all pairs by name."""
        return self.weights.relations()

    def get_extra_state(self) -> dict[str, int]:
        """The steps made, for ``state_dict``."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Load what :meth:`get_extra_state` gave."""
        self.steps = state["steps"]

    def extra_repr(self) -> str:
        """What is not the default of everyone."""
        return f"strength={self.strength}, distance={self.distance!r}, reduction={self.reduction!r}"

    def _channel_vectors(self, gradients: Tensor) -> Tensor:
        """``(T, B, C)``: summed over positions; half precision as float32."""
        if gradients.dtype not in (torch.float32, torch.float64):
            gradients = gradients.float()
        if gradients.ndim > 3:
            return gradients.flatten(3).sum(3)
        if self.channels is None:
            return gradients
        if gradients.shape[2] % self.channels:
            raise ValueError(
                f"The shared representation has {gradients.shape[2]} features, which are not {self.channels} channels "
                "of as many positions each; set channels= to fit the trunk's last feature map."
            )
        return gradients.reshape(*gradients.shape[:2], self.channels, -1).sum(3)


def _few(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check(strength: float, distance: str, channels: int | None, reduction: str, warmup: int) -> None:
    """Raise for an option that is unknown or out of range."""
    for what, value, known in (("distance", distance, DISTANCES), ("reduction", reduction, REDUCTIONS)):
        if value not in known:
            raise ValueError(f"The saliency regulariser has no {what} {value!r}; choose from {', '.join(known)}.")
    if not 0 <= strength < float("inf"):
        raise ValueError(f"The saliency regulariser's strength is {strength}; it must be finite, 0 or more.")
    if channels is not None and channels < 1:
        raise ValueError(f"The saliency regulariser was given {channels} channels; there must be 1 or more.")
    if warmup < 0:
        raise ValueError(f"The saliency regulariser's warmup is {warmup}; it must be 0 steps or more.")
