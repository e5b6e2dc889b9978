"""What an objective is: a further term of the loss that sees the whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..model import MultiTaskModel


class Objective(Protocol):
    """A scalar that is added to the tasks' losses before ``backward``.

    The Trainer calls it (``Trainer(objectives=[…])``); a loop of one's own runs the model in two parts:

    .. code-block:: python

        shared = model.shared(inputs)
        outputs = model.outputs_from(shared)
        loss = model.loss(outputs, targets) + objective(model, shared, outputs, targets)
    """

    def __call__(self, model: MultiTaskModel, shared: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """The term for one batch.

        Parameters
        ----------
        model
            The model that is trained.
        shared
            The shared representation ``(B, …)`` of the batch.
        outputs
            Packed outputs ``(B, output_width)`` of the model for it.
        targets
            Packed targets ``(B, target_width)``, NaN where a label is missing; what
            :func:`~selshare.objectives.pack_targets` makes of a mapping.
        """
        ...


def require_finite_objective(value: Tensor, name: str) -> Tensor:
    """``value``, if it is finite; on a GPU it is not looked at, as that would wait for the device.

    Raises
    ------
    ValueError
        If it is NaN or Inf; names the objective.
    """
    if not torch.compiler.is_compiling() and value.device.type == "cpu" and not bool(torch.isfinite(value.detach())):
        raise ValueError(
            f"The {name} of the batch is NaN or Inf; lower its strength or the learning rate, or check the inputs."
        )
    return value
