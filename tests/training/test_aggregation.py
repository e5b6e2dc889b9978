"""Aggregated gradients of the trunk against a backward per task."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from selshare import MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.objectives import SaliencyRegularizer, pack_targets, task_losses
from selshare.training.aggregation import aggregated_backward

TASKS = [
    Task.binary("a", weight=2.0),
    Task.multiclass("b", classes=3),
    Task.ranking("c"),
    Task.multiclass("d", classes=3),
    Task.regression("e", outputs=2),
]


def weighted(matrix: Tensor) -> Tensor:
    """Any function will do."""
    return torch.arange(1, len(matrix) + 1, dtype=matrix.dtype) @ matrix


def projected(matrix: Tensor) -> Tensor:
    """PCGrad (Yu et al., NeurIPS 2020), each gradient projected against the others in order."""
    total = torch.zeros_like(matrix[0])
    for i, own in enumerate(matrix):
        for j, other in enumerate(matrix):
            if i != j and own @ other < 0:
                own = own - (own @ other) / (other @ other) * other
        total = total + own
    return total


AGGREGATORS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "weighted": lambda: weighted,
    "projected": lambda: projected,
}
if importlib.util.find_spec("torchjd"):
    from torchjd.aggregation import PCGrad

    AGGREGATORS["torchjd PCGrad"] = PCGrad
    if importlib.util.find_spec("quadprog"):
        from torchjd.aggregation import UPGrad

        AGGREGATORS["torchjd UPGrad"] = UPGrad


def model() -> MultiTaskModel:
    torch.manual_seed(1)
    made = MultiTaskModel(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), 6, (5, 3), TASKS, activation="tanh").double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made


def batch() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(7, 4, dtype=torch.float64)
    labels = {
        "a": torch.tensor([0, 1, -100, 1, 0, 1, 1]),
        "b": torch.tensor([0, 1, 2, -100, 0, 1, 2]),
        "c": torch.randn(7, dtype=torch.float64),
        "d": torch.tensor([2, 1, 0, 0, 0, 1, 2]),
        "e": torch.randn(7, 2, dtype=torch.float64),
    }
    return inputs, pack_targets(model().layout, labels)


def by_task(made: MultiTaskModel, inputs: Tensor, targets: Tensor) -> Tensor:
    """A backward per task."""
    losses = task_losses(made.layout, made(inputs), targets).values * torch.tensor(made.layout.weights)
    parameters = list(made.trunk.parameters())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("regularized", [False, True])
def test_the_trunk_gets_the_aggregate(name: str, merged: bool, regularized: bool) -> None:
    made, aggregate = model(), AGGREGATORS[name]()
    if merged:
        state = made.state_dict()
        state = {k: v[:3] if k.startswith("bank.") else v for k, v in state.items()}
        made.load_state_dict(state | {"assignment": torch.tensor([0, 1, 0, 2, 1])})
    inputs, targets = batch()
    matrix = by_task(made, inputs, targets)
    shared = made.shared(inputs)
    regularizer = SaliencyRegularizer(TASKS, learn=False)
    further = regularizer(made, shared, torch.empty(0), torch.empty(0)) if regularized else None

    parameters = list(made.parameters())
    plain = torch.autograd.grad(made.loss(made(inputs), targets), parameters, allow_unused=True)
    extra: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if further is not None:
        extra = torch.autograd.grad(further, parameters, retain_graph=True, allow_unused=True)
    torch.manual_seed(5)  # PCGrad draws its order
    expected = aggregate(matrix).split([parameter.numel() for parameter in made.trunk.parameters()])

    outputs = made.outputs_from(shared)
    torch.manual_seed(5)
    aggregated_backward(made, shared, outputs, made.loss(outputs, targets), further, aggregate)
    trunk = {id(parameter): part for parameter, part in zip(made.trunk.parameters(), expected, strict=True)}
    for parameter, own, more in zip(parameters, plain, extra, strict=True):
        wanted = trunk[id(parameter)].view_as(parameter) if id(parameter) in trunk else own
        wanted = wanted if more is None else wanted + more
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-9, atol=1e-11)


def test_a_sum_is_plain_training() -> None:
    inputs, targets = torch.randn(24, 4), (torch.randn(24, 3) > 0).float()
    tasks = [Task.binary(name) for name in "abc"]

    def trained(**options: Callable[[Tensor], Tensor]) -> list[Tensor]:
        torch.manual_seed(2)
        made = MultiTaskModel(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), 6, (4,), tasks)
        sharing = SelectiveSharing("random", seed=1)
        regularizer = SaliencyRegularizer(tasks)
        Trainer(made, sharing=sharing, objectives=[regularizer], batch_size=8, progress=False, **options).fit(
            (inputs, targets), epochs=2
        )
        return list(made.parameters())

    for got, wanted in zip(trained(aggregator=lambda matrix: matrix.sum(0)), trained(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    assert any(
        not torch.allclose(got, wanted)
        for got, wanted in zip(trained(aggregator=lambda matrix: matrix[0]), trained(), strict=True)
    )


def test_errors() -> None:
    tasks = [Task.binary("a"), Task.binary("b")]
    data = torch.randn(4, 3), torch.ones(4, 2)
    fixed = MultiTaskModel(nn.Identity(), 3, (2,), tasks)
    with pytest.raises(ValueError, match="trunk has no parameters that learn"):
        Trainer(fixed, aggregator=weighted, progress=False).fit(data, epochs=1)
    learning = MultiTaskModel(nn.Linear(3, 3), 3, (2,), tasks)
    with pytest.raises(ValueError, match=r"aggregator made shape \(2,\) of gradients \(2, 12\)"):
        Trainer(learning, aggregator=lambda matrix: matrix.sum(1), progress=False).fit(data, epochs=1)
