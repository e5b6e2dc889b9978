"""From a minimum spanning tree to the one dendrogram it stands for, whatever the order of the rows.

Edges of equal weight are taken together, as Campello, Moulavi and Sander (2013, section 3.2) say: all components that
they connect merge at once. ``hdbscan``'s tree code wants two at a time, so such a merge is written as a chain that
starts at the largest component and adds the others by decreasing size (*ours*). Read from the root, the chain first
lets go of the components below ``min_cluster_size``, one by one, as points that leave a cluster, and then splits into
the large ones, none of which has lived through the clusters in between: labels are those of the merge at once. In
``hdbscan`` itself they depend there on the order of the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.reachability.jit import compiled, in_threads

Floats = NDArray[np.float64]


def single_linkage(tree: Floats, rank: NDArray[Any] | None = None) -> Floats:
    """The single-linkage dendrogram of a spanning tree, in SciPy's format.

    Parameters
    ----------
    tree
        (n - 1, 3) rows (i, j, weight), sorted by weight, as
        :func:`selshare.kernels.mutual_reachability_mst` returns them.
    rank
        (n,) decides between components of equal size by their lowest member, so that the order of left and right does
        not depend on the order of the rows; see :func:`content_rank`. The row numbers if not given.

    Returns
    -------
    ndarray
        (n - 1, 4) rows (left, right, distance, size); cluster n + r is made in row r. Time O(n log n).
    """
    n = len(tree) + 1
    order = np.arange(n) if rank is None else np.argsort(np.argsort(rank, kind="stable"), kind="stable")
    linkage = np.empty((n - 1, 4))
    _merge(np.ascontiguousarray(tree, dtype=np.float64), order, linkage)
    return linkage


def content_rank(points: NDArray[Any], by_row: bool = True) -> NDArray[np.uint64]:
    """(n,) a number for each row that depends on what it holds and not on where it stands.

    A 64-bit hash of the row, O(n·d). With ``by_row=False`` it does not depend on the order of the columns either, as
    is right for a matrix of distances.
    """
    bits = np.ascontiguousarray(points)
    bits = bits.view(np.uint32 if bits.dtype == np.float32 else np.uint64)
    salt = np.random.default_rng(0).integers(1 << 63, size=(bits.shape[1],), dtype=np.uint64)
    if not by_row:
        salt[:] = 0
    ranks = np.empty(len(bits), dtype=np.uint64)
    in_threads(_hash_rows, len(bits), bits, salt, ranks, chunk=512)
    return ranks


@compiled
def _hash_rows(start: int, stop: int, bits: NDArray[Any], salt: NDArray[np.uint64], ranks: NDArray[np.uint64]) -> None:
    """The sum of each row's entries, scrambled together with their column's salt."""
    for i in range(start, stop):
        total = np.uint64(0)
        for f in range(bits.shape[1]):
            word = np.uint64(bits[i, f]) + salt[f]
            word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            total += word ^ (word >> np.uint64(31))
        ranks[i] = total


@compiled
def _root(parent: NDArray[np.int64], point: int) -> int:
    """The root of a point's component, with path halving."""
    while parent[point] != point:
        parent[point] = parent[parent[point]]
        point = parent[point]
    return point


@compiled
def _merge(tree: Floats, rank: NDArray[np.int64], linkage: Floats) -> None:
    """Fill the rows of ``linkage``. Components are known by a root point."""
    n = len(tree) + 1
    parent = np.arange(n)
    cluster = np.arange(n)  # of a root: the cluster's number in the linkage,
    size = np.ones(n, dtype=np.int64)  # its points,
    lowest = rank.copy()  # and the lowest rank among them
    leader = np.full(n, -1)  # of a new root: the old root that started its chain
    row = 0
    start = 0
    while start < n - 1:
        stop = start + 1
        while stop < n - 1 and tree[stop, 2] == tree[start, 2]:
            stop += 1
        roots = np.empty(2 * (stop - start), dtype=np.int64)
        for e in range(start, stop):
            roots[2 * (e - start)] = _root(parent, int(tree[e, 0]))
            roots[2 * (e - start) + 1] = _root(parent, int(tree[e, 1]))
        roots = roots[np.argsort(lowest[roots], kind="mergesort")]
        roots = roots[np.argsort(-size[roots], kind="mergesort")]  # by size, largest first, then by rank
        for e in range(start, stop):
            parent[_root(parent, int(tree[e, 1]))] = _root(parent, int(tree[e, 0]))
        previous = -1
        for end in roots:
            old = int(end)
            if old == previous:
                continue  # the same component at the end of several edges
            previous = old
            first = leader[_root(parent, old)]
            if first < 0:
                leader[_root(parent, old)] = old
                continue
            linkage[row, 0] = cluster[first]
            linkage[row, 1] = cluster[old]
            linkage[row, 2] = tree[start, 2]
            size[first] += size[old]
            linkage[row, 3] = size[first]
            cluster[first] = n + row
            lowest[first] = min(lowest[first], lowest[old])
            row += 1
        for end in roots:
            new = _root(parent, int(end))
            first = leader[new]
            if first >= 0:
                cluster[new], size[new], lowest[new] = cluster[first], size[first], lowest[first]
                leader[new] = -1
        start = stop
