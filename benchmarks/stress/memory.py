"""Whether memory stays flat over many merges and many steps: ``python -m benchmarks.stress.memory``.

Each part samples, ten times on its way, the process's resident memory, what Python has allocated (tracemalloc), how
many objects the collector knows, and how many bytes live tensors hold. In the second part nothing may grow; in the
first tensors shrink with the bank and nothing else may grow. Exit status 1 if something does.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from selshare import BankAdam, MultiTaskModel, SelectiveSharing, Task
from selshare.sharing.merge import apply
from selshare.sharing.plan import MergePlan

MEBI = 1 << 20
SAMPLES = 10
MOST_RESIDENT, MOST_TRACED, MOST_OBJECTS = 8 * MEBI, MEBI // 4, 300  # growth from the second sample to the last


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds after so many rounds; bytes, but for the objects."""

    rounds: int
    resident: int
    traced: int
    objects: int
    tensors: int


def sample(rounds: int, *held: object) -> Sample:
    """Look, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tensors = sum(tensor.nbytes for one in held for tensor in _tensors(one))
    return Sample(
        rounds, pages * os.sysconf("SC_PAGE_SIZE"), tracemalloc.get_traced_memory()[0], len(gc.get_objects()), tensors
    )


def _tensors(held: object) -> list[torch.Tensor]:
    """Those of a model or an optimizer's state."""
    if isinstance(held, nn.Module):
        return [*held.parameters(), *held.buffers()]
    if isinstance(held, torch.optim.Optimizer):
        return [value for state in held.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return []


def sampled(rounds: int, work: Callable[[int], None], *held: object) -> list[Sample]:
    """Do the rounds; a sample before the first and after each tenth of them."""
    gc.collect()
    gc.freeze()  # what was there before is not counted
    tracemalloc.start()
    try:
        found = [sample(0, *held)]
        for done in range(1, rounds + 1):
            work(done)
            if done * SAMPLES // rounds > (done - 1) * SAMPLES // rounds:
                found.append(sample(done, *held))
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    return found


def built(tasks: int, features: int, hidden: tuple[int, ...]) -> tuple[MultiTaskModel, BankAdam]:
    """A model with a branch a task, and its optimizer."""
    torch.manual_seed(0)
    model = MultiTaskModel(
        nn.Linear(8, features), features, hidden, [Task.binary(f"task {index}") for index in range(tasks)]
    )
    return model, BankAdam(model.parameters(), lr=1e-3)


def step(model: MultiTaskModel, optimizer: BankAdam) -> None:
    """One training step on random samples."""
    inputs, targets = torch.randn(8, 8), torch.randint(0, 2, (8, len(model.tasks))).float()
    optimizer.zero_grad()
    model.loss(model(inputs), targets).backward()
    optimizer.step()


def merges(count: int) -> list[Sample]:
    """One pair at a time, optimizer state included, with a step of training between."""
    model, optimizer = built(count + 1, 64, (32, 16))

    def work(done: int) -> None:
        step(model, optimizer)
        left = model.bank.branches
        pair = (done * 7 % (left - 1), left - 1)
        apply(MergePlan(left, (pair,), (pair[0],), "best"), model, optimizer)

    step(model, optimizer)
    found = sampled(count, work, model, optimizer)
    assert model.bank.branches == 1
    return found


def steps(count: int) -> list[Sample]:
    """Steps with capture; sharing looks at the gradients a hundred times, and merges nothing."""
    model, optimizer = built(20, 32, (16, 8))
    sharing = SelectiveSharing(warmup=10**6, group_epochs=0).attach(model, optimizer)
    often = max(1, count // 100)

    def work(done: int) -> None:
        step(model, optimizer)
        if done % often == 0:
            sharing.end_epoch()
            sharing.events.clear()  # a history grows by design

    for _ in range(5):
        step(model, optimizer)
    return sampled(count, work, model, optimizer)


def grown(samples: list[Sample]) -> dict[str, int]:
    """By how much the last sample is above the second: what Python and torch set up once is in the first."""
    first, last = samples[1], samples[-1]
    names = ("resident", "traced", "objects")
    return {name: getattr(last, name) - getattr(first, name) for name in names}


def is_flat(samples: list[Sample]) -> bool:
    """Whether no growth is above what one part of the run to the next may differ by."""
    growth = grown(samples)
    return growth["resident"] <= MOST_RESIDENT and growth["traced"] <= MOST_TRACED and growth["objects"] <= MOST_OBJECTS


def main() -> int:
    """Both parts, printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merges", type=int, default=500)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    flat = True
    for title, samples in (("merges", merges(options.merges)), ("steps", steps(options.steps))):
        print(f"{title:>8} {'resident MiB':>13} {'Python KiB':>11} {'objects':>9} {'tensors KiB':>12}")
        for one in samples:
            print(
                f"{one.rounds:8} {one.resident / MEBI:13.1f} {one.traced / 1024:11.1f} {one.objects:9} "
                f"{one.tensors / 1024:12.1f}"
            )
        growth = grown(samples)
        print(
            f"   after the first tenth: {growth['resident'] / MEBI:+.1f} MiB resident, {growth['traced'] / 1024:+.1f} "
            f"KiB of Python, {growth['objects']:+d} objects: {'flat' if is_flat(samples) else 'GROWS'}\n"
        )
        flat = flat and is_flat(samples)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
