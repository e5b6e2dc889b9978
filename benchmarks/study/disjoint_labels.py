"""Tasks on disjoint halves of the images: what plain multi-task training does to them, and what matching does about it.

Each image is labelled for its class only, or for the other tasks only: Fashion-MNIST's classes and six attributes
that follow from them; a letter's script, of 24, and that script's line of descent and type. Of 1,000 images, one part
is labelled for the class and the rest for the other tasks, from 1:1 to 50:1, either of the two being scarce.

- ``stl``: a network per task, on the images labelled for it, repeated to 1,000 so that all take the same steps.
- ``mtl``: all tasks, one :class:`~selshare.data.TaskMixture`.
- ``matching``: distribution matching and soft co-annotation as published, but with a temperature of .1, unit weights.
- ``likelihood``: the same, soft co-annotation by the likelihood of labels (ours).

The relation tables are known. All networks: 196 → 128 trunk on images pooled to 14×14, branches of 64, Adam at .004,
12 epochs of batches of 100; the last weights are tested. Metrics: accuracy (multilabel: mean over the labels).

    python -m benchmarks.study.disjoint_labels --seeds 5           # trains what is not in the results yet
    python -m benchmarks.study.disjoint_labels --table
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.study.results import RESULTS, append, markdown, mean_and_error, missing, read
from selshare import MultiTaskModel, Task, Trainer
from selshare.data import TaskMixture, load
from selshare.data.fashion_mnist import CLASSES
from selshare.data.writing_systems import writing_systems
from selshare.objectives import DistributionMatching, Objective, SoftCoAnnotation
from selshare.optim import BankAdam
from selshare.training.evaluation import evaluate

TRAIN, TEST, EPOCHS, BATCH, RATE = 1_000, 3_000, 12, 100, 0.004
RATIOS = ("1:1", "5:1", "20:1", "50:1", "1:5", "1:20", "1:50")  # labelled for the class : for the others
METHODS = ("stl", "mtl", "matching", "likelihood")
ATTRIBUTES = {
    "footwear": ("sandal", "sneaker", "ankle boot"),
    "upper body": ("t-shirt", "pullover", "dress", "coat", "shirt"),
    "long sleeves": ("pullover", "coat", "shirt"),
    "front opening": ("coat", "shirt"),
    "covers the legs": ("trouser", "dress"),
    "bare skin": ("t-shirt", "dress", "sandal"),
}
FILE = RESULTS / "disjoint_labels.jsonl"
KEYS = ("data", "ratio", "method", "seed")


@dataclass(frozen=True)
class Setting:
    """Images, all labels of the source (the first task) and of the targets, and the relation of each target."""

    tasks: tuple[Task, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    tables: dict[str, Tensor]


@functools.cache
def fashion(seed: int) -> Setting:
    problem = load("fashion-mnist", train_size=TRAIN, validation_size=TEST, seed=seed)
    table = torch.tensor([[float(name in having) for having in ATTRIBUTES.values()] for name in CLASSES])

    def ready(data: object) -> tuple[Tensor, Tensor]:
        images, one_hot = data.tensors  # type: ignore[attr-defined]
        classes = one_hot.argmax(1)
        return F.avg_pool2d(images, 2).flatten(1), torch.cat([classes[:, None].float(), table[classes]], dim=1)

    tasks = (
        Task.multiclass("class", classes=len(CLASSES)),
        Task.multilabel("attributes", labels=len(ATTRIBUTES), metric="accuracy"),
    )
    return Setting(tasks, ready(problem.train), ready(problem.validation), {"attributes": table})


@functools.cache
def glyphs(seed: int) -> Setting:
    names = [system.name for system in writing_systems()][:48:2]
    problem = load("glyphs", systems=names, letters=12, renderings=16, train_size=TRAIN, seed=seed)
    tasks = problem.tasks[:3]  # script, descent, type

    def ready(data: object) -> tuple[Tensor, Tensor]:
        images, targets = data.tensors  # type: ignore[attr-defined]
        return F.avg_pool2d(images, 2).flatten(1), targets[:, :3]

    (images, labels), test = ready(problem.train), ready(problem.test)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))  # they come by letter
    train = images[shuffled], labels[shuffled]
    known = torch.zeros(tasks[0].outputs, 2)
    known[train[1][:, 0].long()] = train[1][:, 1:]
    tables = {task.name: F.one_hot(known[:, k].long(), task.outputs).double() for k, task in enumerate(tasks[1:])}
    return Setting(tasks, train, test, tables)


SETTINGS = {"fashion": fashion, "glyphs": glyphs}


def halves(setting: Setting, ratio: str) -> dict[str | tuple[str, ...], tuple[Tensor, Tensor]]:
    """The images labelled for the class, and those labelled for the others."""
    inputs, targets = setting.train
    of_class, of_others = map(int, ratio.split(":"))
    cut = round(len(inputs) * of_class / (of_class + of_others))
    source, others = setting.tasks[0].name, tuple(task.name for task in setting.tasks[1:])
    return {source: (inputs[:cut], targets[:cut, 0]), others: (inputs[cut:], targets[cut:, 1:])}


def trained(tasks: tuple[Task, ...], data: TaskMixture | tuple[Tensor, Tensor], objectives: list[Objective], seed: int):
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(196, 128), nn.ReLU())
    model = MultiTaskModel(trunk, 128, (64,), tasks)
    optimizer = partial(BankAdam, lr=RATE)
    Trainer(model, optimizer, objectives=objectives, batch_size=BATCH, seed=seed, progress=False).fit(
        data, epochs=EPOCHS
    )
    return model


def objectives_of(method: str, setting: Setting) -> list[Objective]:
    source = setting.tasks[0].name
    made: list[Objective] = []
    for target, table in setting.tables.items():
        if method != "mtl":
            made.append(DistributionMatching(source, target, table))
        if method in ("matching", "likelihood"):
            evidence = "share" if method == "matching" else "likelihood"
            made.append(SoftCoAnnotation(source, target, table, evidence=evidence))
    return made


def run(setting: Setting, ratio: str, method: str, seed: int) -> dict[str, float]:
    """The test metric of each task."""
    parts = halves(setting, ratio)
    inputs, targets = setting.test
    if method != "stl":
        model = trained(setting.tasks, TaskMixture(setting.tasks, parts), objectives_of(method, setting), seed)
        return evaluate(model, (inputs, targets)).metrics
    metrics: dict[str, float] = {}
    columns = iter(targets.split([task.targets for task in setting.tasks], dim=1))
    for task, (images, labels) in _single(setting, parts):
        times = max(1, round(TRAIN / len(images)))
        own = (images.repeat(times, 1), labels.repeat(times, *[1] * (labels.ndim - 1)))
        model = trained((task,), (own[0], own[1].reshape(len(own[0]), -1)), [], seed)
        metrics |= evaluate(model, (inputs, next(columns))).metrics
    return metrics


def _single(setting: Setting, parts: dict) -> Iterator[tuple[Task, tuple[Tensor, Tensor]]]:
    """Each task with the images and labels that are its own."""
    (own, others) = parts.values()
    yield setting.tasks[0], own
    widths = [task.targets for task in setting.tasks[1:]]
    for task, labels in zip(setting.tasks[1:], others[1].split(widths, dim=1), strict=True):
        yield task, (others[0], labels)


def table() -> str:
    """Mean and standard error by ratio and method, and where matching falls behind single tasks."""
    rows = read(FILE)
    blocks = []
    for data in SETTINGS:
        tasks = next((list(row["metrics"]) for row in rows if row["data"] == data), [])
        methods = [method for method in METHODS if any(r["data"] == data and r["method"] == method for r in rows)]
        lines = []
        for ratio in RATIOS:
            for task in tasks:
                cells = {
                    method: [
                        r["metrics"][task]
                        for r in rows
                        if (r["data"], r["ratio"], r["method"]) == (data, ratio, method)
                    ]
                    for method in methods
                }
                if not all(cells.values()):
                    continue
                summary = {method: mean_and_error(values) for method, values in cells.items()}
                lines.append([ratio, task, *(_cell(summary, method) for method in methods)])
        blocks.append(f"**{data}**\n\n" + markdown(["class : others", "task", *methods], lines))
    return "\n\n".join(blocks)


def _cell(summary: dict[str, tuple[float, float]], method: str) -> str:
    """Mean ± standard error; marked where it is worse than STL by more than the standard error of the difference."""
    mean, error = summary[method]
    base, base_error = summary["stl"]
    worse = mean < base - (error**2 + base_error**2) ** 0.5
    return f"{mean:.3f} ± {error:.3f}{' ▼' if worse else ''}"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", default=",".join(SETTINGS))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        (data, ratio, method, seed)
        for ratio in RATIOS
        for seed in range(arguments.seeds)
        for data in arguments.data.split(",")
        for method in METHODS
        if (data, method) != ("glyphs", "likelihood")  # of classes that exclude each other, it is the same
    ]
    if not arguments.table:
        for data, ratio, method, seed in missing(read(FILE), wanted, KEYS):
            metrics = run(SETTINGS[data](seed), ratio, method, seed)
            append(FILE, {"data": data, "ratio": ratio, "method": method, "seed": seed, "metrics": metrics})
            print(data, ratio, method, seed, f"{statistics.mean(metrics.values()):.4f}", flush=True)
    print(table())


if __name__ == "__main__":
    main()
