"""Ten measures of a drawn letter, by which letters can be ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

Drawing = NDArray[np.float64]  # ink from 0 to 1, cut to its bounding box


def _ink(drawing: Drawing) -> NDArray[np.bool_]:
    return drawing > 0.5


def _ink_density(drawing: Drawing) -> float:
    """Share of the bounding box that is ink."""
    return float(drawing.mean())


def _stroke_width(drawing: Drawing) -> float:
    """Four times the mean distance of ink to the nearest edge: the width of a long straight stroke, in pixels."""
    ink = np.pad(_ink(drawing), 1)
    return 4 * float((ndimage.distance_transform_edt(ink)[ink] - 0.5).mean())  # pixels' centres lie half one inside


def _aspect_ratio(drawing: Drawing) -> float:
    """Width over height."""
    return float(drawing.shape[1] / drawing.shape[0])


def _left_right_symmetry(drawing: Drawing) -> float:
    """Overlap with the mirror image, from 0 to 1."""
    return float((drawing * drawing[:, ::-1]).sum() / (drawing**2).sum())


def _top_bottom_symmetry(drawing: Drawing) -> float:
    """Overlap with the reflection in water, from 0 to 1."""
    return float((drawing * drawing[::-1]).sum() / (drawing**2).sum())


def _components(drawing: Drawing) -> float:
    """Number of pieces, pixels that touch at corners being one piece."""
    return float(ndimage.label(_ink(drawing), np.ones((3, 3)))[1])


def _holes(drawing: Drawing) -> float:
    """Number of pieces of background that the ink encloses."""
    return float(ndimage.label(~np.pad(_ink(drawing), 1))[1] - 1)


def _outline(drawing: Drawing) -> float:
    """Length of all edges over the root of the ink's area: how involved the letter is."""
    ink = np.pad(_ink(drawing), 1).astype(np.int8)
    edges = np.abs(np.diff(ink, axis=0)).sum() + np.abs(np.diff(ink, axis=1)).sum()
    return float(edges / np.sqrt(ink.sum()))


def _top_heaviness(drawing: Drawing) -> float:
    """How high the centre of the ink lies: 0 at the bottom, 1 at the top."""
    rows = np.arange(len(drawing)) + 0.5
    return 1 - float((drawing.sum(1) * rows).sum() / drawing.sum() / len(drawing))


def _horizontality(drawing: Drawing) -> float:
    """Share of the edges that are of horizontal strokes: 0 for an I without serifs, 1 for a dash."""
    padded = np.pad(drawing, 1)
    horizontal, vertical = (np.abs(np.diff(padded, axis=axis)).sum() for axis in (0, 1))
    return float(horizontal / (horizontal + vertical))


MEASURES: Mapping[str, Callable[[Drawing], float]] = {
    "ink density": _ink_density,
    "stroke width": _stroke_width,
    "aspect ratio": _aspect_ratio,
    "left-right symmetry": _left_right_symmetry,
    "top-bottom symmetry": _top_bottom_symmetry,
    "components": _components,
    "holes": _holes,
    "outline": _outline,
    "top-heaviness": _top_heaviness,
    "horizontality": _horizontality,
}


def measure(drawings: Tensor) -> Tensor:
    """Return ``(N, 10)`` float32, the :data:`MEASURES` of uint8 drawings ``(N, s, s)``, each with some ink.

    A pixel counts as ink where it is darker than half of the drawing's darkest one. Time O(N·s²).
    """
    return torch.tensor([[value(drawing) for value in MEASURES.values()] for drawing in map(_cut, drawings.numpy())])


def _cut(drawing: NDArray[np.uint8]) -> Drawing:
    """Return the drawing between 0 and 1, cut to the bounding box of its ink."""
    scaled: Drawing = drawing / drawing.max()
    rows, columns = (np.flatnonzero(_ink(scaled).any(axis)) for axis in (1, 0))
    cut: Drawing = scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cut
