"""The bank: all live branches, stacked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from .branches import ACTIVATIONS
from .dropout import dropout
from .resize import set_parameter_data
from .stacked_linear import fork_linear, stacked_linear

# Layers that act on each element by itself, so that they need no stacking.
_ELEMENTWISE = (*ACTIVATIONS.values(), nn.Dropout, nn.Identity, nn.Softplus, nn.ReLU6, nn.Mish, nn.Hardtanh, nn.SELU)


class BranchBank(nn.Module):
    """``G`` branches of identical layers, held as one module whose parameters have a leading dimension ``G``.

    A bank of Linear, activation and dropout layers runs as one matrix product for the first layer, which all
    branches read from the same input, and batched products after it. Any other template runs through
    ``torch.func.functional_call`` under ``vmap``. One backward of the summed losses gives every branch its own
    gradient, ``parameter.grad[g]``; there is never a backward per task.

    Parameters
    ----------
    template
        One branch. Its weights are the initial weights of every branch, as the paper asks for.
    branches
        How many, at least 1.

    Attributes
    ----------
    stacked
        A copy of the template in which every parameter and buffer is stacked: ``(G, …)``. It cannot be called.

    Raises
    ------
    ValueError
        If ``branches`` is not positive, or the template has no weight of two or more dimensions to capture.
    TypeError
        If a parameter of the template is lazy and has no shape yet.
    """

    def __init__(self, template: nn.Module, branches: int) -> None:
        super().__init__()
        if branches < 1:
            raise ValueError(f"a bank needs at least one branch; branches={branches}.")
        _check_template(template)
        self.stacked = copy.deepcopy(template)
        _replace_tensors(self.stacked, {name: [t] * branches for name, t in _tensors(template).items()})
        self._first_name = _first_weight_name(template)

    @classmethod
    def from_modules(cls, modules: Sequence[nn.Module]) -> Self:
        """Pack existing branches, each with its own weights, into a bank.

        Raises
        ------
        ValueError
            If there are none, or their parameters differ in name or shape.
        """
        if not modules:
            raise ValueError("from_modules needs at least one module; the list is empty.")
        shapes = [{name: tensor.shape for name, tensor in _tensors(module).items()} for module in modules]
        for index, other in enumerate(shapes):
            if other != shapes[0]:
                raise ValueError(
                    f"module {index} differs from module 0 in the names or shapes of its parameters; "
                    "the branches of a bank must have identical layers."
                )
        bank = cls(modules[0], len(modules))
        columns = [_tensors(module) for module in modules]
        _replace_tensors(bank.stacked, {name: [column[name] for column in columns] for name in columns[0]})
        return bank

    def to_modules(self) -> list[nn.Module]:
        """Unpack into ``G`` independent modules with their own copies of the weights."""
        stacked = _tensors(self.stacked)
        modules = []
        for branch in range(self.branches):
            module = copy.deepcopy(self.stacked)
            _replace_tensors(module, {name: tensor[branch] for name, tensor in stacked.items()})
            modules.append(module)
        return modules

    @property
    def branches(self) -> int:
        """How many branches are live."""
        return self.first_weight.shape[0]

    @property
    def first_weight(self) -> nn.Parameter:
        """The stacked weight of the first layer, ``(G, O, H)``: the layer at the fork, whose gradient is captured."""
        return self.stacked.get_parameter(self._first_name)

    def forward(self, shared: Tensor) -> Tensor:
        """Features of every branch for a shared representation.

        Parameters
        ----------
        shared
            ``(B, H)``, or whatever one branch of the template takes with the batch first.

        Returns
        -------
        Tensor
            ``(G, B, F)``.
        """
        features, rectify = self.unrectified(shared)
        return torch.relu(features) if rectify else features

    def unrectified(self, shared: Tensor) -> tuple[Tensor, bool]:
        """:meth:`forward`, but a ReLU at the end may be left for whatever reads the features: ``True`` if it is.

        Heads apply it as they read, so that its result is never stored.
        """
        layers = self._plain_layers()
        return (self._vectorised(shared), False) if layers is None else _run_layers(layers, shared)

    def _plain_layers(self) -> list[nn.Module] | None:
        """The layers in order if all of them have a stacked form and the first is Linear, else ``None``."""
        if type(self.stacked) is not nn.Sequential:
            return None
        layers = list(self.stacked)
        plain = all(type(layer) is nn.Linear or type(layer) in _ELEMENTWISE for layer in layers)
        return layers if plain and type(layers[0]) is nn.Linear else None

    def _vectorised(self, shared: Tensor) -> Tensor:
        """Any template: one functional call, vectorised over the branches."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], shared: Tensor) -> Tensor:
            features: Tensor = functional_call(self.stacked, (parameters, buffers), (shared,))
            return features

        call = torch.func.vmap(one, in_dims=(0, 0, None), randomness="different")
        features: Tensor = call(dict(self.stacked.named_parameters()), dict(self.stacked.named_buffers()), shared)
        return features

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Take on the number of branches of the state that is loaded, before its tensors are copied in."""
        for name, tensor in _tensors(self.stacked).items():
            saved = state_dict.get(f"{prefix}stacked.{name}")
            if saved is not None and saved.shape[1:] == tensor.shape[1:] and len(saved) != len(tensor):
                _resize(self.stacked, name, tensor, tensor.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def resize_stacked(bank: BranchBank, data: Mapping[str, Tensor]) -> None:
    """Put ``data`` (name in ``bank.stacked`` → stacked tensor) in place of the bank's tensors, whatever their number.

    Parameters keep their identity. All of the bank's tensors must be given, so that no half-changed bank is left.

    Raises
    ------
    ValueError
        If names are missing or unknown, or the tensors disagree on the number of branches. Nothing is changed then.
    """
    present = _tensors(bank.stacked)
    if set(data) != set(present) or len({len(tensor) for tensor in data.values()}) != 1:
        raise ValueError(f"give one tensor for each of {sorted(present)}, all with the same number of branches.")
    for name, tensor in present.items():
        _resize(bank.stacked, name, tensor, data[name])


def stacked_tensors(bank: BranchBank) -> dict[str, Tensor]:
    """Every stacked parameter and buffer of the bank by its name in ``bank.stacked``."""
    return _tensors(bank.stacked)


def _run_layers(layers: list[nn.Module], shared: Tensor) -> tuple[Tensor, bool]:
    """Linear, activation and dropout layers on the stack: ``(B, H)`` → ``(G, B, F)``, and whether a ReLU is due.

    A ReLU waits for the Linear layer after it, which applies it as it reads. It waits across dropout too, whose factors
    are not negative.
    """
    first, *rest = layers
    assert isinstance(first, nn.Linear)
    features, rectify = fork_linear(shared, first.weight, first.bias), False
    for layer in rest:
        if isinstance(layer, nn.Linear):
            features = stacked_linear(features, layer.weight, layer.bias, rectify=rectify)
            rectify = False
        elif type(layer) is nn.ReLU:
            rectify = True
        elif type(layer) is nn.Dropout:
            features = dropout(features, layer.p) if layer.training else features
        else:
            features, rectify = layer(torch.relu(features) if rectify else features), False
    return features, rectify


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name; tied ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that holds the tensor ``name``, and its name there."""
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _replace_tensors(module: nn.Module, data: Mapping[str, Tensor | list[Tensor]]) -> None:
    """Set parameters and buffers to fresh copies; a list is stacked along a new first dimension."""
    replaced: dict[int, Tensor] = {}
    for name, tensor in _tensors(module).items():
        value = data[name]
        copied = (torch.stack(value) if isinstance(value, list) else value.clone()).detach()
        if isinstance(tensor, nn.Parameter):
            copied = nn.Parameter(copied, requires_grad=tensor.requires_grad)
        replaced[id(tensor)] = copied
    for submodule in module.modules():
        for tensors in (submodule._parameters, submodule._buffers):
            for name, old in tensors.items():
                if old is not None:
                    tensors[name] = replaced[id(old)]  # type: ignore[assignment]  # the two dicts differ in value type


def _resize(module: nn.Module, name: str, tensor: Tensor, data: Tensor) -> None:
    """Give one parameter or buffer other data."""
    if isinstance(tensor, nn.Parameter):
        set_parameter_data(tensor, data)
    else:
        owner, leaf = _owner(module, name)
        owner.register_buffer(leaf, data, persistent=leaf not in owner._non_persistent_buffers_set)


def _check_template(template: nn.Module) -> None:
    """Raise if the template cannot be stacked."""
    for name, parameter in template.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise TypeError(f"the template's parameter {name!r} has no shape yet; run the template once before.")


def _first_weight_name(template: nn.Module) -> str:
    """The first parameter that is a matrix or larger: the weight of the layer at the fork."""
    for name, parameter in template.named_parameters():
        if parameter.ndim >= 2:
            return name
    raise ValueError("the template branch has no layer with a weight matrix, so there is no gradient to capture.")
