import copy
import json
import pickle

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st

from selshare.tasks import KINDS, LOSSES, METRICS, Task, TaskLayout


def absolute(outputs, targets):
    return (outputs - targets).abs().sum(2)


def tasks():
    kinds, names = st.sampled_from(KINDS), st.text(min_size=1, max_size=8)

    def build(kind, name, width, draw):
        outputs = {"binary": 1, "ranking": 1, "multiclass": width + 1}.get(kind, width)
        return Task(name, kind, outputs, LOSSES[kind][draw % len(LOSSES[kind])], METRICS[kind][-1], draw / 4)

    return st.builds(build, kinds, names, st.integers(1, 4), st.integers(0, 7))


def test_constructors():
    assert Task.binary("sandal") == Task("sandal", "binary", 1, "cross_entropy", "accuracy", 1.0)
    assert Task.multiclass("century", classes=7) == Task("century", "multiclass", 7, "cross_entropy", "accuracy")
    assert Task.multilabel("tags", labels=5) == Task("tags", "multilabel", 5, "cross_entropy", "average_precision")
    assert Task.regression("year") == Task("year", "regression", 1, "mse", "mae")
    assert Task.ranking("wing", weight=2.0) == Task("wing", "ranking", 1, "logistic", "pair_accuracy", 2.0)
    columns = [
        Task.binary("a"),
        Task.multiclass("b", classes=7),
        Task.multilabel("c", labels=5),
        Task.regression("d", outputs=3),
        Task.ranking("e"),
    ]
    assert [(task.outputs, task.targets, task.classes) for task in columns] == [
        (1, 1, 2),
        (7, 1, 7),
        (5, 5, 2),
        (3, 3, 0),
        (1, 1, 0),
    ]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Task.binary(""), ValueError, "name is empty"),
        (lambda: Task.binary(3), TypeError, "name must be a string"),
        (lambda: Task("a", "tertiary", 1, "mse", "mae"), ValueError, "'a' has the unknown kind 'tertiary'"),
        (lambda: Task("a", "binary", 2, "cross_entropy", "accuracy"), ValueError, "'a' is binary and has one output"),
        (lambda: Task.multiclass("a", classes=1), ValueError, "'a' is multiclass and needs 2"),
        (lambda: Task.multilabel("a", labels=0), ValueError, "'a' is multilabel and needs 1"),
        (lambda: Task.multilabel("a", labels=2.0), TypeError, "task 'a' must be a whole number; it is 2.0"),
        (lambda: Task.binary("a", loss="mse"), ValueError, "'a' is binary and has the unknown loss 'mse'"),
        (lambda: Task.regression("a", metric="accuracy"), ValueError, "'a' is regression and has the unknown metric"),
        (lambda: Task.regression("a", loss=3), TypeError, "'a' has 3 as loss"),
        (lambda: Task.regression("a", loss=Unhashable()), TypeError, "'a' has a loss that is not hashable"),
        (lambda: Task.binary("a", weight=-1.0), ValueError, "'a' has weight -1.0"),
        (
            lambda: Task.binary("a", weight=float("nan")),
            ValueError,
            "the weight of task 'a' must be a finite number of torch.float64; it is nan",
        ),
        (lambda: Task.binary("a", weight="2"), TypeError, "the weight of task 'a' must be a number; it is '2'"),
    ],
)
def test_refuses_what_is_no_task(build, error, message):
    with pytest.raises(error, match=message):
        build()


class Unhashable:
    __hash__ = None

    def __call__(self, outputs, targets):
        return absolute(outputs, targets)


def test_numbers_of_numpy_become_plain_ones():
    task = Task.multiclass("a", classes=np.int64(7), weight=np.float32(0.5))
    assert (type(task.outputs), type(task.weight)) == (int, float)
    assert json.loads(json.dumps(task.to_json())) == Task.multiclass("a", classes=7, weight=0.5).to_json()


def test_tasks_are_frozen_and_compare_by_value():
    task = Task.regression("a", loss=absolute)
    assert hash(task) == hash(Task.regression("a", loss=absolute))
    assert task == Task.regression("a", loss=absolute) != Task.regression("a")
    with pytest.raises(AttributeError):
        task.name = "b"


def test_a_torchmetrics_metric_equals_itself_only_and_leaves_the_hash_alone():
    metric, other = torchmetrics.MeanSquaredError(), torchmetrics.MeanSquaredError()
    task = Task.regression("a", metric=metric)
    before = hash(task)
    metric.update(torch.zeros(2), torch.ones(2))
    assert hash(task) == before
    assert task == Task.regression("a", metric=metric)
    assert task != Task.regression("a", metric=other)


@given(tasks())
def test_json_round_trip(task):
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_json_refuses_callables_and_wrong_keys():
    with pytest.raises(TypeError, match="'a' has a loss of its own"):
        Task.regression("a", loss=absolute).to_json()
    with pytest.raises(TypeError, match="'a' has a metric of its own"):
        Task.regression("a", metric=absolute).to_json()
    data = Task.binary("a").to_json()
    with pytest.raises(ValueError, match=r"task 'a' lacks \['kind'\] and has the unknown keys \['sort'\]"):
        Task.from_json({"sort" if key == "kind" else key: value for key, value in data.items()})
    del data["weight"]
    assert Task.from_json(data) == Task.binary("a")


