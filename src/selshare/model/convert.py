"""From a shared trunk with a list of heads, as people write it, to a :class:`MultiTaskModel`, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..tasks import Task
from .bank import BranchBank
from .multitask import MultiTaskModel
from .plain import head_modules


def convert(module: nn.Module, tasks: Sequence[Task] | None = None, *, example: Tensor | None = None) -> MultiTaskModel:
    """Turn a module with a trunk and an ``nn.ModuleList`` or ``nn.ModuleDict`` of equal heads into ours.

    All weights are copied; ``module`` is left as it is. Every member of the list becomes a branch (all its layers but
    the last) and a head (the last, an ``nn.Linear``). Members must have the same layers; their outputs may differ in
    width.

    Parameters
    ----------
    module
        A module with exactly two children: the trunk, and the list or dict of heads, each an ``nn.Sequential`` that
        ends in ``nn.Linear``. Its ``forward`` is taken to be ``[head(trunk(x)) for head in heads]``.
    tasks
        What each head is for, in the order of the list. Without it, tasks are named by the dict's keys (``"task 0"``,
        … for a list), a head of one output is binary and a wider one multiclass.
    example
        A batch of inputs. With it, the outputs of ``module`` and of the result are compared, so that a ``forward``
        that does something else is found out. It is needed where the first layer of a head is not ``nn.Linear``.

    Raises
    ------
    TypeError
        If ``module`` is not built that way; says which part is not.
    ValueError
        If heads differ in their layers, tasks do not fit the heads, or the outputs on ``example`` differ.
    """
    trunk_name, heads_name = _parts(module)
    trunk, heads = module.get_submodule(trunk_name), _members(module.get_submodule(heads_name))
    branches, lasts = _split_heads(heads)
    chosen = _inferred(lasts) if tasks is None else tuple(tasks)
    _check_tasks(chosen, lasts)
    shape = _shared_shape(trunk, branches, heads_name, example)
    model = MultiTaskModel(copy.deepcopy(trunk), shape, tasks=chosen, branch=next(iter(branches.values())))
    model.bank = BranchBank.from_modules(list(branches.values()))
    _copy_heads(model, list(lasts.values()))
    model.train(module.training)
    if example is not None:
        _check_same(module, model, example)
    return model


def restore(model: MultiTaskModel, module: nn.Module) -> nn.Module:
    """Put a model's weights back into the form it was converted from.

    Parameters
    ----------
    model
        What :func:`convert` returned, trained and merged since.
    module
        What it was converted from; left as it is.

    Returns
    -------
    nn.Module
        A copy of ``module`` with the model's trunk and heads. Tasks that share a branch share its layers, as one
        module in several places: they stay tied when trained further.

    Raises
    ------
    TypeError, ValueError
        If ``module`` is not built like one that :func:`convert` takes, or has another number of heads.
    """
    trunk_name, heads_name = _parts(module)
    names = list(_members(module.get_submodule(heads_name)))
    if len(names) != len(model.tasks):
        raise ValueError(
            f"the module has {len(names)} heads and the model {len(model.tasks)} tasks; pass its original."
        )
    branches, lasts = model.bank.to_modules(), head_modules(model)
    heads = {
        name: nn.Sequential(*_layers(branches[branch]), last)
        for name, branch, last in zip(names, model.assignment.tolist(), lasts, strict=True)
    }
    restored = copy.deepcopy(module)
    is_list = isinstance(module.get_submodule(heads_name), nn.ModuleList)
    setattr(restored, trunk_name, copy.deepcopy(model.trunk))
    setattr(restored, heads_name, nn.ModuleList(heads.values()) if is_list else nn.ModuleDict(heads))
    return restored.train(model.training)


def _parts(module: nn.Module) -> tuple[str, str]:
    """The names of the trunk and of the heads."""
    children = dict(module.named_children())
    lists = [name for name, child in children.items() if isinstance(child, nn.ModuleList | nn.ModuleDict)]
    others = [name for name in children if name not in lists]
    if len(lists) != 1 or len(others) != 1:
        raise TypeError(
            "convert takes a module with two children, a trunk and one nn.ModuleList or nn.ModuleDict of heads; this "
            f"{type(module).__name__} has {', '.join(children) or 'none'}. Wrap what comes before the heads in one "
            "module."
        )
    return others[0], lists[0]


def _members(heads: nn.Module) -> Mapping[str, nn.Module]:
    """The heads by key or number."""
    members = dict(heads.named_children())
    if not members:
        raise TypeError("the list of heads is empty; there must be one for each task.")
    return members


def _split_heads(heads: Mapping[str, nn.Module]) -> tuple[dict[str, nn.Sequential], dict[str, nn.Linear]]:
    """Each head as a branch and its last layer."""
    branches: dict[str, nn.Sequential] = {}
    lasts: dict[str, nn.Linear] = {}
    for name, head in heads.items():
        if type(head) is not nn.Sequential or len(head) < 2 or type(head[-1]) is not nn.Linear or head[-1].bias is None:
            raise TypeError(
                f"head {name!r} must be an nn.Sequential of at least two layers that ends in nn.Linear with a bias: "
                "the layers before it become the task's branch."
            )
        branches[name], lasts[name] = nn.Sequential(*head[:-1]), head[-1]
    first, *others = branches
    for name in others:
        if _structure(branches[name]) != _structure(branches[first]):
            raise ValueError(f"head {name!r} has other layers than head {first!r}; only equal heads can share.")
    return branches, lasts


def _structure(branch: nn.Module) -> list[Any]:
    """What must be equal for two branches to be stacked."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in branch.state_dict().items()]
    return [repr(branch), shapes]


