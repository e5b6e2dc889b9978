"""HDBSCAN of many points in many dimensions, ours and others': same points, same parameters, same process.

The points: 50 overlapping clusters, float64, 256 columns; ``min_cluster_size`` and ``min_samples`` are 10. Contestants
take turns; the fastest run of each counts, after one on few points that loads and compiles what it needs.

- ``selshare``: ``selshare.cluster.HDBSCAN``.
- ``hdbscan``: ``hdbscan.HDBSCAN()``, which chooses its own algorithm, and ``hdbscan generic``, the full matrix.
- ``scikit-learn``: ``sklearn.cluster.HDBSCAN(algorithm="brute")``. It counts the point itself: ``min_samples`` is 11.
- ``fast_hdbscan``, where it is installed with its ``pynndescent``; ``--path FOLDER`` says where else to look.
- ``sgemm``: one n × n product of the points in float32, 2,000 rows at a time: the least that all distances cost.

``excess`` is the total weight of the peer's spanning tree over that of ours, less one: 0 is exact, up to rounding.
Ours is compared with SciPy's on the full matrix up to 5,000 points. ``rand`` is the adjusted Rand index of the labels
with ours; where distances tie, hdbscan's own labels change with the order of the rows. ``extra`` is the peak of the
resident memory beside the input, of each in a process of its own.
A contestant is stopped before the size at which it would take longer than ``--limit``, or its matrix would not fit.

``python benchmarks/peers/clusterings.py [--sizes N,N] [--small] [--path FOLDER] [--json FILE] [--plot FILE]``;
``--small`` is the run of ``make bench``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hdbscan
import numba
import numpy as np
import sklearn.cluster
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from _machine import environment, resident
from selshare.cluster import HDBSCAN

SIZE = SAMPLES = 10  # min_cluster_size and min_samples, other points only
COLUMNS = 256
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
SMALL = (500, 2000, 5000)
MATRIX = {"hdbscan generic": 41, "scikit-learn": 8}  # bytes for each pair of points
CHECKED = 5000  # points up to which SciPy checks our tree
SLOW = 15.0  # seconds in all after which a contestant is not run again
WARM = {"fast_hdbscan": 5000}  # points of the run that does not count: this one compiles more where there are many

Points = NDArray[np.float64]
Found = tuple[NDArray[Any], NDArray[np.float64]]  # labels, sorted weights of the spanning tree


def make_points(n: int) -> Points:
    random = np.random.default_rng(n)
    centres = random.standard_normal((50, COLUMNS))
    rows = centres[random.integers(0, 50, n)] + random.standard_normal((n, COLUMNS))
    return rows.astype(np.float32).astype(np.float64)


def ours(points: Points) -> Found:
    fitted = HDBSCAN(SIZE, SAMPLES).fit(points)
    return fitted.labels_, fitted.minimum_spanning_tree_[:, 2]


def of_hdbscan(points: Points, algorithm: str) -> Found:
    fitted = hdbscan.HDBSCAN(SIZE, SAMPLES, algorithm=algorithm).fit(points)
    return fitted.labels_, fitted.single_linkage_tree_.to_numpy()[:, 2]


def of_sklearn(points: Points) -> Found:
    fitted = sklearn.cluster.HDBSCAN(
        min_cluster_size=SIZE, min_samples=SAMPLES + 1, algorithm="brute", n_jobs=torch.get_num_threads(), copy=True
    ).fit(points)
    return fitted.labels_, np.sort(fitted._single_linkage_tree_["value"])


def of_fast_hdbscan(points: Points) -> Found:
    import fast_hdbscan

    fitted = fast_hdbscan.HDBSCAN(min_cluster_size=SIZE, min_samples=SAMPLES).fit(points)
    return fitted.labels_, np.sort(fitted._single_linkage_tree[:, 2])


def sgemm(points: Points) -> None:
    rows = torch.from_numpy(points).float()
    block = torch.empty(2000, len(rows))
    started = time.perf_counter()
    for part in rows.split(2000):
        torch.mm(part, rows.T, out=block[: len(part)])
    SGEMM_SECONDS.append(time.perf_counter() - started)


SGEMM_SECONDS: list[float] = []


def contestants() -> dict[str, Callable[[Points], Found]]:
    """By name, in the order of the table."""
    made: dict[str, Callable[[Points], Found]] = {
        "selshare": ours,
        "hdbscan": lambda points: of_hdbscan(points, "best"),
        "hdbscan generic": lambda points: of_hdbscan(points, "generic"),
        "scikit-learn": of_sklearn,
    }
    if importlib.util.find_spec("fast_hdbscan") and importlib.util.find_spec("pynndescent"):
        made["fast_hdbscan"] = of_fast_hdbscan
    return made


def measure(n: int, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of each named contestant on n points, and how far it is from the exact answer."""
    points, runners = make_points(n), contestants()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    found: dict[str, Found] = {}
    SGEMM_SECONDS.clear()
    for _ in range(rounds):
        for name in names:
            if sum(seconds[name]) < SLOW:
                started = time.perf_counter()
                found[name] = runners[name](points)
                seconds[name].append(time.perf_counter() - started)
        sgemm(points)
    labels, weights = found["selshare"]
    rows: dict[str, dict[str, Any]] = {
        name: {
            "seconds": min(seconds[name]),
            "excess": float(theirs.sum() / weights.sum()) - 1.0,
            "worst_edge": float(np.abs(theirs / weights - 1.0).max()),
            "rand": float(adjusted_rand_score(labels, other)),
        }
        for name, (other, theirs) in found.items()
    }
    rows["sgemm"] = {"seconds": min(SGEMM_SECONDS)}
    if n <= CHECKED:
        rows["selshare"]["worst_edge"] = float(np.abs(weights / exact(points) - 1.0).max())
    return rows


