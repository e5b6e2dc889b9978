"""Training: it learns, it is deterministic, it keeps the best epoch, it merges."""

from __future__ import annotations

import json
import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selshare.model import MultiTaskModel
from selshare.sharing import SelectiveSharing
from selshare.tasks import Task
from selshare.training import EpochRecord, History, Trainer, as_loader
from selshare.training.batches import to_device

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.5)


def planted(samples: int, tasks: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two groups of related binary tasks: each task is a group's direction plus a little of its own."""
    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(2, 12, generator=generator).repeat_interleave(tasks // 2, 0)
    weights = centres + 0.2 * torch.randn(tasks, 12, generator=generator)
    inputs = torch.randn(samples, 12, generator=torch.Generator().manual_seed(seed))
    return inputs, (inputs @ weights.T > 0).float()


def model_for(tasks: int = 6, seed: int = 0) -> MultiTaskModel:
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.1))
    return MultiTaskModel(trunk, 16, (8, 4), [Task.binary(f"task {i}") for i in range(tasks)])


def test_it_learns_merges_and_recovers_the_groups() -> None:
    model = model_for()
    sharing = SelectiveSharing("similarity", preset="paper")
    history = Trainer(model, SGD, sharing, progress=False).fit(planted(800), planted(300, seed=1), epochs=6)
    assert model.tasks_by_branch() == ((0, 1, 2), (3, 4, 5))
    assert [record.branches for record in history.epochs] == [2] * 6
    assert history.lock_epoch == 1
    assert len(history.events) == 1, "nothing is clustered after the lock"
    assert history.epochs[-1].mean_metric is not None
    assert history.epochs[-1].mean_metric > 0.9
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss


def test_two_runs_with_one_seed_agree_to_the_bit_and_leave_the_global_state_alone() -> None:
    states = []
    for _ in range(2):
        model = model_for()
        before = torch.get_rng_state()
        Trainer(model, SGD, SelectiveSharing(), progress=False, seed=3).fit(planted(200), planted(50, seed=1), epochs=3)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other = model_for()
    Trainer(other, SGD, SelectiveSharing(), progress=False, seed=4).fit(planted(200), planted(50, seed=1), epochs=3)
    assert not torch.equal(other.state_dict()["trunk.0.weight"], states[0]["trunk.0.weight"])


@pytest.mark.parametrize("select_by", ["loss", "metric"])
def test_the_best_validation_epoch_is_kept(select_by: str) -> None:
    model = model_for()
    noisy = partial(torch.optim.SGD, lr=3.0)
    validation = planted(60, seed=1)
    trainer = Trainer(model, noisy, select_by=select_by, progress=False)
    history = trainer.fit(planted(60), validation, epochs=8)
    keys = [
        (record.mean_metric if select_by == "metric" else 0.0, -(record.validation_loss or 0.0))
        for record in history.epochs
    ]
    best = max(range(8), key=lambda i: keys[i])
    assert history.best_epoch == best + 1
    assert best != 7, "the test needs a run whose last epoch is not its best"
    assert trainer.evaluate(validation).loss == pytest.approx(history.epochs[best].validation_loss)


def test_the_kept_model_is_a_merged_one() -> None:
    model = model_for()
    sharing = SelectiveSharing("similarity", warmup=3)
    history = Trainer(model, SGD, sharing, progress=False).fit(planted(400), planted(100, seed=1), epochs=5)
    assert [record.branches for record in history.epochs] == [6, 6, 6, 2, 2]
    assert history.best_epoch in (4, 5)
    assert model.bank.branches == 2


def test_every_kind_of_data_gives_the_same_run() -> None:
    inputs, targets = planted(128)
    names = [f"task {i}" for i in range(6)]

    class Named(torch.utils.data.Dataset[tuple[Tensor, dict[str, Tensor]]]):
        def __len__(self) -> int:
            return len(inputs)

        def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
            return inputs[index], dict(zip(names, targets[index], strict=True))

    kinds = [(inputs, targets), TensorDataset(inputs, targets), Named()]
    histories = [Trainer(model_for(), SGD, progress=False).fit(data, data, epochs=2) for data in kinds]
    losses = [[record.validation_loss for record in history.epochs] for history in histories]
    assert losses[0] == losses[1] == pytest.approx(losses[2])
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    assert len(Trainer(model_for(), SGD, progress=False).fit(loader, epochs=1).epochs) == 1


def test_history_round_trips_through_json(tmp_path: object) -> None:
    seen: list[EpochRecord] = []
    trainer = Trainer(model_for(), SGD, SelectiveSharing(), progress=False, callbacks=[seen.append])
    history = trainer.fit(planted(100), planted(50, seed=1), epochs=2)
    assert seen == history.epochs
    data = json.loads(json.dumps(history.to_json()))
    again = History.from_json(data)
    assert again.epochs == history.epochs
    assert again.to_json() == history.to_json()


