"""Dropout in compiled code: its words, its share, its derivatives, where it is used, and under a ReLU that waits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selshare.kernels import use
from selshare.model import BranchBank
from selshare.model.dropout import dropout
from selshare.model.stacked_linear import fork_linear, stacked_linear

LARGE = 1_000_003
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
VECTORS = [  # kat_vectors of Random123 for philox4x32-10: counter, key, words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of counters ``(4, N)``, in 64-bit integers: four words ``(4, N)``."""
    x0, x1, x2, x3 = counter.astype(np.uint64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for number in range(10):
        first, second = (np.uint64((key[i] + number * (0x9E3779B9, 0xBB67AE85)[i]) % 2**32) for i in (0, 1))
        left, right = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (right >> half) ^ x1 ^ first, right & low, (left >> half) ^ x3 ^ second, left & low
    return np.stack([x0, x1, x2, x3])


def predicted_mask(key: int, count: int, p: float, dtype: torch.dtype) -> Tensor:
    """The factors of all units: unit 128 k + 16 h + l takes half-word h of counter 16 k + l."""
    chunks = -(-count // 128)
    counter = np.zeros((4, 16 * chunks), dtype=np.uint64)
    counter[0] = np.arange(16 * chunks)
    words = philox(counter, (key % 2**32, key >> 32)).reshape(4, chunks, 16)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=1).reshape(8, chunks, 16)
    order = torch.from_numpy(halves.transpose(1, 0, 2).reshape(-1)[:count].astype(np.int64))
    threshold = round(p * 65536)
    scale = torch.full((count,), 65536 / (65536 - threshold), dtype=torch.float64)
    return scale.masked_fill_(order < threshold, 0.0).to(dtype)


def key_of(seed: int) -> int:
    """Seed torch's generator; the key that the next call will draw."""
    torch.manual_seed(seed)
    key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)) % 2**64
    torch.manual_seed(seed)
    return key


