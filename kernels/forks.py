"""Children of ``fork``: they take one thread, since OpenMP's others are not in them.

After a parallel region libgomp, which torch and the compiled kernels share, keeps its threads for the next one. A
forked child has only the thread that forked: its first parallel region would wait for the others for ever. A
``DataLoader`` tells torch in its workers to use one thread; here every child of a process that has imported the
kernels is told so. One that knows that nothing ran in parallel before it was forked may raise the number again with
``torch.set_num_threads``. Children that are spawned start afresh and are not concerned.
"""

from __future__ import annotations

import os

import torch

from . import workspace


def _begin_child() -> None:
    """One thread, and a lock that no thread of the parent holds."""
    workspace.renew_lock()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
