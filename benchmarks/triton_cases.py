"""The launches that are compiled and counted: every Triton kernel at the sizes it is made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from selshare.kernels.gradient_tile import gradient_launch
from selshare.kernels.gram.triton import gram_launch, gram_tile, project_launch, shares
from selshare.kernels.launch import Launch
from selshare.kernels.reachability.triton import core_launch, matrix_launch
from selshare.kernels.sketch.triton import sketch_launch
from selshare.kernels.spanning_tree.triton import argmin_launch
from selshare.kernels.stacked_linear.triton import backward_launch, forward_launch

B, O, H = 64, 100, 300  # noqa: E741 -- batch, outputs and inputs of the layer at the fork
BF16, FP16, FP64 = torch.bfloat16, torch.float16, torch.float64
SGD = {"sign": 1.0, "lr": 0.02, "weight_decay": 0.0, "momentum": 0.5, "keep": 1.0}
ADAM = {
    **{"sign": 1.0, "lr": 0.001, "weight_decay": 0.0, "shrink": 1.0, "keep": 0.1, "beta2": 0.999},
    **{"keep2": 0.001, "root": 0.03, "eps": 1e-8},
}


@dataclass(frozen=True)
class Case:
    """A kernel at work.

    Attributes
    ----------
    operation, variant
        What it computes, and on what.
    launch
        The launch for a given size, e.g. number of branches.
    size, counted_size, huge_size
        The size that times are predicted for, a smaller one whose loads and stores are counted, and one at which
        offsets pass 2³¹ (``None`` where another case of the kernel has that).
    least
        The fewest bytes that can move for a size: every input read once, every result written once.
    flops, arithmetic
        Floating-point operations for a size, and the units that do them: "fp32", "tf32", "fp64" or "fp64 tensor".
        What a tile does beyond the tensors' edges counts; an addition or multiplication alone counts as two.
    separate
        Bytes that torch's separate operations move for a size, each reading its inputs and writing its results once.
    growth
        The power of the size that requests grow with: 2 for pairs.
    """

    operation: str
    variant: str
    launch: Callable[[int], Launch]
    size: int
    counted_size: int
    huge_size: int | None
    least: Callable[[int], int]
    flops: Callable[[int], int]
    separate: Callable[[int], int]
    arithmetic: str = "fp32"
    growth: int = 1


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without memory: launches look at shapes and strides only."""
    return torch.empty(shape, dtype=dtype, device="meta")


