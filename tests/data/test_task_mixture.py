"""One data set per task: every sample once, in the shares asked for, missing elsewhere."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from selshare import MultiTaskModel, Task, Trainer
from selshare.data import TaskMixture, load
from selshare.data.task_mixture import MixtureBatches
from selshare.training.single_task import only_task

TASKS = [
    Task.multiclass("kind", classes=3),
    Task.multilabel("marks", labels=2),
    Task.regression("size"),
    Task.binary("old"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Squares(Dataset[Any]):
    """Samples that are made when they are read."""

    def __init__(self, count: int, first: int) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return torch.tensor([self.first + index, 0.0]), float(index**2)


def numbered(first: int, count: int) -> Tensor:
    """Inputs that say which sample they are."""
    return torch.stack([torch.arange(first, first + count).float(), torch.zeros(count)], dim=1)


def mixture(**options: Any) -> TaskMixture:
    data = {
        "kind": (numbered(0, 60), torch.arange(60) % 3),
        ("old", "marks"): TensorDataset(numbered(100, 20), torch.tensor([[1.0, 0.0, math.nan]] * 20)),
        "size": Squares(10, 200),
    }
    return TaskMixture(TASKS, data, **options)


def joined(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def drawn(loader: DataLoader[Any]) -> list[list[int]]:
    return [inputs[:, 0].long().tolist() for inputs, _ in loader]


def test_labels_are_missing_elsewhere_and_in_the_right_columns() -> None:
    nan = math.nan
    for index, row in {
        4: [1.0, nan, nan, nan, nan],
        63: [nan, 0.0, nan, nan, 1.0],
        83: [nan, nan, nan, 9.0, nan],
        -1: [nan, nan, nan, 81.0, nan],
    }.items():
        inputs, targets = mixture()[index]
        torch.testing.assert_close(targets, torch.tensor(row), equal_nan=True)
        assert inputs.shape == (2,)
    inputs, targets = mixture().batch([83, 4, 63])
    assert inputs[:, 0].tolist() == [203.0, 4.0, 103.0]
    assert targets.isnan().sum(1).tolist() == [4, 4, 3]
    assert targets.dtype == torch.float32
    with pytest.raises(IndexError, match="no sample 90 among 90"):
        mixture()[90]


@pytest.mark.parametrize("sampling", ["proportional", "equal", "temperature"])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 89, 90, 200])
def test_an_epoch_has_every_sample_once(sampling: Any, batch_size: int) -> None:
    loader = mixture(sampling=sampling).loader(batch_size)
    first, second = drawn(loader), drawn(loader)
    everything = [*range(60), *range(100, 120), *range(200, 210)]
    assert sorted(joined(first)) == sorted(joined(second)) == everything
    assert first != second, "a new order every epoch"
    assert len(first) == len(loader) == max(1, 90 // batch_size + (90 % batch_size > 1))
    assert all(len(batch) == batch_size for batch in first[:-1])


def counts(batch: list[int]) -> list[int]:
    return [sum(lowest <= number < lowest + 100 for number in batch) for lowest in (0, 100, 200)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"sampling": "proportional"}, [20, 20 / 3, 10 / 3]),
        ({"sampling": "equal"}, [10, 10, 10]),
        ({"sampling": "temperature", "temperature": math.inf}, [10, 10, 10]),
        ({"sampling": "temperature", "temperature": 1.0}, [20, 20 / 3, 10 / 3]),
        ({"sampling": "temperature", "temperature": 2.0}, [30 * math.sqrt(n) / 15.3803 for n in (60, 20, 10)]),
    ],
)
def test_batches_keep_the_shares(options: dict[str, Any], wanted: list[float]) -> None:
    found = counts(drawn(mixture(**options).loader(30))[0])
    assert all(abs(a - b) <= 2 for a, b in zip(found, wanted, strict=True)), found


def test_equal_goes_on_without_those_that_ended() -> None:
    batches = drawn(mixture(sampling="equal").loader(10))
    assert [sum(counts(batch)[1:]) for batch in batches[6:]] == [0, 0, 0]


def test_oversampling_repeats_the_small_ones_only_where_asked() -> None:
    seen = Counter(joined(drawn(mixture(sampling="equal", oversample=True).loader(20))))
    assert [seen[k] for k in range(60)] == [1] * 60
    assert [seen[k] for k in range(100, 120)] == [3] * 20
    assert [seen[k] for k in range(200, 210)] == [6] * 10
    even = Counter(joined(drawn(mixture(sampling="proportional", oversample=True).loader(20))))
    assert set(even.values()) == {1}


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    power=st.floats(0, 1),
    batch_size=st.integers(1, 40),
    oversample=st.booleans(),
)
def test_every_index_comes(sizes: list[int], power: float, batch_size: int, oversample: bool) -> None:
    shares = [size**power for size in sizes]
    batches = MixtureBatches(sizes, shares, batch_size, oversample, torch.Generator().manual_seed(1))
    listed = list(batches)
    seen = Counter(joined(listed))
    assert len(listed) == len(batches)
    assert set(seen) == set(range(sum(sizes)))
    assert oversample or set(seen.values()) == {1}
    assert all(len(batch) > 1 for batch in listed) or batch_size == 1 or sum(seen.values()) == 1


def test_a_seed_decides_whatever_the_workers() -> None:
    alone = mixture(sampling="equal").loader(16, seed=5)
    helped = mixture(sampling="equal").loader(16, seed=5, workers=2)
    for _ in range(2):
        for (inputs, targets), (others, more) in zip(alone, helped, strict=True):
            torch.testing.assert_close(inputs, others)
            torch.testing.assert_close(targets, more, equal_nan=True)
    assert drawn(mixture().loader(16, seed=1)) != drawn(mixture().loader(16, seed=2))
    in_order = drawn(mixture().loader(16, shuffle=False))
    assert joined(in_order)[:60] == list(range(60))


def test_it_trains() -> None:
    def fit() -> tuple[list[float], Tensor]:
        torch.manual_seed(0)
        model = MultiTaskModel(nn.Linear(2, 4), 4, (3,), TASKS)
        history = Trainer(model, batch_size=16, progress=False, seed=3).fit(mixture(), mixture(), epochs=2)
        return [epoch.train_loss for epoch in history.epochs], model.bank.first_weight.detach()

    losses, weights = fit()
    again, same = fit()
    assert losses == again
    assert torch.equal(weights, same)
    assert all(math.isfinite(loss) for loss in losses)


GOOD = (torch.zeros(4, 2), torch.zeros(4))


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ({"a": GOOD}, {}, ValueError, "Task 'b' has no data set, and so no labelled sample"),
        ({"a": GOOD, "b": GOOD, "c": GOOD}, {}, ValueError, "unknown task 'c'; the tasks are a, b"),
        ({"a": GOOD, "b": (torch.zeros(0, 2), torch.zeros(0))}, {}, ValueError, "data set of task 'b' is empty"),
        ({"a": GOOD, "b": (GOOD[0], GOOD[1] * math.nan)}, {}, ValueError, "task 'b' has no labelled sample"),
        (
            {("a", "b"): (GOOD[0], torch.tensor([[0.0, math.nan]] * 4))},
            {},
            ValueError,
            "task 'b' has no labelled sample",
        ),
        ({"a": GOOD, "b": (torch.zeros(4, 3), GOOD[1])}, {}, ValueError, r"task 'b' have shape \(3,\), those of task"),
        ({"a": GOOD, "b": (GOOD[0], torch.zeros(3))}, {}, ValueError, "'b' has tensors of 4 and 3 rows"),
        ({"a": GOOD, "b": (GOOD[0], torch.full((4,), 2.0))}, {}, ValueError, "Task 'b' has the target 2"),
        ({("a", "b"): GOOD}, {}, ValueError, r"shape \(4, 1\)"),
        ({"a": GOOD, "b": [1, 2]}, {}, TypeError, "data of task 'b' is a list"),
        ({"a": GOOD, "b": GOOD}, {"sampling": "fair"}, ValueError, "no sampling 'fair'"),
        ({"a": GOOD, "b": GOOD}, {"temperature": 0.0}, ValueError, "temperature is 0.0"),
    ],
)
def test_errors(data: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TaskMixture([Task.binary("a"), Task.binary("b")], data, **options)


def test_a_single_task_network_needs_a_label() -> None:
    problem = load("twelve", samples=2)
    inputs, targets = problem.train.tensors  # type: ignore[attr-defined]
    targets[:, 3] = math.nan
    with pytest.raises(ValueError, match=r"Task '\+2 b' has no labelled sample"):
        only_task(replace(problem, train=TensorDataset(inputs, targets)), 3)
