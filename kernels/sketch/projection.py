"""The random directions of a sketch."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from ..checks import FLOATS


@dataclass(frozen=True, eq=False)
class SketchProjection:
    """q random directions in input space for each output of a layer, the same for all branches.

    Parameters
    ----------
    outputs, inputs
        Shape ``(O, H)`` of the weight whose gradients are sketched.
    size
        Numbers per branch. Rounded down to a multiple of ``outputs``; afterwards the attribute is the rounded number.
    seed
        Equal arguments give equal directions, on every device; the global random state is neither used nor changed.
    dtype, device
        Of the directions, and so of everything that is sketched with them.

    Attributes
    ----------
    per_output
        q = size / outputs.
    directions
        ``(q·O, H)``: row ``j·O + o`` is direction j of output o, with entries ``±1/√q``.

    Raises
    ------
    ValueError
        If a size is below 1, or ``size`` below ``outputs``.
    TypeError
        If ``dtype`` is neither float32 nor float64.
    """

    outputs: int
    inputs: int
    size: int
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    directions: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.outputs < 1 or self.inputs < 1:
            raise ValueError(f"outputs and inputs must be at least 1; they are {self.outputs} and {self.inputs}.")
        if self.size < self.outputs:
            raise ValueError(
                f"a sketch needs one number or more for each of the {self.outputs} outputs; its size is {self.size}."
            )
        if self.dtype not in FLOATS:
            raise TypeError(f"a sketch is float32 or float64, not {self.dtype}.")
        object.__setattr__(self, "size", self.per_output * self.outputs)
        generator = torch.Generator().manual_seed(self.seed)
        bits = torch.randint(0, 2, (self.size, self.inputs), generator=generator, dtype=torch.int8)
        directions = (2 * bits - 1).to(self.dtype) / sqrt(self.per_output)
        object.__setattr__(self, "directions", directions.to(self.device))

    @property
    def per_output(self) -> int:
        """Directions for each output."""
        return self.size // self.outputs
