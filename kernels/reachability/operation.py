"""The public functions: check once, then run the implementation that the backend rules choose."""

from __future__ import annotations

from torch import Tensor

from ..backend import register, select
from ..checks import sums_of
from .points import checked

register("core_distances", __package__, ("triton", "native", "numba", "reference"))
register("mutual_reachability", __package__, ("triton", "native", "numba", "reference"))


def core_distances(points: Tensor, k: int, *, metric: str = "euclidean") -> Tensor:
    """Distance of every point to its k-th nearest *other* point.

    Parameters
    ----------
    points
        (n, d) float32, float64, float16 or bfloat16, read as float64; with ``metric="precomputed"`` the (n, n)
        distances themselves.
    k
        1 … n - 1. Counts other points only, as ``min_samples`` does in ``hdbscan`` 0.8.30 and later.
    metric
        ``"euclidean"``; ``"antipodal"``: ``‖a/‖a‖ + b/‖b‖‖``, the distance to the antipode, a zero row staying zero
        (selective sharing's dissimilarity criterion; *ours*); or ``"precomputed"``, whose diagonal is not looked at.

    Returns
    -------
    Tensor
        (n,) of the dtype of ``points`` (float32 for half precision), computed in float64. Time O(n²·d).

    Raises
    ------
    TypeError, ValueError
        As :func:`selshare.kernels.reachability.points.checked` says.
    """
    ready = checked(points, k, metric)
    cores: Tensor = select("core_distances", points.device)(ready, k)
    return ready.roots(cores).to(sums_of(points.dtype))


def mutual_reachability(points: Tensor, k: int, *, metric: str = "euclidean") -> Tensor:
    """The matrix ``max(core(a), core(b), d(a, b))`` (Campello, Moulavi, Sander 2013, definition 4).

    The diagonal is the core distance: the formula with ``d(a, a) = 0``. Parameters and errors are those of
    :func:`core_distances`.

    Returns
    -------
    Tensor
        (n, n) of the dtype of ``points`` (float32 for half precision), symmetric, computed in float64. Time
        O(n²·d), memory O(n²).
    """
    ready = checked(points, k, metric)
    matrix: Tensor = select("mutual_reachability", points.device)(ready, k)
    return ready.roots(matrix).to(sums_of(points.dtype))
