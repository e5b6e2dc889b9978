"""The definition, in plain torch, with float64 copies."""

from __future__ import annotations

from torch import Tensor

from ..checks import sums_of


def gram_matrices(matrices: Tensor) -> Tensor:
    """See :func:`selshare.kernels.gram.gram_matrices`."""
    wide = matrices.double()
    return wide @ wide.mT


def project_matrices(basis: Tensor, matrices: Tensor) -> Tensor:
    """See :func:`selshare.kernels.gram.project_matrices`."""
    return (basis.mT @ matrices.double()).to(sums_of(matrices.dtype)).contiguous()
