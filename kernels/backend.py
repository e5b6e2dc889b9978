"""Which implementation of an operation runs.

Every operation has a reference (plain torch, the definition) and any number of faster implementations. The best
one that can run on the tensor's device is chosen. ``SELSHARE_BACKEND=native`` or ``with use("native")`` forces
one: an operation that does not have it, or cannot run it, raises :class:`BackendUnavailable`. Several names,
``SELSHARE_BACKEND=triton,reference`` or ``use("triton", "reference")``, are tried in that order. Where the best
implementation for a device cannot run and a slower one is taken, a :class:`SlowerBackendWarning` says so, once.

Triton kernels run on CUDA tensors. With ``TRITON_INTERPRET=1`` set before Python starts they also run on CPU tensors,
in Triton's interpreter, which is for tests and thousands of times slower: only where ``triton`` is forced by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from . import cuda_library
from .checks import is_one_of

BACKENDS = ("reference", "blocked", "native", "numba", "triton", "cuda")
VARIABLE = "SELSHARE_BACKEND"


class BackendUnavailable(RuntimeError):
    """A backend asked for by name does not exist for an operation, or cannot run here."""


class SlowerBackendWarning(UserWarning):
    """The best implementation for a device cannot run, and a slower one is used."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One implementation of an operation.

    ``module`` is imported at first use and must hold ``function``. ``missing`` says in a few words why it cannot
    run on this machine, or returns ``None`` when it can.
    """

    operation: str
    backend: str
    module: str
    function: str
    devices: tuple[str, ...]
    missing: Callable[[], str | None]
    when_forced: Callable[[], tuple[str, ...]] = tuple

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        return function

    def unusable(self, device: str) -> str | None:
        """Why it cannot run on ``device`` (a torch device type), or ``None``."""
        reason = self.missing()
        if reason is None and not self.fits(device) and device not in self.when_forced():
            return f"it has no {device} version"
        return reason

    def fits(self, device: str) -> bool:
        """Whether it may be chosen for ``device`` without being asked for by name."""
        return device in self.devices or "any" in self.devices


def nothing_missing() -> str | None:
    """For implementations that need only torch."""
    return None


@cache
def native_missing() -> str | None:
    """Why the compiled extension cannot be used, or ``None``."""
    try:
        importlib.import_module("selshare._native")
    except ImportError as error:
        return (
            f"the compiled extension selshare._native is not there ({error}); install from source with a C++ compiler"
        )
    return None


@cache
def numba_missing() -> str | None:
    """Why Numba cannot be used, or ``None``."""
    return None if importlib.util.find_spec("numba") else "numba is not installed; pip install numba"


def interpreting() -> bool:
    """Whether Triton's interpreter runs its kernels, on the CPU; Triton looks when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@cache
def triton_missing() -> str | None:
    """Why Triton kernels cannot be used, or ``None``."""
    if not importlib.util.find_spec("triton"):
        return "triton is not installed; pip install triton"
    if interpreting():
        return None
    if not torch.cuda.is_available():
        return "torch finds no CUDA device; TRITON_INTERPRET=1, set before Python starts, interprets it on the CPU"
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CC"), "gcc", "clang") if compiler):
        return "Triton builds its launcher with a C compiler and finds none; install gcc or clang, or set CC"
    return None


@cache
def cuda_missing() -> str | None:
    """Why the compiled CUDA kernels cannot be used, or ``None``."""
    return cuda_library.missing()


def _interpreted_devices() -> tuple[str, ...]:
    """The devices beside CUDA that Triton kernels run on."""
    return ("cpu",) if interpreting() else ()


_REGISTRY: dict[str, list[Implementation]] = {}
_FORCED: ContextVar[tuple[str, ...]] = ContextVar("selshare_backend", default=())
_WARNED: set[str] = set()

_MISSING: dict[str, Callable[[], str | None]] = {
    "reference": nothing_missing,
    "blocked": nothing_missing,
    "native": native_missing,
    "numba": numba_missing,
    "triton": triton_missing,
    "cuda": cuda_missing,
}
_DEVICES: dict[str, tuple[str, ...]] = {
    "reference": ("any",),
    "blocked": ("any",),
    "native": ("cpu",),
    "numba": ("cpu",),
    "triton": ("cuda",),
    "cuda": ("cuda",),
}
_WHEN_FORCED: dict[str, Callable[[], tuple[str, ...]]] = {"triton": _interpreted_devices}


