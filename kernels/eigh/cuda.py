"""CUDA (csrc/cuda/eigh.hpp): two-sided Jacobi, one block a matrix, in shared memory."""

from __future__ import annotations

from torch import Tensor

from .. import cuda_library
from . import reference


def batched_eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobi up to 128 rows, and cuSOLVER, through torch, above. See :func:`selshare.kernels.batched_eigh`."""
    n = matrices.shape[1]
    if n > cuda_library.LARGEST:
        return reference.batched_eigh(matrices)
    return cuda_library.solve("eigh", matrices, (n,))
