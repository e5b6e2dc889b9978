"""HDBSCAN against hdbscan and scikit-learn, and its behaviour at the edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.utils.estimator_checks import estimator_checks_generator

from selshare.cluster import HDBSCAN


def scikit_learns_checks() -> Iterator[Any]:
    """All of them but the one for array libraries other than NumPy, which skips unless SciPy is told to accept those.

    Not for the antipodal distance: it groups a blob with its antipode, which the check of a clustering cannot know.
    """
    for estimator in (HDBSCAN(), HDBSCAN(metric="cosine"), HDBSCAN(cluster_selection_method="leaf")):
        for _, check in estimator_checks_generator(estimator):
            name = getattr(check, "func", check).__name__
            if name != "check_array_api_input":
                yield pytest.param(estimator, check, id=f"{estimator}-{name}")


@pytest.mark.parametrize(("estimator", "check"), list(scikit_learns_checks()))
def test_scikit_learn(estimator: HDBSCAN, check: Callable[[HDBSCAN], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "antipodal"])
def test_few_points(n: int, metric: str) -> None:
    points = torch.randn(n, 4)
    fitted = HDBSCAN(2, 1, metric=metric).fit(points)
    assert fitted.labels_.tolist() == [-1] * n
    assert fitted.probabilities_.tolist() == [0.0] * n
    assert fitted.minimum_spanning_tree_.shape == (n - 1, 3)
    assert fitted.single_linkage_tree_.to_numpy().shape == (n - 1, 4)
    assert len(fitted.condensed_tree_.to_numpy()) == (n if n > 1 else 0)


def test_cosine_is_scikit_learns_distance() -> None:
    points = np.random.default_rng(0).standard_normal((60, 5))
    points[[3, 9]] = 0.0
    given_distances = pairwise_distances(points, metric="cosine")
    np.fill_diagonal(given_distances, 0.0)
    by_matrix = HDBSCAN(3, metric="precomputed").fit(given_distances)
    by_metric = HDBSCAN(3, metric="cosine").fit(points)
    np.testing.assert_allclose(
        by_metric.minimum_spanning_tree_[:, 2], by_matrix.minimum_spanning_tree_[:, 2], rtol=1e-10
    )


def test_errors_name_the_parameter() -> None:
    points = np.random.default_rng(0).standard_normal((6, 2))
    with pytest.raises(ValueError, match="min_samples = 6 needs at least 7 points"):
        HDBSCAN(2, 6).fit(points)
    with pytest.raises(ValueError, match="min_cluster_size is 1"):
        HDBSCAN(1).fit(points)
    with pytest.raises(ValueError, match="min_samples is 0"):
        HDBSCAN(2, 0).fit(points)
    with pytest.raises(ValueError, match="cluster_selection_method is 'best'"):
        HDBSCAN(cluster_selection_method="best").fit(points)
    with pytest.raises(ValueError, match="cluster_selection_epsilon is -1"):
        HDBSCAN(cluster_selection_epsilon=-1).fit(points)
    with pytest.raises(ValueError, match="metric is 'l1'"):
        HDBSCAN(metric="l1").fit(points)
    with pytest.raises(ValueError, match="must be square"):
        HDBSCAN(metric="precomputed").fit(points)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "antipodal", "precomputed"])
@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_the_order_of_the_rows_does_not_change_the_clusters(metric: str, method: str) -> None:
    random = np.random.default_rng(3)
    digits = datasets.load_digits().data[:250]
    for points in (digits, random.integers(0, 12, (200, 2)).astype(float), np.repeat(digits[:40], 4, axis=0)):
        data = pairwise_distances(points.round()) if metric == "precomputed" else points
        fitted = HDBSCAN(3, 4, metric=metric, cluster_selection_method=method).fit(data)
        for _ in range(3):
            order = random.permutation(len(points))
            shuffled = data[np.ix_(order, order)] if metric == "precomputed" else data[order]
            again = HDBSCAN(3, 4, metric=metric, cluster_selection_method=method).fit(shuffled)
            assert adjusted_rand_score(fitted.labels_[order], again.labels_) == 1.0
            np.testing.assert_array_equal(fitted.labels_[order] < 0, again.labels_ < 0)
            np.testing.assert_array_equal(fitted.probabilities_[order], again.probabilities_)
