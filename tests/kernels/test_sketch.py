"""sketch_gradients: every implementation against numpy in float64, the stated mean and variance, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backends import each_backend, forced
from selshare.kernels import SketchProjection, sketch_gradients, use

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


@pytest.fixture(params=each_backend("sketch_gradients"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("sketch_gradients", request.param)


def sketch_of(gradients: Tensor, projection: SketchProjection) -> np.ndarray:
    """The sketch of formed gradients ``(G, O, H)``, number by number, in float64."""
    directions = projection.directions.double().numpy()
    rows = gradients.double().numpy()
    numbers = [rows[:, k % projection.outputs] @ directions[k] for k in range(projection.size)]
    return np.stack(numbers, axis=1)


@DTYPES
@pytest.mark.parametrize("per_output", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 11), (6, 64, 100, 30), (5, 17, 33, 65), (9, 3, 2, 4)])
def test_adds_the_scaled_sketch_of_the_gradient(
    backend: str, dtype: torch.dtype, shape: tuple[int, int, int, int], per_output: int
) -> None:
    G, B, N, H = shape
    projection = SketchProjection(N, H, per_output * N, seed=3, dtype=dtype)
    accumulator = torch.randn(G, projection.size, dtype=dtype)
    wanted = accumulator.double().numpy().copy()
    for scale in (0.5, -2.0):
        delta, shared = torch.randn(G, B, N, dtype=dtype), torch.randn(B, H, dtype=dtype)
        wanted += scale * sketch_of(torch.einsum("gbo,bh->goh", delta.double(), shared.double()), projection)
        sketch_gradients(delta, shared, accumulator, projection, scale=scale)
    np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=0, atol=TOLERANCE[dtype] * np.abs(wanted).max())


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 70), st.integers(1, 50), st.integers(1, 9))
def test_any_small_shape_on_every_backend(G: int, B: int, N: int, H: int, per_output: int) -> None:
    delta, shared = torch.randn(G, B, N), torch.randn(B, H)
    projection = SketchProjection(N, H, per_output * N)
    wanted = sketch_of(torch.einsum("gbo,bh->goh", delta.double(), shared.double()), projection)
    for name in each_backend("sketch_gradients"):
        accumulator = torch.zeros(G, projection.size)
        with use(name, "reference"):
            sketch_gradients(delta, shared, accumulator, projection)
        np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=0, atol=1e-5 * (1 + np.abs(wanted).max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_are_added_up_in_float32(backend: str, dtype: torch.dtype) -> None:
    delta, shared = torch.randn(9, 3, 40).to(dtype).transpose(1, 2), torch.randn(40, 11).to(dtype)
    projection, accumulator = SketchProjection(3, 11, 15), torch.randn(9, 15)
    gradients = torch.einsum("gbo,bh->goh", delta.double(), shared.double())
    wanted = accumulator.double().numpy() + 0.5 * sketch_of(gradients, projection)
    sketch_gradients(delta, shared, accumulator, projection, scale=0.5)
    np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


def test_strided_inputs(backend: str) -> None:
    projection = SketchProjection(20, 7, 60)
    storage = torch.randn(8, 40, 6)
    shared = torch.randn(7, 8).t()
    for delta in (
        storage.permute(2, 0, 1)[..., ::2],
        storage.permute(2, 0, 1)[..., :20],
        storage[:6, :8, :1].expand(6, 8, 20),
    ):
        accumulator = torch.zeros(6, 60)
        sketch_gradients(delta, shared, accumulator, projection)
        wanted = sketch_of(torch.einsum("gbo,bh->goh", delta, shared), projection)
        np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_the_rest_of_a_branch_s_numbers_do_not_depend_on_its_neighbours(backend: str) -> None:
    delta, shared = torch.randn(13, 6, 21), torch.randn(6, 9)
    projection = SketchProjection(21, 9, 84)
    together, alone = torch.zeros(13, 84), torch.zeros(1, 84)
    sketch_gradients(delta, shared, together, projection)
    sketch_gradients(delta[12:], shared, alone, projection)
    torch.testing.assert_close(together[12:], alone, rtol=1e-5, atol=1e-5)


def test_an_unlabelled_branch_adds_nothing(backend: str) -> None:
    delta = torch.randn(3, 4, 5)
    delta[1] = 0
    accumulator = torch.full((3, 10), 0.25)
    sketch_gradients(delta, torch.randn(4, 6), accumulator, SketchProjection(5, 6, 10))
    assert (accumulator[1] == 0.25).all()
    assert (accumulator[0] != 0.25).any()


def test_nothing_to_add(backend: str) -> None:
    projection = SketchProjection(3, 4, 6)
    accumulator = torch.ones(2, 6)
    sketch_gradients(torch.zeros(2, 0, 3), torch.zeros(0, 4), accumulator, projection)
    assert (accumulator == 1).all()
    sketch_gradients(torch.zeros(0, 5, 3), torch.zeros(5, 4), torch.zeros(0, 6), projection)


def test_tiny_gradients_are_not_flushed(backend: str) -> None:
    delta, shared = torch.randn(2, 4, 3, dtype=torch.float64) * 1e-8, torch.randn(4, 5, dtype=torch.float64) * 1e-8
    projection = SketchProjection(3, 5, 6, dtype=torch.float64)
    accumulator = torch.zeros(2, 6, dtype=torch.float64)
    sketch_gradients(delta, shared, accumulator, projection)
    wanted = sketch_of(torch.einsum("gbo,bh->goh", delta, shared), projection)
    np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=1e-10, atol=1e-28)


@pytest.mark.parametrize("kind", ["rank one", "full rank", "one row"])
def test_squared_distances_have_the_stated_mean_and_variance(kind: str) -> None:
    outputs, inputs, per_output, draws = 12, 20, 4, 4000
    generator = torch.Generator().manual_seed(5)
    difference = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    if kind == "rank one":
        difference = difference[:, :1] * difference[:1]
    if kind == "one row":
        difference[1:] = 0
    difference /= difference.norm()

    ratios = np.empty(draws)
    for seed in range(draws):
        projection = SketchProjection(outputs, inputs, per_output * outputs, seed, torch.float64)
        numbers = (projection.directions.reshape(per_output, outputs, inputs) * difference).sum(dim=2)
        ratios[seed] = numbers.square().sum()

    rows = difference.square().sum(1)
    exact = 2 / per_output * float(rows.square().sum() - difference.pow(4).sum())
    participation = 1 / float(rows.square().sum())
    assert exact <= 2 / (per_output * participation)
    assert 1 <= participation <= outputs * (1 + 1e-12)
    assert ratios.mean() == pytest.approx(1, abs=4 * (exact / draws) ** 0.5)
    assert ratios.var() == pytest.approx(exact, rel=0.15)


def test_distances_of_many_branches_are_kept(backend: str) -> None:
    """Through the kernel, batch by batch: the error of all squared distances is what the bound says."""
    G, B, N, H = 60, 16, 50, 40
    projection = SketchProjection(N, H, 20 * N, seed=1)
    accumulator, gradients = torch.zeros(G, projection.size), torch.zeros(G, N, H)
    for _ in range(3):
        delta, shared = torch.randn(G, B, N), torch.randn(B, H)
        gradients += torch.einsum("gbo,bh->goh", delta, shared)
        sketch_gradients(delta, shared, accumulator, projection)
    i, j = torch.triu_indices(G, G, 1)
    rows = (gradients[i] - gradients[j]).square().sum(2)
    error = (accumulator[i] - accumulator[j]).square().sum(1) / rows.sum(1) - 1
    bound = (2 / projection.per_output * rows.square().sum(1) / rows.sum(1).square()).sqrt()
    assert float((error / bound).square().mean().sqrt()) < 1.3
    assert float(error.abs().max()) < 6 * float(bound.max())


def test_a_projection_is_a_function_of_its_arguments() -> None:
    state = torch.get_rng_state()
    one, same, other = (SketchProjection(5, 7, 17, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(one.directions, same.directions)
    assert not torch.equal(one.directions, other.directions)
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.size, one.per_output) == (15, 3)
    assert one.directions.shape == (15, 7)
    double = SketchProjection(5, 7, 17, seed=4, dtype=torch.float64)
    assert torch.equal(double.directions.sign(), one.directions.sign().double())
    torch.testing.assert_close(double.directions.abs(), torch.full((15, 7), 3**-0.5, dtype=torch.float64))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="each of the 5 outputs; its size is 4"):
        SketchProjection(5, 7, 4)
    with pytest.raises(ValueError, match="must be at least 1; it is 0"):
        SketchProjection(5, 0, 10)
    with pytest.raises(TypeError, match=r"float32 or float64, not torch\.float16"):
        SketchProjection(5, 7, 10, dtype=torch.float16)

    projection = SketchProjection(3, 5, 6)
    delta, shared, accumulator = torch.zeros(2, 4, 3), torch.zeros(4, 5), torch.zeros(2, 6)
    with pytest.raises(ValueError, match=r"delta must have shape \(G, B, O\)"):
        sketch_gradients(delta[0], shared, accumulator, projection)
    with pytest.raises(ValueError, match=r"shared must have shape \(B, H\)"):
        sketch_gradients(delta, shared[None], accumulator, projection)
    with pytest.raises(ValueError, match=r"gradients of shape \(3, 4\).*projection is for \(3, 5\)"):
        sketch_gradients(delta, shared[:, :4], accumulator, projection)
    with pytest.raises(ValueError, match="same batch"):
        sketch_gradients(delta, shared[:3], accumulator, projection)
    with pytest.raises(ValueError, match=r"accumulator must have shape \(2, 6\)"):
        sketch_gradients(delta, shared, accumulator[:, :5], projection)
    with pytest.raises(ValueError, match="contiguous"):
        sketch_gradients(delta, shared, torch.zeros(6, 2).t(), projection)
    with pytest.raises(TypeError, match=r"delta has dtype torch\.int64"):
        sketch_gradients(delta.long(), shared, accumulator, projection)
    with pytest.raises(TypeError, match=r"shared is torch\.float32 .* must be torch\.float16"):
        sketch_gradients(delta.half(), shared, accumulator, projection)
    with pytest.raises(TypeError, match=r"accumulator is torch\.float16 .* must be torch\.float32"):
        sketch_gradients(delta.half(), shared.half(), accumulator.half(), projection)
    with pytest.raises(TypeError, match=r"shared is torch\.float64"):
        sketch_gradients(delta, shared.double(), accumulator, projection)
    with pytest.raises(TypeError, match=r"projection is torch\.float32"):
        sketch_gradients(delta.double(), shared.double(), accumulator.double(), projection)
    delta[1, 2, 0] = float("nan")
    with pytest.raises(ValueError, match="delta holds NaN or Inf in branch 1"):
        sketch_gradients(delta, shared, accumulator, projection)
    assert accumulator.count_nonzero() == 0
    shared[3] = float("inf")
    with pytest.raises(ValueError, match="shared holds NaN or Inf in sample 3"):
        sketch_gradients(torch.zeros(2, 4, 3), shared, accumulator, projection)
