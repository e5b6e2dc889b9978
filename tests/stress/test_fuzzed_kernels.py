"""Every public kernel with whatever arguments: the result that float64 gives, or the documented error, and no crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hostile import DTYPES, SEEDS, SIZES, Case, fuzzed, run
from selshare import kernels
from selshare.kernels import backend
from selshare.kernels.reachability import native as reachability_native
from selshare.kernels.sketch import SketchProjection

DATA = st.data()
EXPONENTS = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)


@contextmanager
def some_backend(case: Case, operation: str) -> Iterator[None]:
    """One of the implementations that run here, the default most often."""
    names = [one.backend for one in backend.implementations(operation) if one.unusable("cpu") is None]
    name = case.draw(st.sampled_from([None, None, *names]))
    with ExitStack() as stack:
        if name is not None:
            stack.enter_context(kernels.use(name))
        yield


def exact(tensor: Tensor) -> np.ndarray[Any, Any]:
    """In float64."""
    return tensor.detach().double().numpy().copy()


def assert_close(found: Tensor, wanted: np.ndarray[Any, Any], bound: np.ndarray[Any, Any]) -> None:
    """Within ``bound``; where the bound, or what it bounds, is beyond the dtype, any result will do."""
    assert tuple(found.shape) == wanted.shape
    info = torch.finfo(found.dtype)
    with np.errstate(all="ignore"):
        looked_at = np.isfinite(bound) & (bound < info.max / 64) & (np.abs(wanted) < info.max / 64)
        wrong = looked_at & ~(np.abs(exact(found) - wanted) <= bound)
    assert not wrong.any(), (exact(found)[wrong][:4], wanted[wrong][:4], bound[wrong][:4])


def product_bound(terms: int, dtype: torch.dtype, *sizes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How far a sum of so many products may be off: rounding of the sum of magnitudes, and what vanishes below tiny."""
    info = torch.finfo(dtype)
    total = sum(np.abs(size) for size in sizes)
    rounding = 8 * (terms + 8) * info.eps * total + (terms + 8) * 4 * info.tiny
    return np.where(total < info.max / 64, rounding, np.inf)  # else a term may overflow, though the sum does not


def unchanged(case: Case, found: bool, kept: list[tuple[Any, Any]]) -> None:
    """What was refused has changed nothing."""
    if not found:
        for tensor, before in kept:
            torch.testing.assert_close(tensor, before, rtol=0, atol=0, equal_nan=True)


def copies(*tensors: Any) -> list[tuple[Any, Any]]:
    """Tensors beside copies of them."""
    dense = [one for one in tensors if isinstance(one, Tensor) and one.layout == torch.strided and not one.is_meta]
    return [(one, one.detach().clone()) for one in dense]


def bank_sizes(case: Case) -> tuple[int, int, int, int]:
    """G, B, O, H, of which one may be 0."""
    sizes = [case.draw(SIZES) for _ in range(4)]
    empty = case.draw(st.sampled_from([None] * 8 + [0, 1, 2, 3]))
    if empty is not None:
        sizes[empty] = 0
    return sizes[0], sizes[1], sizes[2], sizes[3]


def bank_inputs(case: Case, sizes: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Any, Any]:
    """``delta (G, B, O)`` and ``shared (B, H)`` or ``(G, B, H)``."""
    branches, samples, outputs, inputs = sizes
    own = case.draw(st.booleans())
    delta = case.tensor("delta", (branches, samples, outputs), dtype)
    return delta, case.tensor("shared", ((branches,) if own else ()) + (samples, inputs), dtype)


def gradient_and_bound(delta: Tensor, shared: Tensor, rectify: bool = False) -> tuple[Any, Any]:
    """``δᵀA`` in float64, and the sum of the magnitudes of its terms."""
    left, right = exact(delta).swapaxes(1, 2), exact(shared)
    right = np.maximum(right, 0) if rectify else right
    with np.errstate(all="ignore"):
        return left @ right, np.abs(left) @ np.abs(right)


