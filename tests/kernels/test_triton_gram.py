"""The Triton kernels for Gram matrices and projections: memory they must leave alone, and offsets past 2³¹."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from backends import forced
from fences import Fenced, spread
from selshare.kernels.gram import gram_matrices, project_matrices

# Matrices, rows and columns (past a block of them) that are far apart.
FAR = pytest.mark.parametrize(
    ("shape", "strides"),
    [((3, 4, 5), (2**30 + 64, 5, 1)), ((2, 18, 5), (5, 2**27 + 1, 1)), ((2, 4, 34), (8, 2, 2**26 + 1))],
)


@pytest.fixture(autouse=True)
def backend() -> Iterator[str]:
    yield from forced("gram_matrices", "triton")


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 66, 40), (3, 17, 65)])
@pytest.mark.parametrize("shares", [1, 2])
def test_gram_within_its_tensors(shape: tuple[int, int, int], shares: int) -> None:
    # Not at the head: the module needs Triton, which some machines lack.
    from selshare.kernels.gram.triton import gram_launch, whole

    count, rows, _ = shape
    matrices = Fenced(torch.randn(shape))
    parts = Fenced(torch.full((shares, count, rows, rows), torch.nan, dtype=torch.float64))
    gram_launch(matrices.tensor, parts.tensor).run()
    wide = matrices.tensor.double()
    torch.testing.assert_close(whole(parts.tensor), wide @ wide.mT)
    assert parts.untouched()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 17, 66, 65), (3, 16, 5, 3)])
def test_projection_within_its_tensors(shape: tuple[int, int, int, int]) -> None:
    from selshare.kernels.gram.triton import project_launch

    count, rows, rank, columns = shape
    basis, matrices = Fenced(torch.randn(count, rows, rank).double()), Fenced(torch.randn(count, rows, columns))
    result = Fenced(torch.zeros(count, rank, columns))
    project_launch(basis.tensor, matrices.tensor, result.tensor).run()
    torch.testing.assert_close(result.tensor, (basis.tensor.mT @ matrices.tensor.double()).float())
    assert result.untouched()


@FAR
def test_strides_past_two_to_the_31(tmp_path: Path, shape: tuple[int, int, int], strides: tuple[int, int, int]) -> None:
    values = torch.randn(shape)
    matrices, basis = spread(values, strides, tmp_path), torch.randn(*shape[:2], 2).double()
    wide = values.double()
    torch.testing.assert_close(gram_matrices(matrices), wide @ wide.mT)
    torch.testing.assert_close(project_matrices(basis, matrices), (basis.mT @ wide).float())


@FAR
def test_bases_with_strides_past_two_to_the_31(
    tmp_path: Path, shape: tuple[int, int, int], strides: tuple[int, int, int]
) -> None:
    values, matrices = torch.randn(shape).double(), torch.randn(*shape[:2], 2).double()
    torch.testing.assert_close(project_matrices(spread(values, strides, tmp_path), matrices), values.mT @ matrices)
