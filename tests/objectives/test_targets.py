import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selshare.objectives import check_targets, pack_targets
from selshare.tasks import Task, TaskLayout

NAN = math.nan
MIXED = TaskLayout(
    [
        Task.binary("sandal"),
        Task.multiclass("century", classes=7),
        Task.multilabel("tags", labels=2),
        Task.regression("year"),
        Task.ranking("wing"),
    ]
)


def mixed():
    return {
        "sandal": torch.tensor([True, False, True]),
        "century": torch.tensor([6, -100, 0]),
        "tags": torch.tensor([[1, -100], [0, 1], [1, 1]], dtype=torch.int8),
        "year": torch.tensor([1.5, -100.0, NAN]),
        "wing": torch.tensor([[0.0], [3.0], [NAN]]),
    }


def same(first, second):
    return torch.equal(first.isnan(), second.isnan()) and torch.equal(first.nan_to_num(9), second.nan_to_num(9))


def test_packs_a_mapping():
    expected = torch.tensor([[1, 6, 1, NAN, 1.5, 0], [0, NAN, 0, 1, -100, 3], [1, 0, 1, 1, NAN, NAN]])
    packed = pack_targets(MIXED, mixed())
    assert packed.dtype == torch.float32
    assert same(packed, expected)
    reordered = dict(reversed(mixed().items()))
    assert same(pack_targets(MIXED, reordered), expected)
    double = pack_targets(MIXED, mixed() | {"year": mixed()["year"].double()})
    assert double.dtype == torch.float64
    assert same(double, expected.double())


def test_packs_one_tensor():
    layout = TaskLayout([Task.binary("a"), Task.multiclass("b", classes=3)])
    floats = torch.tensor([[1.0, 2.0], [NAN, 0.0]])
    assert pack_targets(layout, floats) is floats
    assert same(pack_targets(layout, torch.tensor([[1, 2], [-100, 0]])), floats)
    assert pack_targets(TaskLayout([Task.binary("a")]), torch.tensor([[True]])).tolist() == [[1.0]]


@given(st.lists(st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]), min_size=1, max_size=9))
def test_any_mixture_of_dtypes_packs_column_by_column(dtypes):
    layout = TaskLayout([Task.binary(str(i)) for i in range(len(dtypes))])
    bits = torch.randint(0, 2, (5, len(dtypes)), generator=torch.Generator().manual_seed(len(dtypes)))
    packed = pack_targets(layout, {str(i): bits[:, i].to(dtype) for i, dtype in enumerate(dtypes)})
    assert packed.tolist() == bits.double().tolist()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sandal": None}, ValueError, "lack task 'sandal'"),
        ({"boot": torch.zeros(3)}, ValueError, "unknown task 'boot'"),
        ({"sandal": [0, 1, 0]}, TypeError, "task 'sandal' are a list"),
        ({"sandal": torch.tensor([0, 1, 2])}, ValueError, "'sandal' has the target 2 in row 2.*0 or 1"),
        ({"sandal": torch.tensor([0.5, 1, 0])}, ValueError, "'sandal' has the target 0.5 in row 0"),
        ({"sandal": torch.tensor([0.0, 1, -100])}, ValueError, "'sandal' has the target -100.*in floats it is NaN"),
        ({"century": torch.tensor([0, 7, 0])}, ValueError, "'century' has the target 7 in row 1.*0 to 6"),
        ({"century": torch.tensor([0, -1, 0])}, ValueError, "'century' has the target -1"),
        ({"century": torch.tensor([0, 1.5, 0])}, ValueError, "'century' has the target 1.5"),
        ({"century": torch.tensor([0, math.inf, 0])}, ValueError, "'century' has the target inf"),
        ({"tags": torch.full((3, 2), 2)}, ValueError, "'tags' has the target 2"),
        ({"tags": torch.zeros(3)}, ValueError, r"'tags' have shape \(3,\); they must have \(batch, 2\)"),
        ({"tags": torch.zeros(3, 3)}, ValueError, r"'tags' have shape \(3, 3\)"),
        ({"year": torch.zeros(3, 2)}, ValueError, r"'year' have shape \(3, 2\); they must have \(batch,\)"),
        ({"year": torch.tensor(1.0)}, ValueError, r"'year' have shape \(\)"),
        ({"year": torch.zeros(4)}, ValueError, "'year' has targets for 4 samples and task 'sandal' for 3"),
        ({"year": torch.tensor([1.0, -math.inf, 0])}, ValueError, "'year' has the target -inf in row 1.*finite"),
        ({"year": torch.tensor([1, 2, 3])}, TypeError, "'year' .regression. have dtype int64"),
        ({"wing": torch.tensor([1, 2, 3])}, TypeError, "'wing' .ranking. have dtype int64"),
        ({"sandal": torch.zeros(3, dtype=torch.complex64)}, TypeError, "'sandal' .binary. have dtype complex64"),
        ({"year": torch.zeros(3, device="meta")}, ValueError, "'year' are on meta and those of task 'sandal' on cpu"),
    ],
)
def test_errors_name_the_task(change, error, message):
    targets = {name: tensor for name, tensor in (mixed() | change).items() if tensor is not None}
    with pytest.raises(error, match=message):
        pack_targets(MIXED, targets)


def test_errors_of_one_tensor():
    with pytest.raises(ValueError, match=r"shape \(3, 5\); the 5 tasks need \(batch, 6\)"):
        pack_targets(MIXED, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        pack_targets(MIXED, torch.zeros(6))
    with pytest.raises(TypeError, match=r"'year' .regression. have dtype int64"):
        pack_targets(MIXED, torch.zeros(3, 6, dtype=torch.int64))
    with pytest.raises(TypeError, match="a tensor or a mapping from task to tensor, not a list"):
        pack_targets(MIXED, [torch.zeros(3)] * 6)
    packed = torch.zeros(3, 6)
    packed[1, 3] = 2
    with pytest.raises(ValueError, match="'tags' has the target 2 in row 1"):
        pack_targets(MIXED, packed)
    assert pack_targets(MIXED, packed, check=False) is packed
    with pytest.raises(TypeError, match="make them with pack_targets"):
        check_targets(MIXED, torch.zeros(3, 6, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_cannot_hold_many_classes(dtype):
    few, many = TaskLayout([Task.multiclass("a", classes=256)]), TaskLayout([Task.multiclass("a", classes=257)])
    assert pack_targets(few, torch.full((1, 1), 255, dtype=dtype)).item() == 255
    for targets in (torch.zeros(1, 1, dtype=dtype), {"a": torch.zeros(1, dtype=dtype)}):
        with pytest.raises(TypeError, match=r"'a' has 257 classes and b?float16 targets"):
            pack_targets(many, targets)


def test_a_batch_without_samples_packs():
    packed = pack_targets(TaskLayout([Task.binary("a"), Task.binary("b")]), {"a": torch.zeros(0), "b": torch.zeros(0)})
    assert packed.shape == (0, 2)
