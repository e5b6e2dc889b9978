"""Tensor trains of many tensors, ours and by what people use today: same tensors, same ranks, same process and threads.

2,000 tensors 10×10×15×20, float32, to rank 8. Contestants take turns; the fastest run of each counts.

- ``ours``: ``tt_svd``.
- ``Gram + torch.linalg.eigh``: Gram matrices of the smaller side of each unfolding, batched, in float32 and in float64.
- ``torch.linalg.svd``: batched, step by step.
- ``tntorch``: ``tntorch.Tensor(…, ranks_tt=8, batch=True)``, by its ``svd`` and by its ``eig``.
- ``tensorly``: ``tensor_train`` in a loop, as it has no batches, on its torch and its numpy backend. (Its
  ``symeig_svd`` solves for all 3,000 columns of the first unfolding: a second and more a tensor; left out.)

tntorch and tensorly are optional: ``pip install --no-deps tntorch tensorly opt_einsum tqdm``.

The second table is the error of the tensors that the trains stand for, by that of a TT-SVD of the same ranks by LAPACK
in float64: the worst of some tensors of each kind. Where LAPACK's error is below float32's rounding the norm is
compared with instead. ``graded``: the middle unfolding's singular values fall from 1 to 1e-7. The last line is of ours
in float64, ranks uncut.

Run ``python benchmarks/peers/tensor_trains.py [--count N] [--rounds N] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from _machine import environment
from selshare.kernels import tt_svd

MODES, RANK = (10, 10, 15, 20), 8
COMPARED = 16  # tensors of each kind whose errors are compared
PATIENCE = 4.0  # seconds after which a contestant is not run again
ROUNDING = 1e-6  # of the norm: what float32 cores may lose anyway

Train = list[Tensor]  # cores (G, r, n, r')
Contestant = Callable[[Tensor], Train]


def ours(tensors: Tensor) -> Train:
    return tt_svd(tensors, MODES, max_rank=RANK).cores


def by_gram(tensors: Tensor) -> Train:
    """From the first mode on; each Gram matrix is of the smaller side of the unfolding."""
    rest, rank, cores = tensors, 1, []
    for mode in MODES[:-1]:
        unfolded = rest.reshape(len(tensors), rank * mode, -1)
        rows, columns = unfolded.shape[1:]
        kept = min(RANK, rows, columns)
        if rows <= columns:
            core = torch.linalg.eigh(unfolded @ unfolded.mT)[1][:, :, -kept:]
            rest = core.mT @ unfolded
        else:
            right = torch.linalg.eigh(unfolded.mT @ unfolded)[1][:, :, -kept:]
            projected = unfolded @ right
            lengths = projected.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)
            core, rest = projected / lengths, lengths.mT * right.mT
        cores.append(core.reshape(len(tensors), rank, mode, kept))
        rank = kept
    return [*cores, rest.reshape(len(tensors), rank, MODES[-1], 1)]


def by_svd(tensors: Tensor, ranks: list[int] | None = None) -> Train:
    """Oseledets 2011, algorithm 1, by LAPACK, to these ranks."""
    rest, rank, cores = tensors, 1, []
    for step, mode in enumerate(MODES[:-1]):
        unfolded = rest.reshape(len(tensors), rank * mode, -1)
        U, S, Vh = torch.linalg.svd(unfolded, full_matrices=False)
        kept = min(ranks[step] if ranks else RANK, S.shape[1])
        cores.append(U[:, :, :kept].reshape(len(tensors), rank, mode, kept))
        rest, rank = S[:, :kept, None] * Vh[:, :kept], kept
    return [*cores, rest.reshape(len(tensors), rank, MODES[-1], 1)]


def by_tntorch(algorithm: str) -> Contestant:
    tntorch = importlib.import_module("tntorch")

    def run(tensors: Tensor) -> Train:
        whole = tensors.reshape(-1, *MODES)
        return list(tntorch.Tensor(whole, ranks_tt=RANK, batch=True, algorithm=algorithm).cores)

    return run


def by_tensorly(backend: str) -> Contestant:
    tensorly = importlib.import_module("tensorly")
    decomposition = importlib.import_module("tensorly.decomposition")

    def run(tensors: Tensor) -> Train:
        tensorly.set_backend(backend)
        whole = tensors.reshape(-1, *MODES)
        each = whole if backend == "pytorch" else whole.numpy()
        ranks = [1, RANK, RANK, RANK, 1]
        trains = [decomposition.tensor_train(tensor, list(ranks)).factors for tensor in each]
        return [torch.stack([torch.as_tensor(train[k]) for train in trains]) for k in range(len(MODES))]

    return run


def contestants() -> dict[str, Contestant]:
    """By name, in the order of the table; says which peers are not here."""
    made: dict[str, Contestant] = {
        "ours": ours,
        "Gram + torch.linalg.eigh": by_gram,
        "the same in float64": lambda tensors: by_gram(tensors.double()),
        "torch.linalg.svd": by_svd,
    }
    optional: dict[str, dict[str, Callable[[], Contestant]]] = {
        "tntorch": {f"tntorch, {way}": lambda way=way: by_tntorch(way) for way in ("svd", "eig")},
        "tensorly": {
            f"tensorly on {backend}": lambda backend=backend: by_tensorly(backend) for backend in ("pytorch", "numpy")
        },
    }
    for package, ways in optional.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed and is left out; pip install --no-deps tntorch tensorly opt_einsum tqdm")
            continue
        made |= {name: make() for name, make in ways.items()}
    return made


def fastest(tensors: Tensor, rounds: int) -> dict[str, float]:
    """Seconds of the fastest run of each; what takes long is not run again."""
    runners = contestants()
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            if sum(taken[name]) > PATIENCE:
                continue
            started = time.perf_counter()
            run(tensors)
            taken[name].append(time.perf_counter() - started)
            print(f"  {name}: {taken[name][-1]:.3f} s", flush=True)
    return {name: min(seconds) for name, seconds in taken.items()}


def kinds() -> dict[str, Tensor]:
    """Tensors ``(COMPARED, n)`` to compare errors on, by name; float32."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(COMPARED, *shape, generator=generator, dtype=torch.float64)

    half = math.prod(MODES[:2])
    left, right = torch.linalg.qr(normal(half, half)).Q, torch.linalg.qr(normal(math.prod(MODES[2:]), half)).Q
    graded = (left * torch.logspace(0, -7, half, dtype=torch.float64)) @ right.mT
    low = normal(1, 10, 3)
    for mode, outer in ((10, 3), (15, 3), (20, 1)):
        core = normal(low.shape[-1], mode * outer)
        low = (low.reshape(COMPARED, -1, low.shape[-1]) @ core).reshape(COMPARED, 1, -1, outer)
    plain = normal(math.prod(MODES))
    made = {
        "random": plain,
        "graded": graded,
        "1e-8 in size": 1e-8 * plain / plain.norm(dim=1, keepdim=True),
        "rank 3": low,
        "zero": torch.zeros_like(plain),
    }
    return {name: tensors.reshape(COMPARED, -1).float() for name, tensors in made.items()}


