"""An exponential moving average of a model's weights, which follows its merges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..model import MultiTaskModel


class WeightAverage:
    """``a ← d·a + (1 − d)·w`` after every step, for parameters and the floating buffers of trunk, bank and heads.

    In the first steps d is at most ``(1 + t)/(10 + t)``, so that the start is soon forgotten. A merge replaces
    branches and heads by others, whose past no average knows: it starts anew from the merged model.

    Parameters
    ----------
    model
        Whose weights.
    decay
        d, between 0 and 1: the average looks back over about ``1/(1 − d)`` steps.

    Raises
    ------
    ValueError
        If ``decay`` is not between 0 and 1.
    """

    def __init__(self, model: MultiTaskModel, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"average must be a decay between 0 and 1, such as 0.999; it is {decay}.")
        self._model, self._decay = model, decay
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew from the model's present weights."""
        self._steps = 0
        self._averages = {name: tensor.detach().clone() for name, tensor in self._live()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer's step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        live = [tensor.detach() for _, tensor in self._live()]
        torch._foreach_lerp_(list(self._averages.values()), live, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside. Memory changes hands: nothing is copied."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def keep(self) -> None:
        """Leave the averaged weights in the model."""
        self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """What to save."""
        return {"steps": self._steps, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; the model has its saved weights already."""
        self.restart()
        self._steps = state["steps"]
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])

    def _live(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are averaged; the model's own buffers, such as its record of losses, are not."""
        yield from self._model.named_parameters()
        for name, buffer in self._model.named_buffers():
            if "." in name and buffer.is_floating_point():
                yield name, buffer

    def _exchange(self) -> None:
        """Model and average swap their memory; versions, which optimizers and captures look at, stay."""
        for name, tensor in self._live():
            tensor.data, self._averages[name] = self._averages[name], tensor.data
