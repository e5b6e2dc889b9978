"""The model of bytes: equal to what is counted and to what sockets see, and to numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling import CASES, measure, predicted, projection
from selshare.distributed import Ranks
from selshare.distributed.traffic import Shape, data_parallel_step, memory, sharded_epoch, sharded_step, total
from several import on_ranks


@pytest.mark.parametrize("size", [2, 4])
def test_the_model_is_what_sockets_see(size: int, tmp_path: Path) -> None:
    def ranked(ranks: Ranks) -> Any:
        return [measure(ranks, case, batch, 6, steps=1) for case, batch in CASES if batch == 64]

    cases = [(case, batch) for case, batch in CASES if batch == 64]
    for results in on_ranks(ranked, size, tmp_path):
        for (case, batch), found in zip(cases, results, strict=True):
            model = predicted(case, batch, 6, size)
            assert found["counted"] == pytest.approx(model, rel=1e-6, abs=30)
            assert model <= found["sockets"] <= 1.01 * model + 4000


def test_by_hand() -> None:
    """Three branches 5 → 4 → 2 on two ranks, batches of 8, 7 and 2."""
    shape = Shape(tasks=3, branches=3, shared=5, hidden=(4, 2), trunk=11)
    assert shape.branch_parameters == 5 * 4 + 4 + 4 * 2 + 2
    assert shape.head_parameters == 3
    formed = 11 + 3 * 3 + 3 * 6  # trunk, heads, biases
    # First layer: 8 rows of 3·4 + 5 against twice 3·4·5: formed is the smaller here. The second likewise.
    assert data_parallel_step(shape, 2, 8) == {"losses": 24.0, "gradients": 4.0 * (formed + 60 + 24)}
    assert data_parallel_step(shape, 2, 2) == {
        "losses": 24.0,
        "gradients": 4.0 * formed,
        "factors": 4.0 * (3 * 4 + 5 + 3 * 2 + 3 * 4),
    }
    assert sharded_step(shape, 2, 7, checked=False) == {
        "shared representation": 4.0 * 4 * 5,
        "shared representation, gradient": 4.0 * 3 * 5,
        "gradients": 4.0 * 11,
    }
    assert sharded_epoch(shape, 2, 20) == {"captured gradients": 2 * 20 * 4.0}
    assert memory(shape, 3, 7, moments=1)["optimizer"] == 4.0 * (34 + 3)


def test_a_hundred_thousand_tasks_on_64_ranks() -> None:
    found = projection(100_000, 64, 1024)
    assert total(found["sharded, bytes a step"]) < 1e7 < 4e10 < total(found["data parallel, bytes a step"])
    assert found["memory of a rank, sharded"]["parameters"] < found["memory, not sharded"]["parameters"] / 60
