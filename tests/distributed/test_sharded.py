"""A bank sharded by branch gives what one process gives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from problems import KINDS, SGD, assert_close, binary_model, mixed, mixed_model, planted, told, train, weights
from selshare import BankAdam, MultiTaskModel, Task
from selshare.distributed import Ranks, ShardedModel
from selshare.distributed.moving import Move
from selshare.training import evaluate
from selshare.training.evaluation import evaluate_sharded
from selshare.training.history import EpochRecord
from several import on_ranks, start, wait

SETUPS: dict[str, tuple[Callable[[], MultiTaskModel], Callable[[], Any], dict[str, Any]]] = {
    "paper": (binary_model, planted, {"preset": "paper"}),
    "composed branches, refitted heads": (binary_model, planted, {}),
    "torch's AdamW, mean": (
        binary_model,
        planted,
        {"optimizer": partial(torch.optim.AdamW, lr=0.01), "merge": "mean", "refit_heads": True, "preset": "paper"},
    ),
    "BankAdam, sketch": (
        binary_model,
        planted,
        {"optimizer": partial(BankAdam, lr=0.01), "capture": "sketch", "sketch_size": 40, "sketch_above": 0},
    ),
    "free capture, largest": (binary_model, planted, {"capture": "free", "preset": "paper", "merge": "max"}),
    "mean gradients, per branch": (
        binary_model,
        planted,
        {"merged_gradient": "mean", "embedding": "per_branch", "group_epochs": 2, "warmup": 2},
    ),
    "all kinds of tasks": (mixed_model, mixed, {"warmup": 1, "epochs": 4, "optimizer": partial(BankAdam, lr=0.01)}),
}
FOUR = ("composed branches, refitted heads", "all kinds of tasks")


@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in SETUPS), *((name, 4) for name in FOUR)])
def test_weights_and_groups_are_those_of_one_process(name: str, size: int, tmp_path: Path) -> None:
    make, data, settings = SETUPS[name]
    model = make()
    history = train(model, data(), **settings)
    assert model.branches < len(model.tasks), "some branches merge"

    def ranked(ranks: Ranks) -> Any:
        sharded = ShardedModel.of(make(), ranks)
        other = train(sharded, data(), **settings)
        counts = sharded.owner.bincount(minlength=size)
        assert int(counts.max() - counts.min()) <= 1, "spread evenly"
        assert sharded.part.branches == max(1, len(sharded.own_branches))
        whole = sharded.whole()
        return whole and weights(whole), told(other), [event.plan for event in other.events]

    results = on_ranks(ranked, size, tmp_path)
    assert_close(weights(model), results[0][0], 1e-7)
    for _, record, plans in results:
        assert record == told(history)
        assert plans == [event.plan for event in history.events]


def test_built_in_parts_it_has_the_weights_of_one_process(tmp_path: Path) -> None:
    def build(make: Callable[..., Any], **ranks: Any) -> Any:
        torch.manual_seed(ranks["ranks"].rank + 7 if ranks else 7)
        trunk = nn.Sequential(nn.Linear(6, 9), nn.ReLU())
        return make(trunk, 9, (8, 5), KINDS, dropout=0.5, **ranks)

    def ranked(ranks: Ranks) -> Any:
        sharded = build(ShardedModel.build, ranks=ranks)
        whole = sharded.whole()
        state = None if whole is None else weights(whole)
        (inputs, targets), _ = mixed()
        loss = sharded.eval().loss(inputs.float(), targets)
        with pytest.raises(ValueError, match="there are 2 branches to shard over 3 ranks"):
            ShardedModel.build(nn.Identity(), 6, tasks=KINDS[:2], ranks=ranks)
        for wrong in ({"clip_norm": 1.0}, {"average": 0.9}, {"precision": "float16"}):
            with pytest.raises(ValueError, match="is not there for a sharded bank"):
                train(sharded, mixed(), training=wrong)
        with pytest.raises(ValueError, match="validate_merges is not there"):
            train(sharded, mixed(), validate_merges=2)
        return state, float(loss.detach()), sharded.tasks == tuple(KINDS)

    model = build(MultiTaskModel)
    (inputs, targets), _ = mixed()
    loss = float(model.eval().loss(model(inputs.float()), targets).detach())
    results = on_ranks(ranked, 3, tmp_path)
    assert_close(weights(model), results[0][0], 0.0)
    assert sum(found for _, found, _ in results) == pytest.approx(loss, rel=1e-6)
    assert all(same for *_, same in results)


def test_resumed_in_parts_to_the_bit(tmp_path: Path) -> None:
    """Interrupted after the merge; another number of ranks is named."""
    settings: dict[str, Any] = {"epochs": 4, "warmup": 1, "optimizer": partial(BankAdam, lr=0.01)}

    def run(ranks: Ranks, folder: Path, stop_after: int | None = None) -> Any:
        def stop(record: EpochRecord) -> None:
            if record.epoch == stop_after:
                raise KeyboardInterrupt

        sharded = ShardedModel.of(binary_model(dropout=0.3), ranks)
        history = train(sharded, planted(), folder=folder, resume="auto", callbacks=(stop,), **settings)
        whole = sharded.whole()
        return whole and weights(whole), told(history)

    whole = on_ranks(lambda ranks: run(ranks, tmp_path / "whole"), 3, tmp_path / "a")[0]
    (tmp_path / "b").mkdir()
    parts = tmp_path / "parts"
    assert wait(start(lambda ranks: run(ranks, parts, 3), 3, tmp_path / "b")) == [1, 1, 1]
    assert sorted(file.name for file in parts.iterdir()) == [
        f"epoch-000{epoch}{rank}.safetensors" for epoch in (2, 3) for rank in (".rank-1", ".rank-2", "")
    ]

    def fewer(ranks: Ranks) -> None:
        with pytest.raises(ValueError, match="a run with shards=3, and this Trainer has 2"):
            run(ranks, parts)

    on_ranks(fewer, 2, tmp_path / "c")
    resumed = on_ranks(lambda ranks: run(ranks, parts), 3, tmp_path / "d")[0]
    assert_close(whole[0], resumed[0], 0.0)
    assert resumed[1] == whole[1]


def test_losses_that_are_not_finite_are_named_everywhere(tmp_path: Path) -> None:
    training, validation = planted(samples=32)
    training[1][:] *= 1e200

    def ranked(ranks: Ranks) -> str:
        model = MultiTaskModel(nn.Identity(), 6, (8, 5), [Task.regression(f"v{i}") for i in range(8)]).double()
        sharded = ShardedModel.of(model, ranks)
        with pytest.raises(ValueError, match="NaN or Inf") as error:
            train(sharded, (training, validation))
        nothing = torch.full_like(training[1], torch.nan)
        with pytest.raises(ValueError, match="No task has a label"):
            sharded.train().loss(training[0], nothing)
        return str(error.value)

    for said in on_ranks(ranked, 2, tmp_path):
        assert "'v0', 'v1', 'v2', 'v3', 'v4' and 3 more" in said


def test_a_task_s_outputs_do_not_depend_on_where_it_is(tmp_path: Path) -> None:
    """Evaluated in parts, and by the whole model that rank 0 puts together."""

    def ranked(ranks: Ranks) -> Any:
        sharded = ShardedModel.of(mixed_model(), ranks)
        train(sharded, mixed(), optimizer=SGD, epochs=1)
        _, validation = mixed()
        found = evaluate_sharded(sharded.eval(), [validation])
        whole = sharded.whole()
        return found, whole and evaluate(whole, validation)

    results = on_ranks(ranked, 2, tmp_path)
    expected = results[0][1]
    for found, _ in results:
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        assert found.metrics == pytest.approx(expected.metrics, nan_ok=True)
        assert found.losses == pytest.approx(expected.losses, nan_ok=True)


def test_rows_move_in_order(tmp_path: Path) -> None:
    before, after = torch.tensor([2, 0, 0, 1, 2, 1, 0]), torch.tensor([0, 0, 2, 0, 0, 2, 0])

    def ranked(ranks: Ranks) -> list[int]:
        items = (before == ranks.rank).nonzero()
        moved: list[int] = Move(before, after, ranks)(items.double(), "test").flatten().long().tolist()
        return moved

    assert on_ranks(ranked, 3, tmp_path) == [[0, 1, 3, 4, 6], [], [2, 5]]