def exact(points: Points) -> NDArray[np.float64]:
    """Sorted weights of the minimum spanning tree, by SciPy from all distances."""
    matrix = cdist(points, points)
    cores = np.partition(matrix, SAMPLES, axis=1)[:, SAMPLES]  # the point itself comes first
    np.maximum(np.maximum(matrix, cores), cores[:, None], out=matrix)
    return np.sort(minimum_spanning_tree(matrix).data)


def extra_memory(name: str, n: int) -> float:
    """Peak resident memory beside the input in MB; for a process of its own."""
    run = contestants()[name]
    run(make_points(WARM.get(name, 200)))
    points = make_points(n)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run(points)
    return (resident("VmHWM") - before) / 1e6


def show(n: int, rows: dict[str, dict[str, Any]]) -> None:
    """One table."""
    base = rows["selshare"]["seconds"]
    print(f"\n{n:,} points in {COLUMNS} dimensions")
    print(f"{'':16s} {'seconds':>9s} {'/ ours':>8s} {'/ sgemm':>8s} {'excess':>9s} {'rand':>7s} {'extra MB':>9s}")
    for name, row in rows.items():
        times = f"{row['seconds']:9.4f} {row['seconds'] / base:8.2f} {row['seconds'] / rows['sgemm']['seconds']:8.2f}"
        quality = f"{row['excess']:9.1e} {row['rand']:7.4f}" if "excess" in row else f"{'':17s}"
        memory = f"{row['extra_mb']:9.0f}" if "extra_mb" in row else ""
        print(f"{name:16s} {times} {quality} {memory}", flush=True)
    if n <= CHECKED:
        print(f"our tree and SciPy's: worst edge {rows['selshare']['worst_edge']:.1e}")


