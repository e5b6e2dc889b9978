"""The result of :func:`selshare.kernels.tt_svd`, and what can be done with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ITEMS = 1 << 23  # float64 numbers per temporary of inner_all: 64 MiB


@dataclass(frozen=True, slots=True)
class TensorTrain:
    """Tensor trains of ``G`` tensors that have the same modes.

    Attributes
    ----------
    cores
        ``d`` tensors ``(G, r_{k-1}, n_k, r_k)`` with ``r_0 = r_d = 1``. ``r_k`` is the batch's largest; elements of
        lower rank are padded with zeros.
    modes
        ``(n₁, …, n_d)``.
    ranks
        ``(G, d-1)``, int64, on the cores' device: each element's own interior ranks.
    """

    cores: list[Tensor]
    modes: tuple[int, ...]
    ranks: Tensor

    def __len__(self) -> int:
        return len(self.ranks)

    def reconstruct(self) -> Tensor:
        """The tensors that the trains stand for, ``(G, n₁·…·n_d)``."""
        return _contract(self.cores).reshape(len(self), math.prod(self.modes))

    def inner(self, other: TensorTrain) -> Tensor:
        """The inner products ``⟨self_g, other_g⟩``, ``(G,)``, without reconstructing; O(Σ n r³) each.

        Raises
        ------
        ValueError
            If the two differ in length or modes.
        """
        if self.modes != other.modes or len(self) != len(other):
            raise ValueError(
                f"inner products need trains of equal length and modes; these are {len(self)} of modes {self.modes} "
                f"and {len(other)} of modes {other.modes}."
            )
        product = self.cores[0].new_ones(len(self), 1, 1)
        for mine, theirs in zip(self.cores, other.cores, strict=True):
            product = torch.einsum("gab,gaic,gbid->gcd", product, mine, theirs)
        return product[:, 0, 0]

    def inner_all(self) -> Tensor:
        """The inner products of all pairs, ``⟨self_s, self_t⟩``, ``(G, G)`` float64, exactly symmetric.

        They do not depend on the gauge (the signs and rotations that cores may carry), so trains can be compared by
        them: ``‖T_s - T_t‖² = [s,s] + [t,t] - 2 [s,t]``, which cancels for near trains: hence float64. Each train is
        split at the bond that makes ``⟨L_sᵀL_t, R_sR_tᵀ⟩`` cheapest, two matrix products for all pairs: O(G² r² (N_left
        + N_right)) in total, or O(G² N) from the tensors themselves where that is less; beside the result the memory
        is that of the halves and of blocks of 64 MiB.
        """
        left, right = self._halves()
        count, rank = len(self), left.shape[2]
        left, right = left.mT.flatten(0, 1), right.flatten(0, 1)
        result = left.new_empty(count, count)
        step = max(1, CHUNK_ITEMS // max(1, count * rank * rank))
        for start in range(0, count, step):
            end = min(start + step, count)
            rows = slice(start * rank, end * rank)
            pairs = left[rows] @ left[start * rank :].mT
            pairs *= right[rows] @ right[start * rank :].mT
            block = pairs.reshape(end - start, rank, count - start, rank).sum(dim=(1, 3))
            square = block[:, : end - start]
            square.copy_(square.triu() + square.triu(1).mT)
            result[start:end, start:] = block
            result[start:, start:end] = block.mT
        return result

    def _halves(self) -> tuple[Tensor, Tensor]:
        """``(G, N_left, r)`` and ``(G, r, N_right)`` float64, whose products are the tensors; see :meth:`inner_all`."""
        total = math.prod(self.modes)

        def cost(bond: int) -> int:
            rank, size = self.cores[bond].shape[1], math.prod(self.modes[:bond])
            return rank * rank * (size + total // size)

        bond = min(range(len(self.modes)), key=cost)
        rank, size = self.cores[bond].shape[1], math.prod(self.modes[:bond])
        cores = [core.double() for core in self.cores]
        right = _contract(cores[bond:]).reshape(len(self), rank, total // size)
        left = _contract(cores[:bond]) if bond else right.new_ones(len(self), 1, 1, 1)
        return left.reshape(len(self), size, rank), right


def _contract(cores: list[Tensor]) -> Tensor:
    """The product of neighbouring cores, ``(G, r, n₁·…·n_k, r')``."""
    product = cores[0]
    count, rank, size = product.shape[:3]
    for core in cores[1:]:
        inner, mode, outer = core.shape[1:]
        product = product.reshape(count, rank * size, inner) @ core.reshape(count, inner, mode * outer)
        size *= mode
        product = product.reshape(count, rank, size, outer)
    return product
