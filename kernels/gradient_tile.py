"""The weight gradient on a GPU: formed tile by tile in registers and consumed there.

One kernel serves capture, the fused optimizer steps and the gradients that autograd wants. Each program forms one
tile of ``δᵀA``, adds it to the accumulator and updates its part of the weights, and reads and writes its part of
each of these once; the gradient reaches memory only where it is the result.

The weights of the bank, branch after branch, are one matrix of ``G·O`` rows. With one shared representation all rows
are one product; with one for each branch a tile stays within a branch. Programs run through the columns first, so
that the next ones find their rows of δ in L2, where the shared representation, read by all, stays as well.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, index_type, product_precision, sums_type


def gradient_launch(
    delta: Tensor,
    shared: Tensor,
    accumulator: Tensor | None,
    *,
    scale: float = 1.0,
    source: Tensor | None = None,
    rectify: bool = False,
    overwrite: bool = False,
    weight: Tensor | None = None,
    first: Tensor | None = None,
    second: Tensor | None = None,
    rule: str = "none",
    corrections: Tensor | None = None,
    **numbers: float,
) -> Launch:
    """The launch that forms ``g = scale · δᵀA`` and consumes it.

    Parameters
    ----------
    delta, shared, scale, rectify
        ``(G, B, O)``; ``(B, H)`` or ``(S, B, H)``; see :func:`selshare.kernels.fused_sgd_step`.
    accumulator
        ``(G, O, H)``, contiguous: ``+= g``, or ``= g`` with ``overwrite``, of half precision only then.
    source
        ``(G,)`` int64: which of the S inputs each layer reads; ``None``: its own.
    weight, first, second
        ``(G, O, H)``, contiguous: updated by ``rule``, "sgd" (``first`` is the momentum buffer or ``None``),
        "nesterov", or "adam" (``first`` and ``second`` are the moments); "none" leaves them out.
    corrections
        ``(3,)`` float64: the numbers ``lr``, ``root`` and ``shrink`` of "adam", where only the device knows them.
    numbers
        Of the rule, by the names of the kernel's parameters.
    """
    branches, samples, outputs = delta.shape
    state = accumulator if accumulator is not None else weight
    assert state is not None
    per_branch = (shared.ndim == 3 and shared.shape[0] > 1) or source is not None
    merged = delta.stride(0) == outputs * delta.stride(2) or branches == 1
    products, rows = (branches, outputs) if per_branch else (1, branches * outputs)
    width = shared.shape[-1]
    block_r, block_h, block_b, warps = tile_shape(state.dtype, rows)
    unit = 4 if width % 4 == 0 else 1  # lets the compiler see that rows start at multiples of four weights
    arguments: dict[str, Any] = dict.fromkeys(_NUMBERS) | {
        "delta": delta,
        "shared": shared,
        "source": source,
        "accumulator": accumulator,
        "weight": weight,
        "first": first,
        "second": second,
        "corrections": corrections,
        "scale": scale,
        **numbers,
        "rows": rows,
        "outputs": outputs,
        "samples": samples,
        "units": width // unit,
        "delta_branch": delta.stride(0),
        "delta_sample": delta.stride(1),
        "delta_output": delta.stride(2),
        "shared_branch": shared.stride(0) if per_branch else 0,
        "shared_sample": shared.stride(-2),
        "shared_input": shared.stride(-1),
        "RULE": rule,
        "OVERWRITE": overwrite,
        "RECTIFY": rectify,
        "ACROSS_BRANCHES": not per_branch and not merged,
        "INDEX": index_type(
            block_r * width,
            (block_r // outputs + 2) * delta.stride(0) + max(block_r, outputs) * delta.stride(2),
            block_b * delta.stride(1),
            block_b * shared.stride(-2) + block_h * shared.stride(-1),
        ),
        "SUMS": sums_type(state.dtype),
        "PRECISION": product_precision(delta.dtype),
        "BLOCK_R": block_r,
        "BLOCK_H": block_h,
        "BLOCK_B": block_b,
        "UNIT": unit,
    }
    programs = products * triton.cdiv(rows, block_r) * triton.cdiv(width, block_h)
    return Launch(_consume_gradient, programs, arguments, warps)


def tile_shape(dtype: torch.dtype, rows: int) -> tuple[int, int, int, int]:
    """Rows, columns and samples of a tile, and warps. docs/gpu.md says why these."""
    if rows <= 16:  # a few heads' outputs
        return 16, 64, 16, 4
    return (64, 32, 16, 4) if dtype == torch.float64 else (64, 64, 16, 8)


_NUMBERS = ("sign", "lr", "weight_decay", "shrink", "momentum", "keep", "beta2", "keep2", "root", "eps")


@triton.jit
def _consume_gradient(
    delta,
    shared,
    source,
    accumulator,
    weight,
    first,
    second,
    corrections,
    scale: tl.float64,
    sign: tl.float64,
    lr: tl.float64,
    weight_decay: tl.float64,
    shrink: tl.float64,
    momentum: tl.float64,
    keep: tl.float64,
    beta2: tl.float64,
    keep2: tl.float64,
    root: tl.float64,
    eps: tl.float64,
    rows,
    outputs,
    samples,
    units,
    delta_branch,
    delta_sample,
    delta_output,
    shared_branch,
    shared_sample,
    shared_input,
    RULE: tl.constexpr,
    OVERWRITE: tl.constexpr,
    RECTIFY: tl.constexpr,
    ACROSS_BRANCHES: tl.constexpr,
    INDEX: tl.constexpr,
    SUMS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    UNIT: tl.constexpr,
):
    dtype: tl.constexpr = SUMS
    width = units * UNIT
    across, tile = tl.cdiv(width, BLOCK_H), tl.program_id(0)
    down = tl.cdiv(rows, BLOCK_R)
    product, row, column = tile // across // down, tile // across % down * BLOCK_R, tile % across * BLOCK_H
    r, h, b = tl.arange(0, BLOCK_R).to(INDEX), tl.arange(0, BLOCK_H).to(INDEX), tl.arange(0, BLOCK_B).to(INDEX)
    has_row, has_column = r < rows - row, h < width - column

    # The gradient of this tile.
    if ACROSS_BRANCHES:
        branch = row // outputs
        within = row - branch * outputs + r
        place = within // outputs * delta_branch + within % outputs * delta_output
        delta += branch.to(tl.int64) * delta_branch
    else:
        place = r * delta_output
        delta += product.to(tl.int64) * delta_branch + row.to(tl.int64) * delta_output
    if source is not None:
        shared += tl.load(source + product) * shared_branch
    else:
        shared += product.to(tl.int64) * shared_branch
    shared += column.to(tl.int64) * shared_input
    delta_place = place[:, None] + (b * delta_sample)[None, :]
    shared_place = (b * shared_sample)[:, None] + (h * shared_input)[None, :]
    gradient = tl.zeros((BLOCK_R, BLOCK_H), dtype)
    for start in range(0, samples, BLOCK_B):
        has_sample, far = b < samples - start, tl.cast(start, tl.int64)
        d = tl.load(delta + far * delta_sample + delta_place, has_row[:, None] & has_sample[None, :], other=0.0)
        a = tl.load(shared + far * shared_sample + shared_place, has_sample[:, None] & has_column[None, :], other=0.0)
        d, a = d.to(dtype), a.to(dtype)
        if RECTIFY:
            a = tl.where(a < 0, 0.0, a)
        gradient = tl.dot(d, a, gradient, input_precision=PRECISION, out_dtype=dtype)
    gradient *= tl.full((), scale, dtype)

    # What becomes of it.
    here = (product.to(tl.int64) * rows + row) * width + column
    there = (r * width)[:, None] + h[None, :]
    exists = has_row[:, None] & has_column[None, :]
    if accumulator is not None:
        before = 0.0 if OVERWRITE else tl.load(accumulator + here + there, exists)
        tl.store(accumulator + here + there, before + gradient, exists)
    if corrections is not None:
        lr, root, shrink = tl.load(corrections), tl.load(corrections + 1), tl.load(corrections + 2)
    if RULE != "none":
        value = tl.load(weight + here + there, exists)
        change = tl.full((), sign, dtype) * gradient + tl.full((), weight_decay, dtype) * value
        if RULE == "adam":
            mean = tl.load(first + here + there, exists)
            mean += tl.full((), keep, dtype) * (change - mean)
            tl.store(first + here + there, mean, exists)
            square = tl.full((), beta2, dtype) * tl.load(second + here + there, exists)
            square += tl.full((), keep2, dtype) * (change * change)
            tl.store(second + here + there, square, exists)
            # Root and quotient in their rounded forms: the fast ones take tiny moments for zero.
            if dtype == tl.float64:
                change = mean / (tl.sqrt(square) / tl.full((), root, dtype) + tl.full((), eps, dtype))
            else:
                size = tl.div_rn(tl.sqrt_rn(square), tl.full((), root, dtype)) + tl.full((), eps, dtype)
                change = tl.div_rn(mean, size)
            value = tl.full((), shrink, dtype) * value
        elif first is not None:
            moving = tl.full((), momentum, dtype) * tl.load(first + here + there, exists)
            moving += tl.full((), keep, dtype) * change
            tl.store(first + here + there, moving, exists)
            change = change + tl.full((), momentum, dtype) * moving if RULE == "nesterov" else moving
        tl.store(weight + here + there, value - tl.full((), lr, dtype) * change, exists)