@fuzzed()
@given(DATA)
def test_capture(data: st.DataObject) -> None:
    case = Case(data.draw)
    sizes, dtype = bank_sizes(case), case.draw(DTYPES)
    delta, shared = bank_inputs(case, sizes, dtype)
    accumulator = case.state("accumulator", (sizes[0], sizes[2], sizes[3]), dtype)
    scale = case.number("scale", EXPONENTS)
    kept = copies(accumulator)
    with some_backend(case, "capture_gradients"):
        _, done = run(case, lambda: kernels.capture_gradients(delta, shared, accumulator, scale=scale))
    unchanged(case, done, kept)
    if done:
        gradient, size = gradient_and_bound(delta, shared)
        before = exact(kept[0][1])
        with np.errstate(all="ignore"):
            wanted = before + scale * gradient
            bound = product_bound(sizes[1], accumulator.dtype, before, size, scale * size)
        assert_close(accumulator, wanted, bound)


def sgd(weight: Any, buffer: Any, gradient: Any, case: dict[str, Any]) -> tuple[Any, Any]:
    """``torch.optim.SGD`` on float64 arrays."""
    step = (-gradient if case["maximize"] else gradient) + case["weight_decay"] * weight
    if buffer is None or not case["momentum"]:
        return weight - case["lr"] * step, buffer
    buffer = case["momentum"] * buffer + (1 - case["dampening"]) * step
    return weight - case["lr"] * (step + case["momentum"] * buffer if case["nesterov"] else buffer), buffer


@fuzzed()
@given(DATA)
def test_sgd_step(data: st.DataObject) -> None:
    case = Case(data.draw)
    sizes, dtype = bank_sizes(case), case.draw(DTYPES)
    delta, shared = bank_inputs(case, sizes, dtype)
    shape = (sizes[0], sizes[2], sizes[3])
    weight, accumulator = case.state("weight", shape, dtype), case.state("accumulator", shape, dtype)
    buffer = case.state("momentum_buffer", shape, dtype)
    settings = {
        "lr": case.number("lr", st.floats(0, 1)),
        "momentum": case.number("momentum", st.sampled_from([0.0, 0.5, 0.9])),
        "weight_decay": case.number("weight_decay", st.sampled_from([0.0, 0.1])),
        "dampening": case.number("dampening", st.sampled_from([0.0, 0.3])),
        "nesterov": False,
        "maximize": case.draw(st.booleans()),
    }
    if not case.spoiled and settings["momentum"] and not settings["dampening"]:
        settings["nesterov"] = case.draw(st.booleans())
    scale, rectify = case.number("scale", EXPONENTS), case.draw(st.booleans())
    kept = copies(weight, buffer, accumulator)
    with some_backend(case, "fused_sgd_step"):
        _, done = run(
            case,
            lambda: kernels.fused_sgd_step(
                delta, shared, weight, buffer, accumulator, scale=scale, rectify=rectify, **settings
            ),
        )
    unchanged(case, done, kept)
    if not done:
        return
    gradient, size = gradient_and_bound(delta, shared, rectify)
    old = [exact(next(copy for one, copy in kept if one is state)) if state is not None else None
           for state in (weight, buffer, accumulator)]  # fmt: skip
    with np.errstate(all="ignore"):
        new_weight, new_buffer = sgd(old[0], old[1], scale * gradient, settings)
        lost = product_bound(sizes[1], weight.dtype, size, scale * size) * (1 + abs(settings["lr"]))
        lost = lost * np.square(2 + abs(settings["momentum"])) * (2 + abs(settings["dampening"]))
        lost = lost + product_bound(9, weight.dtype, *(one for one in old if one is not None), new_weight)
        assert_close(weight, new_weight, lost)
        if settings["momentum"]:
            assert_close(buffer, new_buffer, lost)
        if accumulator is not None:
            assert_close(accumulator, old[2] + scale * gradient, lost)