def run_all(sizes: list[int], limit: float, memory: set[int], most_bytes: float, path: str | None) -> dict[str, Any]:
    """All sizes from the smallest; each contestant until it would take too long or too much."""
    names, results, stopped = list(contestants()), {}, {}
    for name in names:
        contestants()[name](make_points(WARM.get(name, 200)))
    for n in sorted(sizes):
        for name in [name for name in names if MATRIX.get(name, 0) * n * n > most_bytes]:
            stopped[name] = f"before {n:,} points: {MATRIX[name] * n * n / 1e9:.0f} GB of memory"
            names.remove(name)
        rows = results[n] = measure(n, names, rounds=4 if n <= 10_000 else 1)
        if n in memory:
            for name in names:
                command = [sys.executable, __file__, "--threads", str(torch.get_num_threads())]
                command += ["--memory-of", name, "--sizes", str(n), *(["--path", path] if path else [])]
                rows[name]["extra_mb"] = float(subprocess.check_output(command).split()[-1])
        show(n, rows)
        larger = [size for size in sizes if size > n]
        for name in [name for name in names if larger and rows[name]["seconds"] * (min(larger) / n) ** 2 > limit]:
            stopped[name] = f"before {min(larger):,} points: {rows[name]['seconds']:.0f} s at {n:,}"
            names.remove(name)
    for name, why in stopped.items():
        print(f"{name} stopped {why}")
    return {"sizes": results, "stopped": stopped}


COLOURS = {
    "selshare": "#0b6e4f",
    "hdbscan": "#b3322c",
    "hdbscan generic": "#e08e45",
    "scikit-learn": "#2f5d9b",
    "fast_hdbscan": "#7a4fa3",
    "sgemm": "#8a8a8a",
}


def draw(results: dict[str, Any], file: Path) -> None:
    """Seconds over points, both logarithmic; approximate contestants dashed."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "selshare"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.8), layout="constrained")
    sizes = {int(n): rows for n, rows in results["sizes"].items()}
    for name, colour in COLOURS.items():
        points = [(n, rows[name]) for n, rows in sizes.items() if name in rows]
        if not points:
            continue
        inexact = any(row.get("excess", 0.0) > 1e-7 for _, row in points)
        style = ":" if name == "sgemm" else "--" if inexact else "-"
        label = "one n × n sgemm" if name == "sgemm" else f"{name}, {'approximate' if inexact else 'exact'}"
        x, y = [n for n, _ in points], [row["seconds"] for _, row in points]
        width = 2.6 if name == "selshare" else 1.6
        axes.loglog(x, y, style, label=label, color=colour, marker="o", markersize=4, linewidth=width)
    axes.legend(loc="lower right", frameon=False)
    axes.set_xticks(list(sizes), [f"{n:,}" for n in sizes], rotation=30)
    axes.minorticks_off()
    axes.set_xlabel("points")
    axes.set_ylabel("seconds")
    axes.set_title(f"HDBSCAN in {COLUMNS} dimensions, {results['environment']['threads']} threads", loc="left")
    axes.grid(color="#e3e3e3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, facecolor="white", metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="numbers of points, separated by commas")
    parser.add_argument("--small", action="store_true", help=f"{SMALL} points only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a contestant may take")
    parser.add_argument("--memory", default="10000", help="numbers of points at which memory is measured")
    parser.add_argument("--gigabytes", type=float, default=6.0, help="the most that a matrix may take")
    parser.add_argument("--path", help="a folder that holds fast_hdbscan and pynndescent")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--redraw", type=Path, help="a file of --json to plot, without measuring")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.path:
        sys.path.append(arguments.path)
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    sizes = [int(n) for n in arguments.sizes.split(",")] if arguments.sizes else SMALL if arguments.small else SIZES
    if arguments.redraw:
        draw(json.loads(arguments.redraw.read_text()), arguments.plot)
        return
    with threadpool_limits(arguments.threads):
        if arguments.memory_of:
            print(extra_memory(arguments.memory_of, sizes[0]))
            return
        results: dict[str, Any] = {
            "environment": environment(("numpy", "numba", "hdbscan", "scikit-learn"), ("fast_hdbscan", "pynndescent"))
        }
        print(json.dumps(results["environment"]))
        if "fast_hdbscan" not in contestants():
            print("fast_hdbscan is left out: pip install fast_hdbscan[nndescent], or give its folder as --path.")
        memory = {int(n) for n in arguments.memory.split(",")}
        results |= run_all(list(sizes), arguments.limit, memory, 1e9 * arguments.gigabytes, arguments.path)
    for file in (arguments.json, arguments.plot):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    if arguments.plot:
        draw(results, arguments.plot)


if __name__ == "__main__":
    main()
