"""How many epochs' gradients to group by: do other seeds give the same groups, or where groups are planted, these?

    python -m benchmarks.study.early
    python -m benchmarks.study.early --table               # print what there is, train nothing

Tasks are grouped as by default, but after every epoch, by the gradients of all epochs so far; nothing merges. Splits
and initial weights differ from seed to seed.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from sklearn.metrics import adjusted_rand_score

from selshare import SelectiveSharing
from selshare.data import Problem
from selshare.sharing.grouping import noise_apart
from selshare.training.methods import build_model

from . import methods as study_methods
from .planted import planted_groups, small_problem
from .results import RESULTS, Row, append, markdown, mean_and_error, missing, read
from .settings import SETTINGS

LOOSE = "planted, relatedness .5"
NAMES = ("digits", "fashion-500", "fashion-2000", "alphabets", LOOSE)
EPOCHS = 12
SHOWN = (1, 2, 3, 5, 8, 12)
PATH = RESULTS / "early.jsonl"


def main() -> None:
    """Group what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help=f"from {'; '.join(NAMES)}; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [(name, seed) for name in arguments.settings or NAMES for seed in range(arguments.seeds)]
    for name, seed in () if arguments.table else missing(read(PATH), wanted, ("setting", "seed")):
        append(PATH, {"setting": name, "seed": seed, **groups(_problem(name, seed), seed)})
        print(f"{name}, seed {seed}", flush=True)
    print(table(read(PATH)))


def _problem(name: str, seed: int) -> Problem:
    """Twelve epochs and one that nothing is grouped by; the rate is that of a training many times as long."""
    made = small_problem(0.5, seed, EPOCHS + 1) if name == LOOSE else SETTINGS[name].build(seed)
    return replace(made, recipe=replace(made.recipe, epochs=EPOCHS + 1, schedule="constant"))


def groups(problem: Problem, seed: int) -> Row:
    """The branch of each task after each epoch, and the planted groups where there are any."""
    sharing = SelectiveSharing(capture="free", seed=seed, group_epochs=EPOCHS, warmup=EPOCHS + 1)
    study_methods.fit(problem, build_model(problem, seed), sharing, seed)
    found = [noise_apart(event.labels).tolist() for event in sharing.events[:EPOCHS]]
    return {"labels": found, "planted": None if problem.groups is None else planted_groups(problem)}


def table(rows: Sequence[Row]) -> str:
    """A line per data set: agreement after so many epochs, and how many branches."""
    lines = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == name]
        cells = [f"{agreement(own, epoch):.2f} ({_branches(own, epoch):.1f})" for epoch in SHOWN]
        lines.append([name, str(len(own)), *cells])
    header = [f"{epoch} epoch{'s' if epoch > 1 else ''}" for epoch in SHOWN]
    return markdown(["data", "seeds", *header], lines)


def agreement(rows: Sequence[Row], epoch: int) -> float:
    """Mean adjusted Rand index of any two seeds' groups, or of each seed's with the planted ones."""
    found = [row["labels"][epoch - 1] for row in rows]
    if rows[0]["planted"] is not None:
        pairs = [(row["planted"], labels) for row, labels in zip(rows, found, strict=True)]
    else:
        pairs = list(itertools.combinations(found, 2))
    return mean_and_error(float(adjusted_rand_score(*pair)) for pair in pairs)[0] if pairs else float("nan")


def _branches(rows: Sequence[Row], epoch: int) -> float:
    return mean_and_error(len(set(row["labels"][epoch - 1])) for row in rows)[0]


if __name__ == "__main__":
    main()
