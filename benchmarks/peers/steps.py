"""A training step of many tasks, ours and by what people use today: same model, same batch, same process.

The model: a small trunk to 300 shared features, branches 300-100-100 with ReLU, one binary head each; batch 64, SGD
with momentum, and the gradient of every branch's first layer captured. One step is forward, backward, capture and
update. Contestants take turns, step by step; the fastest step of each counts, and medians are shown beside it.

- ``ours``: BankSGD, captured by the fused step. ``ours, free``: captured from the displacement. ``ours, sketch``:
  1,000 random projections a branch. ``ours, none``: not captured. ``ours, torch SGD``: the same model under
  ``torch.optim.SGD``, captured by a hook.
- ``modules``: an ``nn.ModuleList`` of branches in a Python loop, ``.grad`` added to an accumulator per branch.
- ``vmap``: the same modules through ``torch.func.stack_module_state`` and ``vmap``.
- ``per-task backward``: LibMTL's way (``AbsWeighting._compute_grad``): losses put into one tensor task by task, one
  ``backward(retain_graph=True)`` for each, the shared gradients copied into a matrix and summed.
- ``torchjd``: ``torchjd.autojac.mtl_backward`` and the mean of the Jacobian's rows, where torchjd is installed.

Run ``python benchmarks/peers/steps.py [--tasks 100,500,1000] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from _machine import environment, resident
from selshare import MultiTaskModel, Task
from selshare.optim import BankSGD
from selshare.sharing import FreeCapture, GradientCapture, SketchedCapture

INPUTS, SHARED, HIDDEN, BATCH = 64, 300, 100, 64
OPTIONS = {"lr": 0.01, "momentum": 0.5}
PER_TASK_MOST = 100  # tasks up to which the quadratic peers run
TORCHJD_MOST = 100
SKETCH_SIZE = 1000
CAPTURE_OF = {"ours": "exact", "ours, free": "free", "ours, sketch": "sketch"}
CAPTURES = {"exact": GradientCapture, "free": FreeCapture, "sketch": lambda: SketchedCapture(SKETCH_SIZE)}


def make_trunk() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, SHARED), nn.ReLU())


def make_branch() -> nn.Module:
    layers = [nn.Linear(SHARED, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)]
    return nn.Sequential(*layers)


def make_batch(tasks: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCH, INPUTS, generator=generator)
    return inputs, (torch.rand(BATCH, tasks, generator=generator) < 0.5).float()


def flops(tasks: int) -> float:
    """Floating-point operations of the branches' products, forward and backward; the small trunk is left out."""
    return 3 * 2 * BATCH * tasks * (SHARED * HIDDEN + HIDDEN * HIDDEN + HIDDEN)


