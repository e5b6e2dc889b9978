"""From raw outputs to what a user wants to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..tasks import Task

Array = TypeVar("Array", Tensor, "np.ndarray[Any, Any]")


@dataclass(frozen=True)
class Prediction(Generic[Array]):
    """What a model says of one task for ``B`` samples; a field that does not apply to the task's kind is ``None``.

    Attributes
    ----------
    probabilities
        ``(B,)`` of the positive class for binary, ``(B, classes)`` for multiclass, ``(B, labels)`` for multilabel.
    classes
        int64: ``(B,)`` 0 or 1 for binary, ``(B,)`` the class index for multiclass, ``(B, labels)`` 0 or 1 for
        multilabel.
    values
        ``(B,)`` the value for regression with one output or the score for ranking, ``(B, outputs)`` for regression
        with several.
    """

    probabilities: Array | None = None
    classes: Array | None = None
    values: Array | None = None


def as_arrays(prediction: Prediction[Tensor]) -> Prediction[np.ndarray[Any, Any]]:
    """The same as NumPy arrays."""
    return Prediction(**{name: part if part is None else part.cpu().numpy() for name, part in vars(prediction).items()})


def read_outputs(task: Task, outputs: Tensor) -> Prediction[Tensor]:
    """The prediction of ``task`` from its raw outputs ``(B, task.outputs)``."""
    if task.kind == "multiclass":
        probabilities = torch.softmax(outputs, dim=1)
        return Prediction(probabilities=probabilities, classes=outputs.argmax(dim=1))
    values = outputs.squeeze(1) if task.outputs == 1 and task.kind != "multilabel" else outputs
    if task.kind in ("binary", "multilabel"):
        return Prediction(probabilities=torch.sigmoid(values), classes=(values > 0).long())
    return Prediction(values=values)
