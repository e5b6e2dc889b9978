"""Kernels on a GPU against torch's operations and against the model's time, timed with CUDA events.

The model is memory's: the bytes that must move, at the rate of a large copy; for the CUDA solvers, shared memory's
(:mod:`benchmarks.cuda_model`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.cuda_model import GPU, milliseconds
from selshare import kernels
from selshare.kernels.gram import gram_matrices, project_matrices

BRANCHES, B, O, H = 1000, 64, 100, 300  # noqa: E741 -- batch, outputs and inputs of the layer at the fork
MOVED = 1 << 30  # bytes copied to measure the memory's rate
PATIENCE = 3.0  # seconds: no further round is begun after this
Work = Callable[[], Any]
F32, F64 = torch.float32, torch.float64


@dataclass(frozen=True)
class Contest:
    """The same work done twice; ``least`` is the number of bytes that must move, ``model`` predicted milliseconds."""

    operation: str
    ours: Work
    theirs: Work
    peer: str
    least: int | None = None
    model: float | None = None


def timing_items(device: str, repeats: int, part: int = 1) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every contest, on one ``part``-th of the work, by name."""
    return {name: partial(timed, make, device, repeats, part) for name, make in CONTESTS.items()}


def timed(make: Callable[[str, int], Contest], device: str, repeats: int, part: int) -> dict[str, Any]:
    """Medians in milliseconds of ours, torch's and what the model predicts (``None``: no model)."""
    contest = make(device, part)
    ours, theirs = _interleaved(contest, repeats)
    model = contest.model if contest.least is None else 1e3 * contest.least / memory_rate(device, MOVED // part)
    return {
        "operation": contest.operation,
        "ours": ours,
        "theirs": theirs,
        "peer": contest.peer,
        "model": model,
        "passed": True,
    }


@cache
def memory_rate(device: str, moved: int = MOVED) -> float:
    """Bytes a second, read and written by a large copy."""
    source = torch.empty(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [_milliseconds(lambda: target.copy_(source)) for _ in range(10)]
    return 1e3 * moved / min(times)


def _interleaved(contest: Contest, repeats: int) -> tuple[float, float]:
    """Medians of both, one after the other so that both see the same clocks.

    The first round, in which kernels are compiled, counts only where another would take too long.
    """
    started, rounds = time.perf_counter(), []
    while len(rounds) <= repeats and (not rounds or time.perf_counter() - started < PATIENCE):
        rounds.append((_milliseconds(contest.ours), _milliseconds(contest.theirs)))
    counted = rounds[1:] or rounds
    return median(ours for ours, _ in counted), median(theirs for _, theirs in counted)


def _milliseconds(work: Work) -> float:
    """Of one call, between two events on the stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _bank(device: str, part: int, states: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Errors, shared representation and so many tensors of the weight's shape."""
    G = max(2, BRANCHES // part)
    delta = torch.randn(B, G, O, device=device).transpose(0, 1)
    return delta, torch.randn(B, H, device=device), [torch.zeros(G, O, H, device=device) for _ in range(states)]


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def _capture(device: str, part: int) -> Contest:
    delta, shared, (total,) = _bank(device, part, 1)
    return Contest(
        "capture_gradients",
        lambda: kernels.capture_gradients(delta, shared, total, check_finite=False),
        lambda: total.add_(delta.transpose(1, 2) @ shared),
        "matmul, add",
        2 * _bytes(total) + _bytes(delta, shared),
    )


def _sgd(device: str, part: int) -> Contest:
    delta, shared, (weight, momentum, total) = _bank(device, part, 3)

    def ours() -> None:
        kernels.fused_sgd_step(delta, shared, weight, momentum, total, lr=0.02, momentum=0.5, check_finite=False)

    def theirs() -> None:
        gradient = delta.transpose(1, 2) @ shared
        total.add_(gradient)
        momentum.mul_(0.5).add_(gradient)
        weight.sub_(momentum, alpha=0.02)

    least = 2 * _bytes(weight, momentum, total) + _bytes(delta, shared)
    return Contest("fused_sgd_step", ours, theirs, "matmul, add, SGD", least)


def _adam(device: str, part: int) -> Contest:
    delta, shared, (weight, first, second, total) = _bank(device, part, 4)

    def ours() -> None:
        kernels.fused_adam_step(delta, shared, weight, first, second, total, step=1, lr=1e-3, check_finite=False)

    def theirs() -> None:
        gradient = delta.transpose(1, 2) @ shared
        total.add_(gradient)
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        weight.addcdiv_(first, (second.sqrt() / 0.03).add_(1e-8), value=-0.001)

    least = 2 * _bytes(weight, first, second, total) + _bytes(delta, shared)
    return Contest("fused_adam_step", ours, theirs, "matmul, add, Adam", least)


def _sketch(device: str, part: int) -> Contest:
    delta, shared, _ = _bank(device, part, 0)
    projection = kernels.SketchProjection(O, H, 10 * O, 0, torch.float32, delta.device)
    total = torch.zeros(len(delta), projection.size, device=device)

    def theirs() -> None:
        directions = projection.directions.view(-1, O, H)
        total.view(len(delta), -1, O).add_(torch.einsum("qoh,goh->gqo", directions, delta.transpose(1, 2) @ shared))

    return Contest(
        "sketch_gradients",
        lambda: kernels.sketch_gradients(delta, shared, total, projection, check_finite=False),
        theirs,
        "matmul, einsum",
        _bytes(delta, shared, projection.directions) + 2 * _bytes(total),
    )


def _heads(device: str, part: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Heads of many tasks on merged branches: errors, inputs, weight, bias and which inputs each reads."""
    heads, live, features, batch = max(2, 4000 // part), max(2, 400 // part), 50, 256
    delta, inputs = torch.randn(heads, batch, 1, device=device), torch.randn(live, batch, features, device=device)
    weight, bias = torch.randn(heads, 1, features, device=device), torch.randn(heads, 1, device=device)
    return delta, inputs, weight, bias, torch.arange(heads, device=device) * 7 % live


def _linear(device: str, part: int) -> Contest:
    delta, inputs, weight, bias, source = _heads(device, part)
    return Contest(
        "stacked_linear",
        lambda: kernels.stacked_linear(inputs, weight, bias, source=source),
        lambda: torch.baddbmm(bias[:, None], inputs[source], weight.mT),
        "index, baddbmm",
        _bytes(delta, inputs, weight),
    )


def _linear_backward(device: str, part: int) -> Contest:
    delta, inputs, weight, _, source = _heads(device, part)

    def theirs() -> tuple[Tensor, Tensor]:
        return torch.zeros_like(inputs).index_add_(0, source, delta @ weight), delta.sum(dim=1)

    return Contest(
        "stacked_linear_backward",
        lambda: kernels.stacked_linear_backward(delta, inputs, weight, source=source),
        theirs,
        "bmm, index_add",
        _bytes(delta, inputs, weight),
    )


def _weight_gradient(device: str, part: int) -> Contest:
    delta, inputs, weight, _, source = _heads(device, part)
    return Contest(
        "weight_gradient",
        lambda: kernels.weight_gradient(delta, inputs, source=source),
        lambda: delta.mT @ inputs[source],
        "index, bmm",
        _bytes(delta, inputs, weight),
    )


def _eigh(n: int, count: int, dtype: torch.dtype, device: str, part: int) -> Contest:
    matrices = torch.randn(max(2, count // part), n, n, device=device, dtype=dtype)
    matrices = matrices + matrices.mT
    return Contest(
        "batched_eigh",
        lambda: kernels.batched_eigh(matrices),
        lambda: torch.linalg.eigh(matrices),
        "torch.linalg.eigh",
        model=_solver_model("eigh", matrices, (n,)),
    )


def _svd(n: int, m: int, count: int, dtype: torch.dtype, device: str, part: int) -> Contest:
    matrices = torch.randn(max(2, count // part), n, m, device=device, dtype=dtype)
    return Contest(
        "left_svd",
        lambda: kernels.left_svd(matrices),
        lambda: torch.linalg.svd(matrices, full_matrices=False),
        "torch.linalg.svd",
        model=_solver_model("left_svd", matrices, (n, m)),
    )


def _gram(device: str, part: int) -> Contest:
    matrices = torch.randn(max(2, 200 // part), 100, 3000, device=device)

    def theirs() -> Tensor:
        double = matrices.double()
        return double @ double.mT

    return Contest("gram_matrices", lambda: gram_matrices(matrices), theirs, "double, matmul", _bytes(matrices))


def _project(device: str, part: int) -> Contest:
    matrices = torch.randn(max(2, 200 // part), 100, 3000, device=device)
    basis = torch.randn(len(matrices), 100, 8, dtype=F64, device=device)
    return Contest(
        "project_matrices",
        lambda: project_matrices(basis, matrices),
        lambda: (basis.mT @ matrices.double()).float(),
        "double, matmul, float",
        _bytes(matrices, basis),
    )


def _trains(device: str, part: int) -> Contest:
    tensors = torch.randn(max(2, 200 // part), 30_000, device=device)

    def ours() -> kernels.TensorTrain:
        return kernels.tt_svd(tensors, (10, 10, 15, 20), max_rank=8)

    def theirs() -> kernels.TensorTrain:
        with kernels.use("reference"):
            return ours()

    return Contest("tt_svd", ours, theirs, "torch.linalg.svd", 2 * _bytes(tensors))


def _joint(device: str, part: int) -> Contest:
    tensors = torch.randn(max(2, 500 // part), 30_000, device=device)
    rank = min(64, len(tensors))
    return Contest(
        "joint_tt_svd",
        lambda: kernels.joint_tt_svd(tensors, (10, 10, 15, 20), max_rank=rank),
        lambda: torch.svd_lowrank(tensors, rank),
        "torch.svd_lowrank",
        _bytes(tensors),
    )


def _points(device: str, part: int) -> Tensor:
    return torch.randn(max(20, 5000 // part), 256, device=device)


def _cores(device: str, part: int) -> Contest:
    points = _points(device, part)
    return Contest(
        "core_distances",
        lambda: kernels.core_distances(points, 5),
        lambda: torch.cdist(points, points).topk(6, largest=False).values[:, 5],
        "cdist, topk",
    )


def _reachability(device: str, part: int) -> Contest:
    points = _points(device, part)

    def theirs() -> Tensor:
        distances = torch.cdist(points, points)
        cores = distances.topk(6, largest=False).values[:, 5]
        return torch.maximum(distances, torch.maximum(cores[:, None], cores))

    return Contest("mutual_reachability", lambda: kernels.mutual_reachability(points, 5), theirs, "cdist, topk, max")


def _tree(device: str, part: int) -> Contest:
    points = _points(device, part)
    return Contest(
        "mutual_reachability_mst",
        lambda: kernels.mutual_reachability_mst(points, 5),
        lambda: torch.cdist(points, points),
        "cdist alone",
    )


def _solver_model(operation: str, matrices: Tensor, sizes: tuple[int, ...]) -> float | None:
    """The predicted time of a CUDA solver on the matrices' device."""
    if matrices.device.type != "cuda" or kernels.backend.cuda_missing() is not None:
        return None
    return milliseconds(GPU.present(str(matrices.device)), operation, matrices.dtype, len(matrices), sizes)


CONTESTS: dict[str, Callable[[str, int], Contest]] = {
    "capture_gradients 1000 × 100 × 300": _capture,
    "fused_sgd_step 1000 × 100 × 300": _sgd,
    "fused_adam_step 1000 × 100 × 300": _adam,
    "sketch_gradients 1000 × 100 × 300 to 1000": _sketch,
    "stacked_linear 4000 heads, 400 branches": _linear,
    "stacked_linear_backward 4000 heads, 400 branches": _linear_backward,
    "weight_gradient 4000 heads, 400 branches": _weight_gradient,
    "gram_matrices 200 of 100 × 3000": _gram,
    "project_matrices 200 of 100 × 3000": _project,
    "tt_svd 200 of 10×10×15×20": _trains,
    "joint_tt_svd 500 of 30,000": _joint,
    "core_distances 5,000 × 256": _cores,
    "mutual_reachability 5,000 × 256": _reachability,
    "mutual_reachability_mst 5,000 × 256": _tree,
    **{
        f"batched_eigh {count} of {n}×{n} {str(dtype)[6:]}": partial(_eigh, n, count, dtype)
        for n, count, dtype in (
            *((16, 10_000, F32), (32, 5000, F32), (33, 2000, F32)),
            *((80, 1000, F32), (80, 1000, F64), (128, 500, F64)),
        )
    },
    **{
        f"left_svd {count} of {n}×{m} {str(dtype)[6:]}": partial(_svd, n, m, count, dtype)
        for n, m, count, dtype in ((32, 32, 2000, F32), (80, 80, 300, F64))
    },
}
