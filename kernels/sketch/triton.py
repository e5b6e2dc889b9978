"""Triton for what meets every branch; the projection of the layer's input is one small product, cuBLAS's."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..launch import Launch, index_type

BLOCK_G, BLOCK_J, BLOCK_O, WARPS = 8, 16, 32, 8
UNROLL = 4


def sketch_gradients(delta: Tensor, shared: Tensor, accumulator: Tensor, directions: Tensor, *, scale: float) -> None:
    """See :func:`selshare.kernels.sketch_gradients`."""
    sketch_launch(delta, shared.to(directions.dtype) @ directions.T, accumulator, scale=scale).run()


def sketch_launch(delta: Tensor, projected: Tensor, accumulator: Tensor, *, scale: float) -> Launch:
    """One program for some branches, directions and outputs; ``projected (B, q·O)`` is the shared input's."""
    branches, samples, outputs = delta.shape
    directions = accumulator.shape[1] // outputs
    arguments = {
        "delta": delta,
        "projected": projected,
        "accumulator": accumulator,
        "scale": scale,
        "branches": branches,
        "samples": samples,
        "outputs": outputs,
        "directions": directions,
        "delta_branch": delta.stride(0),
        "delta_sample": delta.stride(1),
        "delta_output": delta.stride(2),
        "projected_sample": projected.stride(0),
        "INDEX": index_type(BLOCK_G * delta.stride(0) + BLOCK_O * delta.stride(2), BLOCK_G * accumulator.shape[1]),
        "BLOCK_G": BLOCK_G,
        "BLOCK_J": BLOCK_J,
        "BLOCK_O": BLOCK_O,
        "UNROLL": UNROLL,
    }
    blocks = (triton.cdiv(branches, BLOCK_G), triton.cdiv(outputs, BLOCK_O), triton.cdiv(directions, BLOCK_J))
    return Launch(_sketch, blocks[0] * blocks[1] * blocks[2], arguments, WARPS)


@triton.jit
def _sketch(
    delta,
    projected,
    accumulator,
    scale: tl.float64,
    branches,
    samples,
    outputs,
    directions,
    delta_branch,
    delta_sample,
    delta_output,
    projected_sample,
    INDEX: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_O: tl.constexpr,
    UNROLL: tl.constexpr,
):
    dtype: tl.constexpr = accumulator.dtype.element_ty
    across, deep, tile = tl.cdiv(outputs, BLOCK_O), tl.cdiv(directions, BLOCK_J), tl.program_id(0)
    branch, output = tile // deep // across * BLOCK_G, tile // deep % across * BLOCK_O
    direction = tile % deep * BLOCK_J
    g, o, j = tl.arange(0, BLOCK_G).to(INDEX), tl.arange(0, BLOCK_O).to(INDEX), tl.arange(0, BLOCK_J)
    has_branch, has_output, has_direction = g < branches - branch, o < outputs - output, j < directions - direction
    delta += branch.to(tl.int64) * delta_branch + output.to(tl.int64) * delta_output
    delta_place = (g * delta_branch)[:, None] + (o * delta_output)[None, :]
    has_delta = has_branch[:, None] & has_output[None, :]
    projected_place = ((direction + j) * outputs + output)[:, None] + o[None, :]
    has_projected = has_direction[:, None] & has_output[None, :]
    total = tl.zeros((BLOCK_G, BLOCK_J, BLOCK_O), dtype)
    for start in range(0, samples, UNROLL):
        for step in tl.static_range(UNROLL):
            sample = tl.full((1, 1), start + step, tl.int64)
            d = tl.load(delta + sample * delta_sample + delta_place, has_delta & (sample < samples), other=0.0)
            d = d.to(dtype)
            p = tl.load(
                projected + sample * projected_sample + projected_place, has_projected & (sample < samples), other=0.0
            )
            total += d[:, None, :] * p[None, :, :]
    accumulator += branch.to(tl.int64) * outputs * directions
    there = (g * (outputs * directions))[:, None, None] + projected_place[None, :, :]
    exists = has_delta[:, None, :] & has_projected[None, :, :]
    before = tl.load(accumulator + there, exists)
    tl.store(accumulator + there, before + tl.full((), scale, dtype) * total, exists)
