"""asv: a training step, and the kernels it consists of (batch 64, 300 shared features, branches 100-100-1)."""

from __future__ import annotations

import torch

from selshare import MultiTaskModel, Task
from selshare.kernels import (
    fused_adam_step,
    fused_sgd_step,
    stacked_linear,
    stacked_linear_backward,
    weight_gradient,
)
from selshare.optim import BankSGD
from selshare.sharing import FreeCapture, GradientCapture

BATCH, SHARED, HIDDEN = 64, 300, 100


class Step:
    """Forward, backward, capture and update with BankSGD."""

    params = ([10, 100, 500, 1000, 5000], ["exact", "free"])
    param_names = ("tasks", "capture")
    timeout = 120

    def setup(self, tasks: int, capture: str) -> None:
        torch.set_num_threads(2)
        torch.manual_seed(0)
        trunk = torch.nn.Sequential(torch.nn.Linear(64, SHARED), torch.nn.ReLU())
        names = [Task.binary(f"t{i}") for i in range(tasks)]
        self.model = MultiTaskModel(trunk, SHARED, (HIDDEN, HIDDEN), names)
        self.optimizer = BankSGD(self.model.parameters(), lr=0.01, momentum=0.5)
        captured = GradientCapture() if capture == "exact" else FreeCapture()
        captured.start(self.model, [self.optimizer])
        self.inputs = torch.randn(BATCH, 64)
        self.targets = (torch.rand(BATCH, tasks) < 0.5).float()
        self.step()

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model.loss(self.model(self.inputs), self.targets).backward()
        self.optimizer.step()

    def time_step(self, tasks: int, capture: str) -> None:
        self.step()

    def peakmem_step(self, tasks: int, capture: str) -> None:
        self.step()


class Kernels:
    """Each kernel on 500 branches' first layer, which all read one input, and on the second."""

    params = (["first", "second"],)
    param_names = ("layer",)

    def setup(self, layer: str) -> None:
        torch.set_num_threads(2)
        torch.manual_seed(0)
        features = SHARED if layer == "first" else HIDDEN
        self.shared = torch.randn(features, BATCH).t() if layer == "first" else self.samples_last(features)
        self.inputs = self.shared.unsqueeze(0) if layer == "first" else self.shared
        self.delta = self.samples_last(HIDDEN)
        self.weight, self.first, self.second, self.captured = (torch.zeros(500, HIDDEN, features) for _ in range(4))
        self.bias = torch.zeros(500, HIDDEN)

    @staticmethod
    def samples_last(features: int) -> torch.Tensor:
        return torch.randn(500, features, BATCH).transpose(1, 2)

    def time_forward(self, layer: str) -> None:
        stacked_linear(self.inputs, self.weight, self.bias, rectify=layer == "second")

    def time_backward_inputs(self, layer: str) -> None:
        stacked_linear_backward(self.delta, self.inputs, self.weight, rectify=layer == "second")

    def time_weight_gradient(self, layer: str) -> None:
        weight_gradient(self.delta, self.inputs)

    def time_sgd_and_capture(self, layer: str) -> None:
        fused_sgd_step(
            self.delta, self.shared, self.weight, self.first, self.captured, lr=1e-9, momentum=0.5, check_finite=False
        )

    def time_adam(self, layer: str) -> None:
        fused_adam_step(
            self.delta, self.shared, self.weight, self.first, self.second, None, step=1, lr=1e-9, check_finite=False
        )