def _inferred(lasts: Mapping[str, nn.Linear]) -> tuple[Task, ...]:
    """A task for each head, by its key and width."""
    names = [f"task {name}" if name.isdigit() else name for name in lasts]
    return tuple(
        Task.binary(name) if last.out_features == 1 else Task.multiclass(name, classes=last.out_features)
        for name, last in zip(names, lasts.values(), strict=True)
    )


def _check_tasks(tasks: Sequence[Task], lasts: Mapping[str, nn.Linear]) -> None:
    """Raise unless every head has a task of its width."""
    if len(tasks) != len(lasts):
        raise ValueError(f"there are {len(lasts)} heads and {len(tasks)} tasks; give one task for each head.")
    for task, (name, last) in zip(tasks, lasts.items(), strict=True):
        if task.outputs != last.out_features:
            raise ValueError(
                f"task {task.name!r} needs {task.outputs} outputs, but head {name!r} has {last.out_features}; put the "
                "tasks in the order of the heads."
            )


def _shared_shape(
    trunk: nn.Module, branches: Mapping[str, nn.Sequential], heads_name: str, example: Tensor | None
) -> tuple[int, ...]:
    """The shape of the shared representation without the batch."""
    if example is not None:
        was_training = trunk.training
        with torch.no_grad():
            shape = tuple(trunk.eval()(example).shape[1:])
        trunk.train(was_training)
        return shape
    first = next(iter(branches.values()))[0]
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise ValueError(
        f"the first layer of the heads in {heads_name!r} is {type(first).__name__}, which does not tell the shape of "
        "the shared representation; pass example=, a batch of inputs."
    )


@torch.no_grad()
def _copy_heads(model: MultiTaskModel, lasts: Sequence[nn.Linear]) -> None:
    """Copy the last layers into the stacked heads, on their device and in their dtype."""
    model.to(lasts[0].weight.device)
    model.heads.to(lasts[0].weight.dtype)
    for width, members in model.layout.widths.items():
        for row, task in enumerate(members):
            model.heads.weights[str(width)][row] = lasts[task].weight
            model.heads.biases[str(width)][row] = lasts[task].bias


def _layers(branch: nn.Module) -> list[nn.Module]:
    """The layers of a branch that :func:`convert` made."""
    if not isinstance(branch, nn.Sequential):
        raise TypeError(f"a branch of this model is a {type(branch).__name__}; restore takes models made by convert.")
    return list(branch)


@torch.no_grad()
def _check_same(module: nn.Module, model: MultiTaskModel, example: Tensor) -> None:
    """Raise if the two compute different outputs."""
    was_training = module.training
    given, ours = module.eval()(example), model.eval()(example)
    module.train(was_training)
    model.train(was_training)
    outputs = list(given.values()) if isinstance(given, Mapping) else given
    packed = (
        outputs if isinstance(outputs, Tensor) else torch.cat([part.reshape(len(example), -1) for part in outputs], 1)
    )
    if packed.shape != ours.shape or not torch.allclose(packed, ours, rtol=1e-3, atol=1e-5 * float(packed.abs().max())):
        raise ValueError(
            "the module's outputs on the example are not those of its trunk followed by each of its heads, so its "
            "forward does something else; move that into the trunk or the heads."
        )
