"""HDBSCAN beside hdbscan and scikit-learn with the same parameters, on the sets that clustering is judged by.

Where distances tie, hdbscan's own labels change with the order of the rows (core distances tie with each other's
edges on nearly all data once ``min_samples`` is above 1). So the labels must be equal wherever hdbscan agrees with
itself under reordering; everywhere the tree must weigh what hdbscan's weighs, edge by edge, and our labels must not
change under reordering.
"""

from __future__ import annotations

from typing import Any

import hdbscan
import numpy as np
import pytest
import sklearn.cluster
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn import datasets
from sklearn.metrics import adjusted_rand_score

from selshare.cluster import HDBSCAN
from selshare.kernels.reachability import native, nearest, screen
from selshare.kernels.spanning_tree import native as spanning_tree

Points = NDArray[Any]


def problems() -> dict[str, Points]:
    random = np.random.default_rng(0)
    blobs = datasets.make_blobs(300, 10, centers=6, random_state=1)[0]
    flat = datasets.make_blobs(400, random_state=170)[0]
    return {
        "blobs": blobs,
        "moons": datasets.make_moons(300, noise=0.05, random_state=30)[0],
        "circles": datasets.make_circles(300, noise=0.05, factor=0.5, random_state=30)[0],
        "aniso": flat @ [[0.6, -0.6], [-0.4, 0.8]],
        "varied": datasets.make_blobs(400, cluster_std=[1.0, 2.5, 0.5], random_state=170)[0],
        "no structure": random.random((300, 2)),
        "iris": datasets.load_iris().data,
        "wine": datasets.load_wine().data,
        "digits": datasets.load_digits().data[:500],
        "duplicates": np.repeat(random.standard_normal((50, 4)), 6, axis=0)[random.permutation(300)],
        "all equal": np.full((40, 3), 0.3),
        "grid": np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0)), axis=-1).reshape(-1, 2),
        "offset": blobs + 1e4,
        "far clusters": np.concatenate(
            (1e-4 * random.standard_normal((80, 8)), 1e4 + 1e-4 * random.standard_normal((80, 8)))
        ),
        "one column": random.standard_normal((200, 1)),
        "4,000 columns": datasets.make_blobs(120, 4000, centers=4, random_state=0)[0],
        "two": np.array([[0.0, 1.0], [2.0, 1.0]]),
        "three": np.array([[0.0, 1.0], [2.0, 1.0], [2.1, 1.0]]),
    }


PROBLEMS = problems()
SETTINGS: list[dict[str, Any]] = [
    {"min_cluster_size": 5},
    {"min_cluster_size": 15},
    {"min_cluster_size": 2, "min_samples": 1},
    {"min_cluster_size": 5, "cluster_selection_method": "leaf"},
    {"min_cluster_size": 5, "allow_single_cluster": True},
    {"min_cluster_size": 5, "min_samples": 2, "cluster_selection_epsilon": 0.6},
]


def theirs(points: Points, **settings: Any) -> hdbscan.HDBSCAN:
    """By hdbscan's exact way, from SciPy's distances; those it computes itself cancel for points far from zero."""
    model = hdbscan.HDBSCAN(metric="precomputed", **settings)
    with np.errstate(divide="ignore", invalid="ignore"):
        return model.fit(cdist(points, points))


def same(a: NDArray[np.intp], b: NDArray[np.intp]) -> bool:
    """Equal but for the numbers of the clusters; noise is noise."""
    return bool(((a < 0) == (b < 0)).all()) and adjusted_rand_score(a, b) == 1.0


