"""Checks on the inputs of operations: each raises one sentence that says what is wrong and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor

LARGEST = 2**63 - 1
FLOATS = (torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)


WITHOUT_VALUES: tuple[str, ...] = ("meta",)
"""Devices whose tensors have a shape and no entries."""


def require_tensor(tensor: object, what: str) -> None:
    """Raise ``TypeError`` unless ``tensor`` is a tensor whose entries lie in memory as they are."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{what} must be a torch.Tensor; it is a {type(tensor).__name__}.")
    if torch.compiler.is_compiling():  # where tensors stand for others
        return
    if tensor.layout != torch.strided:
        raise TypeError(f"{what} is a {tensor.layout} tensor; call .to_dense() on it first.")
    if tensor.device.type in WITHOUT_VALUES:
        raise TypeError(f"{what} is on the meta device and holds no values; pass a tensor on the CPU or a GPU.")
    if tensor.is_neg():
        raise TypeError(f"{what} is a view that stands for its negative; call .resolve_neg() on it first.")


def require_float(tensor: Tensor, what: str, *, halves: bool = False) -> None:
    """Raise ``TypeError`` unless ``tensor`` is dense float32 or float64, or (``halves``) float16 or bfloat16."""
    require_tensor(tensor, what)
    if tensor.dtype not in FLOATS and not (halves and tensor.dtype in HALVES):
        raise TypeError(f"{what} has dtype {tensor.dtype}; convert it to float32 or float64.")


def sums_of(dtype: torch.dtype) -> torch.dtype:
    """What numbers of ``dtype`` are added up in: float32 where they are float16 or bfloat16, else ``dtype``."""
    return torch.float32 if dtype in HALVES else dtype


def require_dimensions(tensor: Tensor, shape: str, what: str) -> None:
    """Raise ``ValueError`` unless ``tensor`` has as many dimensions as ``shape``, e.g. ``"(G, B, O)"``, names."""
    require_tensor(tensor, what)
    if tensor.ndim != len(shape.split(",")):
        raise ValueError(f"{what} must have shape {shape}; it has shape {tuple(tensor.shape)}.")


def require_finite(tensor: Tensor, what: str, row: str = "branch") -> None:
    """Raise ``ValueError`` that names the first row (index along dimension 0) that holds NaN or Inf.

    One pass when all is finite: the sum of a finite tensor is finite unless it overflows, which is then looked at
    element by element.
    """
    if tensor.numel() == 0 or bool(torch.isfinite(tensor.sum())):
        return
    finite = torch.isfinite(tensor).reshape(tensor.shape[0], -1).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise ValueError(f"{what} holds NaN or Inf in {row} {first}; leave that {row} out or repair its input.")


def is_one_of(value: object, names: Iterable[str]) -> bool:
    """Whether ``value`` is one of some words; whatever it is, it is not compared as an array is."""
    return isinstance(value, str) and value in names


def require_integer(value: object, what: str, at_least: int | None = None) -> int:
    """``value`` as an integer (NumPy's are, bools are not), ``at_least`` so large; or an error."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{what} must be a whole number; it is {_short(value)}.")
    number = int(value)
    if abs(number) > LARGEST:
        raise ValueError(f"{what} must be a number of at most 63 bits; it is larger.")
    if at_least is not None and number < at_least:
        raise ValueError(f"{what} must be at least {at_least}; it is {_short(number)}.")
    return number


def require_number(value: object, what: str, dtype: torch.dtype = torch.float64) -> float:
    """``value`` as a float that is finite in ``dtype`` too; ``TypeError`` or ``ValueError`` otherwise."""
    number = _as_float(value, what)
    if not abs(number) <= torch.finfo(dtype).max:
        raise ValueError(f"{what} must be a finite number of {dtype}; it is {_short(value)}.")
    return number


def require_share(value: object, what: str) -> float:
    """``value`` as a float in [0, 1); ``TypeError`` or ``ValueError`` otherwise."""
    number = _as_float(value, what)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{what} must be at least 0 and below 1; it is {_short(value)}.")
    return number


def _as_float(value: object, what: str) -> float:
    """A real number (NumPy's are, bools are not) as a float, infinite where it is too large for one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number; it is {_short(value)}.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def require_integers(values: object, what: str, at_least: int) -> tuple[int, ...]:
    """One or more integers as a tuple; ``TypeError`` or ``ValueError`` otherwise."""
    scalar = getattr(values, "ndim", 1) == 0  # a tensor or array of one number, which only looks like a sequence
    if not isinstance(values, Iterable) or isinstance(values, str) or scalar:
        raise TypeError(f"{what} must be a sequence of whole numbers; it is {_short(values)}.")
    numbers = tuple(require_integer(value, f"each of {what}", at_least) for value in values)
    if not numbers:
        raise ValueError(f"{what} must hold at least one number; there is none.")
    return numbers


def _short(value: object) -> str:
    """What a value looks like, in a few characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits to print
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
