"""Which singular values a Gram matrix resolves."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from selshare.kernels.gram import gram_matrices

from .palette import BLUE, GREY, ORANGE

ROWS, COLUMNS = 24, 400


def singular_values() -> Figure:
    """True singular values from 1 to 1e-9, and what float32 and float64 Gram matrices of a float32 matrix give."""
    generator = torch.Generator().manual_seed(0)
    true = torch.logspace(0, -9, ROWS, dtype=torch.float64)
    left = torch.linalg.qr(torch.randn(ROWS, ROWS, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(COLUMNS, ROWS, generator=generator, dtype=torch.float64)).Q
    matrix = (left * true @ right.T).float()
    stored = torch.linalg.svdvals(matrix.double())  # of the float32 numbers: what there is to find
    narrow = torch.linalg.eigvalsh(matrix @ matrix.T).double().flip(0)
    wide = torch.linalg.eigvalsh(gram_matrices(matrix[None])[0]).flip(0)
    figure = Figure(figsize=(8.4, 3.3))
    axes = figure.subplots()
    places = range(1, ROWS + 1)
    axes.semilogy(places, stored, color=GREY, linewidth=5, label="of the matrix, by float64 SVD")
    for values, colour, marker, label in (
        (narrow, ORANGE, "x", "roots of a float32 Gram matrix's eigenvalues"),
        (wide, BLUE, ".", "roots of a float64 Gram matrix's eigenvalues"),
    ):
        found = values.clamp(min=0).sqrt()
        axes.semilogy(places, found.where(found > 0, torch.nan), marker, color=colour, label=label)
    axes.axhline(3e-4, color=ORANGE, linewidth=0.8, linestyle=":")
    axes.set_xlabel("singular value")
    axes.set_ylabel("size beside the largest")
    axes.legend(frameon=False)
    figure.tight_layout()
    return figure
