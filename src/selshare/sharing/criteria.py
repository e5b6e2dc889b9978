"""Sharing criteria: which branches belong together, from one unit-norm embedding row each.

The four names and their intent are known (Strezoski et al. 2019); their exact form is *ours*. All but the random
control cluster by HDBSCAN's mutual reachability tree, through :mod:`selshare.cluster`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..cluster import HDBSCAN, variance_cut
from .embed import Embedding
from .plan import NOISE

DISTANCES_UP_TO = 1000


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What criteria may be told: HDBSCAN's parameters, the seed, and the epoch (for a criterion that draws)."""

    min_cluster_size: int = 2
    min_samples: int = 1
    cluster_selection_method: str = "eom"
    seed: int = 0
    epoch: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Clustering:
    """What a criterion found, for ``n`` rows. All but the labels is for reports and may be left out.

    Attributes
    ----------
    labels
        ``(n,)`` int64: the cluster of each row, −1 for noise.
    distances
        ``(n, n)``; its diagonal is zero. Left out above :data:`DISTANCES_UP_TO` rows, where memory would be n².
    linkage
        ``(n − 1, 4)`` single linkage tree of the mutual reachability distances, in scipy's form.
    condensed_tree
        ``(m, 4)`` rows parent, child, λ, size, as in hdbscan.
    """

    labels: Tensor
    distances: Tensor | None = None
    linkage: Tensor | None = None
    condensed_tree: Tensor | None = None


class Criterion(Protocol):
    """Unit-norm rows ``(n, r)``, n ≥ 2, and settings → a clustering. Pure: the same in, the same out."""

    def __call__(self, rows: Tensor, settings: ClusterSettings, /) -> Clustering:
        """Cluster the rows."""


def similarity(rows: Tensor, settings: ClusterSettings) -> Clustering:
    """Group tasks that react alike: Euclidean distance of the embeddings, HDBSCAN."""
    return _hdbscan(rows, settings, "euclidean")


def dissimilarity(rows: Tensor, settings: ClusterSettings) -> Clustering:
    """Group tasks that react unlike each other: distance to the antipode ``‖â + b̂‖``, the same clustering.

    For unit vectors ``‖â − b̂‖² + ‖â + b̂‖² = 4``: near in this distance is far in the other.
    """
    return _hdbscan(rows, settings, "antipodal")


def variance(rows: Tensor, settings: ClusterSettings) -> Clustering:
    """Few large clusters: the cut of the dendrogram with the largest between-cluster mean square; no noise."""
    points = _points(rows)
    model = _fitted(points, settings, "euclidean")
    linkage = model.single_linkage_tree_.to_numpy()
    labels = torch.as_tensor(np.asarray(variance_cut(linkage, points)), dtype=torch.int64)
    return Clustering(labels, _distances(rows, 1.0), _tree(linkage), _condensed(model))


