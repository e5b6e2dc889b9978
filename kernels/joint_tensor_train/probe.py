"""Leading directions of a large matrix from a few products with it: randomised block Krylov, checked as it goes."""

from __future__ import annotations

import torch
from torch import Tensor

from .products import append_directions, new_directions, singular

_EXTRA = 8  # directions beyond what is asked for: oversampling (Halko, Martinsson and Tropp, SIAM Review 53, 2011)
_WIDEST = 64  # narrow blocks reach higher powers of M in as many products
_FEWEST_BLOCKS = 3
_AMPLE = 1.75  # directions by the cap from which another block gains next to nothing
_GAIN = 0.05  # of the lost energy: what is not worth another block
# What is lost is a difference of energies; products in the matrix's precision leave this part of the whole uncertain.
_UNCERTAIN = {torch.float32: 4e-7, torch.float64: 1e-14}
# Errors allowed below this part of the whole (squared) are not asked for: they are rounding.
_ROUNDING = {torch.float32: 1e-10, torch.float64: 1e-26}


def probe(matrix: Tensor, cap: int, allowed: float, energy: float) -> tuple[Tensor, Tensor] | None:
    """Like :func:`~.split.split`, for few directions of a large matrix; ``None`` where all singular values are cheaper.

    Block Golub–Kahan with full reorthogonalisation from a random start (Musco and Musco, NeurIPS 2015, algorithm 2).
    Its right directions ``P`` come with their images ``M·Pᵀ``, so ``‖M − M·PᵀP‖² = energy − ‖M·Pᵀ‖²`` is known at
    every step (also of the best r directions in their span). Blocks are added until the allowed error is met by a
    rank that one more block did not lower, or until the cap's directions gain next to nothing. A block costs two
    products of M with its directions. The generator is its own and seeded: equal inputs give equal results.
    """
    most = min(matrix.shape) // 3
    block = min(cap // 2 + _EXTRA, _WIDEST)
    uncertain = energy * _UNCERTAIN[matrix.dtype]
    limit = allowed**2 - uncertain
    certain = limit >= 4 * uncertain
    asked = allowed**2 > energy * _ROUNDING[matrix.dtype]
    if _FEWEST_BLOCKS * block > most or (not certain and (asked or cap + _EXTRA > most)):
        return None

    krylov = _Krylov(matrix, block, most, negligible=8 * torch.finfo(matrix.dtype).eps * energy**0.5)
    blocks, fit, fit_before, lost_before, gain_before = 0, cap, 0, energy, 0.0
    while krylov.grow():
        blocks += 1
        squares, turn = krylov.best()
        size = len(squares)
        lost = energy - squares.cumsum(0)
        fit = 1 + int((lost > limit).sum())
        at_cap = float(lost[min(cap, size) - 1])
        gain = lost_before - at_cap
        if fit <= min(cap, size):
            done = fit == fit_before
        elif size >= cap + _EXTRA:
            # Gains fall at least geometrically: the next is at most this one times the last quotient.
            little = gain**2 <= gain_before * max(_GAIN * at_cap, uncertain)
            done = blocks >= _FEWEST_BLOCKS and (little or size >= _AMPLE * cap)
        else:
            # No value to come is larger than those in the middle of what was found: so many more are needed.
            needed = size + (float(lost[-1]) - limit) / float(squares[size // 2])
            if min(needed, cap + _EXTRA) > most:
                return None
            done = False
        if done:
            break
        if size + block > most:
            return None
        fit_before, lost_before, gain_before = fit, at_cap, gain
    if not certain:  # only rounding may be dropped, and what the directions hold is all there is
        fit = int((squares.flip(0).cumsum(0).flip(0) > allowed**2).sum())
    rank = max(1, min(cap, fit, len(squares)))
    return krylov.turned(turn[:rank])


class _Krylov:
    """Orthonormal right directions of a matrix ``(m, n)``, at most ``most``, and their images, block by block."""

    def __init__(self, matrix: Tensor, block: int, most: int, negligible: float) -> None:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(block, len(matrix), generator=generator, dtype=matrix.dtype)
        self.matrix, self.negligible = matrix, negligible
        self.newest = start.to(matrix.device)  # left directions not yet sent through the matrix
        self.lefts: list[Tensor] = []
        self.held = 0
        self.rights = matrix.new_empty(most, matrix.shape[1])  # memory that is not used is never there
        self.images = matrix.new_empty(most, len(matrix))

    def grow(self) -> bool:
        """Add a block; ``False`` where the directions hold the whole matrix already."""
        end = self.held + len(self.newest)
        fresh = torch.mm(self.newest, self.matrix, out=self.rights[self.held : end])
        found = append_directions(fresh, self.rights[: self.held], self.negligible)
        if found == 0:
            return False
        end = self.held + found
        images = torch.mm(self.rights[self.held : end], self.matrix.T, out=self.images[self.held : end])
        self.newest = new_directions(images.clone(), self.lefts, self.negligible)
        self.lefts.append(self.newest)
        self.held = end
        return True

    def best(self) -> tuple[Tensor, Tensor]:
        """Squared singular values of ``M·Pᵀ``, falling, and the rows that turn P into their right vectors; float64."""
        values, turn = singular(self.images[: self.held], self.held, 0.0)
        return values.square(), turn

    def turned(self, turn: Tensor) -> tuple[Tensor, Tensor]:
        """The images and the directions, combined by the rows of ``turn``."""
        rows = turn.to(self.matrix.dtype)
        return self.images[: self.held].T @ rows.T, rows @ self.rights[: self.held]
