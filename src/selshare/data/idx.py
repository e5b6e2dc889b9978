"""Images and labels in idx files, the format of MNIST and Fashion-MNIST, plain or compressed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .one_vs_rest import LabelledImages

IMAGE_SHAPE = (28, 28)
CLASSES = 10
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def has_idx_files(folder: Path) -> bool:
    """Tell whether the four files lie in a folder."""
    return all(_with_or_without_gz(folder, file) for file in FILES)


def read_idx_images(what: str, folder: Path, part: str) -> LabelledImages:
    """Return images ``(N, 28, 28)`` and labels ``(N,)`` of ``"train"`` or ``"t10k"``.

    Raises
    ------
    ValueError
        Where the files are damaged or not those of the data set called ``what``.
    """
    images = _read(folder, f"{part}-images-idx3-ubyte")
    labels = _read(folder, f"{part}-labels-idx1-ubyte")
    if images.shape != (len(labels), *IMAGE_SHAPE) or labels.ndim != 1 or labels.max(initial=0) >= CLASSES:
        raise ValueError(
            f"The {part} files in {folder} are not {what}: images {images.shape} and labels {labels.shape}, "
            f"largest label {labels.max(initial=0)}; get them anew."
        )
    return LabelledImages(images, labels.astype(np.int64))


def _with_or_without_gz(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _read(folder: Path, file: str) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes.

    The format (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8 = unsigned byte), the number of
    dimensions, each dimension as a big-endian 32-bit integer, then the values.
    """
    path = _with_or_without_gz(folder, file)
    assert path is not None  # has_idx_files has seen it
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