@fuzzed()
@given(DATA)
def test_adam_step(data: st.DataObject) -> None:
    case = Case(data.draw)
    sizes, dtype = bank_sizes(case), case.draw(DTYPES)
    shape = (sizes[0], sizes[2], sizes[3])
    delta = case.tensor("delta", sizes[:3], dtype, "plain")
    shared = case.tensor("shared", (sizes[1], sizes[3]), dtype, "plain")
    names = ("weight", "exp_avg", "exp_avg_sq", "accumulator")
    state = [case.state(name, shape, dtype) for name in names]
    first, second = case.number("betas", st.sampled_from([0.0, 0.9])), case.number("betas", st.just(0.999))
    settings: dict[str, Any] = {
        "step": case.integer("step", st.sampled_from([1, 2, 1000])),
        "lr": case.number("lr", st.floats(0, 1)),
        "eps": case.number("eps", st.just(1e-3)),
        "weight_decay": case.number("weight_decay", st.sampled_from([0.0, 0.1])),
        "decoupled": case.draw(st.booleans()),
        "maximize": case.draw(st.booleans()),
        "rectify": case.draw(st.booleans()),
    }
    betas = case.spoil("betas", st.sampled_from([("none", None), ("one", (0.9,)), ("text", "ab")]), (first, second))
    kept = copies(*state)
    with some_backend(case, "fused_adam_step"):
        _, done = run(case, lambda: kernels.fused_adam_step(delta, shared, *state, betas=betas, **settings))
    unchanged(case, done, kept)
    if not done or (case.spoiled and not case.spoiled.startswith("delta")):
        return
    gradient, _ = gradient_and_bound(delta, shared, settings["rectify"])
    weight, average, square, captured = (exact(copy) for _, copy in kept)
    assert_close(state[3], captured + gradient, product_bound(sizes[1], dtype, captured, 40 * np.ones(shape)))
    step = -gradient if settings["maximize"] else gradient
    if settings["decoupled"]:
        weight = weight * (1 - settings["lr"] * settings["weight_decay"])
    else:
        step = step + settings["weight_decay"] * weight
    average, square = average + (1 - first) * (step - average), second * square + (1 - second) * step**2
    rate, root = settings["lr"] / (1 - first ** settings["step"]), sqrt(1 - second ** settings["step"])
    weight = weight - rate * average / (np.sqrt(square) / root + settings["eps"])
    sure = 1e3 * sqrt(torch.finfo(dtype).eps) if dtype == torch.float32 else 1e-6  # where a moment is near zero
    for found, wanted in zip(state, (weight, average, square), strict=False):
        assert_close(found, wanted, sure * (1 + np.abs(wanted)))


@fuzzed()
@given(DATA)
def test_sketch(data: st.DataObject) -> None:
    case = Case(data.draw)
    branches, samples, outputs, inputs = (case.draw(SIZES) for _ in range(4))
    samples = case.draw(st.sampled_from([0, samples, samples, samples]))
    dtype = case.draw(DTYPES)
    wanted_size = outputs * case.draw(st.integers(1, 7)) + case.draw(st.integers(0, outputs - 1))
    projection: Any = SketchProjection(outputs, inputs, wanted_size, dtype=dtype)
    wrong = st.sampled_from([("None", None), ("tensor", projection.directions), ("text", "p")])
    projection = case.spoil("projection", wrong, projection)
    size = wanted_size // outputs * outputs
    delta = case.tensor("delta", (branches, samples, outputs), dtype)
    shared = case.tensor("shared", (samples, inputs), dtype)
    accumulator = case.state("accumulator", (branches, size), dtype)
    scale = case.number("scale", EXPONENTS)
    kept = copies(accumulator)
    with some_backend(case, "sketch_gradients"):
        _, done = run(case, lambda: kernels.sketch_gradients(delta, shared, accumulator, projection, scale=scale))
    unchanged(case, done, kept)
    if done:
        directions = exact(projection.directions).reshape(-1, outputs, inputs)
        before, d, a = exact(kept[0][1]), exact(delta), exact(shared)
        with np.errstate(all="ignore"):
            added = np.einsum("gbo,joh,bh->gjo", d, directions, a, optimize=True).reshape(len(d), -1)
            most = np.einsum("gbo,joh,bh->gjo", abs(d), abs(directions), abs(a), optimize=True).reshape(len(d), -1)
            bound = product_bound(samples + inputs, dtype, before, most, scale * most)
            assert_close(accumulator, before + scale * added, bound)


