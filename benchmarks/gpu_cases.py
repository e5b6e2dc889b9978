"""Small cases of every operation, and how far an implementation's results are from the float64 reference.

Needs no pytest: ``benchmarks/gpu_check.py`` runs them on a GPU. The suites in tests/kernels have many more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from selshare import kernels
from selshare.kernels import SketchProjection, backend, use
from selshare.kernels.gram import gram_matrices, project_matrices

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
Observed = list[Tensor]


@dataclass(frozen=True)
class Case:
    """One call of an operation.

    Attributes
    ----------
    operation, name
        What is called, and on what.
    make
        The arguments in float64, from a generator; tensors are converted and moved for each run.
    run
        Calls the operation and returns what is compared: results without freedom of sign or rotation.
    rounding
        Times :data:`TOLERANCE`, relative to the largest number of each result: what counts as right.
    """

    operation: str
    name: str
    make: Callable[[torch.Generator], list[Any]]
    run: Callable[..., Observed]
    rounding: float = 1.0


def accuracy_items(device: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every case on every implementation that runs on ``device``, by name."""
    return {
        f"{case.operation} on {one.backend}: {case.name}": partial(check, case, one.backend, device)
        for case in CASES
        for one in backend.implementations(case.operation)
        if one.fits(device) and one.missing() is None
    }


def check(case: Case, name: str, device: str) -> dict[str, Any]:
    """Run ``case`` on implementation ``name``, in float32 and float64.

    The row has the ``errors`` by type, relative to what is allowed (``None``: not a number), and whether it passed.
    """
    errors = {str(dtype).removeprefix("torch."): error(case, name, device, dtype) for dtype in TOLERANCE}
    return {
        "operation": case.operation,
        "backend": name,
        "case": case.name,
        "errors": {dtype: found if math.isfinite(found) else None for dtype, found in errors.items()},
        "passed": all(found <= 1 for found in errors.values()),
    }


def error(case: Case, name: str, device: str, dtype: torch.dtype) -> float:
    """How far implementation ``name`` is from the reference in float64 on the CPU, relative to what is allowed."""
    given = case.make(torch.Generator().manual_seed(0))
    given = [_converted(one, dtype, "cpu") for one in given]  # both see the same rounded numbers
    with use("reference"):
        wanted = case.run(*(_converted(one, torch.float64, "cpu") for one in given))
    with use(name):
        found = case.run(*(_converted(one, dtype, device) for one in given))
    largest = max(_difference(one, other) for one, other in zip(found, wanted, strict=True))
    return largest / (TOLERANCE[dtype] * case.rounding)


def _converted(value: Any, dtype: torch.dtype, device: str) -> Any:
    """A copy of a tensor on ``device``, in ``dtype`` where it holds floats, with its strides."""
    if not isinstance(value, Tensor):
        return value
    target = dtype if value.is_floating_point() else value.dtype
    copy = torch.empty_strided(value.shape, value.stride(), dtype=target, device=device)
    return copy.copy_(value)


