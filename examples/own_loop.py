"""Selective sharing in a training loop of one's own, with a model that exists already."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import selshare

TASKS, GROUPS, SAMPLES, FEATURES = 12, 3, 512, 16


class Ordinary(nn.Module):
    """A trunk and a list of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(FEATURES, 48), nn.ReLU())
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1)) for _ in range(TASKS))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """One logit per task."""
        shared = self.trunk(inputs)
        return [head(shared) for head in self.heads]


def main() -> None:
    """Convert, train, merge, restore."""
    torch.manual_seed(0)
    inputs = torch.randn(SAMPLES, FEATURES)
    directions = torch.randn(GROUPS, FEATURES).repeat(TASKS // GROUPS, 1)
    targets = (inputs @ directions.T > 0).float()

    ordinary = Ordinary()
    for head in ordinary.heads:  # gradients of branches can be compared where they start alike
        head.load_state_dict(ordinary.heads[0].state_dict())
    model = selshare.convert(ordinary, example=inputs[:4])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sharing = selshare.SelectiveSharing().attach(model, optimizer, epochs=6)
    model.train()
    for _ in range(6):
        for batch, labels in zip(inputs.split(64), targets.split(64), strict=True):
            optimizer.zero_grad()
            model.loss(model(batch), labels).backward()
            optimizer.step()
        event = sharing.end_epoch()
        print(f"epoch {event.epoch}: {event.branches_after} branches {event.merged or ''}")

    again = selshare.restore(model, ordinary).eval()
    right = (torch.cat(again(inputs), dim=1) > 0) == (targets > 0.5)
    print(f"the ordinary model, restored: {right.float().mean():.3f} accuracy")


if __name__ == "__main__":
    main()