def lost(train: Train, tensors: Tensor) -> Tensor:
    """Norms of the errors, float64."""
    product = train[0].double()
    for core in train[1:]:
        wide = core.double()
        product = product.reshape(len(tensors), -1, wide.shape[1]) @ wide.reshape(len(tensors), wide.shape[1], -1)
    return (product.reshape(len(tensors), -1) - tensors.double()).norm(dim=1)


def compare_errors() -> dict[str, dict[str, tuple[float, str]]]:
    """Name → kind → the worst error, and what it is relative to."""
    runners, found = contestants(), {}
    for kind, tensors in kinds().items():
        ranks = [int(rank) for rank in tt_svd(tensors, MODES, max_rank=RANK).ranks.amax(dim=0)]
        best, norms = lost(by_svd(tensors.double(), ranks), tensors), tensors.double().norm(dim=1)
        coarse = bool((best > ROUNDING * norms).all())
        for name, run in runners.items():
            try:
                error = lost(run(tensors), tensors)
            except (RuntimeError, ValueError, IndexError) as failure:
                found.setdefault(name, {})[kind] = (math.nan, f"fails: {type(failure).__name__}")
                continue
            worst = error / best if coarse else torch.where(norms > 0, error / norms, error)
            found.setdefault(name, {})[kind] = (float(worst.max()), "LAPACK" if coarse else "norm")
    return found


def in_float64() -> float:
    """The largest error of ours, by the norm, on float64 tensors graded to 1e-13, ranks uncut."""
    generator = torch.Generator().manual_seed(2)
    sides = [torch.linalg.qr(torch.randn(4, n, 100, generator=generator, dtype=torch.float64)).Q for n in (100, 300)]
    values = torch.logspace(0, -13, 100, dtype=torch.float64)
    tensors = ((sides[0] * values) @ sides[1].mT).reshape(4, -1)
    return float((lost(tt_svd(tensors, MODES).cores, tensors) / tensors.norm(dim=1)).max())


def cell(value: float, by: str) -> str:
    """An error as the table shows it."""
    return {"LAPACK": f"{value:.7f}", "norm": f"{value:.3g} n"}.get(by, by)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {
        "environment": environment(("numpy",), ("tntorch", "tensorly")),
        "count": arguments.count,
    }
    print(json.dumps(results["environment"]))
    tensors = torch.randn(arguments.count, math.prod(MODES), generator=torch.Generator().manual_seed(0))
    with threadpool_limits(arguments.threads):
        seconds = results["seconds"] = fastest(tensors, arguments.rounds)
        errors = results["errors"] = compare_errors()
    print(f"\n{arguments.count:,} tensors {'×'.join(map(str, MODES))}, rank {RANK}")
    for name, value in seconds.items():
        print(f"{name:36s} {1e3 * value:8.0f} ms {value / seconds['ours']:7.1f}×")
    print("\nerror by LAPACK's in float64 (n: by the norm)")
    print(f"{'':36s}" + "".join(f"{kind:>16s}" for kind in errors["ours"]))
    for name, row in errors.items():
        cells = (
            f"{value:.3g} n" if by == "norm" else f"{value:.7f}" if by == "LAPACK" else by for value, by in row.values()
        )
        print(f"{name:36s}" + "".join(f"{cell:>16s}" for cell in cells))
    results["float64"] = in_float64()
    print(f"ours in float64, singular values from 1 to 1e-13, ranks uncut: {results['float64']:.2g} n")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
