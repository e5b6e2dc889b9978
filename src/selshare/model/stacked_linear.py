"""Linear layers of a bank."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def fork_linear(shared: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The first layer: all branches read the same input, so it is one matrix product.

    ``shared (B, H)``, ``weight (G, O, H)``, ``bias (G, O)`` → ``(G, B, O)``, strided: in memory it is ``(B, G, O)``.
    """
    outputs = functional.linear(shared, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return outputs.view(len(shared), *weight.shape[:2]).transpose(0, 1)


def stacked_linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A later layer: each branch reads its own input, a batched product.

    ``features (G, B, I)``, ``weight (G, O, I)``, ``bias (G, O)`` → ``(G, B, O)``.
    """
    if bias is None:
        return torch.bmm(features, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))
