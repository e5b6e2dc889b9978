"""A rank that is gone: who it is, and one clear error in place of one for each rank that is left."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection

from torch._C._distributed_c10d import Store

_GRACE = 3.0  # seconds in which ranks that are alive are heard of


class Watch:
    """Which ranks are alive, by a store that outlives any of them but its host.

    Under torchrun the store is its agent's. Elsewhere it is rank 0's: if that rank dies, the next living one says so.

    Parameters
    ----------
    store
        Shared by all ranks; ``torchrun``'s lives in its agent.
    rank, size
        Of this process.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._processes: list[tuple[str, str]] = []
        store.set(f"process/{rank}", f"{socket.gethostname()} {os.getpid()}")

    def meet(self) -> None:
        """Learn where the others are, once all have come."""
        for rank in range(self._size):
            host, _, process = self._store.get(f"process/{rank}").decode().partition(" ")
            self._processes.append((host, process))

    def failed(self, error: BaseException) -> None:
        """Leave word that this rank ends with an error of its own."""
        self._store.set(f"failed/{self._rank}", f"{type(error).__name__}: {error}")

    def missing(self) -> tuple[dict[int, str], bool]:
        """The ranks that are gone, with what is known of each, and whether this rank is the one to tell.

        Waits a few seconds at most for the others' word.
        """
        try:
            self._store.set(f"alive/{self._rank}", "")
            until = time.monotonic() + _GRACE
            gone = self._unheard()
            while time.monotonic() < until and any(state is None for state in gone.values()):
                time.sleep(0.02)
                gone = self._unheard()
            tells = self._store.add("told", 1) == 1
            self._store.set(f"left/{self._rank}", "")
            until = time.monotonic() + _GRACE
            while self._rank == 0 and time.monotonic() < until and not self._all_left(gone):
                time.sleep(0.02)  # the store may be this process's, and others have not asked it yet
        except RuntimeError:  # the store went with its host
            tells = all(self._dead(rank) for rank in range(1, self._rank))
            if tells:
                time.sleep(_GRACE)  # the others see this process alive, and leave it to it
            return {0: "its process is gone" if self._dead(0) else "and the store with it"}, tells
        return {rank: state or "it stopped answering" for rank, state in gone.items()}, tells

    def _all_left(self, gone: Collection[int]) -> bool:
        """Whether all ranks that are there know who tells."""
        return self._store.check([f"left/{rank}" for rank in range(self._size) if rank not in gone])

    def _unheard(self) -> dict[int, str | None]:
        """Ranks not heard of as alive: why they are gone, ``None`` where that is not known (yet)."""
        found: dict[int, str | None] = {}
        for rank in range(self._size):
            if rank == self._rank or self._store.check([f"alive/{rank}"]):
                continue
            if self._store.check([f"failed/{rank}"]):
                found[rank] = self._store.get(f"failed/{rank}").decode()
            else:
                found[rank] = "its process is gone" if self._dead(rank) else None
        return found

    def _dead(self, rank: int) -> bool:
        """Whether a rank was on this machine and its process is not there any more."""
        host, process = self._processes[rank] if self._processes else ("", "")
        if host != socket.gethostname():
            return False
        try:
            with open(f"/proc/{process}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return True


class RankLost(RuntimeError):
    """Another rank is gone, and the run cannot go on.

    Attributes
    ----------
    tells
        Whether this rank is the one to say so; the others can end quietly.
    """

    def __init__(self, rank: int, size: int, purpose: str, watch: Watch | None) -> None:
        gone, self.tells = ({}, True) if watch is None else watch.missing()
        if gone:
            who = "; ".join(f"rank {lost} of {size} is gone ({why})" for lost, why in gone.items())
        else:
            who = f"a rank of {size} is gone or did not answer in time"
        super().__init__(
            f"{who}: rank {rank} noticed while it exchanged {purpose}. The run ends here; start it again with "
            "fit(resume='auto') and checkpoints to go on after the last epoch that was saved."
        )
