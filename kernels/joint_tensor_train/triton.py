"""The steps of :mod:`.blocked`; Gram matrices and projections, which read the whole stack, in Triton.

:mod:`..gram` decides as for any operation, so that these are Triton's wherever this module was chosen. Products for
random probing are single matrix products, and stay cuBLAS's; float32 ones are as exact as
``torch.set_float32_matmul_precision`` says, which is exact unless somebody changed it.
"""

from __future__ import annotations

from .blocked import joint_tt_svd

__all__ = ["joint_tt_svd"]
