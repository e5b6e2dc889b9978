"""Bytes each rank sends in a step: by the model, as counted, and as sockets saw them. ``python -m benchmarks.scaling``.

Ranks are processes of this machine, joined by gloo over 127.0.0.1. What a process has written by ``write`` and
``writev`` is in /proc/self/io, and gloo sends by these: the figures are what went into sockets, protocol included.
No GPU, no NCCL.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selshare import BankSGD, MultiTaskModel, Task
from selshare.distributed import DataParallel, Ranks, ShardedModel, processes
from selshare.distributed.traffic import Shape, data_parallel_step, memory, sharded_epoch, sharded_step, total

SHARED, HIDDEN, PIXELS = 640, (100, 50), 784
CASES = (
    ("data parallel", 64),
    ("data parallel", 1024),
    ("data parallel, formed", 64),
    ("sharded", 64),
    ("sharded", 1024),
)


def shape_of(tasks: int) -> Shape:
    """MNIST's branches of the paper, for any number of tasks, on a trunk of one layer."""
    return Shape(tasks, tasks, SHARED, HIDDEN, trunk=(PIXELS + 1) * SHARED)


def written() -> int:
    """Bytes this process has written since it began."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io does not say how much was written; this needs Linux.")


def measure(ranks: Ranks, case: str, batch: int, tasks: int, steps: int = 2) -> dict[str, float]:
    """One case on this rank: bytes of a step."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(PIXELS, SHARED), nn.ReLU())
    model = MultiTaskModel(trunk, SHARED, HIDDEN, [Task.binary(f"t{i}") for i in range(tasks)])
    inputs, targets = torch.randn(batch, PIXELS), torch.randint(2, (batch, tasks)).float()
    kind = torch.optim.SGD if case.endswith("formed") else BankSGD
    if case == "sharded":
        sharded = ShardedModel.of(model, ranks)
        sharded.start()
        optimizer = kind(sharded.parameters(), lr=0.01)

        def backward() -> None:
            sharded.loss(inputs, targets).backward()
            sharded.finish()
    else:
        parallel = DataParallel(model, ranks).start()
        optimizer = kind(model.parameters(), lr=0.01)

        def backward() -> None:
            parallel.backward(parallel.share(inputs, targets))

    def step() -> None:
        optimizer.zero_grad()
        backward()
        optimizer.step()

    step()
    ranks.meet("measurement")
    counted, sent = sum(ranks.sent.values()), written()
    for _ in range(steps):
        step()
    return {"counted": (sum(ranks.sent.values()) - counted) / steps, "sockets": (written() - sent) / steps}


def predicted(case: str, batch: int, tasks: int, ranks: int) -> float:
    """By the model."""
    if case == "sharded":
        return total(sharded_step(shape_of(tasks), ranks, batch))
    return total(data_parallel_step(shape_of(tasks), ranks, batch, lazy=not case.endswith("formed")))


def run(rank: int, size: int, port: int, tasks: int, results: Any) -> None:
    """One rank: every case."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo"
    )
    torch.set_num_threads(1)
    with processes() as ranks:
        for case, batch in CASES:
            found = ranks.hear(measure(ranks, case, batch, tasks), "results")
            if ranks.first:
                results.put((case, batch, found))


def compare(tasks: int) -> list[dict[str, Any]]:
    """All cases on two and four processes: a row each, in bytes a step and rank."""
    rows = []
    for size in (2, 4):
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [context.Process(target=run, args=(rank, size, port, tasks, results)) for rank in range(size)]
        for child in children:
            child.start()
        for _ in CASES:
            case, batch, found = results.get(timeout=600)
            rows.append(
                {
                    "case": case,
                    "batch": batch,
                    "ranks": size,
                    "model": predicted(case, batch, tasks, size),
                    "counted": max(rank["counted"] for rank in found),
                    "sockets": max(rank["sockets"] for rank in found),
                }
            )
        for child in children:
            child.join()
    return rows


def projection(tasks: int, ranks: int, batch: int) -> dict[str, Any]:
    """What the model says of many GPUs."""
    shape = shape_of(tasks)
    sketched = 1000
    branches = -(-tasks // ranks)
    weights = branches * shape.branch_parameters
    return {
        "data parallel, bytes a step": data_parallel_step(shape, ranks, batch),
        "sharded, bytes a step": sharded_step(shape, ranks, batch, checked=False),
        "sharded, bytes at the end of the epoch": sharded_epoch(shape, ranks, sketched),
        "memory of a rank, sharded": memory(shape, ranks, batch, captured=sketched),
        "memory, not sharded": memory(shape, 1, batch // ranks, captured=sketched),
        "flops of a rank's step": 6.0 * batch * weights,
        "targets of a batch, bytes on a rank's host": float(batch * branches * 4),
    }


def main() -> None:
    """Print the comparison and the projection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100, help="of the measurements")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    rows = compare(options.tasks)
    print(f"| {options.tasks} tasks | batch | processes | model, MB | counted, MB | sockets, MB |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        figures = " | ".join(f"{row[name] / 1e6:.3f}" for name in ("model", "counted", "sockets"))
        print(f"| {row['case']} | {row['batch']} | {row['ranks']} | {figures} |")
    print(json.dumps(projection(100_000, 64, 1024), indent=1))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
