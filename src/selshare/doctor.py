"""What selshare finds on this machine: which implementation each operation uses, on what, and why."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .kernels import (
    backend,
    cuda_library,
    gram,  # noqa: F401 -- has operations of its own, which the public ones use
)

PACKAGES = ("torch", "triton", "numba", "hdbscan", "scikit-learn", "numpy")
DEVICES = {"cpu": "CPU", "cuda": "CUDA"}
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
VARIABLES = (backend.VARIABLE, "TRITON_INTERPRET", "OMP_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Use:
    """What an operation uses on a device.

    Attributes
    ----------
    backend
        The implementation that runs; ``None`` where none can, or there is no such device.
    candidates
        The implementations in the order in which they are considered.
    refused
        Those before the chosen one, each with the reason why it cannot run.
    forced
        Whether the environment names the candidates.
    """

    backend: str | None
    candidates: tuple[str, ...]
    refused: tuple[str, ...]
    forced: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that ``selshare doctor`` prints.

    Attributes
    ----------
    versions
        Of selshare, Python and the packages that kernels need; ``None`` where one is not installed.
    cuda
        CUDA versions of ``torch``, the ``library`` and the ``driver``; ``None`` where there is none.
    machine
        ``processor``, ``vectors``, ``cores`` (those this process may use), ``threads`` (torch's), ``gpus``.
    built
        ``native`` and ``cuda``: path of the compiled kernels, ``None`` where they are not there.
    missing
        ``native``, ``numba``, ``triton`` and ``cuda``: why these cannot run here, or ``None``.
    environment
        The variables that selshare heeds.
    operations
        Operation to device (``cpu``, ``cuda``) to its use.
    """

    versions: dict[str, str | None]
    cuda: dict[str, str | None]
    machine: dict[str, Any]
    built: dict[str, str | None]
    missing: dict[str, str | None]
    environment: dict[str, str | None]
    operations: dict[str, dict[str, Use]]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Look at this machine; nothing is run on a GPU.

    Raises
    ------
    ValueError
        If the variable ``SELSHARE_BACKEND`` names an unknown backend.
    """
    library = cuda_library.path()
    return Diagnosis(
        versions={
            "selshare": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        cuda={"torch": torch.version.cuda} | _cuda_versions(),
        machine={
            "processor": _processor(),
            "vectors": _vectors(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        },
        built={"native": _native_path(), "cuda": str(library) if library.exists() else None},
        missing={
            "native": backend.native_missing(),
            "numba": backend.numba_missing(),
            "triton": backend.triton_missing(),
            "cuda": backend.cuda_missing(),
        },
        environment={name: os.environ.get(name) for name in VARIABLES},
        operations={
            operation: {device: _use(operation, device) for device in DEVICES}
            for operation in sorted(backend.operations())
        },
    )


def _use(operation: str, device: str) -> Use:
    """What ``operation`` uses on ``device`` and why."""
    choice = backend.explain(operation, device)
    absent = device == "cuda" and not torch.cuda.is_available()
    runs = None if absent or choice.implementation is None else choice.implementation.backend
    return Use(runs, choice.candidates, choice.refused, choice.forced)


def _version(package: str) -> str | None:
    """The installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda_versions() -> dict[str, str | None]:
    """What the library was built with and what the driver supports, where there is a library to ask."""
    try:
        built, driver = cuda_library.versions()
    except OSError:
        return {}
    return {"library": _dotted(built), "driver": _dotted(driver) if driver else None}


def _dotted(version: int) -> str:
    """13020 is 13.2."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _native_path() -> str | None:
    """Where the compiled extension is."""
    if backend.native_missing() is not None:
        return None
    from . import _native

    return str(Path(_native.__file__))


def _processor() -> str:
    """The processor's name, as the kernel knows it where it does."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _vectors() -> str:
    """The widest vectors that the C++ kernels have a version for, of those the processor has."""
    flags = (_cpuinfo("flags") or "").split()
    return next((name for flag, name in VECTORS.items() if flag in flags), f"baseline {platform.machine()} vectors")


def _cpuinfo(key: str) -> str | None:
    """The first value of ``key`` in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), None)


def _gpu(index: int) -> dict[str, Any]:
    """Name and size of a GPU."""
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
    }
