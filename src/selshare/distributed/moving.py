"""Rows that move between ranks: branches, heads and the optimizers' state of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .ranks import Ranks


class Move:
    """Items with a row each, and the ranks they come from and go to.

    On every rank rows are in the order of items, before and after.

    Parameters
    ----------
    before, after
        ``(n,)`` int64 on the CPU, the same on every rank: the rank of each item.
    ranks
        Who takes part.
    """

    def __init__(self, before: Tensor, after: Tensor, ranks: Ranks) -> None:
        self._ranks = ranks
        leaving = after[before == ranks.rank]
        self._order = leaving.argsort(stable=True)
        self._send = leaving.bincount(minlength=ranks.size).tolist()
        coming = before[after == ranks.rank]
        self._receive = coming.bincount(minlength=ranks.size).tolist()
        self._place = coming.argsort(stable=True).argsort()
        self.count = len(coming)

    def __call__(self, rows: Tensor, purpose: str) -> Tensor:
        """This rank's rows of before → its rows of after."""
        sent = rows.detach().index_select(0, self._order.to(rows.device))
        received = self._ranks.exchange(sent.flatten(1), self._send, self._receive, purpose)
        moved: Tensor = received.index_select(0, self._place.to(rows.device)).unflatten(1, rows.shape[1:])
        return moved


class StateMove:
    """Moves what optimizers remember of each row of some parameters, wherever there is such state.

    Numbers a parameter has once for all its rows (Adam's ``step``) are the same wherever there are rows.
    """

    def __init__(
        self, named: Sequence[tuple[str, nn.Parameter]], optimizers: Sequence[torch.optim.Optimizer], ranks: Ranks
    ) -> None:
        self._optimizers = optimizers
        own = {
            (name, number, key): _form(value, parameter)
            for name, parameter in named
            for number, optimizer in enumerate(optimizers)
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        self._forms: dict[tuple[str, int, str], Any] = {}
        for told in ranks.hear(own, "what optimizers remember"):
            self._forms = {**told, **self._forms}

    def __call__(
        self, name: str, parameter: nn.Parameter, rows: Tensor, move: Move, purpose: str
    ) -> dict[tuple[int, str], Any]:
        """The new state of one parameter: optimizer's number and key → rows or number; ``rows`` are those that move."""
        moved: dict[tuple[int, str], Any] = {}
        for (of, number, key), form in sorted(self._forms.items(), key=lambda item: item[0]):
            if of != name:
                continue
            if not isinstance(form, torch.dtype):
                moved[number, key] = form.clone() if isinstance(form, Tensor) else form
                continue
            value = self._optimizers[number].state.get(parameter, {}).get(key)
            if value is None:
                value = torch.zeros_like(parameter, dtype=form)
            moved[number, key] = move(value[rows], purpose)
        return moved

    def put(self, parameter: nn.Parameter, moved: dict[tuple[int, str], Any]) -> None:
        """Put a parameter's state in place."""
        for (number, key), value in moved.items():
            self._optimizers[number].state[parameter][key] = value


def _form(value: Any, parameter: nn.Parameter) -> Any:
    """The dtype of state with a row for each of the parameter's, or the value itself."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return value.dtype
    return value.detach().cpu() if isinstance(value, Tensor) else value
