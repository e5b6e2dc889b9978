"""Runs that are interrupted and resumed end with the weights of runs that are not, to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset

from selshare import BankAdam, BankSGD, MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.objectives import SaliencyRegularizer
from selshare.training import History
from selshare.training.history import EpochRecord
from selshare.training.resume import CheckpointFolder

EPOCHS = 5
SGD = partial(BankSGD, lr=0.05, momentum=0.5)
Setup = Callable[..., Trainer]


class Stopped(Exception):
    """Raised by a callback in place of a power cut."""


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Eight binary tasks in two groups, some labels missing."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(160, 6, generator=generator)
    centres = torch.randn(2, 6, generator=generator).repeat_interleave(4, 0)
    labels = (inputs @ (centres + 0.1 * torch.randn(8, 6, generator=generator)).T > 0).float()
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = torch.nan
    return (inputs[:120], labels[:120]), (inputs[120:], labels[120:])


def trainer(
    folder: Path | None,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = SGD,
    scheduled: bool = False,
    saliency: bool = False,
    stop_after: int | None = None,
    training: Mapping[str, Any] = MappingProxyType({}),
    **sharing: object,
) -> Trainer:
    torch.manual_seed(3)
    tasks = [Task.binary(f"t{i}") for i in range(8)]
    model = MultiTaskModel(nn.Sequential(nn.Linear(6, 9), nn.ReLU()), 9, (8, 5), tasks, dropout=0.2)
    built = optimizer(model.parameters())

    def stop(record: EpochRecord) -> None:
        if record.epoch == stop_after:
            raise Stopped

    return Trainer(
        model,
        built,
        SelectiveSharing(**sharing),  # type: ignore[arg-type]
        scheduler=ExponentialLR(built, 0.9) if scheduled else None,
        objectives=[SaliencyRegularizer(tasks)] if saliency else [],
        batch_size=16,
        seed=5,
        callbacks=[stop],
        checkpoints=folder,
        progress=False,
        **training,
    )


def weights(made: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def without_times(history: History) -> list[tuple[object, ...]]:
    return [(r.epoch, r.train_loss, r.validation_loss, r.metrics, r.branches) for r in history.epochs]


SETUPS: dict[str, Setup] = {
    "paper": partial(trainer, preset="paper"),
    "default": trainer,
    "free capture": partial(trainer, preset="paper", capture="free"),
    "sketch, Adam, schedule": partial(
        trainer, optimizer=partial(BankAdam, lr=0.01), capture="sketch", sketch_size=40, sketch_above=0, scheduled=True
    ),
    "torch's Adam": partial(trainer, optimizer=partial(torch.optim.AdamW, lr=0.01), preset="paper"),
    "groups of several epochs": partial(trainer, group_epochs=3, warmup=3),
    "validated": partial(trainer, preset="paper", validate_merges=2, refit_heads=True),
    "mean gradients": partial(trainer, merged_gradient="mean", centre=True),
    "saliency": partial(trainer, saliency=True, preset="paper"),
    "float16, averaged, scheduled by steps": partial(
        trainer,
        preset="paper",
        scheduled=True,
        training={"precision": "float16", "average": 0.9, "scheduler_every": "step", "accumulate": 2, "clip_norm": 1.0},
    ),
}


@pytest.mark.parametrize("name", SETUPS)
def test_a_stop_after_any_epoch_changes_nothing(name: str, tmp_path: Path) -> None:
    training, validation = data()
    whole = SETUPS[name](tmp_path / "whole")
    history = whole.fit(training, validation, EPOCHS)
    assert {event.branches_after for event in history.events} != {8}, "some branches merge"
    for stop in range(1, EPOCHS):
        folder = tmp_path / f"stop{stop}"
        with pytest.raises(Stopped):
            SETUPS[name](folder, stop_after=stop).fit(training, validation, EPOCHS)
        resumed = SETUPS[name](folder)
        again = resumed.fit(training, validation, EPOCHS, resume="auto")
        assert_equal(weights(whole), weights(resumed))
        assert without_times(again) == without_times(history)
        assert again.best_epoch == history.best_epoch
        assert [event.plan for event in again.events] == [event.plan for event in history.events]


def test_a_loader_of_one_s_own_goes_on_in_its_order(tmp_path: Path) -> None:
    def loader() -> DataLoader[object]:
        return DataLoader(TensorDataset(*training), 16, shuffle=True, generator=torch.Generator().manual_seed(9))

    training, validation = data()
    whole = trainer(None)
    whole.fit(loader(), validation, EPOCHS)
    with pytest.raises(Stopped):
        trainer(tmp_path, stop_after=3).fit(loader(), validation, EPOCHS)
    resumed = trainer(tmp_path)
    resumed.fit(loader(), validation, EPOCHS, resume="auto")
    assert_equal(weights(whole), weights(resumed))


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    training, validation = data()
    first = trainer(tmp_path)
    first.fit(training, validation, 3)
    again = trainer(tmp_path)
    assert len(again.fit(training, validation, 3, resume="auto").epochs) == 3
    assert_equal(weights(first), weights(again))


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    training, validation = data()
    trainer(tmp_path).fit(training, validation, 4)
    assert [file.name for file in CheckpointFolder(tmp_path).files()] == [
        "epoch-0003.safetensors",
        "epoch-0004.safetensors",
    ]
    with pytest.raises(ValueError, match="keep must be at least 1"):
        CheckpointFolder(tmp_path, keep=0)


def test_what_cannot_be_resumed_is_named(tmp_path: Path) -> None:
    training, validation = data()
    with pytest.raises(ValueError, match=r"needs a folder: Trainer\(checkpoints=…\)"):
        trainer(None).fit(training, validation, 2, resume="auto")
    with pytest.raises(ValueError, match="resume must be 'auto' or None"):
        trainer(tmp_path).fit(training, validation, 2, resume="yes")
    trainer(tmp_path).fit(training, validation, 2)
    with pytest.raises(ValueError, match="holds checkpoints of an earlier run; pass resume='auto'"):
        trainer(tmp_path).fit(training, validation, 2)
    with pytest.raises(ValueError, match="a run with optimizer='BankSGD', and this Trainer has 'BankAdam'"):
        trainer(tmp_path, optimizer=BankAdam).fit(training, validation, 4, resume="auto")
    with pytest.raises(ValueError, match=r"the sharing state was saved with .*patience=3 \(here 7\)"):
        trainer(tmp_path, patience=7).fit(training, validation, 4, resume="auto")
    newest = CheckpointFolder(tmp_path).files()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"epoch-0002.safetensors is cut off .*delete it to use an earlier one"):
        trainer(tmp_path).fit(training, validation, 4, resume="auto")


def _train_to_the_end(folder: Path) -> None:
    """What a child process does: go on from what there is, and leave the final weights."""
    training, validation = data()
    made = trainer(folder, preset="paper", refit_heads=True)
    made.fit(training, validation, EPOCHS, resume="auto")
    partial_file = folder / "final.partial"
    save_file({name: tensor.contiguous() for name, tensor in made.model.state_dict().items()}, partial_file)
    partial_file.rename(folder / "final")


def _killed(folder: Path, seconds: float) -> bool:
    """Train in a child and kill it after that time; whether it was killed before it had finished."""
    child = os.fork()
    if child == 0:
        try:
            _train_to_the_end(folder)
            os._exit(0)
        except BaseException:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert not (os.WIFEXITED(status) and os.WEXITSTATUS(status)), "the child failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: those of pytest's process are idle
def test_killed_at_random_moments(tmp_path: Path) -> None:
    kills = int(os.environ.get("SELSHARE_KILLS", "12"))
    torch.set_num_threads(1)
    started = time.perf_counter()
    _train_to_the_end(tmp_path)
    duration = time.perf_counter() - started
    wanted = load_file(tmp_path / "final")
    moments, killed, runs = random.Random(0), 0, 0
    while killed < kills:
        folder = tmp_path / f"run{runs}"
        runs += 1
        folder.mkdir()
        while not (folder / "final").exists():
            killed += _killed(folder, moments.uniform(0.02, 1.2) * duration)
        assert_equal(wanted, load_file(folder / "final"))