def source_of(case: Case, inputs: int, layers: int) -> Any:
    """Which input each layer reads, or nothing."""
    if inputs in (1, layers) and case.draw(st.booleans()):
        return None
    generator = torch.Generator().manual_seed(case.draw(SEEDS))
    source = torch.randint(0, inputs, (layers,), generator=generator)
    wrong = [
        ("beyond", source + inputs), ("negative", source - inputs), ("int32", source.int()), ("float", source.float()),
        ("longer", torch.cat((source, source))), ("list", source.tolist()), ("meta", source.to("meta")),
    ]  # fmt: skip
    return case.spoil("source", st.sampled_from(wrong), source)


@fuzzed()
@given(DATA)
def test_stacked_linear(data: st.DataObject) -> None:
    case = Case(data.draw)
    layers, samples, outputs, features = bank_sizes(case)
    count, dtype = case.draw(st.sampled_from([1, max(layers, 1), 3])), case.draw(DTYPES)
    if count not in (1, layers) and layers == 0:
        count = 1
    inputs = case.tensor("inputs", (count, samples, features), dtype)
    weight = case.tensor("weight", (layers, outputs, features), dtype)
    bias = case.draw(st.sampled_from([None, 1])) and case.tensor("bias", (layers, outputs), dtype)
    source, rectify = source_of(case, count, layers), case.draw(st.booleans())
    with some_backend(case, "stacked_linear"):
        found, done = run(case, lambda: kernels.stacked_linear(inputs, weight, bias, source=source, rectify=rectify))
    if not done or case.spoiled:  # what was spoiled and taken is an empty side or a NaN, which passes through
        return
    read = np.maximum(exact(inputs), 0) if rectify else exact(inputs)
    chosen = np.arange(layers) % count if source is None else source.numpy()
    added = 0 if bias is None else exact(bias)[:, None]
    with np.errstate(all="ignore"):
        wanted = read[chosen] @ exact(weight).swapaxes(1, 2) + added
        size = np.abs(read)[chosen] @ np.abs(exact(weight)).swapaxes(1, 2) + np.abs(added)
        assert_close(found, wanted, product_bound(features, dtype, size))


@fuzzed()
@given(DATA)
def test_stacked_linear_backward(data: st.DataObject) -> None:
    case = Case(data.draw)
    layers, samples, outputs, features = bank_sizes(case)
    count, dtype = case.draw(st.sampled_from([1, max(layers, 1), 3])), case.draw(DTYPES)
    if layers == 0:
        count = 1
    delta = case.tensor("delta", (layers, samples, outputs), dtype)
    inputs = case.tensor("inputs", (count, samples, features), dtype)
    weight = case.tensor("weight", (layers, outputs, features), dtype)
    source, rectify = source_of(case, count, layers), case.draw(st.booleans())
    with some_backend(case, "stacked_linear_backward"):
        found, done = run(
            case,
            lambda: kernels.stacked_linear_backward(delta, inputs, weight, source=source, rectify=rectify),
        )
    with some_backend(case, "weight_gradient"):
        gradient, also = run(case, lambda: kernels.weight_gradient(delta, inputs, source=source, rectify=rectify))
    if case.spoiled:
        return
    assert done
    assert also
    chosen = np.arange(layers) % count if source is None else source.numpy()
    by_inputs, most = np.zeros((2, count, samples, features))
    d, x, w = exact(delta), exact(inputs), exact(weight)
    read = np.maximum(x, 0) if rectify else x
    with np.errstate(all="ignore"):
        np.add.at(by_inputs, chosen, d @ w)
        np.add.at(most, chosen, abs(d) @ abs(w))
        if rectify:
            by_inputs[x <= 0] = 0
        assert_close(found.inputs, by_inputs, product_bound(outputs * max(layers, 1), dtype, most))
        assert_close(found.bias, d.sum(1), product_bound(samples, dtype, abs(d).sum(1)))
        size = abs(d).swapaxes(1, 2) @ abs(read)[chosen]
        assert_close(gradient, d.swapaxes(1, 2) @ read[chosen], product_bound(samples, dtype, size))


