"""Data parallel training: ``torchrun --nproc-per-node=2 examples/distributed_data_parallel.py``.

Every process builds the same model and Trainer. Each takes its rows of every batch; weights and groups are those of one
process. Kill it and start it again: it goes on after the last epoch.
"""

from __future__ import annotations

import sys

import torch

import selshare
from selshare.data import load
from selshare.distributed import processes


def main(checkpoints: str = "checkpoints-data-parallel") -> None:
    """Train on the planted groups, and say how it went."""
    problem = load("synthetic", tasks=20, groups=4, samples=2_000)
    with processes() as ranks:
        torch.manual_seed(0)
        model = selshare.MultiTaskModel(
            problem.make_trunk(), problem.shared_features, problem.hidden, tasks=problem.tasks
        )
        trainer = selshare.Trainer(
            model,
            selshare.BankAdam(model.parameters(), lr=1e-3),
            selshare.SelectiveSharing(warmup=1),
            checkpoints=checkpoints,
        )
        trainer.fit(problem.train, problem.validation, epochs=4, resume="auto")
        result = trainer.evaluate(problem.test)
        if ranks.first:
            print(f"{model.branches} branches for {len(model.tasks)} tasks, mean metric {result.mean_metric:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