def random(rows: Tensor, settings: ClusterSettings) -> Clustering:
    """The control: seeded random sequences of tasks as clusters, duplicates removed; the gradients do not matter.

    *Ours*: of ``n`` rows, between 2 and ``n/2`` sequences of ``⌈n/k⌉`` draws with replacement each; a row stays in
    the first sequence that drew it, rows never drawn are noise, and so is a sequence left smaller than
    ``min_cluster_size``. Every epoch draws anew.
    """
    generator = np.random.default_rng([settings.seed, settings.epoch])
    count = len(rows)
    sequences = int(generator.integers(min(2, count // 2), count // 2 + 1))
    labels = np.full(count, NOISE)
    for label in range(sequences):
        drawn = np.unique(generator.integers(0, count, size=-(-count // sequences)))
        members = drawn[labels[drawn] == NOISE]
        if len(members) >= settings.min_cluster_size:
            labels[members] = label
    return Clustering(torch.from_numpy(labels))


CRITERIA: dict[str, Criterion] = {
    "similarity": similarity,
    "dissimilarity": dissimilarity,
    "variance": variance,
    "random": random,
}
"""The criteria by name."""


def find_criterion(criterion: str | Criterion) -> tuple[str, Criterion]:
    """A criterion's name and function, from either.

    Raises
    ------
    ValueError
        If there is no criterion of that name.
    TypeError
        If it is neither a name nor callable.
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise ValueError(f"unknown criterion {criterion!r}; choose from {', '.join(CRITERIA)}, or pass a function.")
        return criterion, CRITERIA[criterion]
    if not callable(criterion):
        raise TypeError(f"a criterion is a name or a function, not {type(criterion).__name__}.")
    return getattr(criterion, "__name__", type(criterion).__name__), criterion


def cluster_branches(
    criterion: Criterion, embedding: Embedding, branches: int, settings: ClusterSettings
) -> tuple[Tensor, Clustering | None]:
    """Labels for all branches, ``(branches,)`` int64, and the clustering of those that have a row.

    Branches without a row are noise. With too few rows for a cluster or for ``min_samples`` neighbours all are, and
    there is no clustering: branches get few as sharing goes on, which is no mistake of the user's.

    Raises
    ------
    TypeError, ValueError
        If a criterion of the user's own does not return a :class:`Clustering` of integer labels, one per row.
    """
    labels = torch.full((branches,), NOISE)
    if len(embedding.rows) <= max(settings.min_samples, settings.min_cluster_size - 1):
        return labels, None
    clustering = criterion(embedding.rows, settings)
    _check(clustering, len(embedding.rows))
    labels[embedding.branches] = clustering.labels.to("cpu", torch.int64)
    return labels, clustering


def _check(clustering: Clustering, rows: int) -> None:
    """Raise unless the result of a criterion is usable."""
    if not isinstance(clustering, Clustering):
        raise TypeError(f"a criterion must return a Clustering, not {type(clustering).__name__}.")
    labels = clustering.labels
    if tuple(labels.shape) != (rows,) or labels.is_floating_point() or bool((labels < NOISE).any()):
        raise ValueError(
            f"a criterion must return one integer label per row, −1 for noise: {rows} of them; got shape "
            f"{tuple(labels.shape)}, dtype {labels.dtype}."
        )


def _hdbscan(rows: Tensor, settings: ClusterSettings, metric: str) -> Clustering:
    """HDBSCAN's labels and trees under a metric."""
    model = _fitted(_points(rows), settings, metric)
    labels = torch.as_tensor(model.labels_, dtype=torch.int64)
    linkage = _tree(model.single_linkage_tree_.to_numpy())
    return Clustering(labels, _distances(rows, 1.0 if metric == "euclidean" else -1.0), linkage, _condensed(model))


def _fitted(points: np.ndarray[Any, Any], settings: ClusterSettings, metric: str) -> HDBSCAN:
    """The fitted estimator."""
    return HDBSCAN(
        min_cluster_size=settings.min_cluster_size,
        min_samples=settings.min_samples,
        cluster_selection_method=settings.cluster_selection_method,
        metric=metric,
    ).fit(points)


def _points(rows: Tensor) -> np.ndarray[Any, Any]:
    """The rows as numpy sees them."""
    points: np.ndarray[Any, Any] = rows.detach().cpu().numpy()
    return points


def _distances(rows: Tensor, sign: float) -> Tensor | None:
    """``‖a − sign·b‖`` for each pair, computed from the differences; zero on the diagonal."""
    if len(rows) > DISTANCES_UP_TO:
        return None
    points = rows.detach().cpu().double()
    distances = torch.cdist(points, sign * points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(0.0)


def _tree(linkage: np.ndarray[Any, Any]) -> Tensor:
    """A linkage matrix as a tensor."""
    return torch.from_numpy(np.array(linkage, dtype=np.float64))


def _condensed(model: HDBSCAN) -> Tensor:
    """The condensed tree's records as rows parent, child, λ, size."""
    records = model.condensed_tree_.to_numpy()
    return torch.from_numpy(np.stack([records[name].astype(np.float64) for name in records.dtype.names], axis=1))
