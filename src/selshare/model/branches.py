"""Template branches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def mlp_branch(inputs: int, hidden: Sequence[int], *, activation: str = "relu", dropout: float = 0.0) -> nn.Sequential:
    """A branch of fully connected layers, the paper's kind: 100-50 or 300-300, each followed by the activation.

    Parameters
    ----------
    inputs
        Width of the shared representation.
    hidden
        Width of each layer; the last is what the heads read.
    activation
        One of ``relu``, ``leaky_relu``, ``elu``, ``gelu``, ``silu``, ``tanh``, ``sigmoid``.
    dropout
        Probability of dropping a unit after each activation; 0 leaves the dropout layers out.

    Raises
    ------
    ValueError
        If a width is not positive, there is no layer, the activation is unknown or ``dropout`` is not in [0, 1).
    """
    if not hidden or min(hidden) < 1 or inputs < 1:
        raise ValueError(f"a branch needs layers of positive width; hidden={tuple(hidden)} reading {inputs} features.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; choose from {', '.join(ACTIVATIONS)}.")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1); it is {dropout}.")
    layers: list[nn.Module] = []
    for before, after in zip([inputs, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
