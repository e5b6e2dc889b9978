"""Training on digits for two epochs, merges included, by Triton's kernels in the interpreter: equal to the references.

Run as a program this file trains and prints what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

import selshare
from selshare.data import load
from selshare.kernels import use
from selshare.optim import BankAdam, BankSGD

RUNS: list[dict[str, str]] = [
    {"embedding": "joint", "capture": "exact", "optimizer": "sgd"},
    {"embedding": "per_branch", "capture": "sketch", "optimizer": "adam"},
]
OPTIMIZERS = {"sgd": partial(BankSGD, lr=0.1, momentum=0.5), "adam": partial(BankAdam, lr=0.02)}
BATCH, BATCHES = 40, 4


def train(embedding: str, capture: str, optimizer: str) -> dict[str, Any]:
    """Losses, groups and weights of a small run."""
    torch.manual_seed(0)
    problem = load("digits")
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 18), nn.ReLU())
    model = selshare.MultiTaskModel(trunk, 18, hidden=(10, 6), tasks=problem.tasks)
    sharing = selshare.SelectiveSharing(embedding=embedding, capture=capture, sketch_size=30, sketch_above=0)
    trainer = selshare.Trainer(model, OPTIMIZERS[optimizer], sharing, batch_size=BATCH, progress=False)
    history = trainer.fit(
        Subset(problem.train, range(BATCH * BATCHES)), TensorDataset(*problem.validation[:50]), epochs=2
    )
    weights = torch.cat([value.flatten().double() for value in model.state_dict().values()])
    return {
        "losses": [(epoch.train_loss, epoch.validation_loss) for epoch in history.epochs],
        "groups": [event.groups for event in history.events],
        "branches": [epoch.branches for epoch in history.epochs],
        "weights": weights.tolist(),
    }


@pytest.fixture(scope="module")
def interpreted() -> list[dict[str, Any]]:
    """The runs on Triton, in a process in which its interpreter is switched on."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "SELSHARE_BACKEND": "triton"}
    done = subprocess.run(
        [sys.executable, Path(__file__).name],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("run", range(len(RUNS)), ids=[" ".join(run.values()) for run in RUNS])
def test_a_run_on_triton_equals_the_reference(interpreted: list[dict[str, Any]], run: int) -> None:
    with use("reference"):
        wanted = json.loads(json.dumps(train(**RUNS[run])))
    found = interpreted[run]
    assert found["branches"] == wanted["branches"]
    assert min(found["branches"]) < 10
    assert found["groups"] == wanted["groups"]
    torch.testing.assert_close(torch.tensor(found["losses"]), torch.tensor(wanted["losses"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(found["weights"]), torch.tensor(wanted["weights"]), rtol=0, atol=1e-4)


if __name__ == "__main__":
    print(json.dumps([train(**run) for run in RUNS]))
