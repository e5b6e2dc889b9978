"""SRDML's synthetic twelve (Bai and Zhao, KDD 2022): do the learned relations recover the six pairs, and do they help?

Twelve linear regressions on 20 features, 10 training and 40 test points, x ~ N(½, 1), true weights
±{1, 1, 2, 2, 3, 3}·𝟙, noise .01. All methods take the same 150 steps of gradient descent, rate .01, on the sum of
the tasks' mean squared errors, and what they add sets in after the first 11:

- STL: nothing more.
- MTL: ``μ Σ_t ‖w_t − w̄‖²``, the mean-regularised tasks of Evgeniou and Pontil (2004).
- clustered: ``μ Σ_t ‖w_t − mean of t's cluster‖²``, six clusters found anew by k-means at every tenth step.
- SRDML: the released rule, λ = 1; ω by gradient descent, rate .01.
- constrained: ``0 ≤ ω ≤ 1/6``, ``Σω ≥ 1`` in place of the released rule.
- oracle: ω fixed to the six true pairs.

μ of MTL and clustered is the best of a grid on the *test* error, seed by seed, which favours them.
Inputs are the same for all tasks, as in the released code, or each task's own. Initial weights are drawn per task, as
in the released code (Glorot), or drawn once for all tasks, as selshare's branches and heads start.
(The released script subtracts targets ``(m,)`` from predictions ``(m, 1)``, which makes all m² differences of them
and so fits each task's mean; the loss here is the one the paper states.)

    python -m benchmarks.study.srdml_synthetic --seeds 20     # computes what is not in the results yet
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Callable
from functools import partial

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from benchmarks.study.results import RESULTS, append, missing, read
from selshare.objectives import SaliencyRegularizer

SLOPES = (1, 1, 2, 2, 3, 3, -1, -1, -2, -2, -3, -3)
TASKS, FEATURES, TRAIN, TEST = len(SLOPES), 20, 10, 40
STEPS, WARMUP, RATE = 150, 11, 0.01
GRID = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TRUE_PAIRS = {(f"task {k}", f"task {k + 1}") for k in range(0, TASKS, 2)}
NAMES = tuple(f"task {k}" for k in range(TASKS))
FILE = RESULTS / "srdml_synthetic.jsonl"
KEYS = ("inputs", "start", "seed")
Penalty = Callable[[Tensor], Tensor]


def draw(samples: int, inputs: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs ``(12, samples, 20)`` and targets ``(12, samples)``."""
    sets = 1 if inputs == "shared" else TASKS
    drawn = (0.5 + torch.randn(sets, samples, FEATURES, generator=generator)).expand(TASKS, -1, -1)
    noise = 0.01 * torch.randn(TASKS, samples, generator=generator)
    return drawn, drawn.sum(2) * torch.tensor(SLOPES, dtype=drawn.dtype)[:, None] + noise


def errors(weights: Tensor, data: tuple[Tensor, Tensor]) -> Tensor:
    """``(12, samples)``."""
    return torch.einsum("tmd,td->tm", data[0], weights) - data[1]


def initial(start: str, generator: torch.Generator) -> Tensor:
    """Weights ``(12, 20)``: Glorot's uniform draw for one output, per task or once."""
    bound = math.sqrt(6 / (FEATURES + 1))
    drawn = bound * (2 * torch.rand(TASKS, FEATURES, generator=generator) - 1)
    return drawn if start == "per task" else drawn[:1].repeat(TASKS, 1)


def fit(weights: Tensor, data: tuple[Tensor, Tensor], penalty: Penalty | None = None) -> Tensor:
    """The weights after all steps."""
    weights = weights.clone().requires_grad_()
    for step in range(STEPS):
        loss = errors(weights, data).square().mean(1).sum()
        if penalty is not None and step >= WARMUP:
            loss = loss + penalty(weights)
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= RATE * gradient
    return weights.detach()