def same(actual: Tensor, expected: Tensor) -> None:
    """Equal to the bit, NaN for NaN."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_the_tests_own_generator_gives_the_published_words(counter, key, words) -> None:
    assert philox(np.array(counter)[:, None], key)[:, 0].tolist() == list(words)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 127, 128, 129, LARGE])
def test_every_unit_meets_the_factor_that_its_key_and_place_give(count: int, dtype: torch.dtype) -> None:
    features = torch.randn(count, dtype=dtype)
    for seed, p in ((3, 0.2), (4, 0.9)):
        mask = predicted_mask(key_of(seed), count, p, dtype)
        same(dropout(features, p), features * mask)


@pytest.mark.parametrize("p", [2**-16, 0.2, 0.5, 1 - 2**-16])
def test_extreme_rates_are_exact_and_the_share_dropped_is_the_rate(p: float) -> None:
    mask = dropout(torch.ones(LARGE, dtype=torch.float64), p)
    rate = round(p * 65536) / 65536
    assert abs(rate - p) <= 2**-17
    deviation = (rate * (1 - rate) / LARGE) ** 0.5
    assert abs((mask == 0).double().mean().item() - rate) < 4 * deviation
    assert abs(mask.mean().item() - 1) < 4 * deviation / (1 - rate)
    assert set(mask.unique().tolist()) <= {0.0, 1 / (1 - rate)}


@pytest.mark.parametrize("lag", [1, 2, 8, 16, 64, 100, 128, 6400])
def test_units_are_dropped_independently_of_each_other(lag: int) -> None:
    kept = (dropout(torch.ones(LARGE), 0.5) != 0).double() - 0.5
    correlation = 4 * (kept[lag:] * kept[:-lag]).mean().item()
    assert abs(correlation) < 4 / LARGE**0.5


def test_a_seed_a_saved_state_and_fork_rng_give_the_same_mask_again() -> None:
    ones = torch.ones(1000)
    torch.manual_seed(5)
    first, state, second = dropout(ones, 0.5), torch.get_rng_state(), dropout(ones, 0.5)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    same(dropout(ones, 0.5), second)
    torch.manual_seed(5)
    with torch.random.fork_rng():
        same(dropout(ones, 0.5), first)
    same(dropout(ones, 0.5), first)
    torch.manual_seed(6)
    assert not torch.equal(dropout(ones, 0.5), first)


def test_every_branch_has_a_mask_of_its_own() -> None:
    masks = dropout(torch.ones(4, 64, 100), 0.5)
    agreement = [(masks[a] == masks[b]).double().mean().item() for a in range(4) for b in range(a)]
    assert all(abs(share - 0.5) < 4 * 0.5 / 6400**0.5 for share in agreement)


def test_nan_and_infinity_are_kept_or_become_nan_as_in_torch() -> None:
    features = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0]).repeat(50)
    mask = predicted_mask(key_of(1), 200, 0.5, torch.float32)
    result = dropout(features, 0.5)
    same(result, features * mask)
    assert bool(result[mask == 0].isnan().any())
    assert bool(result[mask != 0].isinf().any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_change_nothing(dtype: torch.dtype) -> None:
    features, results = torch.randn(LARGE, dtype=dtype), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(2)
            results.append(dropout(features, 0.2))
    finally:
        torch.set_num_threads(2)
    same(results[1], results[0])
    same(results[2], results[0])


def test_strides_are_kept_and_gaps_closed() -> None:
    whole = torch.randn(3, 10, 14)
    for features in (whole.transpose(1, 2), whole[:, :1].transpose(0, 2), whole.permute(2, 0, 1)):
        mask = predicted_mask(key_of(8), features.numel(), 0.3, torch.float32)
        result = dropout(features, 0.3)
        same(result, features * mask.as_strided(features.shape, result.stride()))
    assert dropout(whole.transpose(1, 2), 0.3).stride() == whole.transpose(1, 2).stride()
    negative = torch.randn(4, 5, dtype=torch.complex128).conj().imag
    for features in (whole[:, :, ::2], whole[:1].expand(4, 10, 14), whole[:, 1:], negative):
        mask = predicted_mask(key_of(9), features.numel(), 0.3, features.dtype)
        same(dropout(features, 0.3), features * mask.view(features.shape))


@pytest.mark.parametrize("transposed", [False, True])
def test_derivatives(transposed: bool) -> None:
    features = torch.randn(4, 3, 9, dtype=torch.float64, requires_grad=True)

    def run(features: Tensor) -> Tensor:
        torch.manual_seed(3)
        return dropout(features.transpose(1, 2) if transposed else features, 0.4)

    assert torch.autograd.gradcheck(run, (features,))
    assert torch.autograd.gradgradcheck(run, (features,))
    assert torch.autograd.gradgradcheck(lambda features: run(features).pow(3), (features,))


def test_the_gradient_is_the_mask_whatever_its_strides() -> None:
    features = torch.randn(6, 50, 20).transpose(1, 2).requires_grad_()
    delta = torch.randn(6, 20, 50)
    mask = predicted_mask(key_of(4), 6000, 0.4, torch.float32).view(6, 50, 20).transpose(1, 2)
    outputs = dropout(features, 0.4)
    for given in (delta, delta.transpose(1, 2).contiguous().transpose(1, 2), delta[:1, :1, :1].expand(6, 20, 50)):
        (gradient,) = torch.autograd.grad(outputs, [features], given, retain_graph=True)
        same(gradient, given * mask)
    rows = torch.randn(3, 6, 20, 50)
    (batched,) = torch.autograd.grad(outputs, [features], rows, is_grads_batched=True, retain_graph=True)
    same(batched, rows * mask)


@pytest.mark.parametrize("p", [0.0, 2**-18, 1 - 2**-18, 1.0])
def test_rates_beyond_sixteen_bits_are_torchs(p: float) -> None:
    torch.manual_seed(1)
    result = dropout(torch.ones(1000), p)
    torch.manual_seed(1)
    same(result, torch.dropout(torch.ones(1000), p, train=True))


def of_backend(features: Tensor) -> Tensor:
    with use("reference"):
        return dropout(features, 0.3)


def under_autocast(features: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return dropout(features, 0.3)


@pytest.mark.parametrize("run", [of_backend, under_autocast], ids=["another backend", "autocast"])
def test_elsewhere_it_is_torchs(run) -> None:
    torch.manual_seed(1)
    result = run(torch.ones(1000))
    torch.manual_seed(1)
    same(result, torch.dropout(torch.ones(1000), 0.3, train=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    result = dropout(torch.ones(1000, dtype=dtype), 0.3)
    torch.manual_seed(1)
    same(result, torch.dropout(torch.ones(1000, dtype=dtype), 0.3, train=True))


def test_compiled_and_transformed_it_is_torchs() -> None:
    ones = torch.ones(1000)
    torch.manual_seed(1)
    expected = torch.dropout(ones, 0.3, train=True)
    torch.manual_seed(1)
    same(torch.compile(dropout, fullgraph=True, backend="eager")(ones, 0.3), expected)
    torch.manual_seed(1)
    same(torch.func.grad(lambda features: dropout(features, 0.3).sum())(ones), expected)
    rows = torch.func.vmap(lambda features: dropout(features, 0.3), randomness="different")(torch.ones(2, 1000))
    assert not torch.equal(rows[0], rows[1])


def rectified_bank(*, inplace: bool = False, p: float = 0.4) -> BranchBank:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 30), nn.ReLU(), nn.Dropout(p, inplace), nn.Linear(30, 20), nn.ReLU(), nn.Dropout(p, inplace)]
    bank = BranchBank(nn.Sequential(*layers), 5)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return bank


def by_hand(bank: BranchBank, shared: Tensor, p: float = 0.4) -> Tensor:
    """ReLU first, then dropout."""
    first, second = (layer for layer in bank.stacked if isinstance(layer, nn.Linear))
    hidden = dropout(torch.relu(fork_linear(shared, first.weight, first.bias)), p)
    return dropout(torch.relu(stacked_linear(hidden, second.weight, second.bias)), p)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_relu_that_waits_across_dropout_gives_the_same(backend: str, inplace: bool) -> None:
    bank, shared = rectified_bank(inplace=inplace), torch.randn(8, 6)
    results = []
    with use(backend):
        assert bank.unrectified(shared)[1], "the last ReLU is left to the heads"
        for run in (bank, lambda shared: by_hand(bank, shared)):
            bank.zero_grad()
            torch.manual_seed(11)
            outputs = run(shared)
            outputs.square().sum().backward()
            results.append([outputs, *(parameter.grad for parameter in bank.parameters())])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_evaluation_drops_nothing_and_draws_nothing() -> None:
    bank, shared = rectified_bank().eval(), torch.randn(8, 6)
    state = torch.get_rng_state()
    same(bank(shared), by_hand(bank, shared, p=0.0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(bank.train()(shared), bank.eval()(shared))