def heights_and_sizes(tree: Any) -> NDArray[np.float64]:
    """The last two columns of a tree, sorted."""
    rows = np.array(tree.to_numpy().tolist())[:, 2:]
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ", ".join(str(v) for v in s.values()))
def test_labels_and_weights(name: str, settings: dict[str, Any]) -> None:
    points = PROBLEMS[name]
    n = len(points)
    settings = {**settings, "min_samples": min(settings.get("min_samples", settings["min_cluster_size"]), n - 1)}
    ours = HDBSCAN(**settings).fit(points)
    other = theirs(points, **settings)
    weights = np.sort(heights_and_sizes(other.single_linkage_tree_)[:, 0])
    np.testing.assert_allclose(ours.minimum_spanning_tree_[:, 2], weights, rtol=1e-10, atol=1e-12)

    random = np.random.default_rng(1)
    for order in (random.permutation(n) for _ in range(2)):
        again = np.empty(n, dtype=np.intp)
        again[order] = HDBSCAN(**settings).fit_predict(points[order])
        assert same(ours.labels_, again)
    if not same(ours.labels_, other.labels_):
        assert any(reordered_differs(points, other.labels_, random, settings) for _ in range(40))


def reordered_differs(
    points: Points, labels: NDArray[np.intp], random: np.random.Generator, settings: dict[str, Any]
) -> bool:
    """Whether hdbscan gives other labels to the same points in another order."""
    order = random.permutation(len(points))
    again = np.empty(len(points), dtype=np.intp)
    again[order] = theirs(points[order], **settings).labels_
    return not same(labels, again)


@pytest.mark.parametrize("name", ["blobs", "moons", "circles", "iris", "offset", "far clusters", "4,000 columns"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separate_clusters_are_always_those_of_hdbscan(name: str, dtype: type[np.floating[Any]]) -> None:
    points = PROBLEMS[name].astype(dtype)
    assert same(HDBSCAN().fit_predict(points), theirs(points.astype(np.float64)).labels_)


@pytest.mark.parametrize("name", ["blobs", "digits", "duplicates", "all equal", "grid", "offset", "far clusters"])
def test_without_the_matrix_of_distances(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = PROBLEMS[name]
    expected = HDBSCAN().fit(points)
    monkeypatch.setattr(native, "SMALL", -1.0)
    for module in (screen, nearest, spanning_tree):
        monkeypatch.setattr(module, "TILE", 160)
    fitted = HDBSCAN().fit(points)
    np.testing.assert_array_equal(fitted.minimum_spanning_tree_, expected.minimum_spanning_tree_)
    np.testing.assert_array_equal(fitted.labels_, expected.labels_)
    order = np.random.default_rng(2).permutation(len(points))
    assert same(HDBSCAN().fit_predict(points[order]), fitted.labels_[order])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_change_the_labels(threads: int) -> None:
    points = PROBLEMS["digits"]
    expected = HDBSCAN().fit(points)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        fitted = HDBSCAN().fit(points)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(fitted.minimum_spanning_tree_, expected.minimum_spanning_tree_)
    np.testing.assert_array_equal(fitted.labels_, expected.labels_)
    np.testing.assert_array_equal(fitted.probabilities_, expected.probabilities_)


def test_everything_else_is_hdbscans_too() -> None:
    points = PROBLEMS["no structure"]
    settings: dict[str, Any] = {"min_cluster_size": 4, "min_samples": 1}  # no ties
    ours, other = HDBSCAN(**settings).fit(points), theirs(points, **settings)
    np.testing.assert_allclose(ours.probabilities_, other.probabilities_, rtol=1e-10)
    np.testing.assert_allclose(np.sort(ours.cluster_persistence_), np.sort(other.cluster_persistence_), rtol=1e-10)
    for tree in ("single_linkage_tree_", "condensed_tree_"):
        mine, reference = heights_and_sizes(getattr(ours, tree)), heights_and_sizes(getattr(other, tree))
        np.testing.assert_allclose(mine, reference, rtol=1e-10)


def test_scikit_learn_counts_the_point_itself() -> None:
    points = PROBLEMS["blobs"]
    reference = sklearn.cluster.HDBSCAN(min_cluster_size=5, min_samples=5, algorithm="brute", copy=True).fit(points)
    assert same(HDBSCAN(5, 4).fit_predict(points), reference.labels_)
