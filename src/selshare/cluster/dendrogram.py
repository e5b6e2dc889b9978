"""From a minimum spanning tree to the dendrogram that ``hdbscan`` and SciPy draw and cut."""

from __future__ import annotations

import numpy as np
from hdbscan._hdbscan_linkage import label
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def single_linkage(tree: Floats) -> Floats:
    """The single-linkage dendrogram of a spanning tree, in SciPy's format.

    Parameters
    ----------
    tree
        (n - 1, 3) rows (i, j, weight), sorted by weight, as
        :func:`selshare.kernels.mutual_reachability_mst` returns them.

    Returns
    -------
    ndarray
        (n - 1, 4) rows (left, right, distance, size); cluster n + r is made in row r. Time O(n).
    """
    if len(tree) == 0:
        return np.empty((0, 4))
    linkage: Floats = label(np.ascontiguousarray(tree, dtype=np.float64))
    return linkage
