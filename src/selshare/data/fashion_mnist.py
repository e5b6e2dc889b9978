"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747): 70,000 images of clothing, 28×28 pixels, from disk."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import nn

from .one_vs_rest import one_vs_rest_data, one_vs_rest_tasks
from .problem import Problem
from .trunks import conv_trunk, mlp_trunk

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
IMAGE_SHAPE = (28, 28)
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
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
    folder = _find(root)
    images, labels = _read_part(folder, "train")
    test_images, test_labels = _read_part(folder, "t10k")
    _check_sizes(train_size, validation_size, len(images))
    train, validation = train_test_split(
        np.arange(len(labels)), train_size=train_size, test_size=validation_size, stratify=labels, random_state=seed
    )
    mean, deviation = float(images[train].mean()), float(images[train].std())
    make_trunk, shared_features = TRUNKS[trunk]

    def standardised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (pixels.astype(np.float32) - np.float32(mean)) / np.float32(max(deviation, 1.0))

    return Problem(
        name="fashion-mnist",
        description=f"Fashion-MNIST, 28×28 pixels, {train_size:,} training images: ten one-vs-rest tasks.",
        tasks=one_vs_rest_tasks(CLASSES),
        train=one_vs_rest_data(standardised(images[train]), labels[train], 10),
        validation=one_vs_rest_data(standardised(images[validation]), labels[validation], 10),
        test=one_vs_rest_data(standardised(test_images), test_labels, 10),
        make_trunk=make_trunk,
        shared_features=shared_features,
    )


def _find(root: str | os.PathLike[str] | None) -> Path:
    """Return the folder that holds the four files, or say how to get them."""
    if root is not None:
        roots = [Path(root).expanduser()]
    else:
        named = os.environ.get("SELSHARE_DATA")
        roots = [Path(named).expanduser()] if named else []
        roots += [Path("data"), Path("/usr/share/datasets")]
    for place in (r / layout for r in roots for layout in LAYOUTS):
        if all(_with_or_without_gz(place, file) for file in FILES):
            return place
    raise FileNotFoundError(
        f"Fashion-MNIST is not in {', '.join(map(str, roots))}; install Debian's package dataset-fashion-mnist, or run "
        f"torchvision.datasets.FashionMNIST('{roots[0]}', download=True) once"
        f"{'' if root is not None else ' and set SELSHARE_DATA to that folder'}."
    )


def _with_or_without_gz(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _read_part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images ``(N, 28, 28)`` and labels ``(N,)`` of ``"train"`` or ``"t10k"``."""
    images = _read_idx(folder, f"{part}-images-idx3-ubyte")
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte")
    if images.shape != (len(labels), *IMAGE_SHAPE) or labels.ndim != 1 or labels.max(initial=0) >= len(CLASSES):
        raise ValueError(
            f"The {part} files in {folder} are not Fashion-MNIST: images {images.shape} and labels {labels.shape}, "
            f"largest label {labels.max(initial=0)}; get them anew."
        )
    return images, labels.astype(np.int64)


def _read_idx(folder: Path, file: str) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, plain or compressed.

    The format (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8 = unsigned byte), the number of
    dimensions, each dimension as a big-endian 32-bit integer, then the values.
    """
    path = _with_or_without_gz(folder, file)
    assert path is not None  # _find has seen it
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} cannot be decompressed ({error}); get it anew.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes; get it anew.")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">i4"))
    if len(content) - start != int(np.prod(shape)):
        raise ValueError(f"{path} holds {len(content) - start} values where its header says {shape}; get it anew.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _check_sizes(train_size: int, validation_size: int, available: int) -> None:
    fewest = len(CLASSES)  # a stratified draw needs one sample of every class in each part
    if min(train_size, validation_size) < fewest or train_size + validation_size > available:
        raise ValueError(
            f"fashion-mnist cannot draw train_size={train_size} and validation_size={validation_size} from {available} "
            f"images; each must be at least {fewest} and both together at most {available}."
        )
