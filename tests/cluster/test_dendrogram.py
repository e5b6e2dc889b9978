"""The dendrogram of a spanning tree: SciPy's without ties, one for all row orders with them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cophenet, is_valid_linkage, linkage
from scipy.spatial.distance import squareform

from selshare.cluster import single_linkage
from selshare.cluster.dendrogram import content_rank
from selshare.kernels import mutual_reachability, mutual_reachability_mst


def tree_of(points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return mutual_reachability_mst(torch.from_numpy(points), k).numpy()


@given(st.integers(2, 50), st.integers(0, 2**31))
def test_heights_are_scipys(n: int, seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((n, 3))
    points = points.round() if seed % 2 else points
    k = 1 + seed % min(n - 1, 5)
    ours = single_linkage(tree_of(points, k))
    matrix = mutual_reachability(torch.from_numpy(points), k).numpy().copy()
    np.fill_diagonal(matrix, 0.0)
    theirs = linkage(squareform(matrix), "single")
    assert is_valid_linkage(ours)
    np.testing.assert_allclose(cophenet(ours), cophenet(theirs), rtol=1e-12)


def test_a_merge_of_several_starts_with_the_largest() -> None:
    # {0, 1, 2} and {3, 4} exist at distance 1; at distance 2 they and the points 5 and 6 merge at once.
    tree = np.array([[0, 1, 1], [1, 2, 1], [3, 4, 1], [2, 5, 2], [3, 5, 2], [4, 6, 2]], dtype=float)
    merges = single_linkage(tree)
    assert merges[-3:, 2].tolist() == [2, 2, 2]
    assert sorted(merges[:3, 3].tolist()) == [2, 2, 3]
    assert merges[3:, 3].tolist() == [5, 6, 7]
    assert merges[-2:, 1].tolist() == [5, 6]


@given(st.integers(2, 60), st.integers(0, 2**31))
def test_the_order_of_the_rows_renames_points_and_nothing_else(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.integers(0, 4, (n, 2)).astype(float)  # ties and equal points
    order = random.permutation(n)
    k = 1 + seed % min(n - 1, 4)
    one = single_linkage(tree_of(points, k), content_rank(points))
    other = single_linkage(tree_of(points[order], k), content_rank(points[order]))
    np.testing.assert_array_equal(one[:, 2:], other[:, 2:])


def test_the_hash_tells_rows_apart() -> None:
    points = np.random.default_rng(0).integers(0, 3, (4000, 10)).astype(float)
    assert len(np.unique(content_rank(points))) == len(np.unique(points, axis=0))
    order = np.random.default_rng(1).permutation(10)
    np.testing.assert_array_equal(content_rank(points, by_row=False), content_rank(points[:, order], by_row=False))
    assert (content_rank(points) != content_rank(points[:, order])).any()


def test_no_edges() -> None:
    assert single_linkage(np.empty((0, 3))).shape == (0, 4)
