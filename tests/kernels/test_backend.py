"""Dispatch: what runs, what is refused, and with which words."""

from __future__ import annotations

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


def test_unknown_names_are_refused(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown backend"), use("fortran"):
        pass
    monkeypatch.setenv(backend.VARIABLE, "fortran")
    with pytest.raises(ValueError, match="SELSHARE_BACKEND names the unknown backend"):
        backend.choose(operation, "cpu")
