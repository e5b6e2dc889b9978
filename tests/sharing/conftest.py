"""Small models with a weight of its own for every branch, and training steps for them."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from selshare.model import MultiTaskModel
from selshare.tasks import Task

FEATURES = 6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., MultiTaskModel]:
    """A model of binary tasks t0, t1, … over 6 inputs.

    Weights are multiples of 1/2 between −1 and 1, so that every product and sum of a forward pass is exact in
    float32, in whatever order a BLAS takes it, and stays so under the mean of four: outputs compare to the bit.
    """

    def build(tasks: int = 6, branch: nn.Module | None = None) -> MultiTaskModel:
        trunk = nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU())
        model = MultiTaskModel(trunk, 4, (5, 3), [Task.binary(f"t{i}") for i in range(tasks)], branch=branch)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randint(-2, 3, parameter.shape) / 2)
        return model

    return build


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., torch.Tensor]:
    """Inputs that keep the arithmetic exact."""

    def build(samples: int = 5) -> torch.Tensor:
        return torch.randint(-2, 3, (samples, FEATURES)).float()

    return build


@pytest.fixture(scope="session")
def train_step() -> Callable[..., torch.Tensor]:
    """One step on random data; returns the loss, whose graph is alive."""

    def step(model: MultiTaskModel, optimizer: torch.optim.Optimizer, samples: int = 16) -> torch.Tensor:
        optimizer.zero_grad()
        inputs = torch.randn(samples, FEATURES)
        targets = torch.randint(0, 2, (samples, len(model.tasks))).float()
        loss = model.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    return step
