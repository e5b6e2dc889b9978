"""Steps that never wait for the GPU, and steps captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_training import BATCH, digit_data, digit_model, no_waiting, step
from selshare import kernels
from selshare.optim import BankAdam, BankSGD
from selshare.sharing import SelectiveSharing
from selshare.sharing.capture import make_capture

REPLAYS = 3
Optimizer = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "BankSGD": partial(BankSGD, lr=0.02, momentum=0.5),
    "BankAdam": partial(BankAdam, lr=1e-3),
    "torch's SGD": partial(torch.optim.SGD, lr=0.02, momentum=0.5),
}


def step_items(device: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is tried, by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for capture in ("exact", "sketch"):
        for name, make in OPTIMIZERS.items():
            found[f"no waiting: {name}, {capture} capture"] = partial(step_without_waiting, device, make, capture)
    found["no waiting: merged branches"] = partial(step_without_waiting, device, OPTIMIZERS["BankSGD"], "exact", 3)
    for name, make in kernel_calls(device).items():
        found[f"CUDA graph: {name}"] = partial(replayed_kernel_agrees, make)
    capturable = partial(BankAdam, lr=1e-3, capturable=True)
    for name, make in {"BankSGD": OPTIMIZERS["BankSGD"], "BankAdam": capturable, **_torch_adam()}.items():
        for capture in ("exact", "sketch"):
            title = f"CUDA graph: a whole training step, {name}, {capture} capture"
            found[title] = partial(replayed_step_agrees, device, make, capture)
    found["CUDA graph: a whole training step, merged branches"] = partial(
        replayed_step_agrees, device, OPTIMIZERS["BankSGD"], "exact", 3
    )
    return found


def _torch_adam() -> dict[str, Optimizer]:
    """torch's own, for which the gradient is formed."""
    return {"torch's Adam": partial(torch.optim.Adam, lr=1e-3, capturable=True)}


def step_without_waiting(device: str, make: Optimizer, capture: str, branches: int = 10) -> dict[str, Any]:
    """Steps under torch's check, which raises ``RuntimeError`` where the host waits."""
    inputs, targets = (part[:BATCH].to(device) for part in digit_data())
    model = digit_model().to(device)
    optimizer = make(model.parameters())
    sharing = SelectiveSharing("similarity", capture=capture)
    if branches < len(model.tasks):  # all tasks share: there is nothing left to capture
        merge_to(model, branches)
    else:
        sharing.attach(model, optimizer)
    try:
        model.train()
        step(model, optimizer, inputs, targets)  # compiles and allocates
        with no_waiting(device):
            step(model, optimizer, inputs, targets)
    finally:
        sharing.detach()
    return {"passed": True}


def merge_to(model: Any, branches: int) -> None:
    """Leave that many branches, whose tasks are every ``branches``-th."""
    from selshare.sharing import MergePlan, apply

    tasks = len(model.tasks)
    groups = tuple(tuple(range(first, tasks, branches)) for first in range(branches))
    apply(MergePlan(tasks, groups, tuple(group[0] for group in groups), "best"), model, ())


def kernel_calls(device: str) -> dict[str, Callable[[], tuple[Callable[[list[Tensor]], None], list[Tensor]]]]:
    """The operations of a step: each a call that changes tensors, and the tensors."""

    def gradients(states: int, call: Callable[..., None]) -> Any:
        def make() -> Any:
            torch.manual_seed(0)
            delta, shared = torch.randn(20, 16, 30, device=device), torch.randn(16, 50, device=device)
            return partial(call, delta, shared), [torch.zeros(20, 30, 50, device=device) for _ in range(states)]

        return make

    def heads(delta: Tensor, shared: Tensor, state: list[Tensor]) -> None:
        source = torch.zeros(30, dtype=torch.int64, device=device)
        weight, bias = delta[0, :1].expand(30, 1, 30).contiguous(), delta[0, 0, :, None].contiguous()
        inputs = delta[:2].contiguous()
        outputs = kernels.stacked_linear(inputs, weight, bias, source=source, rectify=True)
        back = kernels.stacked_linear_backward(outputs, inputs, weight, source=source, rectify=True)
        assert back.inputs is not None
        state[0].flatten()[: back.inputs.numel()].add_(back.inputs.flatten())

    def capture(delta: Tensor, shared: Tensor, state: list[Tensor]) -> None:
        kernels.capture_gradients(delta, shared, *state, check_finite=False)

    def sgd(delta: Tensor, shared: Tensor, state: list[Tensor]) -> None:
        kernels.fused_sgd_step(delta, shared, *state, lr=0.1, momentum=0.9, check_finite=False)

    def adam(delta: Tensor, shared: Tensor, state: list[Tensor]) -> None:
        kernels.fused_adam_step(delta, shared, *state, step=1, lr=0.1, check_finite=False)

    def sketch() -> Any:
        torch.manual_seed(0)
        delta, shared = torch.randn(20, 16, 30, device=device), torch.randn(16, 50, device=device)
        projection = kernels.SketchProjection(30, 50, 240, 0, torch.float32, torch.device(device))

        def call(state: list[Tensor]) -> None:
            kernels.sketch_gradients(delta, shared, *state, projection, check_finite=False)

        return call, [torch.zeros(20, projection.size, device=device)]

    return {
        "capture_gradients": gradients(1, capture),
        "fused_sgd_step": gradients(3, sgd),
        "fused_adam_step": gradients(4, adam),
        "sketch_gradients": sketch,
        "stacked_linear and its backward": gradients(1, heads),
    }


def replayed_kernel_agrees(make: Callable[[], Any]) -> dict[str, Any]:
    """Replaying a captured call gives what calling it gives, to the bit."""
    call, called = make()
    replayed = [one.clone() for one in called]
    call([one.clone() for one in called])  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(replayed)
    for _ in range(REPLAYS):
        graph.replay()
        call(called)
    torch.cuda.synchronize()
    for one, other in zip(called, replayed, strict=True):
        if not torch.equal(one, other):
            raise AssertionError("a replayed call differs from the call itself")
    return {"passed": True}


def replayed_step_agrees(device: str, make: Optimizer, capture: str, branches: int = 10) -> dict[str, Any]:
    """Forward, losses, backward, capture and update, replayed from a graph, give what eager steps give.

    That is: all weights, the record of losses, and what was captured. Targets are given task by task, in two types.
    """
    inputs, packed = (part[:BATCH].to(device) for part in digit_data())
    found = []
    for captured in (False, True):
        model = digit_model().to(device).train()
        named = zip(model.layout.names, packed.unbind(1), strict=True)
        targets = {name: column.long() if at % 2 else column for at, (name, column) in enumerate(named)}
        optimizer = make(model.parameters())
        if branches < len(model.tasks):
            merge_to(model, branches)
        watching = make_capture(SelectiveSharing(capture=capture).settings)
        watching.start(model, [optimizer])
        once = partial(step, model, optimizer, inputs, targets)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as torch asks of a warm-up
            for _ in range(REPLAYS):
                once()
        torch.cuda.current_stream().wait_stream(side)
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                once()
        for _ in range(REPLAYS):
            graph.replay() if captured else once()
        torch.cuda.synchronize()
        results = [*model.parameters(), watching.gradients(), model.recorded_losses()]
        found.append([one.detach().clone() for one in results])
        watching.stop()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    return {"passed": True}
