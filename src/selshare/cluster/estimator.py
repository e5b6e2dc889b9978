"""HDBSCAN as a scikit-learn estimator: exact spanning tree by :mod:`selshare.kernels`, cluster tree by ``hdbscan``."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from hdbscan.hdbscan_ import _tree_to_labels
from hdbscan.plots import CondensedTree, SingleLinkageTree
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from ..kernels import mutual_reachability_mst
from ..kernels.checks import is_one_of, require_tensor
from ..kernels.reachability.points import unit_rows
from .dendrogram import Floats, content_rank, single_linkage

METRICS = ("euclidean", "cosine", "antipodal", "precomputed")
METHODS = ("eom", "leaf")
CONDENSED = np.dtype([("parent", np.intp), ("child", np.intp), ("lambda_val", float), ("child_size", np.intp)])


class HDBSCAN(ClusterMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Clusters of any shape and density, noise left out (Campello, Moulavi, Sander 2013).

    Replaces ``hdbscan.HDBSCAN`` for dense data by changing the import: the same parameters and results, the tree code
    is ``hdbscan``'s own. The spanning tree is exact in any dimension, and where distances tie, the clusters are those
    of the paper (see :mod:`.dendrogram`): the labels do not depend on the order of the rows, but for their numbers.
    Time O(n²·d).

    Parameters
    ----------
    min_cluster_size
        Fewest points of a cluster, at least 2.
    min_samples
        Core distances go to this nearest *other* point, as in ``hdbscan`` since 0.8.30. Must be below the number of
        points. ``None``: ``min_cluster_size``, or the number of other points where that is less.
    cluster_selection_method
        ``"eom"``, excess of mass, or ``"leaf"``.
    cluster_selection_epsilon
        Clusters that split below this distance are not split.
    allow_single_cluster
        Whether one cluster may be the answer.
    metric
        ``"euclidean"``; ``"cosine"``, 1 - cos, a zero row being at distance 1 from all others; ``"antipodal"``,
        ``‖a/‖a‖ + b/‖b‖‖``; ``"precomputed"``, ``X`` being the (n, n) distances.

    Attributes
    ----------
    labels_
        (n,) cluster of each point, -1 for noise.
    probabilities_
        (n,) strength of membership, 0 for noise.
    cluster_persistence_
        (clusters,) stability of each cluster, at most 1.
    minimum_spanning_tree_
        (n - 1, 3) rows (i, j, weight), i < j, sorted by (weight, i, j).
    condensed_tree_, single_linkage_tree_
        ``hdbscan``'s objects, with ``plot``, ``to_numpy``, ``to_pandas`` and ``to_networkx``.
    n_features_in_
        Columns seen in ``fit``.
    """

    def __init__(
        self,
        min_cluster_size: int = 5,
        min_samples: int | None = None,
        *,
        cluster_selection_method: str = "eom",
        cluster_selection_epsilon: float = 0.0,
        allow_single_cluster: bool = False,
        metric: str = "euclidean",
    ) -> None:
        """Keep the parameters; they are checked in :meth:`fit`."""
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.cluster_selection_method = cluster_selection_method
        self.cluster_selection_epsilon = cluster_selection_epsilon
        self.allow_single_cluster = allow_single_cluster
        self.metric = metric

    def fit(self, X: ArrayLike | torch.Tensor, y: object = None) -> Self:
        """Cluster the rows of ``X``, (n, d) or, precomputed, (n, n); float32 and float64 are taken as they are.

        A single point is noise. Raises ``ValueError`` for a parameter out of range, NaN or Inf, and
        ``min_samples`` ≥ n.
        """
        self._check_parameters()
        if isinstance(X, torch.Tensor):
            require_tensor(X, "X")
            X = X.detach().cpu().numpy()
        points = validate_data(self, X, dtype=[np.float64, np.float32])
        self.minimum_spanning_tree_ = self._spanning_tree(points)
        rank = content_rank(points, by_row=self.metric != "precomputed")
        self._select(single_linkage(self.minimum_spanning_tree_, rank), len(points))
        return self

    def fit_predict(self, X: ArrayLike | torch.Tensor, y: object = None) -> NDArray[np.intp]:
        """Cluster the rows of ``X`` and return ``labels_``; see :meth:`fit`."""
        labels: NDArray[np.intp] = self.fit(X).labels_
        return labels

    def __sklearn_tags__(self) -> Any:
        """Given distances are square."""
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        return tags

    def _check_parameters(self) -> None:
        """Raise ``ValueError`` for the first parameter that is out of range."""
        if not _is_integer(self.min_cluster_size, at_least=2):
            raise ValueError(f"min_cluster_size is {self.min_cluster_size!r}; give an integer of at least 2.")
        if self.min_samples is not None and not _is_integer(self.min_samples, at_least=1):
            raise ValueError(f"min_samples is {self.min_samples!r}; give an integer of at least 1, or None.")
        if not is_one_of(self.cluster_selection_method, METHODS):
            raise ValueError(f"cluster_selection_method is {self.cluster_selection_method!r}; choose eom or leaf.")
        if not _is_distance(self.cluster_selection_epsilon):
            raise ValueError(
                f"cluster_selection_epsilon is {self.cluster_selection_epsilon!r}; give a distance of at least 0."
            )
        if not isinstance(self.allow_single_cluster, bool | np.bool_):
            raise ValueError(f"allow_single_cluster is {self.allow_single_cluster!r}; give True or False.")
        if not is_one_of(self.metric, METRICS):
            raise ValueError(f"metric is {self.metric!r}; choose from {', '.join(METRICS)}.")

    def _spanning_tree(self, points: NDArray[np.floating[Any]]) -> Floats:
        """(n - 1, 3) edges of the minimum spanning tree of mutual reachability."""
        n = len(points)
        if self.metric == "precomputed" and points.shape[0] != points.shape[1]:
            raise ValueError(f"distances must be square for metric 'precomputed'; X has shape {points.shape}.")
        if n == 1:
            return np.empty((0, 3))
        k = min(self.min_cluster_size, n - 1) if self.min_samples is None else self.min_samples
        if k >= n:
            raise ValueError(
                f"min_samples = {k} needs at least {k + 1} points, because it counts other points only, and there "
                f"are {n}; lower min_samples."
            )
        rows = torch.from_numpy(_unit_rows(points) if self.metric == "cosine" else np.array(points))
        metric = "euclidean" if self.metric == "cosine" else self.metric
        tree: Floats = mutual_reachability_mst(rows, int(k), metric=metric).numpy()
        if self.metric == "cosine":
            tree[:, 2] = tree[:, 2] ** 2 / 2  # ‖a - b‖² = 2 (1 - cos) for unit vectors: the same order, the same tree
        return tree

    def _select(self, linkage: Floats, n: int) -> None:
        """Set labels and trees by ``hdbscan``'s selection of clusters."""
        if n == 1:
            self.labels_ = np.full(1, -1, dtype=np.intp)
            self.probabilities_ = np.zeros(1)
            self.cluster_persistence_ = np.zeros(0)
            condensed = np.empty(0, dtype=CONDENSED)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):  # equal points live at density 1/0
                self.labels_, self.probabilities_, self.cluster_persistence_, condensed, _ = _tree_to_labels(
                    None,
                    linkage,
                    min(self.min_cluster_size, n + 1),
                    self.cluster_selection_method,
                    self.allow_single_cluster,
                    cluster_selection_epsilon=float(self.cluster_selection_epsilon),
                )
        self.condensed_tree_ = CondensedTree(condensed, self.labels_)
        self.single_linkage_tree_ = SingleLinkageTree(linkage)


def _is_integer(value: object, at_least: int) -> bool:
    """Whether ``value`` is an integer, and not below ``at_least``."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= at_least


def _is_distance(value: object) -> bool:
    """Whether ``value`` is a finite number, and not negative."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return 0.0 <= float(value) < np.inf
    except OverflowError:
        return False


def _unit_rows(points: NDArray[np.floating[Any]]) -> Floats:
    """Rows of norm 1 in float64, so that ``‖a - b‖²/2`` is the cosine distance.

    Each zero row gets a column of its own, which puts it at cosine distance 1 from every other point, as in
    scikit-learn.
    """
    rows = unit_rows(torch.from_numpy(points.astype(np.float64))).numpy()
    zero = np.flatnonzero(np.logical_not(np.any(points, axis=1)))
    own = np.zeros((len(points), len(zero)))
    own[zero, np.arange(len(zero))] = 1.0
    return np.concatenate((rows, own), axis=1)
