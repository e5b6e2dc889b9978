"""Which tasks look at the same things: the saliency regulariser learns it while they train."""

from __future__ import annotations

import torch
from torch import nn

import selshare
from selshare import Task
from selshare.objectives import SaliencyRegularizer


def main() -> None:
    """Four pairs of tasks; the learned weights should name them."""
    torch.manual_seed(0)
    inputs = torch.randn(400, 12)
    targets = (inputs[:, [0, 1, 2, 3, 0, 1, 2, 3]] + 0.3 * torch.randn(400, 8) > 0).float()
    tasks = [Task.binary(name) for name in ("a1", "b1", "c1", "d1", "a2", "b2", "c2", "d2")]
    model = selshare.MultiTaskModel(nn.Sequential(nn.Linear(12, 16), nn.ReLU()), 16, (8,), tasks)
    saliency = SaliencyRegularizer(tasks, strength=0.01, optimizer=lambda weights: torch.optim.Adam(weights, lr=0.1))
    selshare.Trainer(model, objectives=[saliency], progress=False).fit((inputs, targets), epochs=6)
    for first, second, weight in saliency.relations().strongest(6):
        print(f"{first} and {second}: {weight:.3f}")


if __name__ == "__main__":
    main()
