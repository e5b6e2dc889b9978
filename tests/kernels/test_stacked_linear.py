"""stacked_linear, its derivatives and its memory: every implementation against autograd on einsum in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import each_backend, forced
from selshare.kernels import stacked_linear, stacked_linear_backward, use, weight_gradient, workspace

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
# S (None: shared by all, 0: one each), G, B, O, I
CASES = [
    (None, 5, 7, 11, 13),
    (None, 40, 64, 12, 30),
    (None, 1, 3, 2, 4),
    (0, 5, 7, 11, 13),
    (0, 3, 64, 70, 65),
    (0, 2, 130, 5, 67),
    (3, 9, 7, 1, 13),
    (4, 6, 33, 3, 20),
    (0, 1, 1, 1, 1),
]


@pytest.fixture(params=each_backend("stacked_linear"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("stacked_linear", request.param)


def layers(
    case: tuple[int | None, int, int, int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Inputs that lie samples last, weight, bias and source."""
    S, G, B, N, I = case  # noqa: E741
    sources = {None: 1, 0: G}.get(S, S)
    inputs = torch.randn(sources, I, B, dtype=dtype).transpose(1, 2)
    source = torch.arange(G).flip(0) % sources if S else None
    return inputs, torch.randn(G, N, I, dtype=dtype), torch.randn(G, N, dtype=dtype), source


def definition(inputs: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, rectify: bool) -> Tensor:
    own = inputs.expand(len(weight), -1, -1) if source is None else inputs[source]
    return torch.einsum("gbi,goi->gbo", own.clamp(min=0) if rectify else own, weight) + bias.unsqueeze(1)


def close(actual: Tensor | None, wanted: Tensor | None) -> None:
    assert actual is not None
    assert wanted is not None
    tolerance = TOLERANCE[actual.dtype] * (1 + wanted.abs().max().item())
    torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_forward_and_derivatives(backend: str, dtype: torch.dtype, case: tuple[int | None, int, int, int, int]) -> None:
    for rectify in (False, True):
        inputs, weight, bias, source = layers(case, dtype)
        exact = [tensor.double().requires_grad_() for tensor in (inputs, weight, bias)]
        wanted = definition(exact[0], exact[1], exact[2], source, rectify)
        close(stacked_linear(inputs, weight, bias, source=source, rectify=rectify), wanted.detach())
        delta = torch.randn(wanted.shape, dtype=dtype)
        wanted.backward(delta.double())
        gradients = stacked_linear_backward(delta, inputs, weight, source=source, rectify=rectify)
        close(gradients.inputs, exact[0].grad)
        close(gradients.bias, exact[2].grad)
        close(weight_gradient(delta, inputs, source=source, rectify=rectify), exact[1].grad)