class Ours:
    """``capture``: None or a key of CAPTURES."""

    def __init__(self, tasks: int, capture: str | None, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        names = [Task.binary(f"t{i}") for i in range(tasks)]
        self.model = MultiTaskModel(make_trunk(), SHARED, (HIDDEN, HIDDEN), names)
        self.optimizer = optimizer(self.model.parameters(), **OPTIONS)
        self.batch = make_batch(tasks)
        if capture:
            CAPTURES[capture]().start(self.model, [self.optimizer])

    def step(self) -> None:
        inputs, targets = self.batch
        self.optimizer.zero_grad()
        self.model.loss(self.model(inputs), targets).backward()
        self.optimizer.step()


class Modules:
    """A Python loop over branches."""

    def __init__(self, tasks: int) -> None:
        self.trunk = make_trunk()
        self.branches = nn.ModuleList(make_branch() for _ in range(tasks))
        self.parameters = [*self.trunk.parameters(), *self.branches.parameters()]
        self.optimizer = torch.optim.SGD(self.parameters, **OPTIONS)
        self.captured = [torch.zeros(HIDDEN, SHARED) for _ in range(tasks)]
        self.batch = make_batch(tasks)

    def losses(self) -> list[Tensor]:
        inputs, targets = self.batch
        shared = self.trunk(inputs)
        return [
            functional.binary_cross_entropy_with_logits(branch(shared).squeeze(1), targets[:, i])
            for i, branch in enumerate(self.branches)
        ]

    def step(self) -> None:
        self.optimizer.zero_grad()
        torch.stack(self.losses()).sum().backward()
        self.capture()
        self.optimizer.step()

    def capture(self) -> None:
        for accumulator, branch in zip(self.captured, self.branches, strict=True):
            accumulator += branch[0].weight.grad


class Vmap:
    """Stacked modules through torch.func."""

    def __init__(self, tasks: int) -> None:
        self.trunk = make_trunk()
        branches = [make_branch() for _ in range(tasks)]
        stacked, _ = torch.func.stack_module_state(branches)
        self.stacked = {name: nn.Parameter(tensor.detach()) for name, tensor in stacked.items()}
        template = make_branch().to("meta")

        def one(parameters: dict[str, Tensor], shared: Tensor) -> Tensor:
            return torch.func.functional_call(template, parameters, (shared,))

        self.run = torch.func.vmap(one, in_dims=(0, None))
        self.optimizer = torch.optim.SGD([*self.trunk.parameters(), *self.stacked.values()], **OPTIONS)
        self.captured = torch.zeros_like(self.stacked["0.weight"])
        self.batch = make_batch(tasks)

    def step(self) -> None:
        inputs, targets = self.batch
        self.optimizer.zero_grad()
        outputs = self.run(self.stacked, self.trunk(inputs)).squeeze(2)
        losses = functional.binary_cross_entropy_with_logits(outputs, targets.t(), reduction="none").mean(1)
        losses.sum().backward()
        self.captured += self.stacked["0.weight"].grad
        self.optimizer.step()


class PerTaskBackward(Modules):
    """LibMTL's way to the gradients of each task with respect to the shared parameters."""

    def step(self) -> None:
        tasks = len(self.branches)
        losses = torch.zeros(tasks)
        for i, loss in enumerate(self.losses()):
            losses[i] = loss
        self.optimizer.zero_grad(set_to_none=False)
        shared = list(self.trunk.parameters())
        gradients = torch.zeros(tasks, sum(p.numel() for p in shared))
        for i in range(tasks):
            losses[i].backward(retain_graph=i + 1 < tasks)
            gradients[i] = torch.cat([p.grad.flatten() for p in shared])
            self.trunk.zero_grad(set_to_none=False)
        total = gradients.sum(0)
        for parameter, part in zip(shared, total.split([p.numel() for p in shared]), strict=True):
            parameter.grad = part.view_as(parameter).clone()
        self.capture()
        self.optimizer.step()


class TorchJD(Modules):
    """The Jacobian of all losses with respect to the shared parameters, and the mean of its rows."""

    def step(self) -> None:
        from torchjd.aggregation import Mean
        from torchjd.autojac import jac_to_grad, mtl_backward

        inputs, targets = self.batch
        self.optimizer.zero_grad()
        shared = self.trunk(inputs)
        losses = [
            functional.binary_cross_entropy_with_logits(branch(shared).squeeze(1), targets[:, i])
            for i, branch in enumerate(self.branches)
        ]
        mtl_backward(losses, shared)
        jac_to_grad(self.trunk.parameters(), Mean())
        self.capture()
        self.optimizer.step()


def contestants(tasks: int) -> dict[str, Any]:
    """Those that can run with that many tasks."""
    made: dict[str, Any] = {
        "ours": Ours(tasks, "exact", BankSGD),
        "ours, free": Ours(tasks, "free", BankSGD),
        "ours, sketch": Ours(tasks, "sketch", BankSGD),
        "ours, none": Ours(tasks, None, BankSGD),
    }
    if tasks <= 2000:
        made["ours, torch SGD"] = Ours(tasks, "exact", torch.optim.SGD)
        made["modules"] = Modules(tasks)
        made["vmap"] = Vmap(tasks)
    if tasks <= PER_TASK_MOST:
        made["per-task backward"] = PerTaskBackward(tasks)
    if tasks <= TORCHJD_MOST and importlib.util.find_spec("torchjd"):
        made["torchjd"] = TorchJD(tasks)
    return made


class SGemm:
    """The rate of a large product: what the hardware gives."""

    def __init__(self, size: int = 2048) -> None:
        self.a, self.b = torch.randn(size, size), torch.randn(size, size)
        self.out = torch.empty(size, size)
        self.flops = 2.0 * size**3

    def step(self) -> None:
        torch.mm(self.a, self.b, out=self.out)


def measure(tasks: int, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of a step of each contestant; they take turns for about that long altogether."""
    runners = {**contestants(tasks), "sgemm": SGemm()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner.step()
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or (time.perf_counter() < end and rounds < 40):
        for name, runner in runners.items():
            slow = rounds >= 3 and times[name][0] > seconds / 30  # enough of the slow ones
            for _ in range(0 if slow else 2):
                start = time.perf_counter()
                runner.step()
                times[name].append(time.perf_counter() - start)
        rounds += 1
    rows = {
        name: {"ms": 1e3 * min(all_), "median_ms": 1e3 * statistics.median(all_), "steps": len(all_)}
        for name, all_ in times.items()
    }
    rows["sgemm"]["gflops"] = runners["sgemm"].flops / rows["sgemm"]["ms"] / 1e6
    return rows


def memory(tasks: int, capture: str) -> dict[str, float]:
    """Peak memory of the fused step with capture, and what it must hold, in MB; run in a process of its own."""
    ours = Ours(2, capture, BankSGD)  # libraries loaded, threads started
    for _ in range(2):
        ours.step()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    ours = Ours(tasks, capture, BankSGD)
    for _ in range(4):
        ours.step()
    peak = resident("VmHWM") - before
    weights = 4 * sum(p.numel() for p in ours.model.parameters())
    captured = 4 * (ours.model.bank.first_weight.numel() if capture == "exact" else tasks * SKETCH_SIZE)
    activations = 4 * tasks * BATCH * (2 * HIDDEN + 1)
    held = 2 * weights + captured + activations
    return {
        "peak_mb": peak / 1e6,
        "weights_momentum_capture_activations_mb": held / 1e6,
        "ratio": peak / held,
        "activation_gradients_mb": activations / 1e6,
    }


def memory_apart(tasks: int, capture: str) -> dict[str, float]:
    """The same from a new process; prints a line."""
    command = [sys.executable, __file__, "--memory", capture, "--tasks", str(tasks)]
    found: dict[str, float] = json.loads(subprocess.check_output([*command, "--threads", str(torch.get_num_threads())]))
    print(
        f"{tasks} tasks, {capture} capture: peak memory {found['peak_mb']:.0f} MB, {found['ratio']:.2f} × weights + "
        f"momentum + capture + activations ({found['weights_momentum_capture_activations_mb']:.0f} MB); the "
        f"activations' gradients are {found['activation_gradients_mb']:.0f} MB of it"
    )
    return found


def show(tasks: int, rows: dict[str, dict[str, float]]) -> None:
    """One table."""
    rate, ours = rows["sgemm"]["gflops"], rows["ours"]["ms"]
    print(f"\n{tasks} tasks; sgemm {rate:.0f} GFLOP/s")
    print(f"{'':20s} {'ms/step':>9s} {'median':>9s} {'× ours':>8s} {'of sgemm':>9s}")
    for name, row in rows.items():
        if name != "sgemm":
            share = flops(tasks) / row["ms"] / 1e6 / rate
            print(f"{name:20s} {row['ms']:9.2f} {row['median_ms']:9.2f} {row['ms'] / ours:8.2f} {share:9.0%}")
    none = rows["ours, none"]["ms"]
    shares = [f"{capture} {rows[name]['ms'] / none - 1:+.1%}" for name, capture in CAPTURE_OF.items()]
    print(f"capture costs, of a step: {', '.join(shares)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="100,500,1000,5000", help="task counts, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each task count")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", choices=("exact", "sketch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    counts = [int(count) for count in arguments.tasks.split(",")]
    if arguments.memory:
        print(json.dumps(memory(counts[0], arguments.memory)))
        return
    results: dict[str, Any] = {"environment": environment((), ("torchjd",)), "steps": {}, "memory": {}}
    print(json.dumps(results["environment"]))
    for tasks in counts:
        rows = results["steps"][tasks] = measure(tasks, arguments.seconds)
        show(tasks, rows)
    for tasks in (count for count in counts if count >= 500):
        results["memory"][tasks] = {capture: memory_apart(tasks, capture) for capture in ("exact", "sketch")}
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
