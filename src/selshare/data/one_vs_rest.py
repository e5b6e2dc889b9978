"""One binary task per class, as the paper does for MNIST, CIFAR-10 and OmniGlot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

from ..tasks import Task


def one_vs_rest_tasks(class_names: Sequence[str], *, metric: str = "accuracy") -> tuple[Task, ...]:
    """Return one binary task per class name: is it this class or any other?"""
    return tuple(Task.binary(name, metric=metric) for name in class_names)


def one_vs_rest_data(images: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> TensorDataset:
    """Return images with packed targets ``(N, classes)``: 1 for the own class, else 0.

    ``(N, height, width)`` images get a channel: ``(N, 1, height, width)``; ``(N, channels, height, width)`` stay.
    """
    inputs = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), classes)
    return TensorDataset(inputs.unsqueeze(1) if inputs.ndim == 3 else inputs, targets.to(inputs.dtype))


@dataclass(frozen=True)
class LabelledImages:
    """Images of unsigned bytes, ``(N, height, width)`` or ``(N, channels, height, width)``, and labels ``(N,)``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def one_vs_rest_splits(
    name: str,
    train: LabelledImages,
    test: LabelledImages,
    *,
    classes: int,
    train_size: int,
    validation_size: int,
    seed: int,
) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Draw training and validation images, each class in proportion, and standardise all three parts.

    Pixels are standardised by the mean and deviation, per channel, of the training images drawn.

    Parameters
    ----------
    name
        The data set's, for errors.
    train, test
        All images for training and validation, and those for testing.
    classes
        Number of classes.
    train_size, validation_size
        How many images to draw.
    seed
        Draws them.

    Raises
    ------
    ValueError
        Where the sizes do not fit.
    """
    available = len(train.labels)
    # A stratified draw needs one sample of every class in each part.
    if min(train_size, validation_size) < classes or train_size + validation_size > available:
        raise ValueError(
            f"{name} cannot draw train_size={train_size} and validation_size={validation_size} from {available} "
            f"images; each must be at least {classes} and both together at most {available}."
        )
    drawn, validation = train_test_split(
        np.arange(available), train_size=train_size, test_size=validation_size, stratify=train.labels, random_state=seed
    )
    mean, deviation = _moments(train.images[drawn])

    def data(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> TensorDataset:
        return one_vs_rest_data((images.astype(np.float32) - mean) / deviation, labels, classes)

    return (
        data(train.images[drawn], train.labels[drawn]),
        data(train.images[validation], train.labels[validation]),
        data(test.images, test.labels),
    )


def _moments(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation (at least 1) per channel ``(channels, 1, 1)``, exact, by counting values."""
    channels = images[:, None] if images.ndim == 3 else images
    counts = np.stack([np.bincount(channels[:, c].ravel(), minlength=256) for c in range(channels.shape[1])])
    share = counts / counts.sum(1, keepdims=True)
    values = np.arange(256)
    mean = share @ values
    deviation = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    shape = (-1, 1, 1) if images.ndim == 4 else ()
    return (
        mean.astype(np.float32).reshape(shape),
        np.maximum(deviation, 1.0).astype(np.float32).reshape(shape),
    )
