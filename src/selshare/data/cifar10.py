"""CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of ten kinds of things, 32×32 pixels, from disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10

from .one_vs_rest import LabelledImages, one_vs_rest_splits, one_vs_rest_tasks
from .places import find_data
from .problem import Problem
from .trunks import vgg_trunk

FOLDER = "cifar-10-batches-py"


def cifar10(
    *,
    root: str | os.PathLike[str] | None = None,
    train_size: int = 45_000,
    validation_size: int = 5_000,
    seed: int = 0,
) -> Problem:
    """Return ten one-vs-rest tasks on CIFAR-10, with trunk, branch and recipe of Strezoski et al. (arXiv 1904.03011).

    Training and validation images are drawn, each class in proportion, from the 50,000 training images (the paper
    does not say how many it validates on; 5,000 is *ours*); testing uses all 10,000 test images. Pixels are
    standardised per channel. Images are not augmented.

    Parameters
    ----------
    root
        Folder that holds ``cifar-10-batches-py``, whose files torchvision checks and reads. Without it: the folder
        named by the environment variable ``SELSHARE_DATA``, then ``./data``.
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
        "CIFAR-10",
        root,
        ["."],
        lambda place: (place / FOLDER).is_dir(),
        "run torchvision.datasets.CIFAR10('{root}', download=True) once",
    )
    everything, tested = _read(folder, train=True), _read(folder, train=False)
    train, validation, test = one_vs_rest_splits(
        "cifar-10",
        everything[0],
        tested[0],
        classes=10,
        train_size=train_size,
        validation_size=validation_size,
        seed=seed,
    )
    return Problem(
        name="cifar-10",
        description=f"CIFAR-10, 32×32 pixels, {train_size:,} training images: ten one-vs-rest tasks.",
        tasks=one_vs_rest_tasks(everything[1]),
        train=train,
        validation=validation,
        test=test,
        make_trunk=vgg_trunk,
        shared_features=1024,
        hidden=(100, 100),
        citation="A. Krizhevsky: Learning multiple layers of features from tiny images, University of Toronto, 2009",
        licence="None stated; its authors ask to be cited.",
    )


def _read(folder: Path, *, train: bool) -> tuple[LabelledImages, list[str]]:
    """Return images ``(N, 3, 32, 32)`` with labels, and the names of the classes."""
    try:
        data = CIFAR10(folder, train=train, download=False)
    except RuntimeError as error:  # torchvision's word for files that are missing or have another checksum
        raise ValueError(f"The files in {folder / FOLDER} are not CIFAR-10's, or damaged; get them anew.") from error
    images = np.ascontiguousarray(np.moveaxis(data.data, -1, 1))
    return LabelledImages(images, np.asarray(data.targets, dtype=np.int64)), list(data.classes)
