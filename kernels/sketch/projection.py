"""The random directions of a sketch."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from ..checks import FLOATS, require_integer


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
        If a size is below 1, the seed is negative or needs more than 63 bits, or ``size`` below ``outputs``.
    TypeError
        If ``dtype`` is neither float32 nor float64, or another argument is not a whole number.
    """

    outputs: int
    inputs: int
    size: int
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    directions: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("outputs", 1), ("inputs", 1), ("size", 1), ("seed", 0)):
            object.__setattr__(self, name, require_integer(getattr(self, name), name, least))
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
