"""What :func:`~selshare.kernels.joint_tt_svd` returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class JointTensorTrain:
    """G tensors written in one orthonormal basis, which is itself a tensor train.

    ``tensors[g] ≈ Σ_k embedding[g, k] · basis[k]``, where ``basis = cores[0] · … · cores[d−1]``.

    Attributes
    ----------
    embedding
        ``(G, r)``: ``U₁Σ₁`` of the represented stack. Columns are orthogonal, ordered by falling norm, and the entry
        of largest magnitude of each is positive.
    cores
        ``(r, n₁, r₁), (r₁, n₂, r₂), …, (r_{d−1}, n_d, 1)``: each, unfolded to ``(r_{k−1}, n_k·r_k)``, has orthonormal
        rows, and so has the basis.
    residuals
        ``(G,)`` float64: a bound on the norm of what each tensor lost, ``‖tensors[g] − reconstruction[g]‖``.
    norm
        Frobenius norm of the whole stack.
    """

    embedding: Tensor
    cores: tuple[Tensor, ...]
    residuals: Tensor
    norm: float

    @property
    def ranks(self) -> tuple[int, ...]:
        """``(r, r₁, …, r_{d−1})``: the branch rank, that is the embedding's width, and the inner ranks."""
        return tuple(core.shape[0] for core in self.cores)

    @property
    def modes(self) -> tuple[int, ...]:
        """``(n₁, …, n_d)``."""
        return tuple(core.shape[1] for core in self.cores)

    @property
    def error_bound(self) -> float:
        """Bound on the Frobenius norm of (stack − reconstruction)."""
        largest = float(self.residuals.max())  # scaled by it, squares neither overflow nor vanish
        return largest * float(torch.linalg.vector_norm(self.residuals / largest)) if largest > 0 else 0.0

    @property
    def relative_error_bound(self) -> float:
        """:attr:`error_bound` as a part of the stack's norm; 0 for a stack of zeros."""
        return self.error_bound / self.norm if self.norm > 0 else 0.0

    def basis(self) -> Tensor:
        """The orthonormal rows ``(r, n₁·…·n_d)`` that the embedding's columns belong to."""
        return contract(self.cores)

    def reconstruct(self) -> Tensor:
        """The represented stack ``(G, n₁·…·n_d)``."""
        return self.embedding @ self.basis()


def contract(cores: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """The product of cores as a matrix ``(r, n₁·…·n_d)``, multiplied from the last to the first."""
    product = cores[-1].reshape(cores[-1].shape[0], -1)
    for core in reversed(cores[:-1]):
        rank, mode, inner = core.shape
        product = (core.reshape(rank * mode, inner) @ product).reshape(rank, -1)
    return product


def fix_signs(embedding: Tensor, first_core: Tensor) -> tuple[Tensor, Tensor]:
    """Turn columns (and the basis rows they belong to) so that each column's entry of largest magnitude is positive."""
    largest = embedding.abs().argmax(dim=0, keepdim=True)
    signs = torch.where(embedding.gather(0, largest)[0] < 0, -1.0, 1.0).to(embedding.dtype)
    return embedding * signs, first_core * signs.reshape(-1, *(1,) * (first_core.ndim - 1))