def register(operation: str, package: str, backends: Sequence[str]) -> None:
    """Declare the implementations of an operation, best first.

    Each lives in ``<package>.<backend>`` as a function named like the operation.
    """
    _REGISTRY[operation] = [
        Implementation(
            operation,
            name,
            f"{package}.{name}",
            operation,
            _DEVICES[name],
            _MISSING[name],
            _WHEN_FORCED.get(name, tuple),
        )
        for name in backends
    ]


def operations() -> tuple[str, ...]:
    """The names of all registered operations."""
    return tuple(_REGISTRY)


def implementations(operation: str) -> tuple[Implementation, ...]:
    """The implementations of an operation, best first."""
    return tuple(_REGISTRY[operation])


@contextmanager
def use(*backends: str) -> Iterator[None]:
    """Force the given backends, tried in order, for every operation called inside the block.

    Raises
    ------
    ValueError
        If a name is not one of :data:`BACKENDS`. Whether an operation can run it is checked when it is called.
    """
    token = _FORCED.set(_checked(backends, "use()"))
    try:
        yield
    finally:
        _FORCED.reset(token)


def select(operation: str, device: torch.device) -> Callable[..., Any]:
    """The implementation of ``operation`` that runs on ``device``, by the rules at the head of this module.

    Raises
    ------
    BackendUnavailable
        If none of the forced backends can run.
    """
    return choose(operation, device.type).load()


def choose(operation: str, device: str) -> Implementation:
    """Like :func:`select`, for a device type; returns the :class:`Implementation` without importing it."""
    choice = explain(operation, device)
    chosen, refused = choice.implementation, "; ".join(choice.refused)
    if chosen is not None:
        if choice.refused and not choice.forced:
            _warn_slower(operation, chosen.backend, refused)
        return chosen
    if choice.forced:
        known = ", ".join(implementation.backend for implementation in _REGISTRY[operation])
        raise BackendUnavailable(
            f"{operation} was asked to run on backend {' or '.join(choice.candidates)}, which it cannot: {refused}. "
            f"It has {known}; name one of these in use() or {VARIABLE}."
        )
    raise BackendUnavailable(f"{operation} has no implementation that runs on {device} ({refused}).")


@dataclass(frozen=True, slots=True)
class Choice:
    """What an operation uses on a device, and why.

    Attributes
    ----------
    implementation
        ``None`` where nothing can run.
    candidates
        The backends in the order in which they are considered.
    refused
        Those before the chosen one, each with the reason why it cannot run.
    forced
        Whether the candidates were named by :func:`use` or in the environment.
    """

    implementation: Implementation | None
    candidates: tuple[str, ...]
    refused: tuple[str, ...]
    forced: bool


def explain(operation: str, device: str) -> Choice:
    """What :func:`choose` decides, without warning or raising."""
    forced = _FORCED.get() or _from_environment()
    known = {implementation.backend: implementation for implementation in _REGISTRY[operation]}
    candidates = forced or tuple(name for name, one in known.items() if one.fits(device))
    refused: list[str] = []
    for name in candidates:
        reason = known[name].unusable(device) if name in known else f"there is no {name} version of it"
        if reason is None:
            return Choice(known[name], candidates, tuple(refused), bool(forced))
        refused.append(f"{name}: {reason}")
    return Choice(None, candidates, tuple(refused), bool(forced))


def _warn_slower(operation: str, backend: str, refused: str) -> None:
    """Say once per operation that a better implementation could not run."""
    if operation not in _WARNED:
        _WARNED.add(operation)
        warnings.warn(
            f"{operation} runs on the slower backend {backend!r}, because of {refused}.",
            SlowerBackendWarning,
            stacklevel=4,
        )


def _from_environment() -> tuple[str, ...]:
    """The backends named in the environment variable."""
    value = os.environ.get(VARIABLE, "").strip()
    return _checked(tuple(name.strip() for name in value.split(",")), VARIABLE) if value else ()


def _checked(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """``names``, if each is a backend."""
    unknown = [name for name in names if not is_one_of(name, BACKENDS)]
    if unknown or not names:
        raise ValueError(f"{where} names the unknown backend {unknown}; choose from {', '.join(BACKENDS)}.")
    return names