def _difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest number wanted."""
    if found.shape != wanted.shape:
        raise ValueError(f"the result has shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
    if found.numel() == 0:
        return 0.0
    size = wanted.abs().max().item() or 1.0
    difference = (found.detach().cpu().double() - wanted).abs().max().item()
    return difference / size if difference == difference else float("inf")


# Arguments


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _gradient(shape: tuple[int, int, int, int], state: int, *, per_branch: bool = False, strided: bool = False) -> Any:
    """``delta (G, B, O)``, ``shared``, and ``state`` tensors ``(G, O, H)``, the last of them positive."""

    def make(generator: torch.Generator) -> list[Tensor]:
        G, B, N, H = shape
        delta = _normal(generator, B, G, N).transpose(0, 1) if strided else _normal(generator, G, B, N)
        shared = _normal(generator, G, B, H) if per_branch else _normal(generator, B, H)
        states = [_normal(generator, G, N, H) for _ in range(state)]
        return [delta, shared, *states[:-1], states[-1].abs()]

    return make


def _symmetric(count: int, n: int, scale: float = 1.0) -> Callable[[torch.Generator], list[Tensor]]:
    def make(generator: torch.Generator) -> list[Tensor]:
        matrices = _normal(generator, count, n, n) * scale
        return [matrices + matrices.mT]

    return make


def _low_rank(count: int, n: int, m: int, rank: int, scale: float = 1.0) -> Callable[[torch.Generator], list[Tensor]]:
    return lambda generator: [_normal(generator, count, n, rank) @ _normal(generator, count, rank, m) * scale]


def _layers(G: int, S: int, B: int, wide: int, narrow: int) -> Callable[[torch.Generator], list[Any]]:
    """``delta``, inputs, weight, bias and source of layers that read ``S`` inputs."""

    def make(generator: torch.Generator) -> list[Any]:
        source = torch.randint(0, S, (G,), generator=generator)
        return [
            *(_normal(generator, G, B, narrow), _normal(generator, S, B, wide)),
            *(_normal(generator, G, narrow, wide), _normal(generator, G, narrow), source),
        ]

    return make


def _tensors(count: int, *modes: int, scale: float = 1.0) -> Callable[[torch.Generator], list[Any]]:
    def make(generator: torch.Generator) -> list[Any]:
        size = torch.Size(modes).numel()
        factors = _normal(generator, count, 3), _normal(generator, 3, size)
        return [(factors[0] @ factors[1] + 1e-2 * _normal(generator, count, size)) * scale, modes]

    return make


def _points(n: int, d: int, offset: float = 0.0) -> Callable[[torch.Generator], list[Tensor]]:
    return lambda generator: [_normal(generator, n, d) + offset]


# Calls, and what of their results is compared


def _capture(delta: Tensor, shared: Tensor, accumulator: Tensor) -> Observed:
    kernels.capture_gradients(delta, shared, accumulator, scale=-0.5)
    return [accumulator]


def _sgd(delta: Tensor, shared: Tensor, *state: Tensor) -> Observed:
    kernels.fused_sgd_step(delta, shared, *state, lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.2)
    return list(state)


def _nesterov(delta: Tensor, shared: Tensor, *state: Tensor) -> Observed:
    kernels.fused_sgd_step(delta, shared, *state, lr=0.1, momentum=0.9, nesterov=True, maximize=True)
    return list(state)


def _adam(delta: Tensor, shared: Tensor, weight: Tensor, mean: Tensor, total: Tensor, square: Tensor) -> Observed:
    kernels.fused_adam_step(delta, shared, weight, mean, square, total, step=3, lr=0.01, weight_decay=0.1)
    return [weight, mean, square, total]


def _sketch(delta: Tensor, shared: Tensor) -> Observed:
    projection = SketchProjection(delta.shape[2], shared.shape[1], 4 * delta.shape[2], 7, delta.dtype, delta.device)
    accumulator = torch.ones(len(delta), projection.size, dtype=delta.dtype, device=delta.device)
    kernels.sketch_gradients(delta, shared, accumulator, projection)
    return [accumulator]


def _linear(delta: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor, source: Tensor) -> Observed:
    return [kernels.stacked_linear(inputs, weight, bias, source=source, rectify=True)]


def _linear_backward(delta: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor, source: Tensor) -> Observed:
    gradients = kernels.stacked_linear_backward(delta, inputs, weight, source=source, rectify=True)
    return [one for one in (gradients.inputs, gradients.bias) if one is not None]


def _weight_gradient(delta: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor, source: Tensor) -> Observed:
    return [kernels.weight_gradient(delta, inputs, source=source, rectify=True)]


def _eigh(matrices: Tensor) -> Observed:
    values, vectors = kernels.batched_eigh(matrices)
    return [values, vectors * values[:, None] @ vectors.mT, vectors.mT @ vectors]


def _left_svd(matrices: Tensor) -> Observed:
    values, vectors = kernels.left_svd(matrices)
    return [values, vectors * values[:, None] @ vectors.mT, vectors.mT @ vectors]


def _gram(matrices: Tensor) -> Observed:
    return [gram_matrices(matrices)]


def _project(basis: Tensor, matrices: Tensor) -> Observed:
    return [project_matrices(basis.double(), matrices)]


def _tt_svd(tensors: Tensor, modes: tuple[int, ...]) -> Observed:
    train = kernels.tt_svd(tensors, modes, max_rank=3)
    return [train.reconstruct(), train.ranks]


def _joint(tensors: Tensor, modes: tuple[int, ...]) -> Observed:
    embedding = kernels.joint_tt_svd(tensors, modes, max_rank=3).embedding.double()
    return [embedding @ embedding.mT]


def _cores(points: Tensor) -> Observed:
    return [kernels.core_distances(points, 4)]


def _distances(points: Tensor) -> Observed:
    return [kernels.mutual_reachability(points, 4)]


def _antipodal(points: Tensor) -> Observed:
    return [kernels.mutual_reachability(points, 4, metric="antipodal")]


def _tree(points: Tensor) -> Observed:
    return [kernels.mutual_reachability_mst(points, 4)[:, 2]]


CASES = [
    Case("capture_gradients", "one branch", _gradient((1, 1, 1, 1), 1), _capture),
    Case("capture_gradients", "odd sizes", _gradient((7, 33, 19, 45), 1, strided=True), _capture),
    Case("capture_gradients", "own inputs", _gradient((5, 20, 66, 31), 1, per_branch=True), _capture),
    Case("fused_sgd_step", "odd sizes", _gradient((6, 21, 35, 50), 3, strided=True), _sgd),
    Case("fused_sgd_step", "own inputs, Nesterov", _gradient((4, 64, 17, 80), 3, per_branch=True), _nesterov),
    Case("fused_adam_step", "odd sizes", _gradient((6, 21, 35, 50), 4), _adam),
    Case("sketch_gradients", "odd sizes", lambda g: _gradient((9, 30, 11, 70), 1)(g)[:2], _sketch),
    Case("stacked_linear", "heads on merged branches", _layers(30, 7, 19, 50, 1), _linear),
    Case("stacked_linear_backward", "heads on merged branches", _layers(30, 7, 19, 50, 3), _linear_backward),
    Case("weight_gradient", "heads on merged branches", _layers(30, 7, 19, 50, 1), _weight_gradient),
    *(Case("batched_eigh", f"{n} × {n}", _symmetric(11, n), _eigh, 3) for n in (1, 2, 5, 16, 33, 64, 80, 128)),
    Case("batched_eigh", "of 150 rows", _symmetric(2, 150), _eigh, 3),
    Case("batched_eigh", "size 1e-8", _symmetric(9, 24, 1e-8), _eigh, 3),
    Case("batched_eigh", "zeros", _symmetric(3, 10, 0.0), _eigh, 3),
    *(
        Case("left_svd", f"{n} × {m}", _low_rank(5, n, m, min(n, m)), _left_svd, 3)
        for n, m in ((1, 3), (6, 5), (16, 16), (33, 50), (20, 300), (80, 80), (128, 128), (128, 260))
    ),
    Case("left_svd", "rank 3, size 1e-8", _low_rank(5, 20, 30, 3, 1e-8), _left_svd, 3),
    Case("gram_matrices", "odd sizes", lambda g: [_normal(g, 5, 17, 90)], _gram),
    Case("gram_matrices", "transposed", lambda g: [_normal(g, 3, 130, 70).mT], _gram),
    Case("project_matrices", "odd sizes", lambda g: [_normal(g, 5, 33, 7), _normal(g, 5, 33, 90)], _project),
    Case("tt_svd", "10×10×15×20", _tensors(6, 10, 10, 15, 20), _tt_svd, 5),
    Case("tt_svd", "size 1e-8", _tensors(5, 4, 6, 7, scale=1e-8), _tt_svd, 5),
    Case("joint_tt_svd", "40 of 6×5×7", _tensors(40, 6, 5, 7), _joint, 5),
    Case("core_distances", "300 points, offset", _points(300, 40, 100.0), _cores, 5),
    Case("mutual_reachability", "200 points", _points(200, 33), _distances, 2),
    Case("mutual_reachability", "200 points, antipodal", _points(200, 33), _antipodal, 2),
    Case("mutual_reachability_mst", "500 points", _points(500, 20), _tree),
]
