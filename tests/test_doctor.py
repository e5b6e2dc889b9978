"""selshare doctor: what it says matches what operations do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from selshare import __version__, cli
from selshare.doctor import Diagnosis, diagnose
from selshare.doctor_tables import render
from selshare.kernels import BackendUnavailable, backend, cuda_library


def text_of(found: Diagnosis, width: int = 140) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(render(found))
    return capture.get()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with a GPU that Triton and CUDA kernels can use, as far as doctor can see."""
    properties = SimpleNamespace(name="H100", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(cuda_library, "missing", lambda: None)
    for cached in (backend.triton_missing, backend.cuda_missing):
        cached.cache_clear()
    yield
    for cached in (backend.triton_missing, backend.cuda_missing):
        cached.cache_clear()


def test_every_operation_says_what_runs_on_the_cpu() -> None:
    found = diagnose()
    assert set(found.operations) == set(backend.operations())
    for operation, uses in found.operations.items():
        chosen = uses["cpu"].backend
        assert chosen == backend.choose(operation, "cpu").backend
        assert chosen in uses["cpu"].candidates
        assert not uses["cpu"].forced


def test_without_a_gpu_nothing_runs_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = diagnose()
    assert found.machine["gpus"] == []
    assert all(uses["cuda"].backend is None for uses in found.operations.values())
    assert found.operations["batched_eigh"]["cuda"].candidates == ("cuda", "reference")
    text = text_of(found)
    assert "on CUDA (not here)" in text
    assert "none that torch finds" in text


def test_with_a_gpu_triton_and_cuda_run(gpu: None) -> None:
    found = diagnose()
    assert found.machine["gpus"] == [{"name": "H100", "capability": "9.0", "memory_gib": 80.0, "multiprocessors": 132}]
    assert found.operations["batched_eigh"]["cuda"].backend == "cuda"
    assert found.operations["capture_gradients"]["cuda"].backend == "triton"
    text = text_of(found)
    assert "H100, compute capability 9.0, 80.0 GiB" in text
    assert "[triton] > reference" in text
    assert "Cannot run" not in text


def test_the_reason_for_a_slower_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        backend.Implementation("root", name, "math", "sqrt", ("cpu",), lambda missing=missing: missing)
        for name, missing in (("native", "it was not built"), ("numba", None))
    ]
    monkeypatch.setitem(backend._REGISTRY, "root", rows)
    use = diagnose().operations["root"]["cpu"]
    assert use.backend == "numba"
    assert use.refused == ("native: it was not built",)
    text = text_of(diagnose())
    assert "native > [numba]" in text
    assert "Cannot run: native: it was not built" in text


def test_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "reference")
    found = diagnose()
    assert found.environment[backend.VARIABLE] == "reference"
    assert all(uses["cpu"].backend == "reference" and uses["cpu"].forced for uses in found.operations.values())
    assert "SELSHARE_BACKEND names them." in text_of(found)
    monkeypatch.setenv(backend.VARIABLE, "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backend.triton_missing.cache_clear()
    for operation, uses in diagnose().operations.items():
        assert uses["cpu"].backend is None
        with pytest.raises(BackendUnavailable):
            backend.choose(operation, "cpu")


def test_versions_machine_and_what_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = diagnose()
    assert found.versions["selshare"] == __version__
    assert found.versions["torch"] == torch.__version__.partition("+")[0]
    assert found.machine["threads"] == torch.get_num_threads()
    assert found.built["native"] is not None
    assert Path(found.built["native"]).exists()
    monkeypatch.setattr(cuda_library, "path", lambda: tmp_path / cuda_library.NAME)
    backend.cuda_missing.cache_clear()
    cuda_library.load.cache_clear()
    try:
        without = diagnose()
    finally:
        backend.cuda_missing.cache_clear()
        cuda_library.load.cache_clear()
    assert without.built["cuda"] is None
    assert set(without.cuda) == {"torch"}
    assert "libselshare_cuda.so is not there; install from source with nvcc" in text_of(without)


def test_from_the_shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["selshare", "doctor", "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code in (0, None)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(diagnose().to_json()))
    monkeypatch.setattr("sys.argv", ["selshare", "doctor"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "batched_eigh" in capsys.readouterr().out
    monkeypatch.setenv(backend.VARIABLE, "fortran")
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "SELSHARE_BACKEND names the unknown backend" in capsys.readouterr().err
