"""Train ten tasks on the bundled digits with selective sharing, and say what merged."""

from __future__ import annotations

from functools import partial

import torch

import selshare
from selshare.data import load


def main() -> None:
    """Train, test, save."""
    problem = load("digits")
    torch.manual_seed(0)
    model = selshare.MultiTaskModel(problem.make_trunk(), problem.shared_features, problem.hidden, problem.tasks)
    before = model.parameter_count()
    trainer = selshare.Trainer(
        model,
        partial(selshare.BankSGD, lr=0.05, momentum=0.9),
        selshare.SelectiveSharing(criterion="similarity"),
        progress=False,
    )
    history = trainer.fit(problem.train, problem.validation, epochs=9)
    for event in history.events:
        for group in event.merged:
            print(f"epoch {event.epoch}: merged {', '.join(group)}")
    print(
        f"{model.bank.branches} of {len(problem.tasks)} branches, {model.parameter_count():,} of {before:,} parameters"
    )
    print(f"mean accuracy on the test images: {trainer.evaluate(problem.test).mean_metric:.4f}")
    torch.save(model.state_dict(), "digits.pt")


if __name__ == "__main__":
    main()
