"""A training step on a GPU makes the host wait for nothing, runs the Triton kernels, and fits into a CUDA graph.

Without a GPU: tensors of the meta device stand in for those of one. They have shapes and no values, so whatever looks
at a value raises, and what launches a kernel is recorded in its place. A graph replays the launches of one step: it
does what the next step does if that one has the same launches, and copies nothing from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from selshare import BankAdam, BankSGD, MultiTaskModel, SelectiveSharing, Task
from selshare.kernels import backend, checks
from selshare.model import stacked_linear
from selshare.sharing.capture import make_capture

TASKS = [
    Task.binary("apples"),
    Task.binary("pears", weight=2.0),
    Task.multiclass("century", classes=3),
    Task.regression("year", loss="huber"),
    Task.ranking("striped"),
    Task.multilabel("colours", labels=3),
]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "BankSGD": partial(BankSGD, lr=0.1, momentum=0.5),
    "BankAdam": BankAdam,
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.5),
}


class Used(list[str]):
    """The implementations that were chosen, and each launch as data."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[Any] = []


def as_data(launch: Any) -> Any:
    """All of a launch that a graph freezes."""
    arguments = {
        name: (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value
        for name, value in launch.arguments.items()
    }
    return launch.kernel, launch.programs, arguments, launch.options


class _NoTensorsOfData(TorchFunctionMode):
    """No tensor is made of Python's numbers on the device: that copies from pageable memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and result.device.type != "cpu":
            raise AssertionError(f"{func.__name__} copies from the host")
        return result


class _NoCopies(TorchDispatchMode):
    """No tensor is copied from the host to the device."""

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        given: Mapping[str, Any] = kwargs or {}
        result = func(*args, **given)
        name = func.overloadpacket.__name__
        source = args[1] if name == "copy_" else args[0] if name == "_to_copy" else None
        if isinstance(source, Tensor) and source.device.type == "cpu" and result.device.type != "cpu":
            raise AssertionError(f"{func} copies from the host")
        return result


@contextmanager
def nothing_from_the_host() -> Iterator[None]:
    with _NoTensorsOfData(), _NoCopies():
        yield


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Used:
    """Meta tensors take the Triton implementations, up to the launch; what was used."""
    pytest.importorskip("triton", reason="triton is not installed")
    from selshare.kernels.launch import Launch

    used = Used()
    choose = backend.choose

    def choosing(operation: str, device: str) -> backend.Implementation:
        chosen = choose(operation, device)
        used.append(f"{operation} on {chosen.backend}")
        return chosen

    for operation in backend.operations():
        rows = [
            replace(row, devices=("meta",), missing=backend.nothing_missing) if row.backend == "triton" else row
            for row in backend.implementations(operation)
        ]
        monkeypatch.setitem(backend._REGISTRY, operation, rows)
    monkeypatch.setattr(backend, "choose", choosing)
    monkeypatch.setattr(Launch, "run", lambda launch: used.launches.append(as_data(launch)))
    monkeypatch.setattr(checks, "WITHOUT_VALUES", ())
    monkeypatch.setattr(stacked_linear, "DEVICES", ("meta",))
    autocast = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device != "meta" and autocast(device))
    return used


def model_of(tasks: list[Task]) -> MultiTaskModel:
    trunk = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1)
    )
    return MultiTaskModel(trunk, 64, (10, 6), tasks, dropout=0.2)


def train(model: MultiTaskModel, optimizer: torch.optim.Optimizer, targets: Any, steps: int = 2) -> Tensor:
    inputs = torch.randn(8, 1, 8, 8, device="meta")
    loss = inputs
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    return loss


@pytest.mark.parametrize(
    ("name", "capture", "merged"),
    [
        ("BankSGD", "exact", False),
        ("BankSGD", "sketch", True),
        ("BankSGD", "free", False),
        ("BankAdam", "exact", True),
        ("SGD", "exact", False),
        ("SGD", "sketch", True),
    ],
)
def test_steps_captures_and_losses_look_at_no_value(launched: Used, name: str, capture: str, merged: bool) -> None:
    model = model_of(TASKS).to("meta")
    if merged:
        model._one_to_one = False
    optimizer = OPTIMIZERS[name](model.parameters())
    settings = SelectiveSharing(capture=capture, sketch_size=60, sketch_above=0).settings
    watching = make_capture(settings)
    watching.start(model, [optimizer])
    targets = torch.zeros(8, model.layout.target_width, device="meta")
    loss = train(model.train(), optimizer, targets)
    watching.stop()
    with pytest.raises(RuntimeError, match="meta"):  # that is what looking at a value does
        loss.item()
    step = {"BankSGD": "fused_sgd_step on triton", "BankAdam": "fused_adam_step on triton"}.get(name)
    assert step is None or step in launched, launched
    assert ("sketch_gradients on triton" in launched) == (step is not None and capture == "sketch"), launched
    assert {one.rpartition(" ")[2] for one in launched} == {"triton"}


def test_a_step_that_looks_is_noticed(launched: Used) -> None:
    class Looking(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs if bool(torch.isfinite(inputs).all()) else inputs * 0

    model = model_of(TASKS).to("meta")
    model.trunk.append(Looking())  # type: ignore[operator]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        train(model, OPTIMIZERS["BankSGD"](model.parameters()), torch.zeros(8, model.layout.target_width))


def targets_by_task() -> dict[str, Tensor]:
    """Of several types and numbers of dimensions."""
    return {
        "apples": torch.zeros(8, dtype=torch.int64, device="meta"),
        "pears": torch.zeros(8, 1, device="meta"),
        "century": torch.zeros(8, dtype=torch.int64, device="meta"),
        "year": torch.zeros(8, device="meta"),
        "striped": torch.zeros(8, device="meta"),
        "colours": torch.zeros(8, 3, dtype=torch.bool, device="meta"),
    }


@pytest.mark.parametrize("capture", ["exact", "sketch"])
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("name", ["BankSGD", "capturable BankAdam", "BankAdam"])
def test_a_graph_of_one_step_does_what_the_next_does(launched: Used, name: str, merged: bool, capture: str) -> None:
    model = model_of(TASKS).to("meta").train()
    if merged:
        model._one_to_one = False
    # torch's Adam refuses to count on a device that it does not know, as meta: only what the fused step takes has ours.
    stacked = [model.bank.first_weight]
    others = [weight for weight in model.parameters() if weight is not stacked[0]]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.SGD(others, lr=0.1, momentum=0.5)]
    if name == "BankSGD":
        optimizers.append(BankSGD(stacked, lr=0.1, momentum=0.5))
    else:
        optimizers.append(BankAdam(stacked, capturable=name != "BankAdam", weight_decay=0.1))
    watching = make_capture(SelectiveSharing(capture=capture, sketch_size=60).settings)
    watching.start(model, optimizers)
    inputs, targets = torch.randn(8, 1, 8, 8, device="meta"), targets_by_task()
    steps = []

    def step() -> None:
        launched.launches.clear()
        for optimizer in optimizers:
            optimizer.zero_grad()
        model.loss(model(inputs), targets).backward()
        for optimizer in optimizers:
            optimizer.step()
        steps.append(list(launched.launches))

    step()  # copies constants to the device, and makes momenta
    with nothing_from_the_host():
        step()
        step()
    watching.stop()
    assert len(steps[1]) >= 2
    # torch's rule: without capturable, Adam's corrections are numbers of the host, other ones each step.
    assert (steps[1] == steps[2]) == (name != "BankAdam")


def test_a_copy_from_the_host_is_noticed() -> None:
    for copies in (lambda: torch.tensor([1.0], device="meta"), lambda: torch.zeros(2).to("meta")):
        with pytest.raises(AssertionError, match="copies from the host"), nothing_from_the_host():
            copies()
