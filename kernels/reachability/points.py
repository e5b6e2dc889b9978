"""What every implementation of the reachability operations is given: checked float64 points, made ready for a metric.

Squared distances are defined here to the bit, so that a tie is a tie in every implementation and for every order of
the rows: the squared differences of the columns ``f, f + 8, f + 16, …`` are added up in that order in eight lanes, one
lane for each ``f`` below 8, and the eight sums are added from the first to the last; all of it in float64 and without
fused multiply-add. Implementations compare and return squares; :meth:`Points.roots` makes distances of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..checks import is_one_of, require_dimensions, require_finite, require_float, require_integer

METRICS = ("euclidean", "antipodal", "precomputed")
LANES = 8


@dataclass(frozen=True, slots=True)
class Points:
    """Points made ready for a metric.

    Attributes
    ----------
    values
        (n, d) float64, contiguous: the points divided by ``scale``, or the unit vectors of the antipodal distance,
        or the (n, n) matrix of distances where they were given.
    metric
        One of :data:`METRICS`.
    scale
        The power of two by which distances between ``values`` are to be multiplied. The largest entry of ``values``
        lies in [1, 2) so that squares neither overflow nor vanish; the division is exact.
    """

    values: Tensor
    metric: str
    scale: float

    @property
    def sign(self) -> float:
        """-1 where distances are norms of differences, +1 where they are norms of sums."""
        return 1.0 if self.metric == "antipodal" else -1.0

    def roots(self, squared: Tensor) -> Tensor:
        """The distances between the caller's points, of what an implementation returns; in place where it can be.

        Given distances are returned as they are. On the CPU the root is NumPy's, which is correctly rounded;
        torch's is not everywhere.
        """
        if self.metric == "precomputed":
            return squared
        if squared.device.type != "cpu":
            return squared.sqrt_().mul_(self.scale)
        values = squared.numpy()
        np.sqrt(values, out=values)
        return squared.mul_(self.scale)


def checked(points: Tensor, k: int, metric: str) -> Points:
    """The points made ready for ``metric``, or an error of one sentence that says what to change.

    Raises
    ------
    TypeError
        If ``points`` are not floating-point numbers, or ``k`` is not an integer.
    ValueError
        If ``points`` is not (n, d), holds NaN or Inf (the row is named as "branch"), ``metric`` is unknown, ``k`` is
        not within 1 … n - 1, or given distances are not square, symmetric and non-negative.
    """
    if not is_one_of(metric, METRICS):
        raise ValueError(f"metric is {metric!r}; choose from {', '.join(METRICS)}.")
    what = "distances" if metric == "precomputed" else "points"
    require_float(points, what, halves=True)
    require_dimensions(points, "(n, d)", what)
    require_finite(points, what)
    k = require_integer(k, "k", at_least=1)
    n = points.shape[0]
    if k >= n:
        raise ValueError(
            f"k = {k} needs at least {max(k, 1) + 1} points, because k counts other points only, and there are {n}; "
            f"choose k from 1 to n - 1."
        )
    if metric == "precomputed":
        return Points(_distances(points.detach().to(torch.float64).contiguous()), metric, 1.0)
    values = points.detach().to(torch.float64).contiguous()
    if metric == "antipodal":
        return Points(unit_rows(values), metric, 1.0)
    low, high = torch.aminmax(values) if values.numel() else (values.new_zeros(()), values.new_zeros(()))
    scale = power_of_two(max(-float(low), float(high)))
    return Points(values if scale == 1.0 else values / scale, metric, scale)


def power_of_two(size: float) -> float:
    """The largest power of two that is not above ``size``; 1 if that is zero."""
    return math.ldexp(1.0, max(math.frexp(size)[1] - 1, -1022)) if size > 0.0 else 1.0


def unit_rows(values: Tensor) -> Tensor:
    """Each row divided by its Euclidean norm; a zero row stays zero. Tiny and huge rows keep their direction."""
    if values.shape[1] == 0:
        return values
    largest = values.abs().amax(dim=1, keepdim=True)
    rows = values / torch.where(largest > 0, largest, 1.0)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return (rows / torch.where(norms > 0, norms, 1.0)).contiguous()


def _distances(matrix: Tensor) -> Tensor:
    """Checked distances; where both directions differ by no more than rounding, their mean."""
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"distances must be square; they have shape {tuple(matrix.shape)}.")
    if bool((matrix < 0).any()):
        row = int((matrix < 0).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"distances hold a negative value in row {row}; distances are at least zero.")
    if torch.equal(matrix, matrix.T):
        return matrix
    close = torch.isclose(matrix, matrix.T, rtol=1e-5, atol=1e-8).all(dim=1)
    if not bool(close.all()):
        row = int((~close).nonzero()[0, 0])
        raise ValueError(f"distances are not symmetric in row {row}; pass (distances + distances.T) / 2.")
    return (matrix + matrix.T) / 2
