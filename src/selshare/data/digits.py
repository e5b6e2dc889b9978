"""scikit-learn's bundled handwritten digits: 1,797 images of 8×8 pixels, nothing to download."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

from .one_vs_rest import one_vs_rest_data, one_vs_rest_tasks
from .problem import Problem
from .trunks import conv_trunk

TRAIN, VALIDATION = 1077, 360  # 60 % and 20 %; the last 20 % are for testing


def digits(*, seed: int = 0) -> Problem:
    """Return ten one-vs-rest tasks on the bundled digits: 1,077 training, 360 validation and 360 test images.

    ``seed`` draws the stratified split. The trunk is the paper's MNIST trunk with 3×3 filters, for the smaller images.
    """
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).reshape(-1, 8, 8).astype(np.float32)  # pixels count 0 to 16
    train, others = train_test_split(np.arange(len(labels)), train_size=TRAIN, stratify=labels, random_state=seed)
    validation, test = train_test_split(others, train_size=VALIDATION, stratify=labels[others], random_state=seed)

    def part(rows: NDArray[np.int64]) -> TensorDataset:
        return one_vs_rest_data(images[rows], labels[rows], 10)

    return Problem(
        name="digits",
        description="Handwritten digits, 8×8 pixels (scikit-learn): ten one-vs-rest tasks.",
        tasks=one_vs_rest_tasks([f"digit {digit}" for digit in range(10)]),
        train=part(train),
        validation=part(validation),
        test=part(test),
        make_trunk=partial(conv_trunk, kernel=3, padding=1),
        shared_features=160,
        citation="E. Alpaydin, C. Kaynak: Optical recognition of handwritten digits, UCI Machine Learning Repository, "
        "1998",
        licence="CC BY 4.0.",
    )
