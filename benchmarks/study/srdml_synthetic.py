"""SRDML's synthetic twelve (Bai and Zhao, KDD 2022): do the learned relations recover the six pairs, and do they help?

Twelve linear regressions on 20 features, 10 training and 40 test points, x ~ N(½, 1), true weights
±{1, 1, 2, 2, 3, 3}·𝟙, noise .01. All methods take 150 steps of gradient descent, rate .01, on the sum of the tasks'
mean squared errors, and what they add sets in after the first 11:

- STL: nothing more.
- MTL: ``μ Σ_t ‖w_t − w̄‖²``, the mean-regularised tasks of Evgeniou and Pontil (2004).
- clustered: ``μ Σ_t ‖w_t − mean of t's cluster‖²``, six clusters found anew by k-means at every tenth step.
- as released: SRDML with λ = 1; ω by gradient descent, rate .01; the weights after all steps. (The released script
  prints the least test error of its steps.)
- released rule: the same, with λ chosen.
- ω first: selshare's ``learn_in_warmup``, the released rule by Adam of rate .1, so that ω is settled when the
  regulariser sets in.
- constrained: ``0 ≤ ω``, ``Σω ≥ 1`` in place of the released rule; *six pairs*: with ``ω ≤ 1/6`` too, which takes
  knowing how many pairs there are.
- oracle: ω fixed to the six true pairs.

μ or λ, and when to stop, are chosen for each method but *as released* and for each seed by the error on 40 further
points of each task. Inputs are the same for all tasks, as in the released code, or each task's own; initial weights are
drawn for each task (Glorot), as in the released code. (The released script subtracts targets ``(m,)`` from predictions
``(m, 1)``, which makes all m² differences of them and so fits each task's mean; the loss here is the one the paper
states.)

    python -m benchmarks.study.srdml_synthetic --seeds 20     # computes what is not in the results yet
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from benchmarks.study.results import RESULTS, Row, append, markdown, mean_and_error, missing, read
from selshare.objectives import SaliencyRegularizer

SLOPES = (1, 1, 2, 2, 3, 3, -1, -1, -2, -2, -3, -3)
TASKS, FEATURES, TRAIN, VALIDATION, TEST = len(SLOPES), 20, 10, 40, 40
STEPS, WARMUP, RATE = 150, 11, 0.01
GRID = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TRUE_PAIRS = {(f"task {k}", f"task {k + 1}") for k in range(0, TASKS, 2)}
NAMES = tuple(f"task {k}" for k in range(TASKS))
FILE = RESULTS / "srdml_synthetic.jsonl"
KEYS = ("inputs", "seed")
Data = tuple[Tensor, Tensor]
Penalty = Callable[[Tensor], Tensor]
Make = Callable[[float], Penalty]


def draw(samples: int, inputs: str, generator: torch.Generator) -> Data:
    """Inputs ``(12, samples, 20)`` and targets ``(12, samples)``."""
    sets = 1 if inputs == "shared" else TASKS
    drawn = (0.5 + torch.randn(sets, samples, FEATURES, generator=generator)).expand(TASKS, -1, -1)
    noise = 0.01 * torch.randn(TASKS, samples, generator=generator)
    return drawn, drawn.sum(2) * torch.tensor(SLOPES, dtype=drawn.dtype)[:, None] + noise


def errors(weights: Tensor, data: Data) -> Tensor:
    """``(12, samples)``."""
    return torch.einsum("tmd,td->tm", data[0], weights) - data[1]


def initial(generator: torch.Generator) -> Tensor:
    """Weights ``(12, 20)``: Glorot's uniform draw for one output, for each task."""
    bound = math.sqrt(6 / (FEATURES + 1))
    return bound * (2 * torch.rand(TASKS, FEATURES, generator=generator) - 1)


@dataclass(frozen=True)
class Fit:
    """Weights after all steps and after the best one, and the validation error of the best."""

    last: Tensor
    best: Tensor
    error: float


def fit(weights: Tensor, train: Data, validation: Data, penalty: Penalty | None = None) -> Fit:
    """Descend; penalties see the warm-up's weights too if they have ``watch``."""
    weights = weights.clone().requires_grad_()
    least, best = math.inf, weights.detach()
    for step in range(STEPS):
        loss = errors(weights, train).square().mean(1).sum()
        if penalty is not None and step >= WARMUP:
            loss = loss + penalty(weights)
        elif isinstance(penalty, Saliency):
            penalty.watch(weights.detach())
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= RATE * gradient
            error = rmse(weights, validation)
            if error < least:
                least, best = error, weights.clone()
    return Fit(weights.detach(), best.detach(), least)


