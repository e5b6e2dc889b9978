"""The relations between tasks that a saliency regulariser has learned, as a matrix with names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from .matrix import LARGEST, NAMED_BRANCHES, scale, shades
from .svg import INK, names_width, new_axes, style, to_svg


def relation_matrix(names: Sequence[str], weights: NDArray[np.float64]) -> str:
    """Return the matrix of weights ``(T, T)``, related tasks beside each other.

    The darker a cell, the larger the weight; names are shown for up to 60 tasks.
    """
    order = _order(weights)
    named = len(order) <= NAMED_BRANCHES
    left = names_width(names) if named else 90.0
    side = min(max(len(order) * 17.0, 240.0), LARGEST)
    high = float(weights.max())
    with style():
        figure, axes = new_axes(left + side + 96, side + 16, (left, 96, 8, 8))
        axes.imshow(shades(weights[np.ix_(order, order)] / (high or 1.0)), interpolation="none", aspect="equal")
        axes.set_yticks(range(len(order)) if named else [], [names[leaf] for leaf in order] if named else [], color=INK)
        axes.set_xticks([])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        scale(axes, high, 0.0, "weight")
        return to_svg(figure, f"Learned weights of all pairs of {len(order)} tasks.")


def _order(weights: NDArray[np.float64]) -> list[int]:
    """The leaves of average linkage, the largest weight being the smallest distance."""
    distances = float(weights.max()) - weights
    np.fill_diagonal(distances, 0.0)
    tree = hierarchy.linkage(squareform(distances, checks=False), "average")
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]
