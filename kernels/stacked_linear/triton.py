"""Triton for layers that share inputs by ``source``, as the heads of merged branches do: no input is copied.

Layers that all read one input, or each its own, are one product or a batch of them: those are cuBLAS's, by torch. Of
half precision it, too, adds up in float32, but in pieces unless
``torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction`` (``allow_fp16_…``) is switched off.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..gradient_tile import gradient_launch
from ..launch import Launch, index_type, product_precision, sums_type
from . import LinearGradients, plain

BLOCK_B, BLOCK_I, WARPS = 64, 64, 4


def stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear`. The result lies ``(B, G, O)`` in memory."""
    if source is None or len(inputs) == 1:
        return plain.stacked_linear(inputs, weight, bias, source, rectify)
    outputs = inputs.new_empty(inputs.shape[1], *weight.shape[:2]).transpose(0, 1)
    if outputs.numel():
        forward_launch(inputs, weight, bias, source, rectify, outputs).run()
    return outputs


def stacked_linear_backward(
    delta: Tensor,
    inputs: Tensor,
    weight: Tensor,
    source: Tensor | None,
    rectify: bool,
    needs_inputs: bool,
    needs_bias: bool,
) -> LinearGradients:
    """See :func:`selshare.kernels.stacked_linear_backward`. Sums over layers are in the order of the layers."""
    if source is None or len(inputs) == 1:
        return plain.stacked_linear_backward(delta, inputs, weight, source, rectify, needs_inputs, needs_bias)
    by_inputs = inputs.new_empty(inputs.shape) if needs_inputs else None
    if by_inputs is not None and by_inputs.numel():
        backward_launch(delta, inputs, weight, source, rectify, by_inputs).run()
    return LinearGradients(by_inputs, delta.sum(1) if needs_bias else None)


