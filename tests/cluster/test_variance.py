"""The variance criterion's cut against trying every height of the dendrogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster
from sklearn.metrics import adjusted_rand_score

from selshare.cluster import HDBSCAN, variance_cut


def mean_square(points: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """The definition."""
    centre = points.mean(axis=0)
    clusters = np.unique(labels)
    between = sum(
        (labels == c).sum() * ((points[labels == c].mean(axis=0) - centre) ** 2).sum() for c in clusters.tolist()
    )
    return float(between / (len(clusters) - 1))


def by_trying(merges: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.integer]:
    """Every distinct height, the highest first, so that a tie goes to fewer clusters."""
    best, chosen = -np.inf, None
    heights = np.unique(merges[:, 2])
    for cut in [*heights[-2::-1], -1.0]:
        labels = fcluster(merges, cut, "distance") if cut >= 0 else np.arange(len(points))
        value = mean_square(points, labels)
        if value > best * (1 + 1e-9) + 1e-300:
            best, chosen = value, labels
    return np.arange(len(points)) if chosen is None else chosen


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_it_is_the_best_cut(n: int, d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.standard_normal((n, d)) + 4.0 * random.integers(0, 3, (n, 1))
    points = points.round() if seed % 3 == 0 else points
    merges = HDBSCAN(2, 1 + seed % min(n - 1, 3)).fit(points).single_linkage_tree_.to_numpy()
    labels = variance_cut(merges, points)
    wanted = by_trying(merges, points)
    assert mean_square(points, labels) == pytest.approx(mean_square(points, wanted), rel=1e-9)
    assert adjusted_rand_score(labels, wanted) == 1.0


def test_labels_are_numbered_by_first_appearance() -> None:
    points = np.array([[9.0], [0.0], [9.1], [0.1], [0.2]])
    merges = HDBSCAN(2, 1).fit(points).single_linkage_tree_.to_numpy()
    assert variance_cut(merges, points).tolist() == [0, 1, 0, 1, 1]


def test_a_tie_goes_to_fewer_clusters() -> None:
    # Two clusters: 4·1²/1. Four: 4·(1² + 2)/3, the same.
    points = np.array([[-1.0, -(2.0**0.5)], [-1.0, 2.0**0.5], [1.0, -(2.0**0.5)], [1.0, 2.0**0.5]])
    merges = np.array([[0, 1, 1.0, 2], [2, 3, 1.0, 2], [4, 5, 2.0, 4]])
    assert variance_cut(merges, points).tolist() == [0, 0, 1, 1]
    assert variance_cut(merges, points * [1.0, 1.0 + 1e-9]).tolist() == [0, 1, 2, 3]


def test_few_points() -> None:
    assert variance_cut(np.empty((0, 4)), np.ones((1, 3))).tolist() == [0]
    assert variance_cut(np.array([[0, 1, 1.0, 2]]), np.array([[0.0], [1.0]])).tolist() == [0, 1]


def test_the_wrong_dendrogram_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"linkage has shape \(1, 4\) and points \(5, 2\)"):
        variance_cut(np.ones((1, 4)), np.ones((5, 2)))
