"""The processes of a run: their collectives, counted, and a clear end where one of them is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .lost import RankLost, Watch

Value = TypeVar("Value")

# How a lost connection, or a wait that was too long, reads in the errors of gloo, NCCL and the store.
_LOST = ("gloo/transport", "Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "timeout")


class Ranks:
    """One process per rank, and what they tell each other.

    Every rank makes the same calls in the same order. Sums are taken in one order, so that every rank gets the same
    bits.

    Parameters
    ----------
    group
        A process group; all processes when ``None``. ``torch.distributed`` must have been initialised, as
        :func:`~selshare.distributed.processes` does.
    watch
        Who is still there, for errors that name a rank that is gone; see :func:`~selshare.distributed.processes`.

    Attributes
    ----------
    rank, size
        This process's number, and how many there are.
    sent
        Bytes this rank has sent by purpose, as rings and direct messages send them: an all-reduce of n bytes sends
        ``2(W−1)/W·n``, an all-gather ``(W−1)`` times its own part, a broadcast what a tree makes of it on average,
        ``(W−1)/W·n``, an exchange what goes to others. ``docs/scaling.md`` compares them with what sockets saw.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, watch: Watch | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "torch.distributed is not initialised; use `with selshare.distributed.processes() as ranks:` in a "
                "program that torchrun starts."
            )
        self._group, self._watch = group, watch
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.sent: Counter[str] = Counter()

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and shows progress."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor, purpose: str) -> Tensor:
        """The sum over ranks, in place."""
        return self._reduced(tensor, purpose, dist.ReduceOp.SUM)

    def largest(self, tensor: Tensor, purpose: str) -> Tensor:
        """The element-wise maximum over ranks, in place."""
        return self._reduced(tensor, purpose, dist.ReduceOp.MAX)

    def gather_rows(self, rows: Tensor, sizes: Sequence[int], purpose: str) -> Tensor:
        """Every rank's rows ``(sizes[r], …)``, in the order of ranks: ``(Σ sizes, …)`` on every rank."""
        most = max(sizes)
        own = rows.contiguous()
        if len(own) < most:
            own = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        gathered = own.new_empty(self.size * most, *own.shape[1:])
        self._count(purpose, _bytes(own) * (self.size - 1))
        with self._guarded(purpose):
            dist.all_gather_into_tensor(gathered, own, group=self._group)
        if min(sizes) == most:
            return gathered
        parts = gathered.unflatten(0, (self.size, most))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def exchange(self, rows: Tensor, send: Sequence[int], receive: Sequence[int], purpose: str) -> Tensor:
        """Rows for each rank, one after the other, against the rows they have for this one.

        ``send[r]`` of ``rows`` go to rank r; the result holds ``receive[r]`` from each rank r, in their order.
        """
        rows = rows.contiguous()
        received = rows.new_empty(sum(receive), *rows.shape[1:])
        self._count(purpose, rows[:1].numel() * rows.element_size() * (len(rows) - send[self.rank]))
        with self._guarded(purpose):
            dist.all_to_all_single(received, rows, list(receive), list(send), group=self._group)
        return received

    def broadcast(self, tensor: Tensor, purpose: str) -> Tensor:
        """Rank 0's values, in place."""
        self._count(purpose, _bytes(tensor) * (self.size - 1) // self.size)
        with self._guarded(purpose):
            dist.broadcast(tensor, 0, group=self._group)
        return tensor

    def tell(self, value: Value, purpose: str) -> Value:
        """Rank 0's value of anything that can be pickled; the others' is not looked at."""
        box = [value]
        with self._guarded(purpose):
            dist.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def hear(self, value: Value, purpose: str) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        box: list[Any] = [None] * self.size
        with self._guarded(purpose):
            dist.all_gather_object(box, value, group=self._group)
        return box

    def decide(self, function: Callable[[], Value], purpose: str) -> Value:
        """What ``function`` returns on rank 0, which alone calls it; its exception is raised on every rank."""
        outcome: tuple[Value | None, Exception | None] = (None, None)
        if self.first:
            try:
                outcome = function(), None
            except Exception as error:
                outcome = None, error
        value, problem = self.tell(outcome, purpose)
        if problem is not None:
            raise problem
        return value  # type: ignore[return-value]  # without a problem it is what the function returned

    def meet(self, purpose: str) -> None:
        """Wait until every rank is here."""
        with self._guarded(purpose):
            dist.barrier(group=self._group)

    def _reduced(self, tensor: Tensor, purpose: str, operation: Any) -> Tensor:
        """An all-reduce."""
        self._count(purpose, 2 * _bytes(tensor) * (self.size - 1) // self.size)
        with self._guarded(purpose):
            dist.all_reduce(tensor, operation, group=self._group)
        return tensor

    def _count(self, purpose: str, sent: int) -> None:
        """Remember what was sent."""
        self.sent[purpose] += sent

    @contextmanager
    def _guarded(self, purpose: str) -> Iterator[None]:
        """Turn the error of a connection that is gone into one that says who is."""
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST)):
                raise
            raise RankLost(self.rank, self.size, purpose, self._watch) from error


def _bytes(tensor: Tensor) -> int:
    """What a tensor takes in memory."""
    return tensor.numel() * tensor.element_size()
