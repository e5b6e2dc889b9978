"""The compiled CUDA kernels (csrc/cuda, ``libselshare_cuda.so``) through ctypes.

The library has a plain C interface (csrc/cuda/selshare_cuda.h): data pointers in, the tensor's current stream, error
codes out; it neither waits nor allocates. It loads where there is no driver, too, and then says so when asked for
devices.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST = 128
"""Rows of the largest matrix that the solvers take."""

NAME = "libselshare_cuda.so"
FLOATS = {torch.float32: "f32", torch.float64: "f64"}


class Plan(ctypes.Structure):
    """How a solver is launched; ``struct selshare_plan``."""

    _fields_ = (
        ("shared", c_int),
        ("blocks", c_int),
        ("threads", c_int),
        ("shared_bytes", c_size_t),
        ("workspace_bytes", c_size_t),
    )


def path() -> Path:
    """Where the library is, once it is built: beside the package."""
    package = importlib.util.find_spec("selshare")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name(NAME)


@cache
def load() -> ctypes.CDLL:
    """The library, its functions declared.

    Raises
    ------
    OSError
        If it is not there, or cannot be loaded.
    """
    library = ctypes.CDLL(str(path()))
    solve = [c_int, c_void_p, c_void_p, c_void_p, c_void_p]
    plan = [c_int, c_int, c_int, c_int64, c_int]
    declared: dict[str, list[Any]] = {
        "selshare_device_count": [POINTER(c_int)],
        "selshare_versions": [POINTER(c_int), POINTER(c_int)],
        "selshare_limits": [c_int, POINTER(c_int), POINTER(c_int)],
        "selshare_error": [c_int],
        "selshare_eigh_plan": [*plan, POINTER(Plan)],
        "selshare_left_svd_plan": [*plan, c_int, POINTER(Plan)],
    }
    for suffix in FLOATS.values():
        declared[f"selshare_eigh_{suffix}"] = [*solve, c_int64, c_int, c_void_p, c_void_p]
        declared[f"selshare_left_svd_{suffix}"] = [*solve, c_void_p, c_int64, c_int, c_int, c_void_p, c_void_p]
    for name, arguments in declared.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_int
    library.selshare_error.restype = c_char_p
    return library


def missing() -> str | None:
    """Why the library cannot be used here, or ``None``."""
    if not path().exists():
        return f"{NAME} is not there; install from source with nvcc on the PATH"
    try:
        library = load()
    except OSError as error:
        return f"{NAME} cannot be loaded ({error})"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    code = library.selshare_device_count(byref(c_int()))
    return f"CUDA finds no device: {words(code)}" if code != 0 else None


def versions() -> tuple[int, int]:
    """The CUDA versions of the library and of the driver, 13000 for 13.0; the driver's is 0 where there is none."""
    runtime, driver = c_int(), c_int()
    check(load().selshare_versions(byref(runtime), byref(driver)), "selshare_versions")
    return runtime.value, driver.value


def plan(operation: str, limits: tuple[int, int], dtype: torch.dtype, count: int, sizes: tuple[int, ...]) -> Plan:
    """How ``operation`` is launched for ``count`` matrices of ``sizes`` on a device of these :func:`limits`."""
    made = Plan()
    name = f"selshare_{operation}_plan"
    check(getattr(load(), name)(*limits, dtype.itemsize, count, *sizes, byref(made)), name)
    return made


@cache
def limits(device: int) -> tuple[int, int]:
    """Bytes of shared memory that a block of the device may have, and the number of its multiprocessors."""
    shared_bytes, processors = c_int(), c_int()
    check(load().selshare_limits(device, byref(shared_bytes), byref(processors)), "selshare_limits")
    return shared_bytes.value, processors.value


def solve(operation: str, matrices: Tensor, sizes: tuple[int, ...], *more: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values ``(N, n)`` and vectors ``(N, n, n)`` of ``matrices (N, …)``, of which each has ``sizes``, ``n`` first.

    ``more`` are the further results of the C interface, to be written, or ``None``.

    Raises
    ------
    RuntimeError
        If CUDA refuses, or a matrix does not converge: the message says which. Looking for the latter waits for the
        device.
    """
    matrices = matrices.contiguous()
    count, n = len(matrices), sizes[0]
    values, vectors = matrices.new_empty(count, n), matrices.new_empty(count, n, n)
    if vectors.numel() == 0:
        return values, vectors
    sweeps = torch.empty(count, dtype=torch.int32, device=matrices.device)
    device = matrices.get_device()
    bytes_needed = plan(operation, limits(device), matrices.dtype, count, sizes).workspace_bytes
    workspace = torch.empty(bytes_needed, dtype=torch.uint8, device=matrices.device)
    name = f"selshare_{operation}_{FLOATS[matrices.dtype]}"
    with torch.cuda.device(device):
        pointers = (0 if one is None else one.data_ptr() for one in (matrices, values, vectors, *more, sweeps))
        stream = torch.cuda.current_stream().cuda_stream
        check(getattr(load(), name)(device, *pointers, count, *sizes, workspace.data_ptr(), stream), name)
    failed = sweeps < 0
    if bool(failed.any()):
        matrix = int(failed.nonzero()[0, 0])
        raise RuntimeError(f"{operation} did not converge for matrix {matrix}; report it with its entries.")
    return values, vectors


def check(code: int, name: str) -> None:
    """Raise ``RuntimeError`` unless ``code`` is 0."""
    if code != 0:
        raise RuntimeError(f"{name} failed: {words(code)}.")


def words(code: int) -> str:
    """What an error code means."""
    said: bytes = load().selshare_error(code)
    return f"{said.decode()} (code {code})"
