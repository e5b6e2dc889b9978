"""capture_gradients: every implementation against numpy in float64, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends import each_backend, forced
from selshare.kernels import capture_gradients, use

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


@pytest.fixture(params=each_backend("capture_gradients"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("capture_gradients", request.param)


def expected(delta: torch.Tensor, shared: torch.Tensor, accumulator: torch.Tensor, scale: float) -> np.ndarray:
    """Sample by sample outer products, in float64."""
    total = accumulator.double().numpy().copy()
    for g in range(delta.shape[0]):
        inputs = (shared if shared.ndim == 2 else shared[g]).double().numpy()
        for b in range(delta.shape[1]):
            total[g] += scale * np.outer(delta[g, b].double().numpy(), inputs[b])
    return total


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 11), (2, 64, 100, 30), (5, 17, 33, 65), (40, 3, 2, 4)])
def test_adds_the_scaled_gradient(backend: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    G, B, N, H = shape
    for shared in (torch.randn(B, H, dtype=dtype), torch.randn(G, B, H, dtype=dtype)):
        delta, accumulator = torch.randn(G, B, N, dtype=dtype), torch.randn(G, N, H, dtype=dtype)
        wanted = expected(delta, shared, accumulator, 0.5)
        capture_gradients(delta, shared, accumulator, scale=0.5)
        np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=0, atol=TOLERANCE[dtype] * np.abs(wanted).max())


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(1, 80), st.booleans(), st.integers(0, 99))
def test_any_small_shape_on_every_backend(G: int, B: int, N: int, H: int, per_branch: bool, seed: int) -> None:
    torch.manual_seed(seed)
    delta, shared = torch.randn(G, B, N), torch.randn(*([G] if per_branch else []), B, H)
    for name in each_backend("capture_gradients"):
        accumulator = torch.zeros(G, N, H)
        with use(name, "reference"):
            capture_gradients(delta, shared, accumulator)
        wanted = torch.einsum("gbo,gbh->goh", delta.double(), shared.double().expand(G, B, H))
        torch.testing.assert_close(accumulator.double(), wanted, rtol=0, atol=1e-5 * (1 + wanted.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_are_added_up_in_float32(backend: str, dtype: torch.dtype) -> None:
    delta, shared = torch.randn(3, 40, 7).to(dtype), torch.randn(40, 11).to(dtype)
    accumulator = torch.randn(3, 7, 11)
    wanted = expected(delta, shared, accumulator, 0.5)
    capture_gradients(delta, shared, accumulator, scale=0.5)
    np.testing.assert_allclose(accumulator.numpy(), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


def test_strided_inputs(backend: str) -> None:
    delta = torch.randn(8, 6, 5).transpose(0, 1)  # (G, B, O) seen in a (B, G, O) tensor
    shared = torch.randn(7, 8).t()
    accumulator = torch.zeros(6, 5, 7)
    capture_gradients(delta, shared, accumulator)
    torch.testing.assert_close(accumulator, torch.einsum("gbo,bh->goh", delta, shared), rtol=1e-5, atol=1e-5)


def test_an_unlabelled_branch_adds_nothing(backend: str) -> None:
    delta = torch.randn(3, 4, 5)
    delta[1] = 0
    accumulator = torch.full((3, 5, 6), 0.25)
    capture_gradients(delta, torch.randn(4, 6), accumulator)
    assert (accumulator[1] == 0.25).all()
    assert (accumulator[0] != 0.25).any()


@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (3, 4, 5, 0)])
def test_nothing_to_add_to(backend: str, shape: tuple[int, int, int, int]) -> None:
    G, B, N, H = shape
    capture_gradients(torch.zeros(G, B, N), torch.zeros(B, H), torch.zeros(G, N, H))


def test_an_empty_batch_adds_nothing(backend: str) -> None:
    accumulator = torch.ones(2, 3, 4)
    capture_gradients(torch.zeros(2, 0, 3), torch.zeros(0, 4), accumulator)
    assert (accumulator == 1).all()


def test_tiny_gradients_are_not_flushed(backend: str) -> None:
    delta = torch.randn(2, 4, 3, dtype=torch.float64) * 1e-8
    shared = torch.randn(4, 5, dtype=torch.float64) * 1e-8
    accumulator = torch.zeros(2, 3, 5, dtype=torch.float64)
    capture_gradients(delta, shared, accumulator)
    torch.testing.assert_close(accumulator, torch.einsum("gbo,bh->goh", delta, shared), rtol=1e-12, atol=0)


def test_refusals() -> None:
    delta, shared, accumulator = torch.zeros(2, 4, 3), torch.zeros(4, 5), torch.zeros(2, 3, 5)
    with pytest.raises(ValueError, match=r"delta must have shape \(G, B, O\)"):
        capture_gradients(delta[0], shared, accumulator)
    with pytest.raises(ValueError, match="shared must have shape"):
        capture_gradients(delta, shared[0], accumulator)
    with pytest.raises(ValueError, match="same batch"):
        capture_gradients(delta, shared[:3], accumulator)
    with pytest.raises(ValueError, match=r"accumulator must have shape \(2, 3, 5\)"):
        capture_gradients(delta, shared, accumulator[:1])
    with pytest.raises(ValueError, match="contiguous"):
        capture_gradients(delta, shared, torch.zeros(2, 5, 3).transpose(1, 2))
    with pytest.raises(TypeError, match=r"shared is torch\.float32 .* must be torch\.float16"):
        capture_gradients(delta.half(), shared, accumulator)
    with pytest.raises(TypeError, match=r"accumulator is torch\.float64 .* must be torch\.float32"):
        capture_gradients(delta.half(), shared.half(), accumulator.double())
    with pytest.raises(TypeError, match=r"delta has dtype torch\.int64"):
        capture_gradients(delta.long(), shared.long(), accumulator.long())
    with pytest.raises(TypeError, match=r"shared is torch\.float64"):
        capture_gradients(delta, shared.double(), accumulator)
    delta[1, 2, 0] = float("nan")
    with pytest.raises(ValueError, match="delta holds NaN or Inf in branch 1"):
        capture_gradients(delta, shared, accumulator)
    shared[3] = float("inf")
    with pytest.raises(ValueError, match="shared holds NaN or Inf in sample 3"):
        capture_gradients(torch.zeros(2, 4, 3), shared, accumulator)