def test_a_scheduler_steps_once_an_epoch_and_survives_merges() -> None:
    model = model_for()
    optimizer = SGD(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    Trainer(model, optimizer, SelectiveSharing(), scheduler=scheduler, progress=False).fit(planted(100), epochs=3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 / 8)


def test_a_lone_last_sample_is_left_out_when_shuffling() -> None:
    inputs, targets = planted(129)
    sizes = [len(batch[0]) for batch in as_loader((inputs, targets), 64, shuffle=True)]
    assert sizes == [64, 64]
    sizes = [len(batch[0]) for batch in as_loader((inputs, targets), 64, shuffle=False)]
    assert sizes == [64, 64, 1]


def test_batches_reach_a_gpu_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    pinned, there = torch.zeros(1), torch.ones(1)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pinned") or pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **options: calls.append(options) or there)
    batch = (torch.randn(3, 2), {"a": torch.randn(3)})
    inputs, targets = to_device(batch, torch.device("cuda"))
    assert inputs is there
    assert targets["a"] is there
    assert calls == ["pinned", {"non_blocking": True}] * 2
    calls.clear()
    to_device(batch, torch.device("cpu"))
    assert calls == [{}, {}]


def test_errors_are_sentences() -> None:
    inputs, targets = planted(64)
    trainer = Trainer(model_for(), SGD, progress=False)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        trainer.fit((inputs, targets), epochs=0)
    with pytest.raises(ValueError, match="64 inputs but 63 rows"):
        trainer.fit((inputs, targets[1:]))
    with pytest.raises(ValueError, match="data set is empty"):
        trainer.fit((inputs[:0], targets[:0]))
    with pytest.raises(TypeError, match="must be a DataLoader, a Dataset or"):
        trainer.fit([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="select_by"):
        Trainer(model_for(), SGD, select_by="luck")
    inputs[3] = float("nan")
    with pytest.raises(ValueError, match="so do the inputs"):
        trainer.fit((inputs, targets))
    with pytest.raises(ValueError, match=r"NaN|Inf"):
        Trainer(model_for(), partial(torch.optim.SGD, lr=1e30), progress=False).fit(planted(256), epochs=3)


def overflowing(samples: int, rows: slice) -> tuple[Tensor, Tensor]:
    """Targets of a regression that overflow when squared, for some rows in order."""
    inputs, _ = planted(samples)
    targets = torch.stack([inputs[:, 0], inputs[:, 1]], dim=1)
    targets[rows, 1] = 3e38
    return inputs, targets


def regressor() -> MultiTaskModel:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(12, 16), nn.ReLU())
    return MultiTaskModel(trunk, 16, (8,), [Task.regression("fine"), Task.regression("wild")])


def in_order(data: tuple[Tensor, Tensor]) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*data), 20)


def test_a_task_whose_loss_overflows_is_named_or_its_steps_are_skipped() -> None:
    wild = in_order(overflowing(100, slice(20, 60)))
    slow = partial(torch.optim.SGD, lr=0.01, momentum=0.5)
    with pytest.raises(ValueError, match="The loss of task 'wild' is NaN or Inf"):
        Trainer(regressor(), slow, progress=False).fit(wild, epochs=1)
    skipping = Trainer(regressor(), slow, on_nonfinite="skip", progress=False)
    history = skipping.fit(wild, epochs=2)
    assert [record.skipped for record in history.epochs] == [{"wild": 2}, {"wild": 2}]
    inputs, targets = overflowing(100, slice(20, 60))
    kept = torch.cat([torch.arange(20), torch.arange(60, 100)])
    without = Trainer(regressor(), slow, progress=False)
    clean = without.fit(in_order((inputs[kept], targets[kept])), epochs=2)
    for name, tensor in skipping.model.state_dict().items():
        assert torch.equal(tensor, without.model.state_dict()[name]), name
    assert [record.train_loss for record in history.epochs] == [record.train_loss for record in clean.epochs]
    with pytest.raises(ValueError, match="The loss of task 'wild' is NaN or Inf"):
        Trainer(regressor(), slow, on_nonfinite="skip", progress=False).fit(
            in_order(overflowing(40, slice(0, 40))), epochs=1
        )
    with pytest.raises(ValueError, match="on_nonfinite must be 'raise' or 'skip'"):
        Trainer(regressor(), on_nonfinite="ignore")


class Spy(nn.Module):
    """Notes whether numbers below the smallest of full precision count as zero."""

    def __init__(self) -> None:
        super().__init__()
        self.training_steps: list[bool] = []
        self.evaluations: list[bool] = []

    def forward(self, inputs: Tensor) -> Tensor:
        (self.training_steps if self.training else self.evaluations).append(sys.float_info.min * 0.5 == 0.0)
        return inputs


@pytest.mark.parametrize("flush", [True, False])
def test_steps_and_nothing_else_count_subnormals_as_zero(flush: bool) -> None:
    spy, seen = Spy(), []
    torch.manual_seed(0)
    model = MultiTaskModel(spy, 4, (3,), [Task.binary("a"), Task.binary("b")])
    data = TensorDataset(torch.randn(20, 4), torch.randint(2, (20, 2)).float())
    trainer = Trainer(
        model,
        batch_size=10,
        flush_subnormals=flush,
        callbacks=[lambda record: seen.append(sys.float_info.min * 0.5 == 0.0)],
        progress=False,
    )
    trainer.fit(data, data, epochs=2)
    assert spy.training_steps == [flush] * 4
    assert set(spy.evaluations) == set(seen) == {False}
