"""One binary task per class, as the paper does for MNIST, CIFAR-10 and OmniGlot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from ..tasks import Task


def one_vs_rest_tasks(class_names: Sequence[str]) -> tuple[Task, ...]:
    """Return one binary task per class name: is it this class or any other?"""
    return tuple(Task.binary(name) for name in class_names)


def one_vs_rest_data(images: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> TensorDataset:
    """Return ``(N, 1, height, width)`` images with packed targets ``(N, classes)``: 1 for the own class, else 0."""
    inputs = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).unsqueeze(1)
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), classes)
    return TensorDataset(inputs, targets.to(inputs.dtype))
