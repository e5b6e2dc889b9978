"""Modules with lists of heads into ours and back: the same outputs, before and after merges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from selshare import MergePlan, Task, convert, restore
from selshare.sharing import apply


class Listed(nn.Module):
    """The usual thing: a backbone and a list of heads."""

    def __init__(self, heads: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(7, 6), nn.Tanh())
        self.heads = heads
        self.scale = scale

    def forward(self, inputs: Tensor) -> list[Tensor] | dict[str, Tensor]:
        shared = self.backbone(inputs) * self.scale
        if isinstance(self.heads, nn.ModuleDict):
            return {name: head(shared) for name, head in self.heads.items()}
        return [head(shared) for head in self.heads]


def head(outputs: int = 1, hidden: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def packed(module: nn.Module, inputs: Tensor) -> Tensor:
    given = module(inputs)
    return torch.cat(list(given.values()) if isinstance(given, dict) else given, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("keyed", [False, True])
def test_outputs_are_those_of_the_module_there_and_back(keyed: bool, dtype: torch.dtype) -> None:
    heads = {"a": head(1), "b": head(4), "c": head(1)}
    module = Listed(nn.ModuleDict(heads) if keyed else nn.ModuleList(heads.values())).to(dtype)
    inputs = torch.randn(9, 7, dtype=dtype)
    wanted = packed(module, inputs)
    model = convert(module, example=inputs)
    torch.testing.assert_close(model(inputs), wanted)
    assert model.layout.names == (("a", "b", "c") if keyed else ("task 0", "task 1", "task 2"))
    assert [task.kind for task in model.tasks] == ["binary", "multiclass", "binary"]
    back = restore(model, module)
    torch.testing.assert_close(packed(back, inputs), wanted)
    assert set(back.state_dict()) == set(module.state_dict())


def test_tasks_on_one_branch_stay_tied_when_restored() -> None:
    module = Listed(nn.ModuleList(head() for _ in range(4)))
    inputs = torch.randn(5, 7)
    model = convert(module)
    apply(MergePlan(4, ((0, 2),), (2,), "best"), model)
    back = restore(model, module)
    torch.testing.assert_close(packed(back, inputs), model(inputs))
    assert back.heads[0][0] is back.heads[2][0]
    assert back.heads[0][0] is not back.heads[1][0]
    assert back.heads[0][2] is not back.heads[2][2]


def test_given_tasks_and_the_original_is_left_alone() -> None:
    module = Listed(nn.ModuleList(head() for _ in range(2))).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = convert(module, [Task.regression("year"), Task.ranking("striped")])
    assert not model.training
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_convolution_at_the_fork_needs_an_example() -> None:
    trunk = nn.Conv2d(1, 3, 3)
    convolved = nn.Module()
    convolved.trunk = trunk
    heads = [nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 1)) for _ in range(3)]
    convolved.heads = nn.ModuleList(heads)
    with pytest.raises(ValueError, match=r"first layer of the heads in 'heads' is Conv2d.*pass example="):
        convert(convolved)
    convolved.forward = lambda x: [h(trunk(x)) for h in heads]
    inputs = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(convert(convolved, example=inputs)(inputs), packed(convolved, inputs))


def test_a_forward_that_does_more_is_found_out() -> None:
    module = Listed(nn.ModuleList(head() for _ in range(2)), scale=2.0)
    with pytest.raises(ValueError, match="forward does something else"):
        convert(module, example=torch.randn(3, 7))


def test_what_cannot_be_converted_is_named() -> None:
    two = Listed(nn.ModuleList([head(), head(hidden=4)]))
    with pytest.raises(ValueError, match="head '1' has other layers than head '0'"):
        convert(two)
    with pytest.raises(TypeError, match=r"head '0' must be an nn.Sequential of at least two layers"):
        convert(Listed(nn.ModuleList([nn.Linear(6, 1)])))
    with pytest.raises(TypeError, match="the list of heads is empty"):
        convert(Listed(nn.ModuleList()))
    with pytest.raises(TypeError, match=r"takes a module with two children.*this Sequential has 0, 1, 2"):
        convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ModuleList([head()])))
    module = Listed(nn.ModuleList([head(), head(3)]))
    with pytest.raises(ValueError, match="2 heads and 1 tasks"):
        convert(module, [Task.binary("a")])
    with pytest.raises(ValueError, match="task 'b' needs 1 outputs, but head '1' has 3"):
        convert(module, [Task.binary("a"), Task.binary("b")])
    with pytest.raises(ValueError, match="the module has 2 heads and the model 3 tasks"):
        restore(convert(Listed(nn.ModuleList(head() for _ in range(3)))), module)
