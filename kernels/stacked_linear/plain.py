"""The layers in plain torch; differentiable, any device, any float dtype, multiplied and added up as torch does."""

from __future__ import annotations

import torch
from torch import Tensor

from . import LinearGradients


def stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear`."""
    inputs = torch.relu(inputs) if rectify else inputs
    if inputs.shape[0] == 1:  # one product for all layers
        outputs = torch.nn.functional.linear(inputs[0], weight.flatten(0, 1), None if bias is None else bias.flatten())
        return outputs.view(len(outputs), *weight.shape[:2]).transpose(0, 1)
    read = inputs if source is None else inputs.index_select(0, source)
    if bias is None:
        return torch.bmm(read, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), read, weight.transpose(1, 2))


def stacked_linear_backward(
    delta: Tensor,
    inputs: Tensor,
    weight: Tensor,
    source: Tensor | None,
    rectify: bool,
    needs_inputs: bool,
    needs_bias: bool,
) -> LinearGradients:
    """See :func:`selshare.kernels.stacked_linear_backward`."""
    by_inputs = None
    if needs_inputs and inputs.shape[0] == 1:
        by_inputs = (delta.transpose(0, 1).flatten(1) @ weight.flatten(0, 1)).unsqueeze(0)
    elif needs_inputs:
        by_inputs = torch.bmm(delta, weight)
        if source is not None:
            by_inputs = torch.zeros_like(inputs).index_add(0, source, by_inputs)
    if by_inputs is not None and rectify:
        by_inputs = torch.where(inputs <= 0, 0, by_inputs)
    return LinearGradients(by_inputs, delta.sum(1) if needs_bias else None)


def weight_gradient(delta: Tensor, inputs: Tensor, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear.weight_gradient`."""
    inputs = torch.relu(inputs) if rectify else inputs
    if inputs.shape[0] == 1:
        return (delta.transpose(1, 2).flatten(0, 1) @ inputs[0]).view(len(delta), delta.shape[2], inputs.shape[2])
    return torch.bmm(delta.transpose(1, 2), inputs if source is None else inputs.index_select(0, source))