@pytest.mark.parametrize("case", [(None, 5, 40, 11, 13), (0, 5, 7, 11, 70), (3, 9, 40, 1, 13), (4, 6, 33, 3, 70)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_added_up_in_float32(
    backend: str, dtype: torch.dtype, case: tuple[int | None, int, int, int, int]
) -> None:
    inputs, weight, bias, source = layers(case, torch.float32)
    halves = [tensor.to(dtype) for tensor in (inputs, weight, bias)]
    exact = [tensor.double().requires_grad_() for tensor in halves]
    wanted = definition(exact[0], exact[1], exact[2], source, True)
    outputs = stacked_linear(*halves, source=source, rectify=True)
    delta = torch.randn(wanted.shape).to(dtype)
    wanted.backward(delta.double())
    gradients = stacked_linear_backward(delta, halves[0], halves[1], source=source, rectify=True)
    by_weight = weight_gradient(delta, halves[0], source=source, rectify=True)
    found = [outputs, gradients.inputs, by_weight, gradients.bias]
    for one, exactly in zip(found, [wanted.detach(), exact[0].grad, exact[1].grad, exact[2].grad], strict=True):
        assert one is not None
        assert one.dtype == dtype
        # Rounded once: half a unit in the last place, beside what float32 sums lose. Triton's interpreter cuts off.
        units = 1.01 if backend == "triton" else 0.51
        rtol, atol = units * torch.finfo(dtype).eps, 1e-5 * (1 + exactly.abs().max().item())
        torch.testing.assert_close(one.double(), exactly, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_of_many_heads_do_not_stop_where_half_precision_would(backend: str, dtype: torch.dtype) -> None:
    heads, samples = 4104, 300  # beyond 2048 and 256, float16 and bfloat16 hold no odd numbers
    source = torch.zeros(heads, dtype=torch.int64)
    inputs = torch.ones(2, samples, 1, dtype=dtype)
    delta, weight = inputs.new_ones(heads, samples, 1), inputs.new_ones(heads, 1, 1)
    gradients = stacked_linear_backward(delta[:, :3], inputs[:, :3], weight, source=source)
    assert gradients.inputs is not None
    assert gradients.inputs[0].flatten().tolist() == [torch.tensor(4104.0, dtype=dtype).item()] * 3
    assert (weight_gradient(delta[:2], inputs, source=source[:2]) == 300).all()


def test_only_what_is_asked_for(backend: str) -> None:
    inputs, weight, _, _ = layers((0, 3, 4, 5, 6), torch.float32)
    delta = torch.randn(3, 4, 5)
    bias_only = stacked_linear_backward(delta, inputs, weight, needs_inputs=False)
    assert bias_only.inputs is None
    close(bias_only.bias, delta.double().sum(1))
    assert stacked_linear_backward(delta, inputs, weight, needs_bias=False).bias is None


def test_an_input_no_layer_reads_has_no_gradient(backend: str) -> None:
    inputs, weight, _, _ = layers((0, 3, 4, 5, 6), torch.float64)
    source = torch.tensor([2, 0, 2])
    gradients = stacked_linear_backward(torch.randn(3, 4, 5, dtype=torch.float64), inputs, weight, source=source)
    assert gradients.inputs is not None
    assert (gradients.inputs[1] == 0).all()


def test_any_strides(backend: str) -> None:
    inputs = torch.randn(6, 3, 10, dtype=torch.float64)[::2].transpose(1, 2)[:, ::2]  # (3, 5, 3)
    weight, delta = (
        torch.randn(3, 4, 3, dtype=torch.float64),
        torch.randn(5, 4, 3, dtype=torch.float64).permute(2, 0, 1),
    )
    bias = torch.zeros(3, 4, dtype=torch.float64)
    close(stacked_linear(inputs, weight, bias), definition(inputs, weight, bias, None, False))
    close(weight_gradient(delta, inputs), torch.einsum("gbo,gbi->goi", delta, inputs))
    close(stacked_linear_backward(delta, inputs, weight).inputs, torch.einsum("gbo,goi->gbi", delta, weight))


def test_rectify_keeps_nan(backend: str) -> None:
    inputs = torch.tensor([[[torch.nan, -1.0]]])
    assert stacked_linear(inputs, torch.ones(1, 1, 2), None, rectify=True).isnan().all()


def test_the_sum_over_layers_does_not_depend_on_threads() -> None:
    inputs, weight, _, _ = layers((None, 100, 16, 20, 30), torch.float32)
    delta = torch.randn(100, 16, 20)
    sums = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sums.append(stacked_linear_backward(delta, inputs, weight).inputs)
    assert torch.equal(sums[0], sums[1])


def test_refusals() -> None:
    inputs, weight, bias = torch.zeros(3, 4, 6), torch.zeros(3, 5, 6), torch.zeros(3, 5)
    with pytest.raises(ValueError, match="read 6 features, but inputs have 5"):
        stacked_linear(inputs[:, :, :5], weight, bias)
    with pytest.raises(ValueError, match="3 layers and 2 inputs"):
        stacked_linear(inputs[:2], weight, bias)
    with pytest.raises(ValueError, match="source must be int64"):
        stacked_linear(inputs, weight, bias, source=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="source must name inputs 0 to 2"):
        stacked_linear(inputs, weight, bias, source=torch.tensor([0, 3, 1]))
    with pytest.raises(TypeError, match=r"bias is torch\.float64"):
        stacked_linear(inputs, weight, bias.double())
    with pytest.raises(TypeError, match=r"weight is torch\.float32 .*inputs torch\.float16"):
        stacked_linear(inputs.half(), weight, bias)
    with pytest.raises(TypeError, match=r"inputs has dtype torch\.int64"):
        weight_gradient(torch.zeros(3, 4, 5, dtype=torch.int64), inputs.long())
    with pytest.raises(ValueError, match=r"delta must have shape \(3, 4, 5\)"):
        stacked_linear_backward(torch.zeros(3, 4, 6), inputs, weight)


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    workspace.release()
    like = torch.empty(0)
    first = workspace.empty((1 << 19,), like)
    first.fill_(1.0)
    address, view = first.data_ptr(), first[5:]
    del first
    second = workspace.empty((1 << 19,), like)
    assert second.data_ptr() != address, "a view is alive"
    assert (view == 1.0).all()
    del view
    assert workspace.idle_bytes() == 4 << 19
    assert workspace.empty((1 << 19,), like).data_ptr() == address
    assert workspace.empty((1 << 18,), like).numel() == 1 << 18, "much smaller ones have memory of their own"
    assert workspace.empty((3,), like.double()).dtype == torch.float64


def test_memory_that_stays_idle_is_given_up() -> None:
    workspace.release()
    like = torch.empty(0)
    del_me = workspace.empty((1 << 20,), like)
    del del_me
    for _ in range(workspace.PATIENCE + 2):
        workspace.empty((1 << 18,), like)
    assert workspace.idle_bytes() < 4 << 20


NARROW = """
import torch
from selshare.kernels import fused_adam_step, stacked_linear, stacked_linear_backward, use, weight_gradient
torch.manual_seed(0)
for dtype in (torch.float32, torch.float64):
    inputs, weight = torch.randn(5, 13, 19, dtype=dtype).transpose(1, 2), torch.randn(5, 11, 13, dtype=dtype)
    delta, results = torch.randn(5, 11, 19, dtype=dtype).transpose(1, 2), []
    for name in ("native", "reference"):
        with use(name):
            state = [torch.zeros_like(weight) for _ in range(4)]
            fused_adam_step(delta, inputs, *state, step=1, lr=1.0, rectify=True)
            results.append([stacked_linear(inputs, weight, None, rectify=True), weight_gradient(delta, inputs),
                            *stacked_linear_backward(delta, inputs, weight, rectify=True), *state[1:]])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
"""


@pytest.mark.parametrize("bytes_", ["16", "32"])
def test_narrower_vectors_than_this_processor_has(bytes_: str) -> None:
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "SELSHARE_VECTOR_BYTES": bytes_, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", NARROW], env=environment, cwd=Path(__file__).parent, check=True)


def test_native_and_reference_agree_to_rounding() -> None:
    inputs, weight, bias, _ = layers((0, 7, 50, 20, 40), torch.float32)
    with use("reference"):
        wanted = stacked_linear(inputs, weight, bias)
    with use("native", "reference"):
        torch.testing.assert_close(stacked_linear(inputs, weight, bias), wanted, rtol=1e-5, atol=1e-5)
