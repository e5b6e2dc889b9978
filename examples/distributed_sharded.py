"""The bank sharded by branch: ``torchrun --nproc-per-node=2 examples/distributed_sharded.py``.

No process ever has all branches. After training, rank 0 puts the merged model together and saves it.
"""

from __future__ import annotations

import sys

import torch

import selshare
from selshare.data import load
from selshare.distributed import ShardedModel, processes


def main(file: str = "sharded-model.pt") -> None:
    """Train on the planted groups, and save the merged model in one file."""
    problem = load("synthetic", tasks=20, groups=4, samples=2_000)
    with processes() as ranks:
        torch.manual_seed(0)
        model = ShardedModel.build(
            problem.make_trunk(), problem.shared_features, problem.hidden, tasks=problem.tasks, ranks=ranks
        )
        trainer = selshare.Trainer(
            model,
            selshare.BankAdam(model.parameters(), lr=1e-3),
            selshare.SelectiveSharing(warmup=1, capture="sketch"),
        )
        trainer.fit(problem.train, problem.validation, epochs=4)
        result = trainer.evaluate(problem.test)
        whole = model.whole()
        if whole is not None:
            torch.save(whole.state_dict(), file)
            print(f"{whole.branches} branches for {len(whole.tasks)} tasks, mean metric {result.mean_metric:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
