"""Distances between all pairs of tasks' vectors, weighted and summed, with the gradient, in blocks.

Nothing of size ``T·T·B·C`` is ever formed: the distances and the gradient of their weighted sum come from one pass
in blocks, and memory beside the vectors is O(T² + T·B·C).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

Distance = Literal["l1", "l2", "cosine"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)
BLOCK = 1 << 23
"""Distances of as many samples at a time as make this many numbers (l2)."""


def weighted_distances(vectors: Tensor, weights: Tensor, distance: Distance) -> tuple[Tensor, Tensor]:
    """The sum over pairs ``Σ_{i<j} w_ij·D_ij``, and ``D`` itself, ``D_ij = Σ_b dist(v_ib, v_jb)``.

    Parameters
    ----------
    vectors
        ``(T, B, C)``: a vector for every task and sample, float32 or float64.
    weights
        ``(T, T)`` symmetric; the diagonal is not read. No gradient flows to it.
    distance
        ``"l1"``, ``"l2"`` (not squared) or ``"cosine"``, ``1 − cos``; a zero vector has cosine 0 with any other.
        Where two vectors are equal the gradient of their l1 or l2 distance is 0.

    Returns
    -------
    tuple
        The sum, a scalar that can be differentiated twice; and ``D (T, T)``, without gradient, zero diagonal.

    Notes
    -----
    Time O(T²·B·C). cosine is one matrix product.
    """
    if distance == "cosine":
        return _cosine(vectors, weights)
    total, distances = _Pairs.apply(vectors, weights, distance)
    return total, distances


def _cosine(vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines summed over the samples are inner products of the unit vectors of all samples side by side."""
    length = vectors.norm(dim=2, keepdim=True)
    units = (vectors / torch.where(length > 0, length, 1)).flatten(1)
    distances = (vectors.shape[1] - units @ units.T).fill_diagonal_(0)
    return (weights * distances).sum() / 2, distances.detach().clamp(min=0)


class _Pairs(torch.autograd.Function):
    """l1 and l2: the gradient comes with the distances, from the same pass."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weights: Tensor, distance: Distance) -> tuple[Tensor, Tensor]:
        """The sum and the distances."""
        distances, gradient = (_l1 if distance == "l1" else _l2)(vectors, weights)
        ctx.save_for_backward(vectors, weights, gradient)
        ctx.distance = distance
        ctx.mark_non_differentiable(distances)
        return (weights * distances).sum() / 2, distances

    @staticmethod
    def backward(ctx: Any, *by_outputs: Tensor) -> tuple[Tensor, None, None]:
        """The stored gradient; where it is to be differentiated again, l2's is formed anew from its definition."""
        vectors, weights, gradient = ctx.saved_tensors
        by_total = by_outputs[0]
        if torch.is_grad_enabled() and ctx.distance == "l2":
            (again,) = torch.autograd.grad(_l2_definition(vectors, weights), vectors, by_total, create_graph=True)
            return again, None, None
        return by_total * gradient, None, None  # l1's does not change between kinks


def _l1(vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Summed over the samples, l1 distances are those of all samples side by side."""
    tasks = len(vectors)
    pairs = torch.triu_indices(tasks, tasks, 1, device=vectors.device).unbind()
    with torch.enable_grad():
        points = vectors.detach().flatten(1).requires_grad_()
        found = torch.nn.functional.pdist(points, p=1)
        (gradient,) = torch.autograd.grad(found, points, weights[pairs].to(points.dtype))
    distances = vectors.new_zeros(tasks, tasks)
    distances[pairs] = found.detach()
    return distances + distances.T, gradient.view_as(vectors)


def _l2(vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Some samples at a time; differences are formed before they are squared, so that near vectors stay apart."""
    tasks, samples, _ = vectors.shape
    at_once = max(1, BLOCK // (tasks * tasks))
    distances, gradient = vectors.new_zeros(tasks, tasks), torch.empty_like(vectors)
    for start in range(0, samples, at_once):
        with torch.enable_grad():
            block = vectors.detach()[:, start : start + at_once].transpose(0, 1).contiguous().requires_grad_()
            found = torch.cdist(block, block, compute_mode="donot_use_mm_for_euclid_dist").sum(0)
            (part,) = torch.autograd.grad(found, block, weights.to(found.dtype) / 2)
        distances += found.detach()
        gradient[:, start : start + at_once] = part.transpose(0, 1)
    return distances, gradient


def _l2_definition(vectors: Tensor, weights: Tensor) -> Tensor:
    """The sum in plain torch, all at once: memory O(T²·B·C)."""
    pairs = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device).unbind()
    total: Tensor = ((vectors[pairs[0]] - vectors[pairs[1]]).norm(dim=2).sum(1) * weights[pairs]).sum()
    return total
