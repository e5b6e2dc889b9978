"""Data parallel training: every rank has the whole model and some rows of every batch."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Self

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..model import MultiTaskModel
from ..objectives import check_finite_losses, check_some_label, check_targets, pack_targets, weighted_sum
from .alike import check_alike, make_alike
from .batch_norm import GlobalBatchNorm
from .gradients import GradientExchange
from .losses import SplitLosses
from .ranks import Ranks
from .rows import Targets, own_rows, split_evenly, take_targets
from .sharing import DataParallelEpochEnd


class Share(NamedTuple):
    """One rank's rows of a batch, and how many rows each rank has."""

    inputs: Tensor
    targets: Targets
    sizes: tuple[int, ...]


class DataParallel:
    """Trains one model on several ranks as one process would.

    The Trainer uses it by itself under torchrun. In a loop of one's own::

        with processes() as ranks, DataParallel(model, ranks) as parallel:
            sharing = SelectiveSharing().attach(model, optimizer, epoch_end=parallel.epoch_end)  # after DataParallel
            for epoch in range(30):
                for inputs, targets in loader:  # whole batches, the same on every rank
                    optimizer.zero_grad()
                    parallel.backward(parallel.share(inputs, targets))
                    optimizer.step()
                event = sharing.end_epoch()

    Weights, losses, captures and groups are those of one process to rounding: losses are normalised by the labels of
    the whole batch, batch normalisation in the trunk by its statistics. Dropout draws other units on every rank.
    How gradients are summed: :mod:`selshare.distributed.gradients`.

    Parameters
    ----------
    model
        The same model on every rank; its weights become rank 0's.
    ranks
        Who takes part.

    Raises
    ------
    ValueError
        If the branches hold batch normalisation.
    """

    def __init__(self, model: MultiTaskModel, ranks: Ranks) -> None:
        if any(isinstance(module, _BatchNorm) for module in model.bank.modules()):
            raise ValueError(
                "the branches hold batch normalisation, whose statistics would be those of each rank's rows; put it "
                "into the trunk, use layer normalisation, or shard the bank by branch."
            )
        self.model, self.ranks, self.epoch_end = model, ranks, DataParallelEpochEnd(ranks)
        self._losses = SplitLosses(model.layout, ranks)
        self._exchange = GradientExchange(model, ranks)
        self._norms = GlobalBatchNorm(model.trunk, ranks)

    def start(self) -> Self:
        """Give every rank rank 0's weights, and begin."""
        make_alike(self.model, self.ranks)
        self._exchange.start()
        self._norms.start()
        return self

    def stop(self) -> None:
        """End: the model is as it was, trained."""
        self._norms.stop()
        self._exchange.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def share(self, inputs: Tensor, targets: Targets) -> Share:
        """This rank's rows of a whole batch; there may be none."""
        sizes = split_evenly(len(inputs), self.ranks.size)
        rows = own_rows(sizes, self.ranks.rank)
        return Share(inputs[rows], take_targets(targets, rows), sizes)

    def loss(self, share: Share, *, check: bool | None = None) -> Tensor:
        """This rank's term of the whole batch's loss, for ``backward``: the terms' gradients add up to the whole's.

        It records the tasks' losses in the whole batch, and ``check`` is as in ``model.loss``.
        """
        return self._terms(share, check)[0]

    def finish(self) -> None:
        """Between the last backward and the step: sum gradients over ranks."""
        self._exchange.finish()

    def backward(self, share: Share, *, check: bool | None = None) -> Tensor:
        """:meth:`loss`, its backward, and :meth:`finish`; returns the whole batch's loss, without a graph.

        As ``loss = model.loss(model(inputs), targets); loss.backward()`` in one process.
        """
        own, whole = self._terms(share, check)
        own.backward()
        self.finish()
        return whole

    def _terms(self, share: Share, check: bool | None) -> tuple[Tensor, Tensor]:
        """This rank's term, and the whole batch's loss."""
        model = self.model
        outputs = model(share.inputs)
        packed = pack_targets(model.layout, share.targets, check=False)
        if packed.device.type == "cpu":
            check_targets(model.layout, packed)
        own, losses = self._losses(outputs, packed.to(outputs.device), share.sizes)
        if outputs.device.type == "cpu" if check is None else check:
            check_some_label(losses)
            check_finite_losses(model.layout, losses)
        if model.training:
            model.record(losses)
        self._exchange.expect(share.sizes)
        return own, weighted_sum(model.layout, losses)

    def check(self) -> None:
        """Raise ``RuntimeError`` if the ranks' models are not the same to the bit; cheap, for once an epoch."""
        check_alike(self.model, self.ranks)