def weight_gradient(delta: Tensor, inputs: Tensor, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear.weight_gradient`."""
    if source is None or len(inputs) == 1:
        return plain.weight_gradient(delta, inputs, source, rectify)
    gradient = inputs.new_empty(len(delta), delta.shape[2], inputs.shape[2])
    if gradient.numel():
        gradient_launch(delta, inputs, gradient, source=source, rectify=rectify, overwrite=True).run()
    return gradient


def forward_launch(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor, rectify: bool, outputs: Tensor
) -> Launch:
    """One program for each layer, block of samples and block of outputs."""
    layers, samples, width = outputs.shape
    block_o = min(64, max(16, triton.next_power_of_2(width)))
    arguments = {
        "inputs": inputs,
        "weight": weight,
        "bias": bias,
        "source": source,
        "outputs": outputs,
        "samples": samples,
        "width": width,
        "features": inputs.shape[2],
        **_strides("input", inputs, "source", "sample", "feature"),
        **_strides("weight", weight, "layer", "output", "feature"),
        **({} if bias is None else _strides("bias", bias, "layer", "output")),
        **_strides("result", outputs, "layer", "sample", "output"),
        "RECTIFY": rectify,
        "INDEX": _index(inputs, weight, outputs),
        "SUMS": sums_type(inputs.dtype),
        "PRECISION": product_precision(inputs.dtype),
        "BLOCK_B": BLOCK_B,
        "BLOCK_O": block_o,
        "BLOCK_I": 32,
    }
    if bias is None:
        arguments |= {"bias_layer": None, "bias_output": None}
    programs = layers * triton.cdiv(samples, BLOCK_B) * triton.cdiv(width, block_o)
    return Launch(_forward, programs, arguments, WARPS)


def backward_launch(
    delta: Tensor, inputs: Tensor, weight: Tensor, source: Tensor, rectify: bool, by_inputs: Tensor
) -> Launch:
    """One program for each input, block of samples and block of features; it goes through the input's layers."""
    sources, samples, features = inputs.shape
    order = source.argsort(stable=True)
    starts = torch.searchsorted(source[order], torch.arange(sources + 1, device=source.device))
    arguments = {
        "delta": delta,
        "inputs": inputs if rectify else None,
        "weight": weight,
        "order": order,
        "starts": starts,
        "by_inputs": by_inputs,
        "samples": samples,
        "width": weight.shape[1],
        "features": features,
        **_strides("delta", delta, "layer", "sample", "output"),
        **_strides("weight", weight, "layer", "output", "feature"),
        **_strides("input", inputs, "source", "sample", "feature"),
        **_strides("result", by_inputs, "source", "sample", "feature"),
        "INDEX": _index(inputs, by_inputs, delta, weight),
        "SUMS": sums_type(inputs.dtype),
        "PRECISION": product_precision(inputs.dtype),
        "BLOCK_B": BLOCK_B,
        "BLOCK_I": BLOCK_I,
        "BLOCK_P": 16,
    }
    programs = sources * triton.cdiv(samples, BLOCK_B) * triton.cdiv(features, BLOCK_I)
    return Launch(_backward, programs, arguments, WARPS)


def _strides(of: str, tensor: Tensor, *names: str) -> dict[str, int]:
    """The strides of ``tensor`` by the names of the kernel's parameters."""
    return {f"{of}_{name}": stride for name, stride in zip(names, tensor.stride(), strict=True)}


def _index(*tensors: Tensor) -> tl.dtype:
    """The type of offsets within a tile of samples and outputs or features."""
    return index_type(*(64 * (stride1 + stride2) for _, stride1, stride2 in (tensor.stride() for tensor in tensors)))


@triton.jit
def _forward(
    inputs,
    weight,
    bias,
    source,
    outputs,
    samples,
    width,
    features,
    input_source,
    input_sample,
    input_feature,
    weight_layer,
    weight_output,
    weight_feature,
    bias_layer,
    bias_output,
    result_layer,
    result_sample,
    result_output,
    RECTIFY: tl.constexpr,
    INDEX: tl.constexpr,
    SUMS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    across, down, tile = tl.cdiv(width, BLOCK_O), tl.cdiv(samples, BLOCK_B), tl.program_id(0)
    layer, sample = (tile // across // down).to(tl.int64), tile // across % down * BLOCK_B
    output = tile % across * BLOCK_O
    b, o, i = tl.arange(0, BLOCK_B).to(INDEX), tl.arange(0, BLOCK_O).to(INDEX), tl.arange(0, BLOCK_I).to(INDEX)
    has_sample, has_output = b < samples - sample, o < width - output
    inputs += tl.load(source + layer) * input_source + sample.to(tl.int64) * input_sample
    weight += layer * weight_layer + output.to(tl.int64) * weight_output
    total = tl.zeros((BLOCK_B, BLOCK_O), SUMS)
    for start in range(0, features, BLOCK_I):
        has_feature, far = i < features - start, tl.cast(start, tl.int64)
        x = tl.load(
            inputs + far * input_feature + ((b * input_sample)[:, None] + (i * input_feature)[None, :]),
            has_sample[:, None] & has_feature[None, :],
            other=0.0,
        )
        w = tl.load(
            weight + far * weight_feature + ((i * weight_feature)[:, None] + (o * weight_output)[None, :]),
            has_feature[:, None] & has_output[None, :],
            other=0.0,
        )
        x, w = x.to(SUMS), w.to(SUMS)
        if RECTIFY:
            x = tl.where(x < 0, 0.0, x)
        total = tl.dot(x, w, total, input_precision=PRECISION, out_dtype=SUMS)
    if bias is not None:
        bias += layer * bias_layer + output.to(tl.int64) * bias_output
        total += tl.load(bias + o.to(tl.int64) * bias_output, has_output, other=0.0).to(SUMS)[None, :]
    outputs += layer * result_layer + sample.to(tl.int64) * result_sample + output.to(tl.int64) * result_output
    there = (b * result_sample)[:, None] + (o * result_output)[None, :]
    tl.store(outputs + there, total, has_sample[:, None] & has_output[None, :])


@triton.jit
def _backward(
    delta,
    inputs,
    weight,
    order,
    starts,
    by_inputs,
    samples,
    width,
    features,
    delta_layer,
    delta_sample,
    delta_output,
    weight_layer,
    weight_output,
    weight_feature,
    input_source,
    input_sample,
    input_feature,
    result_source,
    result_sample,
    result_feature,
    INDEX: tl.constexpr,
    SUMS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    across, down, tile = tl.cdiv(features, BLOCK_I), tl.cdiv(samples, BLOCK_B), tl.program_id(0)
    which, sample = (tile // across // down).to(tl.int64), tile // across % down * BLOCK_B
    feature = tile % across * BLOCK_I
    b, i, p = tl.arange(0, BLOCK_B).to(INDEX), tl.arange(0, BLOCK_I).to(INDEX), tl.arange(0, BLOCK_P)
    has_sample, has_feature = b < samples - sample, i < features - feature
    delta += sample.to(tl.int64) * delta_sample
    weight += feature.to(tl.int64) * weight_feature
    total = tl.zeros((BLOCK_B, BLOCK_I), SUMS)
    # The outputs of all layers that read this input, one after the other, are what is summed over.
    first, end = tl.load(starts + which), tl.load(starts + which + 1)
    pairs = (end - first).to(tl.int32) * width
    for start in range(0, pairs, BLOCK_P):
        has_pair = p < pairs - start
        layer = tl.load(order + first + (start + p) // width, has_pair, other=0)
        output = ((start + p) % width).to(tl.int64)
        d = tl.load(
            delta + (layer * delta_layer + output * delta_output)[None, :] + (b * delta_sample)[:, None],
            has_sample[:, None] & has_pair[None, :],
            other=0.0,
        )
        w = tl.load(
            weight + (layer * weight_layer + output * weight_output)[:, None] + (i * weight_feature)[None, :],
            has_pair[:, None] & has_feature[None, :],
            other=0.0,
        )
        total = tl.dot(d.to(SUMS), w.to(SUMS), total, input_precision=PRECISION, out_dtype=SUMS)
    exists = has_sample[:, None] & has_feature[None, :]
    if inputs is not None:
        inputs += which * input_source + sample.to(tl.int64) * input_sample + feature.to(tl.int64) * input_feature
        x = tl.load(inputs + ((b * input_sample)[:, None] + (i * input_feature)[None, :]), exists, other=0.0)
        total = tl.where(x.to(SUMS) <= 0, 0.0, total)
    by_inputs += which * result_source + sample.to(tl.int64) * result_sample + feature.to(tl.int64) * result_feature
    tl.store(by_inputs + ((b * result_sample)[:, None] + (i * result_feature)[None, :]), total, exists)