def saliency(regularizer: SaliencyRegularizer, weights: Tensor) -> Tensor:
    """The gradient of a linear task is its weights, at every sample."""
    return regularizer.of_gradients(weights[:, None].expand(TASKS, TRAIN, FEATURES))


def around_mean(strength: float, weights: Tensor) -> Tensor:
    """MTL."""
    return strength * (weights - weights.mean(0)).square().sum()


class AroundClusters:
    """Clustered MTL."""

    def __init__(self, strength: float) -> None:
        self.strength, self.calls = strength, 0

    def __call__(self, weights: Tensor) -> Tensor:
        if self.calls % 10 == 0:
            labels = KMeans(6, n_init=1, random_state=0).fit(weights.detach().numpy()).labels_
            self.member = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 6).to(weights.dtype)
        self.calls += 1
        means = self.member.T @ weights / self.member.sum(0).clamp(min=1)[:, None]
        return self.strength * (weights - self.member @ means).square().sum()


def rmse(weights: Tensor, test: tuple[Tensor, Tensor]) -> float:
    """Mean over tasks of the root mean squared error, as released."""
    return float(errors(weights, test).square().mean(1).sqrt().mean())


def regularizers() -> dict[str, SaliencyRegularizer]:
    """SRDML's three ω."""
    made = partial(SaliencyRegularizer, NAMES, strength=1.0, optimizer=partial(torch.optim.SGD, lr=0.01))
    found = {
        "SRDML": made(),
        "constrained": made(form="constrained", largest=1 / len(TRUE_PAIRS)),
        "oracle": made(learn=False),
    }
    pairs = zip(*torch.triu_indices(TASKS, TASKS, 1).tolist(), strict=True)
    true = [float((NAMES[i], NAMES[j]) in TRUE_PAIRS) for i, j in pairs]
    found["oracle"].weights.omega.copy_(torch.tensor(true))
    return found


def run(seed: int, inputs: str, start: str) -> dict[str, float]:
    """Test errors of all methods, and how many true pairs are among the six strongest."""
    generator = torch.Generator().manual_seed(seed)
    train, test = draw(TRAIN, inputs, generator), draw(TEST, inputs, generator)
    first = initial(start, generator)
    result = {"STL": rmse(fit(first, train), test)}
    result["MTL"] = min(rmse(fit(first, train, partial(around_mean, strength)), test) for strength in GRID)
    result["clustered"] = min(rmse(fit(first, train, AroundClusters(strength)), test) for strength in GRID)
    for name, regularizer in regularizers().items():
        result[name] = rmse(fit(first, train, partial(saliency, regularizer)), test)
        if name != "oracle":
            strongest = {pair[:2] for pair in regularizer.relations().strongest(len(TRUE_PAIRS))}
            result[f"{name}, true pairs"] = len(strongest & TRUE_PAIRS)
    return result


def report(results: list[dict[str, float]]) -> None:
    """Mean and standard error of each figure."""
    for name in results[0]:
        values = [result[name] for result in results]
        if name.endswith("pairs"):
            print(f"  {name:24} {statistics.mean(values):.2f} of 6; all on {values.count(6)} of {len(values)} seeds")
        else:
            error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            print(f"  {name:24} test RMSE {statistics.mean(values):.3f} ± {error:.3f}")


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for inputs, start in itertools.product(("shared", "own"), ("per task", "once")):
        wanted = [(inputs, start, seed) for seed in range(arguments.seeds)]
        for key in missing(read(FILE), wanted, KEYS):
            append(FILE, {"inputs": inputs, "start": start, "seed": key[2], **run(key[2], inputs, start)})
        print(f"\ninputs {inputs}, initial weights drawn {start}")
        rows = [row for row in read(FILE) if (row["inputs"], row["start"]) == (inputs, start)]
        report([{name: value for name, value in row.items() if name not in KEYS} for row in rows])


if __name__ == "__main__":
    main()
