"""The public function: check once, then run the implementation that the backend rules choose."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import register, select
from ..reachability.points import checked

register("mutual_reachability_mst", __package__, ("triton", "native", "numba", "reference"))


def mutual_reachability_mst(points: Tensor, k: int, *, metric: str = "euclidean") -> Tensor:
    """The minimum spanning tree of the complete graph whose weights are mutual reachability distances.

    Exact: edges are compared by ``(squared weight, i, j)`` with i < j and squares as
    :mod:`selshare.kernels.reachability.points` defines them to the bit, so that there is one tree, whatever the
    implementation, the number of threads, or the number of ties.

    Parameters and errors are those of :func:`selshare.kernels.reachability.core_distances`.

    Returns
    -------
    Tensor
        (n - 1, 3) float64 rows ``(i, j, weight)``, i < j, sorted by ``(weight, i, j)``.
    """
    ready = checked(points, k, metric)
    tree: Tensor = select("mutual_reachability_mst", points.device)(ready, k)
    i, j = tree[:, 0].long(), tree[:, 1].long()
    weights = ready.roots(tree[:, 2].contiguous())
    return torch.stack((i.double(), j.double(), weights), dim=1)[_order(weights, i, j)]


def _order(weights: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Positions that sort by (weight, i, j)."""
    order = (i * (int(j.max()) + 1) + j).argsort()
    return order[weights[order].argsort(stable=True)]
