"""Runs on several ranks that are interrupted go on to the same end, with as many ranks or another number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from problems import assert_close, binary_model, planted, told, train, weights
from selshare.distributed import Ranks
from selshare.training import History
from selshare.training.history import EpochRecord
from selshare.training.resume import CheckpointFolder
from several import free_port, on_ranks, start, wait

SETTINGS: dict[str, Any] = {"epochs": 4, "warmup": 2}


def run(folder: Path, stop_after: int | None, dropout: float) -> Any:
    def stop(record: EpochRecord) -> None:
        if record.epoch == stop_after:
            raise KeyboardInterrupt

    model = binary_model(dropout=dropout)
    history = train(model, planted(), folder=folder, resume="auto", callbacks=(stop,), **SETTINGS)
    return weights(model), told(history), [event.plan for event in history.events]


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    """To the bit with as many ranks, dropout included."""
    whole = on_ranks(lambda ranks: run(tmp_path / "whole", None, 0.3), 2, tmp_path / "a")[0]
    (tmp_path / "b").mkdir()
    statuses = wait(start(lambda ranks: run(tmp_path / "parts", 2, 0.3), 2, tmp_path / "b"))
    assert statuses == [1, 1]
    assert len(CheckpointFolder(tmp_path / "parts").files()) == 2
    for state, record, plans in on_ranks(lambda ranks: run(tmp_path / "parts", None, 0.3), 2, tmp_path / "c"):
        assert_close(whole[0], state, 0.0)
        assert (record, plans) == whole[1:]


def test_the_number_of_ranks_may_change(tmp_path: Path) -> None:
    """One process, then three, then one: the weights of one, to rounding."""
    model = binary_model()
    history: History = train(model, planted(), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 1, 0.0)
    (tmp_path / "b").mkdir()
    assert wait(start(lambda ranks: run(tmp_path / "parts", 3, 0.0), 3, tmp_path / "b")) == [1, 1, 1]
    state, record, plans = run(tmp_path / "parts", None, 0.0)
    assert_close(weights(model), state)
    assert record == told(history)
    assert plans == [event.plan for event in history.events]


def test_a_checkpoint_that_cannot_be_read_ends_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "epoch-0001.safetensors").write_bytes(b"nothing")

    def ranked(ranks: Ranks) -> None:
        with pytest.raises(ValueError, match="cut off"):
            run(tmp_path, None, 0.0)

    on_ranks(ranked, 2, tmp_path / "ranks")


SCRIPT = """
import os, sys, signal
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from problems import binary_model, planted, train, weights
from selshare.distributed import processes

folder = Path({folder!r})

def die(record):
    if record.epoch == 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

with processes(timeout=60) as ranks:
    model = binary_model()
    train(model, planted(), folder=folder / "checkpoints", resume="auto", callbacks=(die,), epochs=4, warmup=2)
    torch.save(weights(model), folder / f"weights{{ranks.rank}}")
"""


def test_torchrun_restarts_and_the_run_goes_on(tmp_path: Path) -> None:
    import torch

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    command = [*launcher, f"--master-port={free_port()}", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    model = binary_model()
    train(model, planted(), **SETTINGS)
    for rank in range(2):
        assert_close(weights(model), torch.load(tmp_path / f"weights{rank}"))