def test_layout_refuses_no_tasks_a_name_twice_and_other_things():
    with pytest.raises(ValueError, match="There are no tasks"):
        TaskLayout([])
    with pytest.raises(ValueError, match="two tasks called 'a'"):
        TaskLayout([Task.binary("a"), Task.regression("a")])
    with pytest.raises(TypeError, match="'a' is not a Task"):
        TaskLayout(["a"])


def test_layout_columns_and_groups():
    layout = TaskLayout(
        [
            Task.binary("a"),
            Task.multiclass("b", classes=3),
            Task.binary("c"),
            Task.multilabel("d", labels=2),
            Task.binary("e", metric="auroc"),
        ]
    )
    assert layout.names == ("a", "b", "c", "d", "e")
    assert layout.output_slices == (slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 7), slice(7, 8))
    assert layout.target_slices == (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 5), slice(5, 6))
    assert (layout.output_width, layout.target_width, len(layout)) == (8, 6, 5)
    assert layout.target_classes == (2, 3, 2, 2, 2, 2)
    assert layout.widths == {1: (0, 2, 4), 3: (1,), 2: (3,)}
    assert [group.members for group in layout.groups] == [(0, 2, 4), (1,), (3,)]
    assert layout.groups[0].output_columns == (0, 4, 7)
    assert layout.groups[1].output_columns == slice(1, 4, 1)
    assert layout.index("d") == 3
    with pytest.raises(KeyError, match="no task 'z'"):
        layout.index("z")


def test_evenly_spaced_columns_are_a_slice():
    layout = TaskLayout([Task.binary(f"{i}") if i % 2 else Task.regression(f"{i}") for i in range(6)])
    assert [group.output_columns for group in layout.groups] == [slice(0, 5, 2), slice(1, 6, 2)]


def test_tasks_of_one_loss_callable_are_one_group():
    layout = TaskLayout(
        [
            Task.regression("a", loss=absolute),
            Task.regression("b", loss=absolute),
            Task.regression("c", loss=lambda outputs, targets: absolute(outputs, targets)),
        ]
    )
    assert [group.members for group in layout.groups] == [(0, 1), (2,)]


@given(st.lists(tasks(), min_size=1, max_size=12, unique_by=lambda task: task.name))
def test_groups_take_the_columns_of_their_members(chosen):
    layout = TaskLayout(chosen)
    outputs = torch.randn(3, layout.output_width)
    targets = torch.randn(3, layout.target_width)
    assert sorted(member for group in layout.groups for member in group.members) == list(range(len(chosen)))
    for number, group in enumerate(layout.groups):
        assert len({(layout.tasks[i].kind, layout.tasks[i].outputs, layout.tasks[i].loss) for i in group.members}) == 1
        taken = layout.group_outputs(number, outputs)
        assert torch.equal(taken, torch.stack([outputs[:, layout.output_slices[i]] for i in group.members], 1))
        taken = layout.group_targets(number, targets)
        assert torch.equal(taken, torch.stack([targets[:, layout.target_slices[i]] for i in group.members], 1))
    members = [torch.tensor(group.members) for group in layout.groups]
    assert layout.in_task_order(members).tolist() == list(range(len(chosen)))


def test_layouts_are_copied_and_pickled():
    layout = TaskLayout([Task.binary("a"), Task.regression("b"), Task.binary("c"), Task.binary("d")])
    layout.group_outputs(0, torch.zeros(2, 4))
    assert copy.deepcopy(layout) == layout
    assert pickle.loads(pickle.dumps(layout)) == layout
    assert hash(copy.deepcopy(layout)) == hash(layout)
    assert layout != TaskLayout(layout.tasks[:2])


def test_constants_kept_from_inference_mode_can_be_used_in_training():
    layout = TaskLayout([Task.binary("a"), Task.regression("b"), Task.binary("c"), Task.binary("d")])
    outputs = torch.randn(2, 4, requires_grad=True)
    with torch.inference_mode():
        layout.group_outputs(0, outputs)
    layout.group_outputs(0, outputs).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[1, 0, 1, 1]] * 2


def test_constants_are_real_whatever_context_the_layout_is_built_in():
    tasks = [Task.binary("a", weight=2.0), Task.regression("b"), Task.binary("c"), Task.binary("d")]
    with torch.device("meta"), torch.inference_mode():
        layout = TaskLayout(tasks)
    outputs = torch.arange(8.0).reshape(2, 4).requires_grad_()
    assert layout.group_outputs(0, outputs).squeeze(2).tolist() == [[0, 2, 3], [4, 6, 7]]
    weights = layout.constant("weights", torch.device("cpu"), torch.float32)
    assert weights.tolist() == [2, 1, 1, 1]
    assert not weights.is_inference()
