"""Cheap lower bounds of all squared distances, from blocks of one matrix product.

The points are centred (for the antipodal distance they are unit vectors and stay), divided by a power of two, and
rounded to float32 or float64: the rows ``y``. For a block of products ``g = ±y_i·y_j``,

    ``norms[i] + norms[j] - 2 g ≤ squared distance``      with ``norms[i] = ‖y_i‖² (1 - c)``,

whatever the order in which the product was summed. With u the unit roundoff of ``y``, ``c`` holds:

* ``d·u/(1 - d·u)`` for the product: ``|fl(y_i·y_j) - y_i·y_j| ≤ γ_d ‖y_i‖‖y_j‖ ≤ γ_d (‖y_i‖² + ‖y_j‖²)/2``;
* ``4u`` for rounding the points to ``y``, and what is left of ``32u`` for the additions made with ``g``;
* ``2(d + 16)·2⁻⁵³`` for the rounding in the squared distance itself, as :mod:`.points` defines it.

What a bound leaves open is decided by computing the squared distance itself, so results are exact; a looser bound
only means more of those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selshare import _native

from .points import Points, power_of_two

Doubles = NDArray[np.float64]
Indices = NDArray[np.int32]
TILE = 1024  # rows and columns of a block: 4 MiB in float32


@dataclass(frozen=True, slots=True)
class Screen:
    """Points made ready for bounds. Squared distances are in units of ``unit``: those of the rows.

    Attributes
    ----------
    points
        The points themselves, for exact distances.
    rows
        (n, d) float32 or float64.
    norms, half
        (n,) of that dtype: ``‖y‖² (1 - c)`` rounded down, and half of it.
    unit
        What a squared distance between ``rows`` is multiplied by to be one between ``points.values``; a power of two.
    """

    points: Points
    rows: Tensor
    norms: Tensor
    half: Tensor
    unit: float

    @property
    def is_sum(self) -> bool:
        """Whether distances are norms of sums, and not of differences."""
        return self.points.metric == "antipodal"

    @classmethod
    def of(cls, points: Points, dtype: torch.dtype) -> Screen:
        """The bounds' ingredients in ``dtype``; time and memory O(n·d)."""
        values = points.values
        n, d = values.shape
        centre = values.new_zeros(d) if points.metric == "antipodal" else values.mean(dim=0)
        low, high = torch.aminmax(values, dim=0) if d else (centre, centre)
        scale = power_of_two(float(torch.maximum(high - centre, centre - low).max()) if d else 0.0)
        rows, squares = values.new_empty((n, d), dtype=dtype), values.new_empty(n)
        for start in range(0, n, TILE):  # a block at a time, which stays in the cache
            block = (values[start : start + TILE] - centre).mul_(1.0 / scale)
            rounded = rows[start : start + TILE].copy_(block)
            squares[start : start + TILE] = block.copy_(rounded).square_().sum(dim=1)
        u = torch.finfo(dtype).eps / 2
        slack = d * u / (1.0 - min(d * u, 0.5)) + 32 * u + 2 * (d + 16) * 2.0**-53
        norms = rounded_down(squares * (1.0 - slack), dtype)
        return cls(points, rows, norms, norms / 2, scale * scale)

    def take(self, order: Tensor) -> Screen:
        """The same for the points in another order; distances to be computed exactly keep the old numbers."""
        return Screen(self.points, self.rows[order], self.norms[order], self.half[order], self.unit)

    def products(self, rows: Tensor, columns: Tensor, workspace: Tensor) -> Tensor:
        """``±y_i·y_j`` of given rows, in the workspace: large where the distance is small."""
        block = workspace[: len(rows) * len(columns)].view(len(rows), len(columns))
        sign = -1.0 if self.is_sum else 1.0
        return torch.addmm(block, rows, columns.T, beta=0.0, alpha=sign, out=block)

    def squared(self, a: Indices, b: Indices) -> Doubles:
        """The exact squared distances of pairs, in units of ``unit``."""
        values = self.points.values
        out = np.empty(len(a))
        _native.squared_pairs(
            values.data_ptr(),
            values.shape[1],
            self.is_sum,
            a.ctypes.data,
            b.ctypes.data,
            len(a),
            out.ctypes.data,
            torch.get_num_threads(),
        )
        out /= self.unit
        return out


def rounded_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """``values`` in ``dtype``, each at least one step below itself."""
    return torch.nextafter(values.to(dtype), torch.full((), -torch.inf, dtype=dtype))
