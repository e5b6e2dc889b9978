"""Data parallel training gives what one process gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from problems import KINDS, SGD, assert_close, binary_model, mixed, mixed_model, planted, told, train, weights
from selshare import BankAdam, MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.distributed import DataParallel, Ranks
from several import on_ranks

SETUPS: dict[str, tuple[Callable[[], MultiTaskModel], Callable[[], Any], dict[str, Any]]] = {
    "paper": (binary_model, planted, {"preset": "paper"}),
    "default, refitted heads": (binary_model, planted, {}),
    "torch's AdamW": (binary_model, planted, {"optimizer": partial(torch.optim.AdamW, lr=0.01), "preset": "paper"}),
    "BankAdam, sketch": (
        binary_model,
        planted,
        {"optimizer": partial(BankAdam, lr=0.01), "capture": "sketch", "sketch_size": 40},
    ),
    "free capture": (binary_model, planted, {"capture": "free", "preset": "paper"}),
    "mean of units, mean gradients": (
        binary_model,
        planted,
        {"merge": "mean", "merged_gradient": "mean", "refit_heads": True},
    ),
    "all kinds of tasks": (mixed_model, mixed, {"warmup": 1, "epochs": 3}),
    "validated merges": (binary_model, planted, {"preset": "paper", "validate_merges": 2, "refit_heads": True}),
    "accumulated, clipped, averaged": (
        binary_model,
        planted,
        {"preset": "paper", "training": {"accumulate": 2, "clip_norm": 0.05, "average": 0.9}},
    ),
    "gradients formed": (binary_model, planted, {"batch_size": 64, "preset": "paper"}),
}


FOUR = ("default, refitted heads", "all kinds of tasks")


@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in SETUPS), *((name, 4) for name in FOUR)])
def test_weights_and_groups_are_those_of_one_process(name: str, size: int, tmp_path: Path) -> None:
    make, data, settings = SETUPS[name]
    model = make()
    history = train(model, data(), **settings)
    if name != "all kinds of tasks":
        assert model.branches < len(model.tasks), "some branches merge"

    def ranked(ranks: Ranks) -> Any:
        own = make()
        if ranks.rank:
            with torch.no_grad():
                next(own.parameters()).add_(1)  # rank 0's weights are everybody's
        other = train(own, data(), **settings)
        return weights(own), told(other), [event.plan for event in other.events], ranks.sent

    for state, record, plans, sent in on_ranks(ranked, size, tmp_path):
        assert_close(weights(model), state)
        assert record == told(history)
        assert plans == [event.plan for event in history.events]
        assert ("factors" in sent) == ("torch's" not in name)


def convolutional() -> MultiTaskModel:
    torch.manual_seed(2)
    trunk = nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 3, 3),
        nn.BatchNorm1d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 9),
        nn.BatchNorm1d(9, momentum=None, affine=False),
    )
    return binary_model(trunk=trunk)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """A data set of samples, which are collated."""

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        self.pair = pair

    def __len__(self) -> int:
        return len(self.pair[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pair[0][index], self.pair[1][index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """A data set without indices."""

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        self.pair = pair

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(*self.pair, strict=True))


def loaders() -> dict[str, Callable[[], Any]]:
    training, _ = planted(samples=35)
    return {
        "batch normalisation, fewer rows than ranks": lambda: DataLoader(TensorDataset(*training), 11),
        "order from the global generator": lambda: DataLoader(Rows(training), 8, shuffle=True),
        "no indices": lambda: DataLoader(Stream(training), 8),
    }


def test_batch_normalisation_and_loaders_of_one_s_own(tmp_path: Path) -> None:
    """Batches of 11, 11, 11 and 2 on four ranks; the order drawn by the loader; dropout that differs by rank."""
    _, validation = planted()

    def run(name: str) -> Any:
        model = convolutional()
        train(model, (loaders()[name](), validation), epochs=2, preset="paper")
        return weights(model)

    def dropped() -> Any:
        model = binary_model(dropout=0.5)
        train(model, (Rows(planted()[0]), validation), epochs=2)
        return weights(model)

    def ranked(ranks: Ranks) -> Any:
        return {name: run(name) for name in loaders()}, dropped()

    expected = {name: run(name) for name in loaders()}
    results = on_ranks(ranked, 4, tmp_path)
    for found, with_dropout in results:
        for name, state in expected.items():
            assert_close(state, found[name])
        assert_close(results[0][1], with_dropout, 0.0)


def test_what_cannot_be_split_is_named(tmp_path: Path) -> None:
    def ranked(ranks: Ranks) -> list[str]:
        said = []
        training, validation = planted(samples=32)
        data = TensorDataset(*training)
        loader = DataLoader(data, 8, sampler=DistributedSampler(data))
        norms = MultiTaskModel(nn.Identity(), 6, tasks=KINDS, branch=nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
        other = MultiTaskModel(nn.Identity(), 6, (4 + ranks.rank, 3), tasks=KINDS)
        bad = training[1].clone()
        bad[ranks.rank * 30, 3] = 7.0
        late = binary_model()
        SelectiveSharing().attach(late)
        for attempt in (
            lambda: train(binary_model(), (loader, validation)),
            lambda: DataParallel(norms, ranks),
            lambda: DataParallel(other, ranks).start(),
            lambda: DataParallel(late, ranks).start(),
            lambda: Trainer(binary_model(), aggregator=torch.sum),
            lambda: train(binary_model(), ((training[0] * 1e300, training[1]), validation)),
        ):
            with pytest.raises((ValueError, RuntimeError)) as error:
                attempt()
            said.append(str(error.value))
        return said

    for said in on_ranks(ranked, 2, tmp_path):
        for words, sentence in zip(
            (
                "each rank takes its rows of every batch",
                "the branches hold batch normalisation",
                "models of rank 0 and rank 1 differ; build the same model on every rank",
                "before SelectiveSharing.attach()",
                "cannot be used with several processes",
                "NaN or Inf",
            ),
            said,
            strict=True,
        ):
            assert words in sentence, sentence


def test_steps_without_a_finite_loss_are_skipped_together(tmp_path: Path) -> None:
    training, validation = planted(samples=40)
    training[0][5] = 1e200  # its logits are finite in the shared representation, its square is not
    model = MultiTaskModel(nn.Identity(), 6, (8, 5), [Task.regression(f"v{i}") for i in range(8)])
    state = model.double().state_dict()

    def run() -> Any:
        own = MultiTaskModel(nn.Identity(), 6, (8, 5), model.tasks).double()
        own.load_state_dict(state)
        history = train(own, (training, validation), epochs=1, on_nonfinite="skip", preset="paper")
        return weights(own), history.epochs[0].skipped

    one, skipped = run()
    assert skipped
    for other, others in on_ranks(lambda ranks: run(), 2, tmp_path):
        assert_close(one, other)
        assert others == skipped


def test_a_loop_of_one_s_own(tmp_path: Path) -> None:
    def run(ranks: Ranks | None) -> Any:
        model = binary_model()
        optimizer = SGD(model.parameters())
        training, _ = planted()
        parallel = None if ranks is None else DataParallel(model, ranks).start()
        sharing = SelectiveSharing(preset="paper")
        sharing.attach(model, optimizer, epoch_end=None if parallel is None else parallel.epoch_end)
        losses = []
        for _ in range(3):
            for inputs, targets in zip(*(part.split(32) for part in training), strict=True):
                optimizer.zero_grad()
                if parallel is None:
                    losses.append(model.loss(model(inputs), targets))
                    losses[-1].backward()
                else:
                    losses.append(parallel.backward(parallel.share(inputs, {f"t{i}": targets[:, i] for i in range(8)})))
                optimizer.step()
            sharing.end_epoch()
        sharing.detach()
        if parallel is not None:
            parallel.check()
            parallel.stop()
            with torch.no_grad():
                model.bank.first_weight[0, 0, 0] += ranks.rank
            with pytest.raises(RuntimeError, match=r"bank.stacked.0.weight is no longer the same on every rank"):
                parallel.check()
        return torch.stack(losses).detach(), model.assignment

    losses, assignment = run(None)
    for others, groups in on_ranks(run, 2, tmp_path):
        torch.testing.assert_close(others, losses, rtol=1e-10, atol=1e-10)
        assert torch.equal(groups, assignment)