def delta(G: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """As the layer at the fork leaves it: ``(B, G, O)`` in memory."""
    return numbers(B, G, O, dtype=dtype).transpose(0, 1)


def _gradient(variant: str, passes: int, separate: int, launch: Callable[[int], Launch], *, half: bool = False) -> Case:
    """A case of the gradient kernel: ``passes`` over the weights' size, ``separate`` ones in torch's way."""
    inputs = 2 if half else 4

    def moved(G: int, passes: int) -> int:
        return 4 * passes * G * O * H + inputs * (G * B * O + B * H)

    return Case(
        variant.split(",")[0],
        variant.partition(", ")[2],
        launch,
        size=1000,
        counted_size=30,
        huge_size=80_000,
        least=lambda G: moved(G, passes),
        flops=lambda G: 2 * G * B * O * H,
        separate=lambda G: moved(G, separate),
        arithmetic="tf32" if half else "fp32",
    )


def _sgd(G: int, delta: Tensor, dtype: torch.dtype = torch.float32) -> Launch:
    weight = numbers(G, O, H)
    shared = numbers(B, H, dtype=dtype)
    return gradient_launch(delta, shared, weight, weight=weight, first=weight, rule="sgd", **SGD)


def _adam(G: int, delta: Tensor, dtype: torch.dtype = torch.float32) -> Launch:
    weight = numbers(G, O, H)
    shared = numbers(B, H, dtype=dtype)
    return gradient_launch(delta, shared, weight, weight=weight, first=weight, second=weight, rule="adam", **ADAM)


def _counted_adam(G: int) -> Launch:
    weight, corrections = numbers(G, O, H), numbers(3, dtype=FP64)
    rule = {name: value for name, value in ADAM.items() if name not in ("lr", "root", "shrink")}
    return gradient_launch(
        *(delta(G), numbers(B, H), weight),
        **{"weight": weight, "first": weight, "second": weight, "rule": "adam", "corrections": corrections, **rule},
    )


def _capture(G: int, dtype: torch.dtype) -> Launch:
    return gradient_launch(delta(G, dtype), numbers(B, H, dtype=dtype), numbers(G, O, H))


HEADS, LIVE, FEATURES = 400, 40, 50  # one output each, on merged branches


def _heads(
    operation: str,
    launch: Callable[[int, torch.dtype], Launch],
    huge_size: int | None,
    dtype: torch.dtype = torch.float32,
    *,
    forward: bool,
) -> Case:
    """Heads that read their branch's features; the size is the batch. torch copies the features, or adds up copies."""
    weights, bytes_ = HEADS * FEATURES, dtype.itemsize

    def least(samples: int) -> int:
        biases = HEADS if operation == "stacked_linear" else 0
        return bytes_ * (LIVE * samples * FEATURES + weights + biases + HEADS * samples) + 8 * HEADS

    def separate(samples: int) -> int:
        copies = HEADS * samples * FEATURES
        return least(samples) + bytes_ * (2 * copies if forward else 2 * copies + LIVE * samples * FEATURES)

    return Case(
        operation,
        f"{HEADS} heads on {LIVE} branches{_input(dtype)}",
        lambda samples: launch(samples, dtype),
        size=64,
        counted_size=64,
        huge_size=huge_size,
        least=least,
        flops=lambda samples: 2 * HEADS * samples * FEATURES,
        separate=separate,
        arithmetic="tf32" if bytes_ == 2 else "fp32",
    )


def _input(dtype: torch.dtype) -> str:
    """What to say of an input that is not float32."""
    return "" if dtype == torch.float32 else f", {str(dtype)[6:]} input"


def _features(samples: int, dtype: torch.dtype) -> Tensor:
    return numbers(LIVE, samples, FEATURES, dtype=dtype)


def _source() -> Tensor:
    """Heads of one branch are not neighbours."""
    return torch.arange(HEADS) * 7 % LIVE


def _forward(samples: int, dtype: torch.dtype) -> Launch:
    outputs = numbers(samples, HEADS, 1, dtype=dtype).transpose(0, 1)
    weight, bias = numbers(HEADS, 1, FEATURES, dtype=dtype), numbers(HEADS, 1, dtype=dtype)
    return forward_launch(_features(samples, dtype), weight, bias, _source(), True, outputs)


def _backward(samples: int, dtype: torch.dtype) -> Launch:
    delta = numbers(samples, HEADS, 1, dtype=dtype).transpose(0, 1)
    features = _features(samples, dtype)
    return backward_launch(delta, features, numbers(HEADS, 1, FEATURES, dtype=dtype), _source(), False, features)


def _head_gradient(samples: int, dtype: torch.dtype) -> Launch:
    delta = numbers(samples, HEADS, 1, dtype=dtype).transpose(0, 1)
    gradient = numbers(HEADS, 1, FEATURES, dtype=dtype)
    return gradient_launch(delta, _features(samples, dtype), gradient, source=_source(), rectify=True, overwrite=True)


SKETCH = 10 * O  # numbers for each branch


def _sketch(dtype: torch.dtype = torch.float32) -> Case:
    """torch orders δ by outputs for a batched product, then adds its result."""
    return Case(
        "sketch_gradients",
        _input(dtype)[2:],
        lambda G: sketch_launch(numbers(G, B, O, dtype=dtype), numbers(B, SKETCH), numbers(G, SKETCH), scale=1.0),
        size=1000,
        counted_size=100,
        huge_size=2_200_000,
        least=lambda G: dtype.itemsize * G * B * O + 4 * (B * SKETCH + 2 * G * SKETCH),
        flops=lambda G: 2 * G * B * SKETCH,
        separate=lambda G: dtype.itemsize * G * B * O + 4 * (2 * G * B * O + B * SKETCH + 4 * G * SKETCH),
    )


def _gram(rows: int, columns: int, dtype: torch.dtype, huge_size: int | None) -> Case:
    """Gram matrices of many unfoldings; torch converts to float64 first."""
    tile = gram_tile(rows)
    tiles = -(-rows // tile) * (-(-rows // tile) + 1) // 2

    def launch(G: int) -> Launch:
        return gram_launch(numbers(G, rows, columns, dtype=dtype), numbers(1, G, rows, rows, dtype=FP64))

    return Case(
        "gram_matrices",
        f"{rows} × {columns}, {str(dtype)[6:]}",
        launch,
        size=2000,
        counted_size=30,
        huge_size=huge_size,
        least=lambda G: G * (dtype.itemsize * rows * columns + 8 * rows * rows),
        flops=lambda G: 2 * G * tiles * tile * tile * columns,
        separate=lambda G: G * ((8 if dtype == FP64 else 20) * rows * columns + 8 * rows * rows),
        arithmetic="fp64 tensor",
    )


def _joint_gram(rows: int, columns: int) -> Case:
    """One Gram matrix of all branches' gradients: the size is the number of values."""
    tile = gram_tile(rows)
    tiles = -(-rows // tile) * (-(-rows // tile) + 1) // 2

    def launch(values: int) -> Launch:
        parts = numbers(shares(1, rows, values), 1, rows, rows, dtype=FP64)
        return gram_launch(numbers(1, rows, values), parts)

    return Case(
        "gram_matrices",
        f"{rows} branches × {columns}",
        launch,
        size=columns,
        counted_size=columns,
        huge_size=None,
        least=lambda values: 4 * rows * values + 8 * rows * rows,
        flops=lambda values: 2 * tiles * tile * tile * values,
        separate=lambda values: 20 * rows * values + 8 * rows * rows,
        arithmetic="fp64 tensor",
    )


def _project(rows: int, columns: int, rank: int) -> Case:
    """Unfoldings on their leading directions; torch converts to float64 and back."""

    def launch(G: int) -> Launch:
        basis = numbers(G, rows, rank, dtype=FP64)
        return project_launch(basis, numbers(G, rows, columns), numbers(G, rank, columns))

    return Case(
        "project_matrices",
        f"{rows} × {columns} on {rank}",
        launch,
        size=2000,
        counted_size=30,
        huge_size=90_000,
        least=lambda G: 4 * G * (rows * columns + 2 * rows * rank + rank * columns),
        flops=lambda G: 2 * G * -(-rows // 16) * 16 * columns * max(16, rank),
        separate=lambda G: 4 * G * (5 * rows * columns + 2 * rows * rank + 5 * rank * columns),
        arithmetic="fp64 tensor",
    )


FEATURES_OF_POINTS, NEIGHBOURS = 256, 5


def _distances(
    operation: str, given: bool, launch: Callable[[Tensor, str, int], Launch], passes: int, *, matrix: bool = False
) -> Case:
    """All pairs of points once; torch goes over the matrix of distances ``passes`` times, as the reference does."""
    metric = "precomputed" if given else "euclidean"

    def table(n: int) -> Tensor:
        return numbers(n if given else FEATURES_OF_POINTS, n, dtype=FP64)

    def least(n: int) -> int:
        return 8 * (table(n).numel() + n + (n * n if matrix else 0))

    return Case(
        operation,
        "given distances" if given else f"{FEATURES_OF_POINTS} columns",
        lambda n: launch(table(n), metric, n),
        size=4000,  # the columns of so many points stay in L2
        counted_size=256 if given else 96,
        huge_size=50_000 if given else None,
        least=least,
        flops=lambda n: 0 if given else 6 * n * n * FEATURES_OF_POINTS,
        separate=lambda n: 8 * (table(n).numel() + n + passes * n * n),
        arithmetic="fp64",
        growth=2,
    )


def _cores(table: Tensor, metric: str, n: int) -> Launch:
    return core_launch(table, metric, NEIGHBOURS, numbers(n, dtype=FP64))


def _reachability(table: Tensor, metric: str, n: int) -> Launch:
    return matrix_launch(table, metric, numbers(n, dtype=FP64), numbers(n, n, dtype=FP64))


def _argmin(table: Tensor, metric: str, n: int) -> Launch:
    points, values = torch.arange(n), numbers(n, dtype=FP64)
    return argmin_launch(table, metric, values, points, points, values, points)


# torch writes the gradient, reads it to capture it and reads it again to update.
CASES = [
    _gradient("capture_gradients", 2, 4, lambda G: _capture(G, torch.float32)),
    _gradient("capture_gradients, bfloat16 input", 2, 4, lambda G: _capture(G, BF16), half=True),
    _gradient("capture_gradients, float16 input", 2, 4, lambda G: _capture(G, FP16), half=True),
    _gradient("fused_sgd_step", 6, 9, lambda G: _sgd(G, delta(G))),
    _gradient("fused_sgd_step, branch by branch", 6, 9, lambda G: _sgd(G, numbers(G, B, O))),
    _gradient("fused_sgd_step, bfloat16 input", 6, 9, lambda G: _sgd(G, delta(G, BF16), BF16), half=True),
    _gradient("fused_sgd_step, float16 input", 6, 9, lambda G: _sgd(G, delta(G, FP16), FP16), half=True),
    _gradient("fused_adam_step", 8, 11, lambda G: _adam(G, delta(G))),
    _gradient("fused_adam_step, step counted on the device", 8, 11, _counted_adam),
    _gradient("fused_adam_step, bfloat16 input", 8, 11, lambda G: _adam(G, delta(G, BF16), BF16), half=True),
    _gradient("fused_adam_step, float16 input", 8, 11, lambda G: _adam(G, delta(G, FP16), FP16), half=True),
    _sketch(),
    _sketch(BF16),
    _heads("stacked_linear", _forward, 12_000_000, forward=True),
    _heads("stacked_linear_backward", _backward, 12_000_000, forward=False),
    _heads("weight_gradient", _head_gradient, None, forward=True),
    _heads("stacked_linear", _forward, None, BF16, forward=True),
    _heads("stacked_linear_backward", _backward, None, BF16, forward=False),
    _heads("weight_gradient", _head_gradient, None, BF16, forward=True),
    _heads("stacked_linear", _forward, None, FP16, forward=True),
    _gram(10, 3000, torch.float32, 80_000),
    _gram(80, 300, torch.float32, None),
    _gram(80, 300, FP64, None),
    _joint_gram(300, 30_000),
    _project(80, 300, 8),
    _distances("core_distances", False, _cores, 2),
    _distances("core_distances", True, _cores, 2),
    _distances("mutual_reachability", False, _reachability, 5, matrix=True),
    _distances("mutual_reachability", True, _reachability, 6, matrix=True),
    _distances("mutual_reachability_mst", False, _argmin, 6),
    _distances("mutual_reachability_mst", True, _argmin, 6),
]
