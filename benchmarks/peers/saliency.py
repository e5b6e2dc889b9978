"""A training step with SRDML's regulariser: ours in one vectorised pass, and the released scheme's loop over tasks.

The model: 64 inputs, a trunk to 128 shared features, branches 128-32, one binary head each; batch 32, plain SGD. A
step is forward, the tasks' losses, the regulariser (l1, ω updated), backward and update.

- ``ours``: the Trainer's way, :class:`selshare.objectives.SaliencyRegularizer`.
- ``ours, none``: the same step without the regulariser.
- ``released``: an ``nn.ModuleList`` of branches; a ``torch.autograd.grad(..., create_graph=True)`` per task, and a
  distance per pair of tasks (Bai and Zhao, KDD 2022, as their code does it).

Contestants take turns; the fastest step of each counts. Memory is the peak above what was resident before the steps,
in a process of its own.

Run ``python benchmarks/peers/saliency.py [--tasks 10,100,500] [--threads 2] [--no-memory] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from selshare import MultiTaskModel, Task
from selshare.objectives import SaliencyRegularizer
from selshare.optim import BankSGD

INPUTS, SHARED, HIDDEN, BATCH = 64, 128, 32, 32
STRENGTH = 0.1


def make_batch(tasks: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, INPUTS, generator=generator), (
        torch.rand(BATCH, tasks, generator=generator) < 0.5
    ).float()


class Ours:
    def __init__(self, tasks: int, regularized: bool = True) -> None:
        named = [Task.binary(f"t{i}") for i in range(tasks)]
        trunk = nn.Sequential(nn.Linear(INPUTS, SHARED), nn.ReLU())
        self.model = MultiTaskModel(trunk, SHARED, (HIDDEN,), named)
        self.optimizer = BankSGD(self.model.parameters(), lr=0.01)
        self.regularizer = SaliencyRegularizer(named, strength=STRENGTH) if regularized else None
        self.batch = make_batch(tasks)

    def step(self) -> None:
        inputs, targets = self.batch
        self.optimizer.zero_grad()
        shared = self.model.shared(inputs)
        outputs = self.model.outputs_from(shared)
        loss = self.model.loss(outputs, targets)
        if self.regularizer is not None:
            loss = loss + self.regularizer(self.model, shared, outputs, targets)
        loss.backward()
        self.optimizer.step()


class Released:
    def __init__(self, tasks: int) -> None:
        self.trunk = nn.Sequential(nn.Linear(INPUTS, SHARED), nn.ReLU())
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(SHARED, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)) for _ in range(tasks)
        )
        self.omega = torch.ones(tasks, tasks, requires_grad=True)
        self.optimizer = torch.optim.SGD([*self.trunk.parameters(), *self.branches.parameters()], lr=0.01)
        self.relations = torch.optim.Adam([self.omega], lr=0.001)
        self.batch = make_batch(tasks)

    def step(self) -> None:
        inputs, targets = self.batch
        self.optimizer.zero_grad()
        self.relations.zero_grad()
        shared = self.trunk(inputs)
        logits = [branch(shared) for branch in self.branches]
        loss = sum(
            functional.binary_cross_entropy_with_logits(logit.squeeze(1), targets[:, i])
            for i, logit in enumerate(logits)
        )
        saliency = [torch.autograd.grad(logit.sum(), shared, create_graph=True)[0] for logit in logits]
        total = self.omega.triu(1).sum()
        term = torch.zeros(())
        for i in range(len(saliency)):
            for j in range(i + 1, len(saliency)):
                term = term + self.omega[i, j] / total * (saliency[i] - saliency[j]).abs().sum()
        (loss + STRENGTH * term).backward()
        self.optimizer.step()
        self.relations.step()
        with torch.no_grad():
            self.omega.clamp_(min=0)


RUNNERS = {"ours": Ours, "ours, none": lambda tasks: Ours(tasks, False), "released": Released}


def measure(tasks: int, rounds: int) -> dict[str, float]:
    """Milliseconds of the fastest step of each; they take turns."""
    runners = {name: make(tasks) for name, make in RUNNERS.items()}
    best = dict.fromkeys(runners, float("inf"))
    for number in range(rounds + 1):
        for name, runner in runners.items():
            if name == "released" and number > 2 and best[name] > 2:
                continue  # enough of the slow one
            started = time.perf_counter()
            runner.step()
            if number:
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: 1000 * seconds for name, seconds in best.items()}


def peak(contestant: str, tasks: int) -> float:
    """Megabytes that steps take above what is resident before; run in a process of its own."""
    Ours(2).step()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    runner = RUNNERS[contestant](tasks)
    for _ in range(2):
        runner.step()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak_elsewhere(contestant: str, tasks: int) -> float:
    command = [sys.executable, __file__, "--peak", contestant, "--tasks", str(tasks)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a row per number of tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="10,100,500")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peak", choices=list(RUNNERS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(peak(arguments.peak, int(arguments.tasks)))
        return
    rows = []
    for tasks in map(int, arguments.tasks.split(",")):
        row = {"tasks": tasks, "threads": arguments.threads, "ms": measure(tasks, arguments.rounds)}
        times = row["ms"]
        said = (
            f"{tasks} tasks: ours {times['ours']:.1f} ms ({times['ours, none']:.1f} without the regulariser), released "
            f"{times['released']:.1f} ms, {times['released'] / times['ours']:.1f}×"
        )
        if arguments.memory:
            row["peak_mb"] = {name: peak_elsewhere(name, tasks) for name in ("ours", "released")}
            said += f"; peak {row['peak_mb']['ours']:.0f} MB, {row['peak_mb']['released']:.0f} MB"
        rows.append(row)
        print(said, flush=True)
    if arguments.memory:
        print(f"1,000 tasks: ours {peak_elsewhere('ours', 1000):.0f} MB")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
