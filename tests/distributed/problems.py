"""Small problems with everything in them: missing labels, uneven batches, all kinds of tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selshare import BankSGD, MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.training import History

SGD = partial(BankSGD, lr=0.05, momentum=0.5)
Pair = tuple[Tensor, Tensor]


def planted(tasks: int = 8, samples: int = 131, dtype: torch.dtype = torch.float64) -> tuple[Pair, Pair]:
    """Binary tasks in two groups, a fifth of the labels missing; the last batch of 16 is of 3."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples + 40, 6, generator=generator, dtype=dtype)
    centres = torch.randn(2, 6, generator=generator, dtype=dtype).repeat_interleave(tasks // 2, 0)
    noise = torch.randn(len(centres), 6, generator=generator, dtype=dtype)
    labels = (inputs @ (centres + 0.1 * noise).T > 0).to(dtype)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = torch.nan
    return (inputs[:samples], labels[:samples]), (inputs[samples:], labels[samples:])


def binary_model(tasks: int = 8, trunk: nn.Module | None = None, dropout: float = 0.0) -> MultiTaskModel:
    torch.manual_seed(3)
    trunk = trunk or nn.Sequential(nn.Linear(6, 9), nn.ReLU())
    return MultiTaskModel(trunk, 9, (8, 5), [Task.binary(f"t{i}") for i in range(tasks)], dropout=dropout).double()


KINDS = [
    Task.binary("b", weight=0.5),
    Task.ranking("r"),
    Task.multiclass("c", classes=3),
    Task.regression("v", outputs=2, loss="huber"),
    Task.multilabel("m", labels=2, weight=2.0),
    Task.ranking("s", loss="hinge", weight=0.3),
    Task.regression("w"),
]


def mixed(samples: int = 67) -> tuple[Pair, Pair]:
    """Every kind of task, with a quarter of the targets missing."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(samples + 20, 6, generator=generator, dtype=torch.float64)
    raw = inputs @ torch.randn(6, 9, generator=generator, dtype=torch.float64)
    raw[:, [0, 5, 6]] = (raw[:, [0, 5, 6]] > 0).double()
    raw[:, 2] = (raw[:, 2] > 0).double() + (raw[:, 2] > 1).double()
    raw[torch.rand(raw.shape, generator=generator) < 0.25] = torch.nan
    return (inputs[:samples], raw[:samples]), (inputs[samples:], raw[samples:])


def mixed_model() -> MultiTaskModel:
    torch.manual_seed(4)
    return MultiTaskModel(nn.Sequential(nn.Linear(6, 9), nn.ReLU()), 9, (8, 5), KINDS).double()


def train(
    model: Any,
    data: tuple[Any, Pair],
    *,
    epochs: int = 4,
    optimizer: Callable[..., torch.optim.Optimizer] = SGD,
    folder: Path | None = None,
    resume: str | None = None,
    callbacks: tuple[Callable[..., None], ...] = (),
    on_nonfinite: str = "raise",
    batch_size: int = 16,
    training: dict[str, Any] | None = None,
    **sharing: Any,
) -> History:
    trainer = Trainer(
        model,
        optimizer,
        SelectiveSharing(**sharing),
        batch_size=batch_size,
        seed=5,
        callbacks=callbacks,
        checkpoints=folder,
        on_nonfinite=on_nonfinite,
        progress=False,
        **(training or {}),
    )
    return trainer.fit(*data, epochs, resume=resume)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            other[name], tensor, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def told(history: History) -> list[tuple[Any, ...]]:
    """What must not depend on the number of processes, to rounding."""
    return [
        (
            e.epoch,
            e.branches,
            round(e.train_loss, 9),
            {name: round(value, 6) for name, value in e.metrics.items()},
            round(e.validation_loss or 0.0, 9),
        )
        for e in history.epochs
    ]
