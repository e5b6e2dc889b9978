"""Linear layers of all branches of a bank at once, and of many heads on few branches.

Layer g reads ``inputs[source[g]]``: the one shared representation at the fork, its own features further up, its
branch's features at a head. The ReLU before a layer can be part of it (``rectify``), so that neither its result nor
its mask is stored.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..backend import register, select
from ..checks import require_dimensions, require_float, require_tensor

__all__ = ["LinearGradients", "stacked_linear", "stacked_linear_backward", "weight_gradient"]


class LinearGradients(NamedTuple):
    """The derivatives by the inputs ``(S, B, I)`` and the bias ``(G, O)``; ``None`` for one not asked for."""

    inputs: Tensor | None
    bias: Tensor | None


def stacked_linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, *, source: Tensor | None = None, rectify: bool = False
) -> Tensor:
    """``outputs[g] = inputs[source[g]] · weight[g]ᵀ + bias[g]``.

    Parameters
    ----------
    inputs : (S, B, I), float32 or float64
        Any strides. ``S`` is 1 where all layers read the same input. All tensors may also be float16, or bfloat16: what
        is returned is then of that dtype, rounded once, of products and sums in float32.
    weight : (G, O, I)
    bias : (G, O) or None
    source : (G,) int64 or None
        Which input each layer reads. ``None``: layer g reads input g, or input 0 where ``S`` is 1.
    rectify : bool
        Read ``max(inputs, 0)`` in place of ``inputs``.

    Returns
    -------
    Tensor
        ``(G, B, O)``. On the CPU it lies ``(G, O, B)`` in memory: the layer after it reads it fastest so.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit, or ``source`` names an input that is not there.

    Notes
    -----
    ``2·G·B·O·I`` flops; each weight is read once. Threads work on different layers.
    """
    _check(inputs, weight, bias, source)
    outputs: Tensor = select("stacked_linear", inputs.device)(inputs, weight, bias, source, rectify)
    return outputs


def stacked_linear_backward(
    delta: Tensor,
    inputs: Tensor,
    weight: Tensor,
    *,
    source: Tensor | None = None,
    rectify: bool = False,
    needs_inputs: bool = True,
    needs_bias: bool = True,
) -> LinearGradients:
    """The derivatives of :func:`stacked_linear` by inputs and bias; :func:`weight_gradient` is the third.

    ``grad_inputs[s] = Σ delta[g] · weight[g]`` over the layers g with ``source[g] = s``, zero where ``rectify`` and
    the input is not positive; ``grad_bias[g] = Σ_b delta[g, b]``.

    Parameters
    ----------
    delta : (G, B, O)
        The derivative by the outputs. Any strides.
    inputs, weight, source, rectify
        As in :func:`stacked_linear`.
    needs_inputs, needs_bias
        Which to compute.

    Notes
    -----
    The sum over layers of one input is taken in a fixed order: it does not depend on the number of threads.
    """
    _check(inputs, weight, None, source)
    _check_delta(delta, inputs, weight.shape[0], weight.shape[1])
    backward = select("stacked_linear_backward", inputs.device)
    gradients: LinearGradients = backward(delta, inputs, weight, source, rectify, needs_inputs, needs_bias)
    return gradients


def weight_gradient(delta: Tensor, inputs: Tensor, *, source: Tensor | None = None, rectify: bool = False) -> Tensor:
    """The derivative of :func:`stacked_linear` by the weight, ``delta[g]ᵀ · inputs[source[g]]``: ``(G, O, I)``."""
    require_dimensions(delta, "(G, B, O)", "delta")
    require_dimensions(inputs, "(S, B, I)", "inputs")
    require_float(inputs, "inputs", halves=True)
    _check_delta(delta, inputs, delta.shape[0], delta.shape[2])
    _check_source(inputs, source, delta.shape[0])
    gradient: Tensor = select("weight_gradient", inputs.device)(delta, inputs, source, rectify)
    return gradient


def _check(inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None) -> None:
    """Dtypes, devices and shapes of a layer."""
    require_dimensions(inputs, "(S, B, I)", "inputs")
    require_dimensions(weight, "(G, O, I)", "weight")
    require_float(inputs, "inputs", halves=True)
    layers, outputs, features = weight.shape
    if inputs.shape[2] != features:
        raise ValueError(f"the layers read {features} features, but inputs have {inputs.shape[2]}.")
    if bias is not None:
        require_tensor(bias, "bias")
    if bias is not None and bias.shape != (layers, outputs):
        raise ValueError(f"bias must have shape {(layers, outputs)}; it has shape {tuple(bias.shape)}.")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.dtype != inputs.dtype or tensor.device != inputs.device):
            raise TypeError(
                f"{name} is {tensor.dtype} on {tensor.device}, inputs {inputs.dtype} on {inputs.device}; convert one."
            )
    _check_source(inputs, source, layers)


def _check_source(inputs: Tensor, source: Tensor | None, layers: int) -> None:
    """One input that exists for each layer."""
    if source is None:
        if inputs.shape[0] not in (1, layers):
            raise ValueError(f"there are {layers} layers and {inputs.shape[0]} inputs; say which reads which (source).")
        return
    require_tensor(source, "source")
    if source.dtype != torch.int64 or source.shape != (layers,) or source.device != inputs.device:
        raise ValueError(
            f"source must be int64 of shape ({layers},) on {inputs.device}; it is {source.dtype}, "
            f"{tuple(source.shape)}, on {source.device}."
        )
    if source.device.type == "cpu" and layers and not 0 <= int(source.min()) <= int(source.max()) < len(inputs):
        raise ValueError(f"source must name inputs 0 to {len(inputs) - 1}; it holds {source.unique().tolist()}.")


def _check_delta(delta: Tensor, inputs: Tensor, layers: int, outputs: int) -> None:
    """delta belongs to these layers and this batch."""
    require_dimensions(delta, "(G, B, O)", "delta")
    expected = (layers, inputs.shape[1], outputs)
    if delta.shape != expected:
        raise ValueError(f"delta must have shape {expected} (G, B, O); it has shape {tuple(delta.shape)}.")
    if delta.dtype != inputs.dtype or delta.device != inputs.device:
        raise TypeError(
            f"delta is {delta.dtype} on {delta.device}, inputs {inputs.dtype} on {inputs.device}; convert one."
        )


for _operation in ("stacked_linear", "stacked_linear_backward", "weight_gradient"):
    register(_operation, __name__, ("triton", "native", "reference"))
