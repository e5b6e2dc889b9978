"""Selective sharing inside Lightning's Trainer: a callback. Needs ``lightning`` or ``pytorch_lightning``."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .model import MultiTaskModel
from .sharing import SelectiveSharing, SharingEvent

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
else:
    # Two packages with the same content and different classes: that which the user has imported.
    _NAMES = ("lightning.pytorch", "pytorch_lightning")
    _found = next((name for name in _NAMES if name in sys.modules), None)
    try:
        Callback = import_module(_found or _NAMES[0]).Callback
    except ImportError:
        try:
            Callback = import_module(_NAMES[1]).Callback
        except ImportError as error:
            raise ImportError("selshare.lightning needs Lightning; run: pip install 'selshare[lightning]'.") from error

__all__ = ["SharingCallback"]


class SharingCallback(Callback):
    """Lets the branches of the module's :class:`~selshare.MultiTaskModel` merge at the end of each epoch.

    The module trains the model with its :meth:`~selshare.MultiTaskModel.loss` in any way it likes: automatic or manual
    optimization, mixed precision, accumulation, clipping. The merges are those of a loop of one's own that calls
    ``sharing.end_epoch()`` after each epoch. Lightning validates before that: an epoch's validation metrics are of the
    branches before its merges. A Lightning checkpoint holds the state of the sharing and can be resumed from.

    Parameters
    ----------
    sharing
        What decides; its ``events`` tell what happened. ``branches`` is logged after each epoch.
    validation_losses
        For ``validate_merges``: the prefix under which the module logs the validation loss of each task, as in
        ``self.log("val_loss/" + task, …)`` for ``"val_loss/"``.

    Raises
    ------
    RuntimeError
        When training begins: if there are several processes, each of which would merge other branches (use
        :class:`selshare.Trainer` under ``torchrun``).
    ValueError
        When training begins: if the module holds no :class:`~selshare.MultiTaskModel`, or more than one.
    """

    def __init__(self, sharing: SelectiveSharing, *, validation_losses: str | None = None) -> None:
        super().__init__()
        self.sharing = sharing
        self._prefix = validation_losses
        self._model: MultiTaskModel | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the model and its optimizers."""
        if trainer.world_size > 1:
            raise RuntimeError(
                f"SharingCallback runs in one process, and there are {trainer.world_size}, which would merge different "
                "branches; train with selshare.Trainer under torchrun, which shares across processes."
            )
        self._model = _model_of(pl_module)
        if self._saved is not None:
            self.sharing.load_state_dict(self._saved)
            self._saved = None
        if self.sharing.needs_validation and self._prefix is None:
            raise ValueError(
                "validate_merges needs the tasks' validation losses; log them and name their prefix: "
                "SharingCallback(sharing, validation_losses='val_loss/')."
            )
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        batches = trainer.num_training_batches
        steps = int(batches) if math.isfinite(batches) else None
        self.sharing.attach(self._model, trainer.optimizers, epochs=epochs, scaler=scaler, steps=steps)
        self._model.reset_loss_record()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cluster and merge."""
        if not self.sharing.settled:
            losses = self._validation_losses(trainer.callback_metrics) if self.sharing.needs_validation else None
            self.merged(self.sharing.end_epoch(losses), pl_module)
        assert self._model is not None
        pl_module.log("branches", float(self._model.bank.branches))

    def merged(self, event: SharingEvent, pl_module: LightningModule) -> None:
        """Called with each epoch's event; to be overridden by who wants to act on merges."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach, also after an error."""
        if self._model is not None:
            self.sharing.detach()
            self._model = None

    def state_dict(self) -> dict[str, Any]:
        """The sharing's, for Lightning's checkpoints."""
        return self.sharing.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the saved state until training begins, when the model has its branches."""
        self._saved = state_dict

    def _validation_losses(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Each task's validation loss as the module logged it."""
        assert self._model is not None
        assert self._prefix is not None
        missing = [name for name in self._model.layout.names if self._prefix + name not in metrics]
        if missing:
            raise ValueError(
                f"validate_merges needs the validation loss of task {missing[0]!r}, but nothing is logged as "
                f"{self._prefix + missing[0]!r}; log it in validation_step or on_validation_epoch_end."
            )
        return {name: float(torch.as_tensor(metrics[self._prefix + name])) for name in self._model.layout.names}


def _model_of(module: nn.Module) -> MultiTaskModel:
    """The only multi-task model in a module."""
    found = [part for part in module.modules() if isinstance(part, MultiTaskModel)]
    if len(found) != 1:
        raise ValueError(
            f"{type(module).__name__} holds {len(found)} MultiTaskModels, and SharingCallback needs exactly one; keep "
            "the model as an attribute of the module."
        )
    return found[0]
