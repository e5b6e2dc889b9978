"""Triton: float64 sums in registers, straight from float32 or float64 numbers; nothing is copied or converted.

Half precision is copied to float32 first: Triton 3.6 fails on float64 products of it for sm_80.

A Gram matrix is formed by tiles on and below the diagonal. Where there are too few of them to fill a GPU, programs
share the columns, and their parts, of which only that much is written, are added in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..checks import sums_of
from ..launch import MOST_REGISTERS, Launch, index_type

BLOCK_N, WARPS = 32, 4
FILLING = 512  # programs that keep a GPU busy
LEAST_COLUMNS = 512  # that a program adds up, where programs share them


def gram_matrices(matrices: Tensor) -> Tensor:
    """See :func:`selshare.kernels.gram.gram_matrices`."""
    matrices = matrices.to(sums_of(matrices.dtype))
    count, rows, columns = matrices.shape
    if matrices.numel() == 0:
        return matrices.new_zeros(count, rows, rows, dtype=torch.float64)
    parts = matrices.new_empty(shares(count, rows, columns), count, rows, rows, dtype=torch.float64)
    gram_launch(matrices, parts).run()
    return whole(parts)


def project_matrices(basis: Tensor, matrices: Tensor) -> Tensor:
    """See :func:`selshare.kernels.gram.project_matrices`."""
    matrices = matrices.to(sums_of(matrices.dtype))
    result = matrices.new_empty(len(matrices), basis.shape[2], matrices.shape[2])
    if result.numel():
        project_launch(basis, matrices, result).run()
    return result


def whole(parts: Tensor) -> Tensor:
    """The sum of all parts. Where there are several, what is above the diagonal was not written."""
    if len(parts) == 1:
        return parts[0]
    lower = parts.sum(0).tril()
    return lower + lower.tril(-1).mT


def shares(count: int, rows: int, columns: int) -> int:
    """How many programs add up each tile of a Gram matrix."""
    down = -(-rows // gram_tile(rows))
    tiles = count * down * (down + 1) // 2
    return max(1, min(-(-FILLING // tiles), columns // LEAST_COLUMNS))


def gram_tile(rows: int) -> int:
    """Rows and columns of a tile: below 64, from where Triton 3.6 fails on float64 for sm_100."""
    return 32 if rows > 16 else 16


def gram_launch(matrices: Tensor, parts: Tensor) -> Launch:
    """One program for each matrix, tile and share of the columns.

    What is written into ``parts (shares, N, m, m)``, float64, :func:`whole` makes one.
    """
    count, rows, columns = matrices.shape
    tile = gram_tile(rows)
    down = triton.cdiv(rows, tile)
    share = triton.cdiv(triton.cdiv(columns, len(parts)), BLOCK_N) * BLOCK_N
    arguments = {
        "matrices": matrices,
        "parts": parts,
        "count": count,
        "rows": rows,
        "columns": columns,
        "share": share,
        "stride_matrix": matrices.stride(0),
        "stride_row": matrices.stride(1),
        "stride_column": matrices.stride(2),
        "INDEX": index_type(tile * matrices.stride(1) + BLOCK_N * matrices.stride(2), tile * (rows + 1)),
        "MIRROR": len(parts) == 1,
        "TILE": tile,
        "BLOCK_N": BLOCK_N,
    }
    programs = len(parts) * count * (down * (down + 1) // 2)
    return Launch(_gram, programs, arguments, WARPS, registers=MOST_REGISTERS)


def project_launch(basis: Tensor, matrices: Tensor, result: Tensor) -> Launch:
    """One program for each matrix, block of columns and block of directions."""
    rows, columns = matrices.shape[1:]
    rank = basis.shape[2]
    block_r = 32 if rank > 16 else 16
    block_n = 64
    arguments = {
        "basis": basis,
        "matrices": matrices,
        "result": result,
        "rows": rows,
        "columns": columns,
        "rank": rank,
        "basis_matrix": basis.stride(0),
        "basis_row": basis.stride(1),
        "basis_direction": basis.stride(2),
        "stride_matrix": matrices.stride(0),
        "stride_row": matrices.stride(1),
        "stride_column": matrices.stride(2),
        "INDEX": index_type(
            16 * matrices.stride(1) + block_n * matrices.stride(2),
            16 * basis.stride(1) + block_r * basis.stride(2),
            block_r * columns,
        ),
        "BLOCK_R": block_r,
        "BLOCK_N": block_n,
        "BLOCK_M": 16,
    }
    programs = len(matrices) * triton.cdiv(columns, block_n) * triton.cdiv(rank, block_r)
    return Launch(_project, programs, arguments, WARPS)


@triton.jit
def _gram(
    matrices,
    parts,
    count,
    rows,
    columns,
    share,
    stride_matrix,
    stride_row,
    stride_column,
    INDEX: tl.constexpr,
    MIRROR: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    down = tl.cdiv(rows, TILE)
    tiles = down * (down + 1) // 2
    tile, matrix = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    part = matrix // count  # matrix counts through the parts as well: part · count + matrix
    # The triangle of tiles folded to a rectangle: a long row of it and a short one side by side.
    across = down | 1
    i, j = tile // across, tile % across
    long = down - i
    i, j = tl.where(j < long, long - 1, i - (down & 1)), tl.where(j < long, j, j - long)
    row, other = i * TILE, j * TILE
    m, n = tl.arange(0, TILE).to(INDEX), tl.arange(0, BLOCK_N).to(INDEX)
    has_row, has_other = m < rows - row, m < rows - other
    matrices += (matrix % count).to(tl.int64) * stride_matrix
    left = matrices + row.to(tl.int64) * stride_row
    right = matrices + other.to(tl.int64) * stride_row
    left_place = (m * stride_row)[:, None] + (n * stride_column)[None, :]
    right_place = (m * stride_row)[None, :] + (n * stride_column)[:, None]
    total = tl.zeros((TILE, TILE), tl.float64)
    for start in range(part * share, min(part * share + share, columns), BLOCK_N):
        far, has_column = tl.cast(start, tl.int64) * stride_column, n < columns - start
        a = tl.load(left + far + left_place, has_row[:, None] & has_column[None, :], other=0.0)
        b = tl.load(right + far + right_place, has_column[:, None] & has_other[None, :], other=0.0)
        total = tl.dot(a.to(tl.float64), b.to(tl.float64), total, input_precision="ieee", out_dtype=tl.float64)
    parts += matrix.to(tl.int64) * rows * rows
    exists = has_row[:, None] & has_other[None, :]
    here = row.to(tl.int64) * rows + other
    tl.store(parts + here + ((m * rows)[:, None] + m[None, :]), total, exists)
    if MIRROR:  # noqa: SIM102 -- decided by the compiler, the next one by the program
        if row != other:  # the mirror image above the diagonal
            here = other.to(tl.int64) * rows + row
            tl.store(parts + here + ((m * rows)[None, :] + m[:, None]), total, exists)


@triton.jit
def _project(
    basis,
    matrices,
    result,
    rows,
    columns,
    rank,
    basis_matrix,
    basis_row,
    basis_direction,
    stride_matrix,
    stride_row,
    stride_column,
    INDEX: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    across, deep, tile = tl.cdiv(columns, BLOCK_N), tl.cdiv(rank, BLOCK_R), tl.program_id(0)
    matrix, column = (tile // deep // across).to(tl.int64), tile // deep % across * BLOCK_N
    direction = tile % deep * BLOCK_R
    r, n, m = tl.arange(0, BLOCK_R).to(INDEX), tl.arange(0, BLOCK_N).to(INDEX), tl.arange(0, BLOCK_M).to(INDEX)
    has_direction, has_column = r < rank - direction, n < columns - column
    basis += matrix * basis_matrix + direction.to(tl.int64) * basis_direction
    matrices += matrix * stride_matrix + column.to(tl.int64) * stride_column
    basis_place = (r * basis_direction)[:, None] + (m * basis_row)[None, :]
    matrix_place = (m * stride_row)[:, None] + (n * stride_column)[None, :]
    total = tl.zeros((BLOCK_R, BLOCK_N), tl.float64)
    for start in range(0, rows, BLOCK_M):
        far, has_row = tl.cast(start, tl.int64), m < rows - start
        b = tl.load(basis + far * basis_row + basis_place, has_direction[:, None] & has_row[None, :], other=0.0)
        a = tl.load(matrices + far * stride_row + matrix_place, has_row[:, None] & has_column[None, :], other=0.0)
        total = tl.dot(b, a.to(tl.float64), total, input_precision="ieee", out_dtype=tl.float64)
    # Contiguous, which is the next unfolding as well.
    result += (matrix * rank + direction) * columns + column
    place = (r * columns)[:, None] + n[None, :]
    tl.store(result + place, total.to(result.dtype.element_ty), has_direction[:, None] & has_column[None, :])
