"""Files in the data sets' real formats, written by the tests themselves."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
# Matplotlib brings DejaVu, which holds the letters of these systems, under the names of the Noto fonts.
NOTO_NAMES = {
    "NotoSans-Regular": "DejaVuSans",
    "NotoSans-Bold": "DejaVuSans-Bold",
    "NotoSerif-Regular": "DejaVuSerif",
    "NotoSerif-Bold": "DejaVuSerif-Bold",
    "NotoSansHebrew-Regular": "DejaVuSans",
    "NotoSansHebrew-Bold": "DejaVuSans-Bold",
    "NotoSansTifinagh-Regular": "DejaVuSans",
    "NotoSansCanadianAboriginal-Regular": "DejaVuSans",
}


@pytest.fixture
def fonts(tmp_path: Path) -> Path:
    """A folder with fonts for Latin, Greek, Cyrillic, Hebrew, Tifinagh and Canadian Aboriginal."""
    folder = tmp_path / "fonts" / "deeper"
    folder.mkdir(parents=True)
    for noto, dejavu in NOTO_NAMES.items():
        (folder / f"{noto}.ttf").symlink_to(FONTS / f"{dejavu}.ttf")
    return folder.parent


@pytest.fixture
def idx_files() -> Callable[..., Path]:
    """A function that writes the four tiny idx files of MNIST or Fashion-MNIST into a folder."""
    return write_idx_files


def write_idx_files(folder: Path, suffix: str = "") -> Path:
    """200 and 50 images in which the pixels tell an image's number and its class."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in {"train": 200, "t10k": 50}.items():
        labels = np.arange(size) % 10
        images = np.zeros((size, 28, 28))
        images[:, 0, 0], images[:, 0, 1] = np.arange(size), labels
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return folder


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}i", 0, 0, 8, values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
