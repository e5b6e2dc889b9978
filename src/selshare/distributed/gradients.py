"""Sums of gradients over ranks: of a stacked weight by its two factors where those are smaller than itself.

The gradient of a stacked weight ``(G, O, I)`` is ``δᵀA`` over the rows of the batch. Ranks that have some rows each can
form their part and add the parts up, ``2(W−1)/W·G·O·I`` numbers sent by each rank, or tell each other their rows of δ
and A, ``(W−1)/W·B·(G·O + S·I)`` numbers for a batch of B rows (``S`` is 1 at the fork, where all branches read the same
input, else G), and go on as one process would: the optimizer consumes the factors of the whole batch. The second sends
less at the fork as long as ``B < 2·I``, about. (*Ours*.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..model import MultiTaskModel
from ..model.lazy_gradient import Factors, LazyGradient, exchange_lazy_gradient, factors_of
from .ranks import Ranks

BUCKET = 2**20
"""Gradients of fewer numbers than this are sent together."""


class GradientExchange:
    """Makes every gradient of a model the sum over ranks.

    The gradient of the bank's first weight is summed as soon as the backward has it, in a hook, so that what listens
    there, a capture of selective sharing, sees the sum and needs no exchange of its own. All others are summed by
    :meth:`finish`, which is to be called between backward and step.

    Parameters
    ----------
    model
        The model, before a sharing is attached to it.
    ranks
        Who takes part.
    """

    def __init__(self, model: MultiTaskModel, ranks: Ranks) -> None:
        self._model, self._ranks = model, ranks
        self._sizes: Sequence[int] = ()
        self._hook: RemovableHandle | None = None

    def start(self) -> None:
        """Begin to exchange.

        Raises
        ------
        RuntimeError
            If something listens to the gradient of the bank's first weight already: it would see this rank's only.
        """
        first = self._model.bank.first_weight
        if first._backward_hooks:
            raise RuntimeError(
                "the bank's first weight has gradient hooks already, which would see one rank's part only; start the "
                "data parallel training before SelectiveSharing.attach()."
            )
        if first.requires_grad:
            self._hook = first.register_hook(self._summed_at_once)
        for parameter in self._stacked():
            exchange_lazy_gradient(parameter, True)

    def stop(self) -> None:
        """End; gradients are this process's own again."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        for parameter in self._stacked():
            exchange_lazy_gradient(parameter, False)

    def expect(self, sizes: Sequence[int]) -> None:
        """Say how many rows of the coming batch each rank has."""
        self._sizes = sizes

    def finish(self) -> None:
        """Sum all gradients that the backward has left in ``.grad``, but for the first weight's, which is summed."""
        first = self._model.bank.first_weight
        formed = []
        for parameter in self._model.parameters():
            if parameter is first or parameter.grad is None:
                continue
            factors = factors_of(parameter.grad)
            if factors is not None and self._by_factors(factors):
                parameter.grad = LazyGradient(self._whole(factors))
            else:
                parameter.grad = _in_memory(parameter.grad)
                formed.append(parameter.grad)
        sum_together(formed, self._ranks, "gradients")

    def _summed_at_once(self, gradient: Tensor) -> Tensor:
        """The hook of the first weight."""
        factors = factors_of(gradient)
        if factors is not None and self._by_factors(factors):
            return LazyGradient(self._whole(factors))
        formed = _in_memory(gradient).contiguous()
        if formed is gradient:  # autograd may use it elsewhere
            formed = formed.clone()
        return self._ranks.all_reduce(formed, "gradients")

    def _by_factors(self, factors: Factors) -> bool:
        """Whether the factors of the whole batch are smaller than twice the gradient."""
        if factors.source is not None:
            return False
        branches, _, outputs = factors.delta.shape
        inputs = factors.inputs.shape[0] * factors.inputs.shape[2]
        return sum(self._sizes) * (branches * outputs + inputs) < 2 * branches * outputs * factors.inputs.shape[2]

    def _whole(self, factors: Factors) -> Factors:
        """The factors of the whole batch, from every rank's rows."""
        factors.check_unchanged()
        widths = [factors.delta.shape[0] * factors.delta.shape[2], factors.inputs.shape[0] * factors.inputs.shape[2]]
        rows = torch.cat([part.detach().transpose(0, 1).flatten(1) for part in (factors.delta, factors.inputs)], 1)
        delta, inputs = self._ranks.gather_rows(rows, self._sizes, "factors").split(widths, 1)
        whole = Factors(
            delta.unflatten(1, (factors.delta.shape[0], -1)).transpose(0, 1),
            inputs.unflatten(1, (factors.inputs.shape[0], -1)).transpose(0, 1),
            None,
            factors.rectify,
        )
        whole.accumulators = factors.take_accumulators()
        return whole

    def _stacked(self) -> Iterable[nn.Parameter]:
        """The weights whose gradients may come as factors."""
        return (parameter for parameter in self._model.parameters() if parameter.ndim == 3)


def sum_together(tensors: Sequence[Tensor], ranks: Ranks, purpose: str) -> None:
    """Sum each tensor over ranks, in place; small ones in few messages."""
    buckets: dict[tuple[torch.dtype, torch.device], list[list[Tensor]]] = {}
    for tensor in tensors:
        if tensor.numel() >= BUCKET and tensor.is_contiguous():
            ranks.all_reduce(tensor, purpose)
            continue
        of_kind = buckets.setdefault((tensor.dtype, tensor.device), [[]])
        if sum(part.numel() for part in of_kind[-1]) >= BUCKET:
            of_kind.append([])
        of_kind[-1].append(tensor)
    for of_kind in buckets.values():
        for bucket in of_kind:
            flat = ranks.all_reduce(torch.cat([part.reshape(-1) for part in bucket]), purpose)
            for part, summed in zip(bucket, flat.split([part.numel() for part in bucket]), strict=True):
                part.copy_(summed.view_as(part))


def _in_memory(gradient: Tensor) -> Tensor:
    """A gradient as an ordinary tensor."""
    return gradient.factors.form() if isinstance(gradient, LazyGradient) else gradient
