"""A training step on a GPU makes the host wait for nothing, and runs the Triton kernels.

Without a GPU: tensors of the meta device stand in for those of one. They have shapes and no values, so whatever looks
at a value raises, and what launches a kernel is recorded in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selshare import BankAdam, BankSGD, MultiTaskModel, SelectiveSharing, Task
from selshare.kernels import backend
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


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Meta tensors take the Triton implementations, up to the launch; what was used."""
    pytest.importorskip("triton", reason="triton is not installed")
    from selshare.kernels.launch import Launch

    used: list[str] = []
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
    monkeypatch.setattr(Launch, "run", lambda launch: None)
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
def test_steps_captures_and_losses_look_at_no_value(launched: list[str], name: str, capture: str, merged: bool) -> None:
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


def test_a_step_that_looks_is_noticed(launched: list[str]) -> None:
    class Looking(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs if bool(torch.isfinite(inputs).all()) else inputs * 0

    model = model_of(TASKS).to("meta")
    model.trunk.append(Looking())  # type: ignore[operator]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        train(model, OPTIMIZERS["BankSGD"](model.parameters()), torch.zeros(8, model.layout.target_width))
