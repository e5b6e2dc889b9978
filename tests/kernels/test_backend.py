"""Dispatch: what runs, what is refused, and with which words."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator

import pytest
import torch

from selshare.kernels import BackendUnavailable, SlowerBackendWarning, backend, use

CPU = torch.device("cpu")


@pytest.fixture
def operation(monkeypatch: pytest.MonkeyPatch) -> str:
    """An operation with a broken native, a numba and a reference implementation (all of them ``math.sqrt``)."""

    def made(name: str, missing: str | None) -> backend.Implementation:
        devices = ("any",) if name == "reference" else ("cpu",)
        return backend.Implementation("root", name, "math", "sqrt", devices, lambda: missing)

    rows = [made("native", "it was not built"), made("numba", None), made("reference", None)]
    monkeypatch.setitem(backend._REGISTRY, "root", rows)
    monkeypatch.setattr(backend, "_WARNED", set())
    return "root"


def test_the_best_usable_one_is_chosen_and_the_loss_is_said_once(
    operation: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.warns(SlowerBackendWarning, match="root runs on the slower backend 'numba'.*not built"):
        assert backend.choose(operation, "cpu").backend == "numba"
    assert backend.select(operation, CPU)(4.0) == 2.0


def test_a_device_without_a_fast_version_takes_the_reference(operation: str) -> None:
    assert backend.choose(operation, "meta").backend == "reference"


def test_a_forced_backend_that_cannot_run_raises(operation: str) -> None:
    with use("native"), pytest.raises(BackendUnavailable, match="native: it was not built"):
        backend.select(operation, CPU)
    with use("triton"), pytest.raises(BackendUnavailable, match="no triton version"):
        backend.select(operation, CPU)
    with use("numba"), pytest.raises(BackendUnavailable, match="no cuda version"):
        backend.choose(operation, "cuda")


def test_several_forced_backends_are_tried_in_order(operation: str) -> None:
    with use("native", "reference"):
        assert backend.choose(operation, "cpu").backend == "reference"


def test_the_environment_forces_and_use_wins_over_it(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "reference")
    assert backend.choose(operation, "cpu").backend == "reference"
    with use("numba"):
        assert backend.choose(operation, "cpu").backend == "numba"


@pytest.fixture
def with_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An operation "root" with a Triton, a Numba and a reference version; nothing remembered of this machine."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backend.triton_missing.cache_clear()
    monkeypatch.setitem(backend._REGISTRY, "root", [])
    backend.register("root", "package", ("triton", "numba", "reference"))
    yield
    backend.triton_missing.cache_clear()


def test_triton_is_chosen_for_cuda_tensors_only(with_triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backend.choose("root", "cuda").backend == "triton"
    assert backend.choose("root", "cpu").backend == "numba"
    with use("triton"), pytest.raises(BackendUnavailable, match="triton: it has no cpu version"):
        backend.choose("root", "cpu")


def test_without_a_gpu_triton_says_so(with_triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with use("triton"), pytest.raises(BackendUnavailable, match="triton: torch finds no CUDA device; TRITON_INTERPRET"):
        backend.choose("root", "cpu")
    backend.triton_missing.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert backend.triton_missing() == "triton is not installed; pip install triton"


def test_without_a_c_compiler_triton_says_so(with_triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CC", "a-compiler")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert (backend.triton_missing() or "").endswith("finds none; install gcc or clang, or set CC")
    backend.triton_missing.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "a-compiler" else None)
    assert backend.triton_missing() is None


def test_the_interpreter_runs_only_when_triton_is_forced(with_triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.choose("root", "cpu").backend == "numba"
    with use("triton"):
        assert backend.choose("root", "cpu").backend == "triton"
    monkeypatch.setenv(backend.VARIABLE, "triton,reference")
    assert backend.choose("root", "cpu").backend == "triton"


def test_unknown_names_are_refused(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown backend"), use("fortran"):
        pass
    monkeypatch.setenv(backend.VARIABLE, "fortran")
    with pytest.raises(ValueError, match="SELSHARE_BACKEND names the unknown backend"):
        backend.choose(operation, "cpu")


def test_blocked_implementations_need_only_torch_and_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_REGISTRY", {})
    backend.register("root", "somewhere", ("blocked", "reference"))
    for device in ("cpu", "cuda"):
        chosen = backend.choose("root", device)
        assert (chosen.backend, chosen.module, chosen.function) == ("blocked", "somewhere.blocked", "root")
    with use("reference"):
        assert backend.choose("root", "cpu").backend == "reference"
