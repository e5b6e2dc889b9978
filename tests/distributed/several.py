"""Run a function on several ranks: forked processes, gloo on this machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from selshare.distributed import Ranks, processes

SECONDS = 300


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def start(
    function: Callable[[Any], Any], size: int, folder: Path, *, timeout: float = 120.0, joined: bool = True
) -> list[int]:
    """Fork ``size`` ranks; each leaves its result in ``folder/rank`` and what it prints in ``folder/rank.log``.

    Not ``joined``: they have the environment of torchrun only.
    """
    port = free_port()
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            _run(function, rank, size, folder, timeout, port, joined)
        children.append(child)
    return children


def wait(children: list[int]) -> list[int]:
    """Each one's exit status, a signal as its negative number; ranks that hang are killed and fail the test."""
    until, statuses = time.monotonic() + SECONDS, dict.fromkeys(children, None)
    while None in statuses.values():
        for child, status in statuses.items():
            if status is None:
                found, code = os.waitpid(child, os.WNOHANG)
                if found:
                    statuses[child] = os.waitstatus_to_exitcode(code)
        if time.monotonic() > until:
            for child, status in statuses.items():
                if status is None:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
            raise AssertionError(f"ranks hang: {statuses}")
        time.sleep(0.01)
    return list(statuses.values())


def on_ranks(function: Callable[[Ranks], Any], size: int, folder: Path) -> list[Any]:
    """What ``function`` returns on each of ``size`` ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    statuses = wait(start(function, size, folder))
    logs = "\n".join((folder / f"{rank}.log").read_text() for rank in range(size))
    assert statuses == [0] * size, logs
    return [torch.load(folder / str(rank), weights_only=False) for rank in range(size)]


def _run(
    function: Callable[[Ranks], Any], rank: int, size: int, folder: Path, timeout: float, port: int, joined: bool
) -> None:
    """A child: never returns."""
    status = 1
    with (folder / f"{rank}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        try:
            os.environ.update(
                RANK=str(rank),
                WORLD_SIZE=str(size),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                GLOO_SOCKET_IFNAME="lo",
            )
            torch.set_num_threads(1)
            with processes(timeout=timeout) if joined else nullcontext() as ranks:
                torch.save(function(ranks), folder / str(rank))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            log.flush()
            os._exit(status)
