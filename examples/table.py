"""A table with ten columns to learn, some of their cells empty: train, look at the groups, predict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

import selshare
from selshare.data import table
from selshare.training.saved import predict_table


def made_up(rows: int = 500) -> pd.DataFrame:
    """Ten scores of two kinds, three in ten missing; put a table of your own in its place."""
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(rows, 5))
    kinds = rng.normal(size=(2, 5))
    columns = {f"measure {i}": measured[:, i] for i in range(5)} | {"city": rng.choice(["Oslo", "Bergen"], rows)}
    for score in range(10):
        passed = measured @ kinds[score % 2] + 0.3 * rng.normal(size=rows) > 0
        columns[f"score {score}"] = np.where(rng.random(rows) < 0.3, None, np.where(passed, "passed", "failed"))
    return pd.DataFrame(columns)


def main() -> None:
    """Train on the table, predict its first rows."""
    frame = made_up()
    problem = table(frame, targets="score *")
    assert problem.columns is not None
    print("\n".join(problem.columns.describe()))
    torch.manual_seed(0)
    model = selshare.MultiTaskModel(problem.make_trunk(), problem.shared_features, problem.hidden, problem.tasks)
    trainer = selshare.Trainer(model, sharing=selshare.SelectiveSharing(), progress=False)
    history = trainer.fit(problem.train, problem.validation, epochs=9)
    for group in history.events[-1].groups:
        print("together:", ", ".join(group))
    print(f"mean accuracy: {trainer.evaluate(problem.test).mean_metric:.3f}")
    print(predict_table(model, problem.columns, frame.head(3)).iloc[:, :4])


if __name__ == "__main__":
    main()
