"""Further objectives beside the tasks' losses: in the Trainer, and in a loop of one's own."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selshare import MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.objectives import SaliencyRegularizer
from selshare.optim import BankSGD

TASKS = [Task.binary("a"), Task.binary("b"), Task.regression("c"), Task.binary("d")]


def model() -> MultiTaskModel:
    torch.manual_seed(3)
    return MultiTaskModel(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), 8, (6, 4), TASKS)


def samples(count: int = 48) -> TensorDataset:
    inputs = torch.randn(count, 6)
    targets = (inputs[:, :4] > 0).float()
    targets[::5, 1] = torch.nan
    return TensorDataset(inputs, targets)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, BankSGD])
def test_the_trainer_minimises_the_sum(optimizer: type[torch.optim.Optimizer]) -> None:
    data = samples()
    trained = model()
    by_hand = copy.deepcopy(trained)
    regularizer = SaliencyRegularizer(TASKS, strength=0.5, warmup=1)
    loader = DataLoader(data, batch_size=16)
    fast = partial(optimizer, lr=0.05, momentum=0.5)
    Trainer(trained, fast, objectives=[regularizer], progress=False).fit(loader, epochs=2)

    again = SaliencyRegularizer(TASKS, strength=0.5, warmup=1)
    sgd = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.5)
    by_hand.train()
    for _ in range(2):
        for inputs, targets in loader:
            sgd.zero_grad()
            shared = by_hand.shared(inputs)
            outputs = by_hand.outputs_from(shared)
            (by_hand.loss(outputs, targets) + again(by_hand, shared, outputs, targets)).backward()
            sgd.step()
    assert regularizer.steps == 6
    torch.testing.assert_close(regularizer.weights.omega, again.weights.omega)
    for got, wanted in zip(trained.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, wanted)


def test_objectives_see_packed_targets_and_the_models_own_outputs() -> None:
    seen = []

    def objective(model: MultiTaskModel, shared: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        torch.testing.assert_close(model.outputs_from(shared), outputs)
        seen.append((shared.shape, outputs.shape, targets.shape, int(targets.isnan().sum())))
        return outputs.sum() * 0

    inputs, targets = samples(10).tensors
    named = {task.name: targets[:, k] for k, task in enumerate(TASKS)}
    trained = model()
    loader = DataLoader([(inputs, named)], batch_size=None)  # one batch, targets by name
    Trainer(trained, objectives=[objective, objective], progress=False).fit(loader, epochs=1)
    assert seen == [((10, 8), (10, 4), (10, 4), 2)] * 2


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, BankSGD])
def test_saliency_and_sharing_together(optimizer: type[torch.optim.Optimizer]) -> None:
    """Branches merge while the regulariser goes on with every task's own gradients."""
    data = samples()
    trained = model()
    regularizer = SaliencyRegularizer(TASKS, strength=0.1)
    history = Trainer(
        trained,
        partial(optimizer, lr=0.05, momentum=0.5),
        SelectiveSharing("random"),
        objectives=[regularizer],
        batch_size=16,
        progress=False,
    ).fit(data, data, epochs=4)
    assert trained.bank.branches < len(TASKS)
    assert regularizer.steps == 12
    assert history.epochs[-1].branches == trained.bank.branches
    assert 0 < float(regularizer.relations().weights.max()) < 1
