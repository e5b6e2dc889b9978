"""asv: sketched capture, its time beside exact capture, and the distance error of this sketch beside others.

``python benchmarks/bench_sketch.py`` prints the comparison of sketches as a table.
"""

from __future__ import annotations

from functools import cache
from math import isqrt, log2

import torch
from torch import Tensor

from selshare.kernels import SketchProjection, capture_gradients, sketch_gradients

BATCH, OUTPUTS, INPUTS = 64, 100, 300


class Capture:
    """One batch of 64 at a first layer 100 × 300."""

    params = ([10, 100, 1000, 5000], ["200 numbers", "1000 numbers", "exact", "forward product"])
    param_names = ("branches", "what")
    timeout = 300

    def setup(self, branches: int, what: str) -> None:
        torch.set_num_threads(2)
        generator = torch.Generator().manual_seed(0)
        self.delta = torch.randn(branches, BATCH, OUTPUTS, generator=generator)
        self.shared = torch.randn(BATCH, INPUTS, generator=generator)
        if what == "exact":
            self.captured = torch.zeros(branches, OUTPUTS, INPUTS)
        elif what == "forward product":
            self.weights = torch.randn(branches * OUTPUTS, INPUTS)
            self.outputs = torch.empty(BATCH, branches * OUTPUTS)
        else:
            self.projection = SketchProjection(OUTPUTS, INPUTS, int(what.split()[0]))
            self.captured = torch.zeros(branches, self.projection.size)

    def time_capture(self, branches: int, what: str) -> None:
        if what == "exact":
            capture_gradients(self.delta, self.shared, self.captured, check_finite=False)
        elif what == "forward product":  # of the first layer: about a quarter of a step, for scale
            torch.mm(self.shared, self.weights.T, out=self.outputs)
        else:
            sketch_gradients(self.delta, self.shared, self.captured, self.projection, check_finite=False)


@cache
def planted_gradients(tasks: int = 200, groups: int = 10) -> Tensor:
    """Unit-norm gradients ``(T, 100, 300)`` of an epoch on planted tasks: logistic labels from weights near centres."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    features, samples, rate = 20, 4000, 0.5
    truth = normal(groups, features)[torch.arange(tasks) % groups] + 0.3 * normal(tasks, features)
    inputs = normal(samples, features)
    labels = (torch.rand(samples, tasks, generator=generator) < (inputs @ truth.T).sigmoid()).float()
    shared = (inputs @ normal(features, INPUTS) / features**0.5).relu()
    first = (normal(OUTPUTS, INPUTS) / INPUTS**0.5).expand(tasks, -1, -1).clone()
    second = (normal(OUTPUTS) / OUTPUTS**0.5).expand(tasks, -1).clone()
    total = torch.zeros_like(first)
    for some, wanted in zip(shared.split(BATCH), labels.split(BATCH), strict=True):
        hidden = (some @ first.transpose(1, 2)).relu()
        error = ((hidden @ second[:, :, None])[..., 0].sigmoid() - wanted.T) / len(some)
        delta = error[:, :, None] * second[:, None] * (hidden > 0)
        gradient = delta.transpose(1, 2) @ some
        total += gradient
        second -= rate * (error[:, None] @ hidden)[:, 0]
        first -= rate * gradient
    return total / torch.linalg.vector_norm(total, dim=(1, 2), keepdim=True)


def signs(*shape: int) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape) - 1


def count_sketch(width: int, size: int) -> Tensor:
    """``(width, size)``: each input goes to one of ``size`` buckets, with a sign."""
    return torch.zeros(width, size).scatter_(1, torch.randint(0, size, (width, 1)), signs(width, 1))


def by_rows(gradients: Tensor, size: int) -> Tensor:
    """Ours: directions of its own for each output."""
    seed = int(torch.randint(0, 1 << 30, ()))
    projection = SketchProjection(OUTPUTS, INPUTS, size, seed)
    directions = projection.directions.reshape(projection.per_output, OUTPUTS, INPUTS)
    return torch.einsum("goh,joh->gjo", gradients, directions).flatten(1)


def kronecker_signs(gradients: Tensor, size: int) -> Tensor:
    side = isqrt(size)
    return torch.einsum("oi,goh,hj->gij", signs(OUTPUTS, side), gradients, signs(INPUTS, side)).flatten(1) / side


def kronecker_counts(gradients: Tensor, size: int) -> Tensor:
    side = isqrt(size)
    left, right = count_sketch(OUTPUTS, side), count_sketch(INPUTS, side)
    return torch.einsum("oi,goh,hj->gij", left, gradients, right).flatten(1)


def rank_one(gradients: Tensor, size: int) -> Tensor:
    """``uᵀMv`` for random sign vectors u and v."""
    numbers = torch.einsum("gok,ok->gk", gradients @ signs(INPUTS, size), signs(OUTPUTS, size))
    return numbers / size**0.5


def tensor_sketch(gradients: Tensor, size: int) -> Tensor:
    """Pham and Pagh, KDD 2013: the convolution of two count sketches."""
    left, right = (torch.fft.rfft(count_sketch(width, size), dim=1) for width in (OUTPUTS, INPUTS))
    numbers = torch.einsum("gof,of->gf", gradients.to(left.dtype) @ right, left)
    return torch.fft.irfft(numbers, n=size, dim=1)


def flops(scheme: str, size: int) -> float:
    """Of one branch and batch; what is done once for all branches is left out."""
    each = {
        "by_rows": 2 * size,
        "kronecker_signs": 2 * (OUTPUTS * isqrt(size) + size),
        "kronecker_counts": 2 * (OUTPUTS + size),
        "rank_one": 2 * (OUTPUTS * size + size),
        "tensor_sketch": 2 * OUTPUTS + 2.5 * size * log2(size) + 4 * size,
        "exact": 2 * OUTPUTS * INPUTS,
    }
    return BATCH * each[scheme]


SCHEMES = {f.__name__: f for f in (by_rows, kronecker_signs, kronecker_counts, rank_one, tensor_sketch)}


def distance_error(scheme: str, size: int, draws: int = 5) -> float:
    """Root mean square, over pairs of tasks and draws, of the relative error of squared distances."""
    torch.manual_seed(0)
    gradients = planted_gradients()
    i, j = torch.triu_indices(len(gradients), len(gradients), 1)
    chosen = torch.randperm(len(i))[:3000]
    i, j = i[chosen], j[chosen]
    true = torch.stack([(gradients[a] - gradients[b]).square().sum() for a, b in zip(i, j, strict=True)])
    errors = []
    for _ in range(draws):
        numbers = SCHEMES[scheme](gradients, size)
        errors.append((numbers[i] - numbers[j]).square().sum(1) / true - 1)
    return float(torch.stack(errors).square().mean().sqrt())


class DistanceError:
    """On planted gradients, which differ in little more than one rank-one term."""

    params = (list(SCHEMES), [400, 900])
    param_names = ("scheme", "size")
    unit = "relative"
    timeout = 300

    def track_distance_error(self, scheme: str, size: int) -> float:
        torch.set_num_threads(2)
        return distance_error(scheme, size)


def main() -> None:
    print(f"{'scheme':18s} {'numbers':>8s} {'distance error':>15s} {'flops a branch and batch':>25s} {'of exact':>9s}")
    for size in (400, 900):
        for scheme in SCHEMES:
            cost = flops(scheme, size)
            share = cost / flops("exact", size)
            print(f"{scheme:18s} {size:8d} {distance_error(scheme, size):15.1%} {cost:25,.0f} {share:9.1%}")


if __name__ == "__main__":
    main()
