"""Arguments that users pass by mistake, and what may come of it: the right result, or the documented error.

A test draws the arguments of one call. Some are *benign*: unusual memory layouts, empty sides, zeros, numbers near the
ends of what the dtype holds. One may be *spoiled*: of another type, dtype, shape or device, or not finite. A call with
benign arguments must give the right result; one with a spoiled argument must give the right result too, or raise
``TypeError`` or ``ValueError`` in one sentence that selshare wrote, and change nothing.

``SELSHARE_FUZZ=5000`` tries so many examples a test, another lot every time; without it they are few and the same.
"""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

import selshare

EXAMPLES = int(os.environ.get("SELSHARE_FUZZ", "0"))
PACKAGES = tuple(str(Path(folder).resolve()) for folder in (selshare.__path__[0], selshare.kernels.__path__[0]))
SIZES = st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 33])
DTYPES = st.sampled_from([torch.float32, torch.float64])
SEEDS = st.integers(0, 2**32 - 1)

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]


def fuzzed(few: int = 25) -> settings:
    """Settings of a fuzzing test: ``few`` fixed examples, or as many new ones as ``SELSHARE_FUZZ`` says."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )


@dataclass
class Case:
    """Draws the arguments of one call, and spoils at most one of them."""

    draw: Draw
    spoiled: str = ""  # which argument, and how

    def spoil(self, name: str, strategy: st.SearchStrategy[tuple[str, Any]], value: Any) -> Any:
        """``value``, or rarely one that is wrong."""
        if self.spoiled or not self.draw(st.sampled_from([False] * 7 + [True])):
            return value
        how, value = self.draw(strategy)
        self.spoiled = f"{name}: {how}"
        return value

    def tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, values: str | None = None) -> Any:
        """A tensor in some layout, or something else."""
        tensor = laid_out(self.draw, numbers(self.draw, shape, dtype, values))
        return self.spoil(name, spoiled_tensors(tensor), tensor)

    def state(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """A contiguous tensor of ordinary numbers that is to be changed, or something else."""
        generator = torch.Generator().manual_seed(self.draw(SEEDS))
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).square_()
        return self.spoil(name, spoiled_tensors(tensor), tensor)

    def number(self, name: str, strategy: st.SearchStrategy[Any]) -> Any:
        """A real number, or something else."""
        return self.spoil(name, SPOILED_NUMBERS, self.draw(strategy))

    def integer(self, name: str, strategy: st.SearchStrategy[Any]) -> Any:
        """A whole number, or something else."""
        return self.spoil(name, SPOILED_INTEGERS, self.draw(strategy))


SPOILED_NUMBERS: st.SearchStrategy[tuple[str, Any]] = st.sampled_from(
    [(repr(value)[:20], value) for value in (None, "1", True, 1j, np.nan, np.inf, -np.inf, [1.0], 10**400, -1.0, 0)]
    + [("a tensor", torch.ones(())), ("an array", np.ones(2)), ("NumPy's", np.float32(0.5)), ("1e300", 1e300)]
)
SPOILED_INTEGERS: st.SearchStrategy[tuple[str, Any]] = st.sampled_from(
    [(repr(value)[:20], value) for value in (None, "3", True, 1.0, 2.5, np.nan, 1j, [2], -1, 0, 2**31, 2**63, 10**400)]
    + [("a tensor", torch.ones((), dtype=torch.int64)), ("NumPy's", np.int64(2)), ("-2**63", -(2**63))]
)


def numbers(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype, values: str | None = None) -> Tensor:
    """Finite numbers of some character."""
    kind = values or draw(
        st.sampled_from(["plain"] * 4 + ["zeros", "equal", "few", "tiny", "huge", "subnormal", "mixed"])
    )
    generator = torch.Generator().manual_seed(draw(SEEDS))
    plain = torch.randn(shape, generator=generator, dtype=torch.float64)
    info = torch.finfo(dtype)
    if kind == "zeros":
        plain.zero_()
    elif kind == "equal":
        plain.fill_(-1.5)
    elif kind == "few":
        plain.round_()  # ties
    elif kind == "mixed":
        plain *= 10.0 ** torch.randint(-12, 12, shape, generator=generator, dtype=torch.float64)
    elif kind != "plain":
        plain = (
            plain.clamp(-9, 9) / 10 * {"tiny": info.tiny * 4, "huge": info.max / 128, "subnormal": info.tiny / 64}[kind]
        )
    return plain.to(dtype)


def laid_out(draw: Draw, tensor: Tensor) -> Tensor:
    """The same numbers, somewhere else in memory: transposed, spread, shifted, reversed, or one row for all."""
    how = draw(st.sampled_from(["as is"] * 3 + ["transposed", "spread", "shifted", "reversed", "expanded", "graph"]))
    if tensor.ndim == 0 or tensor.numel() == 0:
        return tensor
    if how == "transposed" and tensor.ndim > 1:
        first, second = draw(st.permutations(range(tensor.ndim)))[:2]
        return tensor.transpose(first, second).contiguous().transpose(first, second)
    if how == "spread":
        return torch.stack((tensor, tensor + 1), dim=-1)[..., 0]
    if how == "shifted":
        return torch.cat((tensor.new_zeros(1), tensor.flatten()))[1:].view(tensor.shape)
    if how == "reversed":
        return tensor.flip(0)
    if how == "expanded":
        dimension = draw(st.integers(0, tensor.ndim - 1))
        return tensor.narrow(dimension, 0, 1).expand(tensor.shape)
    return tensor.clone().requires_grad_() if how == "graph" else tensor


@st.composite
def spoiled_tensors(draw: Draw, tensor: Tensor) -> tuple[str, Any]:
    """Something in the place of ``tensor`` that is none of it."""
    ways = dict(_OTHERWISE)
    if not tensor.numel():
        ways = {name: way for name, way in ways.items() if name not in ("NaN", "Inf", "-Inf", "late NaN")}
    how = draw(st.sampled_from(sorted(ways)))
    return how, ways[how](tensor.detach())


def _with_entry(tensor: Tensor, position: int, value: float) -> Tensor:
    """A copy in which one entry is ``value``."""
    copy = tensor.clone(memory_format=torch.contiguous_format)
    copy.view(-1)[position] = value
    return copy


_OTHERWISE: dict[str, Callable[[Tensor], Any]] = {
    "None": lambda _: None,
    "list": lambda tensor: tensor.tolist(),
    "array": lambda tensor: tensor.numpy(),
    "text": lambda _: "tensor",
    "float16": lambda tensor: tensor.half(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "int64": lambda tensor: tensor.nan_to_num(0).clamp(-9, 9).long(),
    "bool": lambda tensor: tensor > 0,
    "complex64": lambda tensor: tensor.to(torch.complex64),
    "other float": lambda tensor: tensor.float() if tensor.dtype == torch.float64 else tensor.double(),
    "one dimension more": lambda tensor: tensor.unsqueeze(0),
    "one dimension less": lambda tensor: tensor.reshape(-1),
    "a number": lambda tensor: tensor.new_ones(()),
    "longer": lambda tensor: torch.cat((tensor, tensor)) if tensor.ndim else tensor,
    "no rows": lambda tensor: tensor[:0] if tensor.ndim else tensor,
    "no columns": lambda tensor: tensor[..., :0] if tensor.ndim else tensor,
    "NaN": lambda tensor: _with_entry(tensor, 0, torch.nan),
    "late NaN": lambda tensor: _with_entry(tensor, -1, torch.nan),
    "Inf": lambda tensor: _with_entry(tensor, 0, torch.inf),
    "-Inf": lambda tensor: _with_entry(tensor, -1, -torch.inf),
    "meta": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
    "negative view": lambda tensor: torch.complex(tensor, tensor).conj().imag,
}


def refused(error: Exception) -> None:
    """Fail unless ``error`` is a ``TypeError`` or ``ValueError`` that selshare raises in one sentence."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    ours = str(Path(frame.filename).resolve()).startswith(PACKAGES) and line.startswith("raise ")
    sentence = str(error).strip()
    if not (isinstance(error, TypeError | ValueError) and ours and sentence.endswith(".") and "\n" not in sentence):
        raise AssertionError(f"no documented error: {type(error).__name__}: {error}") from error


def run(case: Case, call: Callable[[], Any]) -> tuple[Any, bool]:
    """The result of ``call``, and whether there is one; a spoiled argument may be refused instead."""
    try:
        return call(), True
    except Exception as error:
        if not case.spoiled:
            raise
        refused(error)
        return None, False
