"""The best epoch of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .history import EpochRecord
from .processes import Model


class BestEpoch:
    """The best epoch so far among those with the present number of branches."""

    def __init__(self, by_metric: bool, sign: float) -> None:
        self._by_metric, self._sign = by_metric, sign
        self._key: tuple[float, float] | None = None
        self._branches: int | None = None
        self._epoch: int | None = None
        self._state: dict[str, Any] = {}

    def offer(self, record: EpochRecord, model: Model) -> None:
        """Keep a copy of the model's state if this epoch is the best, or the first with fewer branches."""
        assert record.validation_loss is not None
        assert record.mean_metric is not None
        metric = self._sign * record.mean_metric if self._by_metric else 0.0
        key = (metric, -record.validation_loss)
        if record.branches != self._branches or self._key is None or key > self._key:
            self._key, self._branches, self._epoch = key, record.branches, record.epoch
            self._state = copy.deepcopy(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What to save."""
        return {"key": self._key, "branches": self._branches, "epoch": self._epoch, "state": dict(self._state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._key, self._branches, self._epoch = state["key"], state["branches"], state["epoch"]
        self._state = dict(state["state"])

    def restore(self, model: Model) -> int | None:
        """Put the best state back; its epoch."""
        if self._epoch is not None:
            model.load_state_dict(self._state)
        return self._epoch
