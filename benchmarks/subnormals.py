"""What subnormal numbers cost as tasks are learned: ``python -m benchmarks.subnormals [--setting alphabets]``.

A training of the study, never merged. After some epochs the model and the optimizer's state are copied, and the copy is
trained an epoch as the Trainer does, with subnormal numbers counted as zero, and one with them. Seconds are the
processor's, of one thread, the lower of two rounds in turn. The share is of the numbers other
than 0 in a batch's gradient of the bank's first layer.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selshare import MultiTaskModel, Trainer
from selshare.data import Problem
from selshare.training.methods import build_model, make_trainer

from .study.settings import SETTINGS

AFTER = (1, 10, 30, 60)
ROUNDS = 2


def measure(problem: Problem, epochs: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each number of epochs: seconds of the next one, both ways."""
    model = build_model(problem, 0)
    trainer = make_trainer(problem, model, progress=False)
    rows: list[dict[str, Any]] = []
    for done, wanted in zip((0, *epochs), epochs, strict=False):
        trainer.fit(problem.train, epochs=wanted - done)
        spent: dict[bool, list[float]] = {True: [], False: []}
        losses = set()
        for _ in range(ROUNDS):
            for flush, seconds in spent.items():
                twin = _twin(problem, model, trainer, flush)
                started = time.process_time()
                history = twin.fit(problem.train, epochs=1)
                seconds.append(time.process_time() - started)
                losses.add(history.epochs[0].train_loss)
        row = {"epochs": wanted, "as zero": min(spent[True]), "kept": min(spent[False])}
        rows.append({**row, "subnormal": _share(problem, model), "same loss": len(losses) == 1})
    return rows


def _twin(problem: Problem, model: MultiTaskModel, trainer: Trainer, flush: bool) -> Trainer:
    """A trainer that goes on from a copy."""
    twin = make_trainer(problem, copy.deepcopy(model), flush_subnormals=flush, progress=False)
    twin.optimizer.load_state_dict(copy.deepcopy(trainer.optimizer.state_dict()))
    return twin


def _share(problem: Problem, model: MultiTaskModel) -> float:
    """Subnormal numbers among those of a batch's gradient of the first layer that are not zero."""
    twin = copy.deepcopy(model)
    inputs, targets = problem.train[: problem.recipe.batch_size]
    twin.loss(twin(inputs), targets).backward()
    gradient = twin.bank.first_weight.grad
    assert isinstance(gradient, Tensor)
    size = gradient.abs()
    return float((size[size > 0] < torch.finfo(size.dtype).tiny).double().mean())


def main() -> None:
    """Print a line for each number of epochs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=list(SETTINGS), default="alphabets")
    parser.add_argument("--after", type=int, nargs="+", default=AFTER, help="epochs, ascending")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(SETTINGS[arguments.setting].build(0), tuple(arguments.after))
    for row in rows:
        print(
            f"{arguments.setting}, after {row['epochs']} epochs: {row['as zero']:.2f} s an epoch, with subnormal "
            f"numbers {row['kept']:.2f} s, {row['kept'] / row['as zero']:.1f} times as long; "
            f"{row['subnormal']:.1%} of the gradient is subnormal; "
            f"the losses are {'the same to the bit' if row['same loss'] else 'not the same'}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"setting": arguments.setting, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