def largest_of(matrices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The largest magnitude of each matrix, 1 for zeros; ``(N, 1, 1)``."""
    size = np.abs(matrices).max(axis=tuple(range(1, matrices.ndim)), initial=0.0)
    return np.where(size > 0, size, 1.0)[:, None, None]


@fuzzed()
@given(DATA)
def test_eigenvalues(data: st.DataObject) -> None:
    case = Case(data.draw)
    count, n, dtype = case.draw(st.sampled_from([0, 1, 3, 9, 20])), case.draw(SIZES), case.draw(DTYPES)
    matrices = case.tensor("matrices", (count, n, n), dtype)
    with some_backend(case, "batched_eigh"):
        found, done = run(case, lambda: kernels.batched_eigh(matrices))
    if not done:
        return
    dtype = matrices.dtype
    values, vectors = (exact(one) for one in found)
    count, n = matrices.shape[:2]
    lower = np.tril(exact(matrices))
    full = (lower + np.tril(lower, -1).swapaxes(1, 2)) / largest_of(lower)
    values = values[:, None, :] / largest_of(lower)
    tolerance = torch.finfo(dtype).eps * (16 + 4 * n) * (1 + sqrt(n))
    tolerance += torch.finfo(dtype).tiny * torch.finfo(dtype).eps / largest_of(lower).min(initial=1.0)
    assert vectors.shape == (count, n, n)
    assert np.all(np.abs(vectors.swapaxes(1, 2) @ vectors - np.eye(n)) <= tolerance)
    assert np.all(np.abs(full @ vectors - vectors * values) <= tolerance * n)
    assert np.all(np.diff(values[:, 0]) <= 0)


@fuzzed()
@given(DATA)
def test_left_singular_vectors(data: st.DataObject) -> None:
    case = Case(data.draw)
    count, n, m, dtype = case.draw(st.sampled_from([0, 1, 3, 9])), case.draw(SIZES), case.draw(SIZES), case.draw(DTYPES)
    matrices = case.tensor("matrices", (count, n, m), dtype)
    with some_backend(case, "left_svd"):
        found, done = run(case, lambda: kernels.left_svd(matrices))
    if not done:
        return
    values, vectors = (exact(one) for one in found)
    count, n = matrices.shape[:2]
    scaled = exact(matrices) / largest_of(exact(matrices))
    tolerance = torch.finfo(matrices.dtype).eps * (16 + 4 * n + 4 * m) * (1 + sqrt(n * m))
    tolerance += torch.finfo(matrices.dtype).tiny / largest_of(exact(matrices)).min(initial=1.0)
    rest = vectors.swapaxes(1, 2) @ scaled
    assert np.all(np.abs(vectors.swapaxes(1, 2) @ vectors - np.eye(n)) <= tolerance)
    assert np.all(np.abs(np.linalg.norm(rest, axis=2) - values / largest_of(exact(matrices))[:, 0]) <= tolerance)
    assert np.all(np.diff(values) <= 0)


MODES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
WRONG_MODES = st.sampled_from(
    [("None", None), ("text", "34"), ("a number", 6), ("none", ()), ("zero", (0, 3)), ("negative", (-2, -3)),
     ("parts", (2.0, 3.0)), ("bools", (True, True)), ("others", (7, 7)), ("NumPy's", (np.int64(2), np.int64(3)))]
)  # fmt: skip
ERRORS = st.sampled_from([0.0, 1e-6, 1e-2, 0.5])


@fuzzed()
@given(DATA)
def test_tensor_trains(data: st.DataObject) -> None:
    case = Case(data.draw)
    count, modes, dtype = case.draw(st.sampled_from([0, 1, 3, 9])), case.draw(MODES), case.draw(DTYPES)
    tensors = case.tensor("tensors", (count, prod(modes)), dtype)
    asked = case.spoil("modes", WRONG_MODES, modes)
    cap = case.draw(st.sampled_from([None, 1])) and case.integer("max_rank", st.integers(1, 9))
    error = case.number("relative_error", ERRORS)
    with some_backend(case, "tt_svd"):
        found, done = run(case, lambda: kernels.tt_svd(tensors, asked, max_rank=cap, relative_error=error))
    if not done:
        return
    dtype = found.cores[0].dtype  # float32 for half precision
    scale = largest_of(exact(tensors))[:, 0]
    wanted, rebuilt = exact(tensors).reshape(-1, prod(found.modes)) / scale, exact(found.reconstruct()) / scale
    if cap is None:
        least = 2.0**-22 if dtype == torch.float32 else 2.0**-47
        allowed = (max(error, sqrt(len(modes)) * least) + 40 * torch.finfo(dtype).eps) * 1.001
        vanishing = 40 * torch.finfo(dtype).tiny / scale[:, 0]  # subnormal cores hold fewer digits
        assert np.all(np.linalg.norm(wanted - rebuilt, axis=1) <= allowed * np.linalg.norm(wanted, axis=1) + vanishing)
    assert all(core.shape[3] <= (cap or 1 << 60) for core in found.cores)
    for core in found.cores[:-1]:
        unfolded = exact(core).reshape(len(core), prod(core.shape[1:3]), core.shape[3])
        products = unfolded.swapaxes(1, 2) @ unfolded
        off = products * (1 - np.eye(core.shape[3]))
        assert np.all(np.abs(off) <= 1e-4 if dtype == torch.float32 else np.abs(off) <= 1e-9)


@fuzzed()
@given(DATA)
def test_joint_tensor_trains(data: st.DataObject) -> None:
    case = Case(data.draw)
    count, modes, dtype = case.draw(SIZES), case.draw(MODES), case.draw(DTYPES)
    tensors = case.tensor("tensors", (count, prod(modes)), dtype)
    asked = case.spoil("modes", WRONG_MODES, modes)
    cap = case.draw(st.sampled_from([None, 1])) and case.integer("max_rank", st.integers(1, 9))
    cap = case.spoil("max_rank", st.sampled_from([("none", ()), ("text", "2"), ("halves", (1.5,) * 9)]), cap)
    error = case.number("relative_error", ERRORS)
    with some_backend(case, "joint_tt_svd"):
        found, done = run(case, lambda: kernels.joint_tt_svd(tensors, asked, max_rank=cap, relative_error=error))
    if not done:
        return
    info = torch.finfo(found.embedding.dtype)
    size = float(np.abs(exact(tensors)).max(initial=0.0)) or 1.0
    wanted = exact(tensors).reshape(len(tensors), -1) / size
    basis, embedding = exact(found.basis()), exact(found.embedding) / size
    rounding = 200 * info.eps * np.linalg.norm(wanted) + 1e4 * info.tiny * info.eps / size
    lost = np.linalg.norm(wanted - embedding @ basis)
    assert np.all(np.abs(basis @ basis.T - np.eye(len(basis))) <= 1e3 * info.eps)
    assert lost <= found.error_bound / size * 1.001 + rounding
    if cap is None:
        assert lost <= error * np.linalg.norm(wanted) * 1.001 + rounding


def pair_distances(points: np.ndarray[Any, Any], metric: str) -> np.ndarray[Any, Any]:
    """Brute force, in float64, of points whose largest entry is 1."""
    if metric == "precomputed":
        return (points + points.T) / 2
    if metric == "antipodal":
        largest = np.abs(points).max(axis=1, keepdims=True, initial=0.0)
        rows = points / np.where(largest > 0, largest, 1.0)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(norms > 0, norms, 1.0)
        return np.linalg.norm(rows[:, None] + rows[None], axis=2)
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def reachability(points: np.ndarray[Any, Any], k: int, metric: str) -> tuple[Any, Any]:
    """Core distances and mutual reachability by the definition."""
    distances = pair_distances(points, metric)
    others = distances + np.diag(np.full(len(points), np.inf))
    cores = np.sort(others, axis=1)[:, k - 1]
    np.fill_diagonal(distances, 0.0)
    return cores, np.maximum(distances, np.maximum(cores[:, None], cores[None]))


def tree_weight(matrix: np.ndarray[Any, Any]) -> float:
    """The weight of the minimum spanning tree, by Prim's algorithm."""
    best, inside, total = matrix[0].copy(), np.zeros(len(matrix), bool), 0.0
    inside[0] = True
    for _ in range(len(matrix) - 1):
        nearest = int(np.where(inside, np.inf, best).argmin())
        total, inside[nearest], best = total + best[nearest], True, np.minimum(best, matrix[nearest])
    return total


@fuzzed(40)
@given(DATA)
def test_reachability(data: st.DataObject) -> None:
    case = Case(data.draw)
    n, d, dtype = case.draw(st.sampled_from([1, 2, 3, 5, 17, 40, 70])), case.draw(SIZES), case.draw(DTYPES)
    metric = case.draw(st.sampled_from(["euclidean", "antipodal", "precomputed"]))
    if metric == "precomputed":
        points = Case(case.draw, "no").tensor("points", (n, n), dtype, "plain").detach().abs()
        points = case.spoil("points", st.sampled_from([("unlike", points + 1)]), (points + points.T) / 2)
    else:
        points = case.tensor("points", (n, case.draw(st.sampled_from([d, d, d, 0]))), dtype)
    if n == 1:
        case.spoiled = case.spoiled or "points: too few"
    k = case.integer("k", st.integers(1, max(1, min(n - 1, 12))))
    metric = case.spoil("metric", st.sampled_from([("None", None), ("other", "cosine")]), metric)
    with some_backend(case, "mutual_reachability_mst"), pytest.MonkeyPatch.context() as patch:
        if case.draw(st.booleans()):
            patch.setattr(reachability_native, "SMALL", 0)  # the way of many points, in blocks
        results = [
            run(case, lambda kernel=kernel: kernel(points, k, metric=metric))
            for kernel in (kernels.core_distances, kernels.mutual_reachability, kernels.mutual_reachability_mst)
        ]
    assert len({done for _, done in results}) == 1
    (cores, done), (matrix, _), (tree, _) = results
    if not done:
        return
    info, n = torch.finfo(cores.dtype), len(points)
    size = 1.0 if metric == "antipodal" else float(exact(points).__abs__().max(initial=0.0)) or 1.0
    wanted_cores, wanted = reachability(exact(points) / (1.0 if metric == "antipodal" else size), k, metric)
    tolerance = max(4 * info.eps, 1e-6 if metric == "antipodal" else 1e-12)
    limit = info.max / 4 / size
    near = wanted < limit  # beyond, a distance is more than the dtype holds
    bound = tolerance * (wanted + 1) + info.tiny / size
    assert np.all((np.abs(exact(matrix) / size - wanted) <= bound)[near])
    bound = tolerance * (wanted_cores + 1) + info.tiny / size
    assert np.all((np.abs(exact(cores) / size - wanted_cores) <= bound)[wanted_cores < limit])
    assert tree.shape == (n - 1, 3)
    if wanted.max() * n < 1e300 / size:
        assert abs(float(tree[:, 2].sum()) / size - tree_weight(wanted)) <= tolerance * n * (wanted.max() + 1)
    ends = tree[:, :2].long()
    assert bool((ends[:, 0] < ends[:, 1]).all())
    assert ends.unique().tolist() == list(range(n))


@fuzzed()
@given(DATA)
def test_modes_and_projections(data: st.DataObject) -> None:
    case = Case(data.draw)
    width = case.integer("width", st.integers(1, 5000))
    if case.spoiled and isinstance(width, int) and width > 10**6:
        return  # a layer of that width fits no memory
    found, done = run(case, lambda: kernels.balanced_modes(width))
    if done:
        assert found[0] <= found[1] <= 2 * found[0]
        assert width <= prod(found)
    gradients = case.tensor("gradients", tuple(case.draw(SIZES) for _ in range(3)), case.draw(DTYPES))
    folded, done = run(case, lambda: kernels.fold_gradients(gradients))
    if done and gradients.is_floating_point():
        norm = torch.linalg.vector_norm(gradients.detach().double())
        torch.testing.assert_close(torch.linalg.vector_norm(folded.double()), norm, equal_nan=True)
    limits = {"outputs": 5, "inputs": 9, "size": 40, "seed": 3}
    arguments = {name: case.integer(name, st.just(value)) for name, value in limits.items()}
    if any(isinstance(value, int) and value > 10**6 for name, value in arguments.items() if name != "seed"):
        return
    projection, done = run(case, lambda: SketchProjection(**arguments))
    if done:
        assert projection.directions.shape == (projection.size, projection.inputs)


@fuzzed(10)
@given(st.one_of(st.text(max_size=9), st.none(), st.integers(), st.lists(st.text(max_size=3), max_size=2)))
def test_names_of_backends(name: Any) -> None:
    case = Case(lambda _: None, "name")

    def enter() -> None:
        with kernels.use(name):
            kernels.balanced_modes(3)

    if name not in backend.BACKENDS:
        _, done = run(case, enter)
        assert not done
