"""Operations that change tensors in place, outside of what autograd sees."""

from __future__ import annotations

import torch
from torch import Tensor


def mark_changed(*tensors: Tensor | None) -> None:
    """Tell autograd that these were changed in place, so that a graph that saved one refuses to use it."""
    for tensor in tensors:
        if tensor is not None:
            torch.autograd.graph.increment_version(tensor)
