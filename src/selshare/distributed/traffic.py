"""How many bytes a rank sends and keeps: a model, checked against counts and against what sockets saw.

``docs/scaling.md`` has the comparison, ``python -m benchmarks.scaling`` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Shape:
    """The numbers that traffic depends on.

    Attributes
    ----------
    tasks, branches
        How many; as many branches as tasks before any merge.
    shared
        Width of the shared representation.
    hidden
        Widths of a branch's layers.
    trunk
        Parameters of the trunk.
    outputs
        Width of a head.
    number
        Bytes of a number.
    """

    tasks: int
    branches: int
    shared: int
    hidden: tuple[int, ...]
    trunk: int
    outputs: int = 1
    number: int = 4

    @property
    def branch_parameters(self) -> int:
        """Of one branch."""
        return sum(inputs * width + width for inputs, width in pairwise((self.shared, *self.hidden)))

    @property
    def head_parameters(self) -> int:
        """Of one head."""
        return self.outputs * (self.hidden[-1] + 1)


def data_parallel_step(shape: Shape, ranks: int, batch: int, *, lazy: bool = True) -> dict[str, float]:
    """Bytes each rank sends in a step of data parallel training, by purpose, as :class:`Ranks` counts them.

    ``lazy``: the optimizer is one of :mod:`selshare.optim`, so that stacked weights' gradients may be told by their
    factors, as :mod:`selshare.distributed.gradients` says. Trunks with batch normalisation send its statistics
    besides, which are left out.
    """
    ring = 2 * (ranks - 1) / ranks
    own = -(-batch // ranks)
    formed = shape.trunk + shape.tasks * shape.head_parameters + shape.branches * sum(shape.hidden)  # with biases
    factors = 0
    for place, (inputs, width) in enumerate(pairwise((shape.shared, *shape.hidden))):
        weight = shape.branches * width * inputs
        read = inputs if place == 0 else shape.branches * inputs
        row = shape.branches * width + read
        if lazy and weight >= read * own and batch * row < 2 * weight:
            factors += (ranks - 1) * own * row
        else:
            formed += weight
    found = {
        "losses": ring * 2 * shape.tasks * shape.number,
        "gradients": ring * formed * shape.number,
        "factors": float(factors * shape.number),
    }
    return {purpose: sent for purpose, sent in found.items() if sent}


def sharded_step(shape: Shape, ranks: int, batch: int, *, checked: bool = True) -> dict[str, float]:
    """Bytes each rank sends in a step with the bank sharded by branch, by purpose.

    ``checked``: whether losses are looked at, as on the CPU. The rank with the most rows counts.
    """
    own = -(-batch // ranks)
    found = {
        "shared representation": float((ranks - 1) * own * shape.shared * shape.number),
        "shared representation, gradient": float((batch - own) * shape.shared * shape.number),
        "gradients": 2 * (ranks - 1) / ranks * shape.trunk * shape.number,
        "checks of losses": 2 * (ranks - 1) / ranks * 8 if checked else 0.0,
    }
    return {purpose: sent for purpose, sent in found.items() if sent}


def sharded_epoch(shape: Shape, ranks: int, captured: int) -> dict[str, float]:
    """Bytes a rank other than the first sends at the end of an epoch that clusters: ``captured`` numbers a branch."""
    return {"captured gradients": -(-shape.branches // ranks) * captured * float(shape.number)}


def memory(shape: Shape, ranks: int, batch: int, *, moments: int = 2, captured: int = 0) -> dict[str, float]:
    """Bytes of a rank with a sharded bank: its branches and heads, what the optimizer keeps of them, activations.

    ``moments``: tensors of the parameters' size that the optimizer keeps (2 for Adam, 1 for SGD with momentum).
    """
    branches, tasks = -(-shape.branches // ranks), -(-shape.tasks // ranks)
    parameters = branches * shape.branch_parameters + tasks * shape.head_parameters
    layers = branches * sum(shape.hidden) + tasks * shape.outputs
    return {
        "parameters": float(parameters * shape.number),
        "optimizer": float(moments * parameters * shape.number),
        "capture": float(branches * captured * shape.number),
        # Outputs of every layer and their gradients, and the shared representation and its gradient.
        "activations": float(2 * batch * (layers + shape.shared) * shape.number),
    }


def total(sent: Mapping[str, float], without: Sequence[str] = ()) -> float:
    """Of all purposes."""
    return sum(value for purpose, value in sent.items() if purpose not in without)
