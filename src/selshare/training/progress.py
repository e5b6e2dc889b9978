"""What a training run shows on the terminal."""

from __future__ import annotations

from collections.abc import Sized
from types import TracebackType
from typing import Any, Self

import rich.progress
from rich.console import Console

from ..distributed import ShardedModel
from ..model import MultiTaskModel
from ..sharing import SharingEvent
from .history import EpochRecord


class Progress:
    """A bar with epoch, loss, metric and live branches, and a line above it for every merge and for the lock."""

    def __init__(self, model: MultiTaskModel | ShardedModel, epochs: int, shown: bool, title: str = "") -> None:
        self._epochs = epochs
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}epoch {task.fields[epoch]}/{task.total}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[within]}"),
            rich.progress.TextColumn("loss {task.fields[loss]}  metric {task.fields[metric]}"),
            rich.progress.TextColumn("branches {task.fields[branches]}"),
            rich.progress.TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        fields: dict[str, Any] = {"epoch": 0, "within": "", "loss": "–", "metric": "–", "branches": model.branches}
        self._task = self._bar.add_task(f"{title} " if title else "", total=epochs, **fields)
        self._steps, self._done = 0, 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start_epoch(self, loader: Any) -> None:
        """Learn how many steps the epoch has, where the loader knows."""
        data = getattr(loader, "dataset", None)
        self._steps = len(loader) if isinstance(data, Sized) else 0
        self._done = 0

    def step(self) -> None:
        """One step is done; the display follows about fifty times an epoch."""
        self._done += 1
        if self._done % max(self._steps // 50, 1) == 0:
            within = f"{100 * self._done // self._steps:3d} %" if self._steps else f"step {self._done}"
            self._bar.update(self._task, within=within)

    def event(self, event: SharingEvent) -> None:
        """Show which tasks were merged, and the lock."""
        if self._bar.disable:
            return
        for members in event.merged:
            self._bar.console.print(f"epoch {event.epoch}: merged {', '.join(members)}", highlight=False)
        for members in event.undone:
            self._bar.console.print(f"epoch {event.epoch}: taken apart {', '.join(members)}", highlight=False)
        if event.locked:
            self._bar.console.print(
                f"epoch {event.epoch}: locked with {event.branches_after} branches ({event.lock_reason})",
                highlight=False,
            )

    def epoch(self, record: EpochRecord) -> None:
        """Show the epoch's figures."""
        loss = record.train_loss if record.validation_loss is None else record.validation_loss
        self._bar.update(
            self._task,
            completed=record.epoch,
            epoch=record.epoch,
            loss=f"{loss:.4g}",
            metric="–" if record.mean_metric is None else f"{record.mean_metric:.4g}",
            branches=record.branches,
        )
