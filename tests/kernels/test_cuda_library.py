"""The CUDA library where no GPU is: what it says, how it plans its launches, what the compiler makes of the kernels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from selshare.kernels import BackendUnavailable, SlowerBackendWarning, backend, batched_eigh, cuda_library, use

ROOT = Path(__file__).parents[2]
A100, H100 = (166_912, 108), (232_448, 132)  # bytes of shared memory a block may have, multiprocessors
GEFORCE = (101_376, 82)


@pytest.fixture(scope="module")
def compiler() -> ModuleType:
    """csrc/cuda/compile.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("compile_cuda", ROOT / "csrc" / "cuda" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if module.nvcc() is None:
        pytest.skip("nvcc is not on the PATH")
    return module


@pytest.fixture
def library(compiler: ModuleType) -> None:
    """The library, which every build on a machine with nvcc has made."""
    assert cuda_library.path().exists(), "python setup.py build_ext --inplace makes it"


def test_nothing_spills_and_nothing_is_on_the_stack(compiler: ModuleType) -> None:
    found = compiler.resources()
    kernels = {(one.kernel, one.dtype, one.shared) for one in found}
    assert kernels == {
        (kernel, dtype, shared)
        for kernel, places in (("eigh_kernel", 2), ("left_svd_kernel", 3))
        for dtype in ("float32", "float64")
        for shared in range(places)
    }
    architectures = {80, 90, 100} if compiler.knows(compiler.NEWEST) else {80, 90}
    assert {one.architecture for one in found} == architectures
    assert len(found) == len(architectures) * len(kernels)
    for one in found:
        assert (one.stack, one.spills) == (0, 0), one
        assert one.registers <= 64, one  # two blocks of 512 threads per multiprocessor


@pytest.mark.parametrize(
    ("n", "dtype", "limits", "shared", "threads", "kibibytes"),
    [
        (16, torch.float32, A100, 0, 32, 1.875),
        (32, torch.float32, A100, 0, 128, 6.75),
        (80, torch.float32, A100, 0, 512, 39.375),
        (128, torch.float32, A100, 0, 512, 99),
        (128, torch.float64, H100, 0, 512, 198),
        (128, torch.float64, A100, 1, 512, 69),
        (128, torch.float64, GEFORCE, 1, 512, 69),
    ],
)
def test_eigh_stays_in_shared_memory_where_it_fits(
    library: None, n: int, dtype: torch.dtype, limits: tuple[int, int], shared: int, threads: int, kibibytes: float
) -> None:
    plan = cuda_library.plan("eigh", limits, dtype, 5000, (n,))
    assert (plan.shared, plan.threads) == (shared, threads)
    assert plan.shared_bytes <= limits[0]
    assert plan.shared_bytes / 1024 == kibibytes
    if shared == 0:
        assert (plan.blocks, plan.workspace_bytes) == (5000, 0)
    else:
        assert plan.blocks == 2 * limits[1]
        assert plan.workspace_bytes == plan.blocks * n * (n | 1) * dtype.itemsize


def test_a_svd_that_does_not_fit_moves_the_vectors_out_and_then_the_matrix(library: None) -> None:
    assert cuda_library.plan("left_svd", A100, torch.float32, 9, (128, 128)).shared == 0
    wide = cuda_library.plan("left_svd", A100, torch.float64, 9, (100, 200))
    assert wide.shared == 1
    assert wide.workspace_bytes == 9 * 100 * 101 * 8
    widest = cuda_library.plan("left_svd", A100, torch.float64, 9, (100, 400))
    assert widest.shared == 2
    assert widest.workspace_bytes == 9 * (100 * 101 + 100 * 401) * 8


@pytest.mark.parametrize(("count", "sizes"), [(3, (0,)), (3, (129,)), (-1, (4,))])
def test_what_the_solvers_do_not_take_is_an_error_code(library: None, count: int, sizes: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match=r"selshare_eigh_plan failed: invalid argument \(code 1\)\."):
        cuda_library.plan("eigh", H100, torch.float32, count, sizes)


def test_the_library_says_its_version(library: None) -> None:
    runtime, driver = cuda_library.versions()
    assert runtime >= 12000
    assert driver >= 0


def test_without_a_gpu_it_says_so(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert cuda_library.missing() == "torch finds no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    reason = cuda_library.missing()
    assert reason is not None
    assert reason.startswith("CUDA finds no device: ")
    assert "code" in reason


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_library, "path", lambda: tmp_path / cuda_library.NAME)
    assert cuda_library.missing() == "libselshare_cuda.so is not there; install from source with nvcc on the PATH"
    (tmp_path / cuda_library.NAME).write_text("not a library")
    cuda_library.load.cache_clear()
    try:
        reason = cuda_library.missing()
    finally:
        cuda_library.load.cache_clear()
    assert reason is not None
    assert reason.startswith("libselshare_cuda.so cannot be loaded (")


def test_dispatch_takes_cuda_for_cuda_tensors_and_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_WARNED", set())
    reasons: list[str | None] = ["the driver is asleep", None]
    rows = [
        backend.Implementation("batched_eigh", row.backend, row.module, row.function, row.devices, missing)
        for row, missing in zip(
            backend.implementations("batched_eigh"),
            (lambda: None, lambda: reasons[0], lambda: None),
            strict=True,
        )
    ]
    monkeypatch.setitem(backend._REGISTRY, "batched_eigh", rows)
    with pytest.warns(SlowerBackendWarning, match="'reference', because of cuda: the driver is asleep"):
        assert backend.choose("batched_eigh", "cuda").backend == "reference"
    with use("cuda"), pytest.raises(BackendUnavailable, match="cuda: the driver is asleep"):
        batched_eigh(torch.eye(2)[None])
    reasons[0] = None
    assert backend.choose("batched_eigh", "cuda").backend == "cuda"
    assert backend.choose("batched_eigh", "cpu").backend == "native"
