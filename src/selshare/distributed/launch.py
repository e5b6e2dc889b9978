"""From the environment that torchrun sets to a :class:`Ranks`, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from .lost import RankLost, Watch
from .ranks import Ranks

_current: Ranks | None = None


@contextmanager
def processes(*, backend: str | None = None, timeout: float = 300.0) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` has started, for the length of a ``with`` block.

    Where a rank dies, the others end with exit status 1 and one of them says which it was, in one sentence.

    Parameters
    ----------
    backend
        Of ``torch.distributed``; gloo for CPU tensors, and NCCL for those on GPUs where there are any, when ``None``.
        (NCCL has not been tried.)
    timeout
        Seconds after which a rank that does not answer counts as lost. It must cover the longest a rank works alone:
        rank 0 clusters and writes checkpoints while the others wait. A process that dies is noticed at once.

    Yields
    ------
    Ranks
        With one rank where the program was not started by torchrun.
    """
    global _current
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "0")):
        os.environ.setdefault(name, value)
    wait = timedelta(seconds=timeout)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, size = next(rendezvous("env://", timeout=wait))
    # torchrun's store outlives the processes: after a restart it must not hold what earlier ones have left.
    store = PrefixStore(f"selshare/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    watch = Watch(store, rank, size)
    dist.init_process_group(
        backend or ("cpu:gloo,cuda:nccl" if cuda else "gloo"),
        store=PrefixStore("groups", store),
        rank=rank,
        world_size=size,
        timeout=wait,
    )
    watch.meet()
    _current = Ranks(watch=watch)
    try:
        yield _current
        _current.meet("the end of the run")
    except RankLost as error:
        if error.tells:
            print(f"selshare: {error}", file=sys.stderr, flush=True)
        _leave(1)
    except BaseException as error:
        watch.failed(error)
        raise
    finally:
        _current = None
        dist.destroy_process_group()


def current_ranks() -> Ranks | None:
    """The ranks of the enclosing :func:`processes`, or of a process group of one's own; ``None`` with one process."""
    if _current is not None:
        return _current if _current.size > 1 else None
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Ranks()
    return None


def _leave(status: int) -> None:
    """End the process at once: threads of a broken process group would keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