class Saliency:
    """SRDML: the gradient of a linear task is its weights, at every sample."""

    def __init__(self, regularizer: SaliencyRegularizer, early: bool = False) -> None:
        self.regularizer, self.early = regularizer, early

    def __call__(self, weights: Tensor) -> Tensor:
        return self.regularizer.of_gradients(weights[:, None].expand(TASKS, TRAIN, FEATURES))

    def watch(self, weights: Tensor) -> None:
        """The warm-up: only ω learns."""
        if self.early:
            self(weights)

    def true_pairs(self) -> int:
        """How many are among the six strongest."""
        strongest = {pair[:2] for pair in self.regularizer.relations().strongest(len(TRUE_PAIRS))}
        return len(strongest & TRUE_PAIRS)

    def true_weight(self) -> float:
        """What share of all weight they have."""
        weights = self.regularizer.relations()
        return sum(weights.between(*pair) for pair in TRUE_PAIRS) / (float(weights.weights.sum()) / 2)


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


def released(strength: float) -> Saliency:
    """The released rule."""
    return Saliency(
        SaliencyRegularizer(NAMES, strength=strength, reduction="sum", optimizer=partial(torch.optim.SGD, lr=0.01))
    )


def omega_first(strength: float) -> Saliency:
    """Ours."""
    optimizer = partial(torch.optim.Adam, lr=0.1)
    return Saliency(SaliencyRegularizer(NAMES, strength=strength, reduction="sum", optimizer=optimizer), early=True)


def constrained(strength: float, largest: float | None = None) -> Saliency:
    """The paper's problem."""
    optimizer = partial(torch.optim.SGD, lr=0.01)
    made = SaliencyRegularizer(
        NAMES, strength=strength, reduction="sum", form="constrained", largest=largest, optimizer=optimizer
    )
    return Saliency(made)


def oracle(strength: float) -> Saliency:
    """The true pairs."""
    made = SaliencyRegularizer(NAMES, strength=strength, reduction="sum", learn=False)
    pairs = zip(*torch.triu_indices(TASKS, TASKS, 1).tolist(), strict=True)
    made.weights.omega.copy_(torch.tensor([float((NAMES[i], NAMES[j]) in TRUE_PAIRS) for i, j in pairs]))
    return Saliency(made)


METHODS: dict[str, Make] = {
    "MTL": lambda strength: partial(around_mean, strength),
    "clustered": AroundClusters,
    "released rule": released,
    "ω first": omega_first,
    "constrained": constrained,
    "constrained, six pairs": partial(constrained, largest=1 / len(TRUE_PAIRS)),
    "oracle": oracle,
}


def run(seed: int, inputs: str) -> dict[str, float]:
    """Test errors of all methods, and what the learned ω say of the true pairs."""
    generator = torch.Generator().manual_seed(seed)
    train, test = draw(TRAIN, inputs, generator), draw(TEST, inputs, generator)
    first = initial(generator)
    validation = draw(VALIDATION, inputs, generator)
    alone = fit(first, train, validation)
    penalty = released(1.0)
    result = {
        "STL": rmse(alone.best, test),
        "STL, all steps": rmse(alone.last, test),
        "as released": rmse(fit(first, train, validation, penalty).last, test),
        "as released, pairs": penalty.true_pairs(),
        "as released, weight": penalty.true_weight(),
    }
    for name, make in METHODS.items():
        tried = [(penalty, fit(first, train, validation, penalty)) for penalty in map(make, GRID)]
        penalty, chosen = min(tried, key=lambda pair: pair[1].error)
        result[name] = rmse(chosen.best, test)
        if isinstance(penalty, Saliency) and name != "oracle":
            result[f"{name}, pairs"], result[f"{name}, weight"] = penalty.true_pairs(), penalty.true_weight()
    return result


def table(rows: list[Row]) -> str:
    """Mean errors, the difference to STL with the same seed, and how the true pairs fared."""
    lines = []
    for name in ("STL", "STL, all steps", "as released", *METHODS):
        mean, error = mean_and_error(row[name] for row in rows)
        difference, spread = mean_and_error(row[name] - row["STL"] for row in rows)
        pairs = [row[f"{name}, pairs"] for row in rows if f"{name}, pairs" in row]
        lines.append(
            [
                name,
                f"{mean:.3f} ± {error:.3f}",
                "–" if name == "STL" else f"{difference:+.3f} ± {spread:.3f}",
                f"{pairs.count(len(TRUE_PAIRS))} of {len(pairs)}" if pairs else "–",
                f"{mean_and_error(row[f'{name}, weight'] for row in rows)[0]:.2f}" if pairs else "–",
            ]
        )
    return markdown(["method", "test RMSE", "− STL, same seed", "all six pairs found", "their share of ω"], lines)


def main() -> None:
    """Run all seeds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for inputs in ("shared", "own"):
        wanted = [(inputs, seed) for seed in range(arguments.seeds)]
        for _, seed in missing(read(FILE), wanted, KEYS):
            append(FILE, {"inputs": inputs, "seed": seed, **run(seed, inputs)})
        rows = [row for row in read(FILE) if row["inputs"] == inputs]
        print(f"\ninputs {inputs}, {len(rows)} seeds\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
