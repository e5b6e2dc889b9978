"""Training the bundled digits on a device and on the CPU, by a loop of one's own and by the Trainer."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selshare.model import MultiTaskModel
from selshare.optim import BankSGD
from selshare.sharing import SelectiveSharing
from selshare.tasks import Task

LOSS = 2e-3
"""How far losses may be apart, relative: differences in rounding grow from step to step."""
METRIC = 0.02
"""How far mean accuracies may be apart: seven of 360 images."""
BATCH, TRAIN = 64, 1437


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; ``groups`` are the tasks that share a branch after it."""

    loss: float
    accuracy: float
    branches: int
    groups: list[list[int]]
    seconds: float


def training_items(device: str, epochs: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """The comparisons, by name."""
    found = {"digits, no waiting within an epoch": lambda: compared(digits, device, epochs)}
    if all(importlib.util.find_spec(name) for name in ("torchmetrics", "rich", "torchvision")):
        found["digits by the Trainer"] = lambda: compared(digits_by_trainer, device, 2)
    return found


def compared(train: Callable[[str, int], list[Epoch]], device: str, epochs: int) -> dict[str, Any]:
    """The row of a run on the CPU and the same on ``device``."""
    torch.backends.cudnn.allow_tf32 = False  # its convolutions would differ from the CPU's by 1e-3
    here, there = train("cpu", epochs), train(device, epochs)
    agree = [agrees(one, other) for one, other in zip(here, there, strict=True)]
    rows = [
        {"epoch": number, "agrees": same, "cpu": asdict(one), "device": asdict(other)}
        for number, (same, one, other) in enumerate(zip(agree, here, there, strict=True), start=1)
    ]
    return {"passed": all(agree), "epochs": rows}


def agrees(here: Epoch, there: Epoch) -> bool:
    """Whether two epochs are the same up to rounding."""
    return (
        abs(here.loss - there.loss) <= LOSS * abs(here.loss)
        and abs(here.accuracy - there.accuracy) <= METRIC
        and here.groups == there.groups
    )


def digits(device: str, epochs: int) -> list[Epoch]:
    """Ten one-vs-rest tasks with selective sharing; all data on the device, no step waits for it."""
    inputs, targets = (part.to(device) for part in digit_data())
    model = digit_model().to(device)
    optimizer = BankSGD(model.parameters(), lr=0.02, momentum=0.5)
    sharing = SelectiveSharing("similarity").attach(model, optimizer)
    generator, found = torch.Generator().manual_seed(0), []
    for epoch in range(epochs):
        order = torch.randperm(TRAIN, generator=generator).to(device)
        started = time.perf_counter()
        model.train()
        batches = list(order.split(BATCH))
        if epoch == 0:  # the first step compiles and allocates
            step(model, optimizer, inputs[batches[0]], targets[batches.pop(0)])
        with no_waiting(device):
            for batch in batches:
                step(model, optimizer, inputs[batch], targets[batch])
        loss = float(model.recorded_losses().sum())
        seconds = time.perf_counter() - started
        sharing.end_epoch()
        found.append(Epoch(loss, accuracy(model, inputs, targets), model.bank.branches, _groups(model), seconds))
    return found


def step(
    model: MultiTaskModel, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor | Mapping[str, Tensor]
) -> None:
    """One training step."""
    optimizer.zero_grad(set_to_none=True)
    model.loss(model(inputs), targets).backward()
    optimizer.step()


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Torch raises ``RuntimeError`` where it makes the host wait for the GPU."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def digit_data() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits in a fixed random order, ``(1797, 1, 8, 8)``, and a column a digit."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(images).float().reshape(-1, 1, 8, 8)[order] / 16
    return inputs, nn.functional.one_hot(torch.from_numpy(labels)[order], 10).float()


def digit_model() -> MultiTaskModel:
    """A small convolutional trunk and ten branches, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = nn.Sequential(
            *(nn.Conv2d(1, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 10, 3, padding=1)),
            *(nn.BatchNorm2d(10), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        )
        return MultiTaskModel(trunk, 160, (100, 50), [Task.binary(f"digit {digit}") for digit in range(10)])


@torch.no_grad()
def accuracy(model: MultiTaskModel, inputs: Tensor, targets: Tensor) -> float:
    """Mean accuracy of the tasks on the images that are not for training."""
    model.eval()
    return float(((model(inputs[TRAIN:]) > 0) == (targets[TRAIN:] > 0)).float().mean())


def _groups(model: MultiTaskModel) -> list[list[int]]:
    """Which tasks share a branch."""
    return sorted(list(tasks) for tasks in model.tasks_by_branch() if len(tasks) > 1)


def digits_by_trainer(device: str, epochs: int) -> list[Epoch]:
    """The same tasks, as a user of the Trainer trains them: data on the CPU."""
    from functools import partial

    from selshare.training import Trainer

    inputs, targets = digit_data()
    model = digit_model().to(device)
    trainer = Trainer(
        model, partial(BankSGD, lr=0.02, momentum=0.5), SelectiveSharing("similarity"), progress=False, select_by="loss"
    )
    history = trainer.fit((inputs[:TRAIN], targets[:TRAIN]), (inputs[TRAIN:], targets[TRAIN:]), epochs)
    return [
        Epoch(
            one.train_loss,
            one.mean_metric or 0.0,
            one.branches,
            sorted(sorted(group) for event in history.events if event.epoch == one.epoch for group in event.groups),
            one.seconds,
        )
        for one in history.epochs
    ]
