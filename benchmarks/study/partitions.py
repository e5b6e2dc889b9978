"""Does it matter who shares with whom? Partitions of the tasks, each trained several times.

    python -m benchmarks.study.partitions fashion-2000 planted
    python -m benchmarks.study.partitions --table          # print what there is, train nothing

All partitions of a data set have the same sizes, and merge when the default method merges, in its way. *alike* and
*unlike* are, of many random ones, the partitions whose tasks had the most and the least similar gradients in the first
epochs; *planted* are the true groups; the others are drawn at random. Data stay the same, repeats differ in initial
weights and order. A one-way analysis of variance then says what part of the differences is the partition's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from selshare import SelectiveSharing
from selshare.data import Problem, load
from selshare.training.methods import build_model, make_trainer

from . import methods as study_methods
from .results import RESULTS, Row, append, markdown, missing, plus_minus, read
from .settings import SETTINGS

SIZES = {"fashion-2000": (4, 3, 3), "digits": (4, 3, 3), "glyphs": (3, 2, 2), "planted": (8, 8, 8, 8, 8)}
DRAWN = 10_000  # random partitions that "alike" and "unlike" are chosen from
PATH = RESULTS / "partitions.jsonl"
Groups = tuple[tuple[int, ...], ...]


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help=f"from {', '.join(SIZES)}")
    parser.add_argument("--random", type=int, default=8, help="partitions drawn at random")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--table", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in () if arguments.table else arguments.settings or ["fashion-2000", "planted"]:
        _run_missing(name, arguments.random, arguments.repeats)
    print(table(read(PATH)))


def _run_missing(name: str, random: int, repeats: int) -> None:
    problem = _problem(name)
    named = ["alike", "unlike", *(["planted"] if problem.groups else []), *(f"random {n}" for n in range(random))]
    wanted = [(name, partition, repeat) for repeat in range(repeats) for partition in named]
    todo = list(missing(read(PATH), wanted, ("setting", "partition", "repeat")))
    if not todo:
        return
    distances = early_distances(problem)
    partitions = choose(problem, SIZES[name], distances, random)
    for _, partition, repeat in todo:
        row = run(problem, partitions[partition], repeat)
        spread = within(distances, partitions[partition]) / distances[np.triu_indices_from(distances, 1)].mean()
        append(PATH, {"setting": name, "partition": partition, "repeat": repeat, "distance": spread, **row})
        print(f"{name}, {partition}, {repeat}: {row['mean_metric']:.4f}, {row['test_loss']:.4f}", flush=True)


def _problem(name: str) -> Problem:
    """A data set, always of the same split."""
    if name in SETTINGS:
        return SETTINGS[name].build(0)
    problem = load("synthetic", tasks=40, groups=5, samples=2_000, seed=0)
    return replace(problem, recipe=replace(problem.recipe, epochs=60))


def early_distances(problem: Problem) -> NDArray[np.float64]:
    """Distances ``(T, T)`` between the tasks' embedded gradients of five epochs, as the default method sees them."""
    sharing = SelectiveSharing(warmup=5, capture="free")
    model = build_model(problem, 0)
    make_trainer(problem, model, sharing, progress=False).fit(problem.train, epochs=5)
    embedding = sharing.events[-1].embedding
    assert embedding is not None
    return torch.cdist(embedding.double(), embedding.double()).numpy()


def choose(problem: Problem, sizes: Sequence[int], distances: NDArray[np.float64], random: int) -> dict[str, Groups]:
    """The partitions by name."""
    generator = np.random.default_rng(0)
    cuts = np.cumsum(sizes)[:-1]
    drawn = [
        tuple(tuple(sorted(part.tolist())) for part in np.split(generator.permutation(len(distances)), cuts))
        for _ in range(DRAWN)
    ]
    ordered = sorted(drawn, key=lambda groups: within(distances, groups))
    chosen = {"alike": ordered[0], "unlike": ordered[-1], **{f"random {n}": drawn[n] for n in range(random)}}
    if problem.groups:
        index = {task.name: place for place, task in enumerate(problem.tasks)}
        chosen["planted"] = tuple(tuple(index[name] for name in group) for group in problem.groups)
    return chosen


def within(distances: NDArray[np.float64], groups: Groups) -> float:
    """The mean distance of two tasks of one group."""
    pairs = [distances[one, other] for group in groups for one in group for other in group if one < other]
    return float(np.mean(pairs))


def run(problem: Problem, groups: Groups, repeat: int) -> Row:
    """Train with these groups merged when and as the default method would."""
    model = build_model(problem, repeat)
    criterion = study_methods.FixedGroups(model, [(1, groups)])
    sharing = SelectiveSharing(criterion, capture="free", seed=repeat)
    history, seconds = study_methods.fit(problem, model, sharing, repeat)
    row = study_methods.row_of(problem, "partition", repeat, model, history, seconds)
    return {key: row[key] for key in ("mean_metric", "test_loss", "best_epoch", "epochs", "branches", "groups")}


def table(rows: Sequence[Row]) -> str:
    """A line per data set: the partitions' means, the two kinds of spread, the test of the difference."""
    lines = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == name]
        by_loss = name == "planted"
        tasks = sum(SIZES[name])
        figure = {
            partition: [
                row["test_loss"] / tasks if by_loss else row["mean_metric"]
                for row in own
                if row["partition"] == partition
            ]
            for partition in dict.fromkeys(row["partition"] for row in own)
        }
        drawn = {partition: values for partition, values in figure.items() if partition.startswith("random")}
        noise, between, chance = variance_parts(list(drawn.values()))
        lines.append(
            [
                name,
                "test loss per task" if by_loss else "mean metric",
                f"{len(drawn)} × {min(map(len, drawn.values()))}",
                plus_minus([np.mean(values) for values in drawn.values()]),
                *(plus_minus(figure[partition]) if partition in figure else "–" for partition in ("alike", "unlike")),
                plus_minus(figure["planted"]) if "planted" in figure else "–",
                f"{noise:.4f}",
                f"{between:.4f}",
                f"{chance:.2g}",
            ]
        )
    header = ["data", "figure", "random partitions × repeats", "random", "alike", "unlike", "planted"]
    return markdown([*header, "noise", "partition", "p"], lines)


def variance_parts(groups: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Standard deviations of repeats and of partitions, and how likely such means are if partitions do not differ.

    One-way random-effects analysis of variance; groups may differ in size by what an interruption left out, the mean
    size is taken.
    """
    size = float(np.mean([len(values) for values in groups]))
    inside = sum(((np.asarray(values) - np.mean(values)) ** 2).sum() for values in groups)
    inside /= sum(len(values) - 1 for values in groups)
    outside = size * float(np.var([np.mean(values) for values in groups], ddof=1))
    p_value = float(stats.f_oneway(*groups).pvalue)
    return float(np.sqrt(inside)), float(np.sqrt(max(0.0, (outside - inside) / size))), p_value


if __name__ == "__main__":
    main()
