"""MNIST (LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86, 1998): 70,000 handwritten digits, 28×28 pixels, from disk."""

from __future__ import annotations

import os

from .idx import has_idx_files, read_idx_images
from .one_vs_rest import one_vs_rest_splits, one_vs_rest_tasks
from .places import find_data
from .problem import Problem
from .trunks import conv_trunk

LAYOUTS = ("MNIST/raw", "mnist", ".")  # torchvision's, a plain folder, the files themselves


def mnist(
    *,
    root: str | os.PathLike[str] | None = None,
    train_size: int = 55_000,
    validation_size: int = 5_000,
    seed: int = 0,
) -> Problem:
    """Return ten one-vs-rest tasks on MNIST, with trunk, branch and recipe of Strezoski et al. (arXiv 1904.03011).

    Training and validation images are drawn, each class in proportion, from the 60,000 training images (the paper
    does not say how many it validates on; 5,000 is *ours*); testing uses all 10,000 test images.

    Parameters
    ----------
    root
        Folder that holds the four idx files, plain or ``.gz``: directly, in ``MNIST/raw`` (where torchvision puts
        them) or in ``mnist``. Without it: the folder named by the environment variable ``SELSHARE_DATA``, then
        ``./data``.
    train_size, validation_size
        Images drawn for training, and from the others for validation.
    seed
        Draws the images.

    Raises
    ------
    FileNotFoundError
        Where the files are in none of those places; says how to get them.
    ValueError
        Where the sizes do not fit, or a file is damaged.
    """
    folder = find_data(
        "MNIST", root, LAYOUTS, has_idx_files, "run torchvision.datasets.MNIST('{root}', download=True) once"
    )
    train, validation, test = one_vs_rest_splits(
        "mnist",
        *(read_idx_images("MNIST", folder, part) for part in ("train", "t10k")),
        classes=10,
        train_size=train_size,
        validation_size=validation_size,
        seed=seed,
    )
    return Problem(
        name="mnist",
        description=f"MNIST, 28×28 pixels, {train_size:,} training images: ten one-vs-rest tasks.",
        tasks=one_vs_rest_tasks([f"digit {digit}" for digit in range(10)]),
        train=train,
        validation=validation,
        test=test,
        make_trunk=conv_trunk,
        shared_features=640,
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document "
        "recognition, Proceedings of the IEEE 86, 1998",
        licence="CC BY-SA 3.0 (Y. LeCun, C. Cortes).",
    )
