"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747): 70,000 images of clothing, 28×28 pixels, from disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from torch import nn

from .idx import has_idx_files, read_idx_images
from .one_vs_rest import one_vs_rest_splits, one_vs_rest_tasks
from .places import find_data
from .problem import Problem
from .trunks import conv_trunk, mlp_trunk

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
LAYOUTS = ("FashionMNIST/raw", "fashion-mnist", ".")  # torchvision's, Debian's, the files themselves
TRUNKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mlp": (partial(mlp_trunk, 784, 256), 256),
    "cnn": (partial(conv_trunk, kernel=5), 640),
}


def fashion_mnist(
    *,
    root: str | os.PathLike[str] | None = None,
    train_size: int = 20_000,
    validation_size: int = 5_000,
    trunk: str = "mlp",
    seed: int = 0,
) -> Problem:
    """Return ten one-vs-rest tasks on Fashion-MNIST.

    Training and validation images are drawn, each class in proportion, from the 60,000 training images; testing uses
    all 10,000 test images. Pixels are standardised by the mean and deviation of the training images drawn.

    Parameters
    ----------
    root
        Folder that holds the four idx files, plain or ``.gz``: directly, in ``FashionMNIST/raw`` (where torchvision
        puts them) or in ``fashion-mnist``. Without it: the folder named by the environment variable
        ``SELSHARE_DATA``, then ``./data``, then ``/usr/share/datasets`` (Debian's ``dataset-fashion-mnist``).
    train_size, validation_size
        Images drawn for training, and from the others for validation.
    trunk
        ``"mlp"`` (784 → 256) or ``"cnn"`` (the paper's MNIST trunk, 640 features).
    seed
        Draws the images.

    Raises
    ------
    FileNotFoundError
        Where the files are in none of those places; says how to get them.
    ValueError
        Where the trunk is unknown, the sizes do not fit, or a file is damaged.
    """
    if trunk not in TRUNKS:
        raise ValueError(f"fashion-mnist has no trunk {trunk!r}; choose one of {', '.join(TRUNKS)}.")
    folder = find_data(
        "Fashion-MNIST",
        root,
        LAYOUTS,
        has_idx_files,
        "install Debian's package dataset-fashion-mnist, or run "
        "torchvision.datasets.FashionMNIST('{root}', download=True) once",
        further=["/usr/share/datasets"],
    )
    train, validation, test = one_vs_rest_splits(
        "fashion-mnist",
        *(read_idx_images("Fashion-MNIST", folder, part) for part in ("train", "t10k")),
        classes=len(CLASSES),
        train_size=train_size,
        validation_size=validation_size,
        seed=seed,
    )
    make_trunk, shared_features = TRUNKS[trunk]
    return Problem(
        name="fashion-mnist",
        description=f"Fashion-MNIST, 28×28 pixels, {train_size:,} training images: ten one-vs-rest tasks.",
        tasks=one_vs_rest_tasks(CLASSES),
        train=train,
        validation=validation,
        test=test,
        make_trunk=make_trunk,
        shared_features=shared_features,
        citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv 1708.07747, 2017",
        licence="MIT.",
    )
