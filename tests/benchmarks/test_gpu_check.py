"""benchmarks/gpu_check.py on a machine without a GPU: it notices what is wrong, and says what it did not run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cuda_on_cpu import solved_on_cpu
from selshare.kernels import backend

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks import cuda_model, gpu_cases, gpu_check, gpu_steps, gpu_timing, gpu_training, gpu_worker  # noqa: E402

GPU_PARTS = ["timing", "steps", "training", "sanitizer", "suites"]
ALLOWED = """
from importlib.machinery import PathFinder
BLOCKED = {
    "captum", "fontTools", "hypothesis", "jinja2", "lightning", "matplotlib", "pandas", "PIL", "pybind11", "pytest",
    "rich", "safetensors", "torchjd", "torchmetrics", "torchvision", "typer",
}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.partition(".")[0] in BLOCKED else find(name, path, target)
)
"""


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def options(*parts: str, device: str = "cpu", seconds: float = 60.0) -> gpu_check.Options:
    return gpu_check.Options(device, list(parts), quick=True, seconds=seconds)


def case_of(operation: str, name: str | None = None) -> gpu_cases.Case:
    return next(one for one in gpu_cases.CASES if one.operation == operation and name in (None, one.name))


# What is checked and timed


def test_every_operation_has_cases_and_is_timed() -> None:
    assert {case.operation for case in gpu_cases.CASES} == set(backend.operations())
    assert {name.partition(" ")[0] for name in gpu_timing.CONTESTS} == set(backend.operations())


def test_every_implementation_for_a_device_is_checked() -> None:
    for device in ("cpu", "cuda"):
        wanted = {
            f"{operation} on {one.backend}"
            for operation in backend.operations()
            for one in backend.implementations(operation)
            if one.fits(device) and one.missing() is None
        }
        assert {name.partition(":")[0] for name in gpu_cases.accuracy_items(device)} == wanted


@pytest.mark.parametrize(
    "case",
    [case for case in gpu_cases.CASES if "128" not in case.name],
    ids=lambda case: f"{case.operation}: {case.name}",
)
def test_the_cases_pass_in_torch(case: gpu_cases.Case) -> None:
    row = gpu_cases.check(case, "reference", "cpu")
    assert row["passed"], row
    assert row["errors"]["float64"] == 0.0


@pytest.mark.parametrize("operation", ["batched_eigh", "left_svd", "tt_svd"])
def test_the_cases_pass_on_the_source_of_the_cuda_kernels(operation: str) -> None:
    with solved_on_cpu(operation, "cuda"):
        for case in gpu_cases.CASES:
            if case.operation == operation and "128" not in case.name:
                assert gpu_cases.check(case, "cuda", "cpu")["passed"], case


def broken(matrices: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrices)
    return values.flip(-1) * (1 + 1e-4), vectors.flip(-1)


def raising(matrices: Tensor) -> tuple[Tensor, Tensor]:
    raise RuntimeError("an illegal memory access was encountered")


def infinite(matrices: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrices)
    return values * torch.nan, vectors


def shorter(matrices: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrices)
    return values[1:], vectors[1:]


@pytest.mark.parametrize("wrong", [broken, raising, infinite, shorter])
def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]) -> None:
    rows = [
        row
        if row.backend == "reference"
        else backend.Implementation(
            "batched_eigh", row.backend, __name__, wrong.__name__, ("cpu",), backend.nothing_missing
        )
        for row in backend.implementations("batched_eigh")
    ]
    monkeypatch.setitem(backend._REGISTRY, "batched_eigh", rows)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    case = case_of("batched_eigh", "16 × 16")
    if wrong in (raising, shorter):
        with pytest.raises((RuntimeError, ValueError)):
            gpu_cases.check(case, "native", "cpu")
        return
    row = gpu_cases.check(case, "native", "cpu")
    assert not row["passed"]
    assert (row["errors"]["float32"] is None) == (wrong is infinite)


# Items in processes of their own


def crash(how: str) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        if how == "raises":
            raise ZeroDivisionError("no reason")
        if how == "dies":
            os.kill(os.getpid(), 11)
        if how == "hangs":
            time.sleep(60)
        return {"passed": True}

    return work


def test_an_item_that_raises_dies_or_hangs_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys, time\n"
        "def work(name):\n"
        "    if name == 'dies': os.kill(os.getpid(), 11)\n"
        "    if name == 'hangs': time.sleep(600)\n"
        "for name in json.loads(sys.argv[4]):\n"
        "    print('noise')\n"
        f"    print({gpu_worker.PREFIX!r} + json.dumps({{'name': name, 'begun': True}}), flush=True)\n"
        "    work(name)\n"
        f"    print({gpu_worker.PREFIX!r} + json.dumps({{'name': name, 'passed': True}}), flush=True)\n"
        f"    if name == 'breaks the device': sys.exit({gpu_worker.UNUSABLE})\n"
    )
    monkeypatch.setattr(gpu_worker, "__file__", str(worker))
    names = ["first", "dies", "breaks the device", "hangs", "last"]
    rows = list(gpu_worker.run_items("any", "cpu", True, names, each=8.0, total=60.0))
    assert [row["name"] for row in rows] == names
    assert [row["passed"] for row in rows] == [True, False, True, False, True]
    assert "status -11" in rows[1]["trouble"]
    assert rows[3]["trouble"] == "stopped after 8 s"
    worker.write_text("raise SystemExit('there is no torch')\n")
    (row,) = gpu_worker.run_items("any", "cpu", True, names, each=8.0, total=60.0)
    assert not row["passed"]
    assert "there is no torch" in row["trouble"]
    assert list(gpu_worker.run_items("any", "cpu", True, names, each=8.0, total=1.0)) == []


def test_a_worker_says_what_raised(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_worker, "items", lambda *_: {"a": crash("raises"), "b": crash("works")})
    assert gpu_worker.main(["accuracy", "cpu", "1", '["a", "b"]']) == 0
    lines = [json.loads(line.removeprefix(gpu_worker.PREFIX)) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == ["a", "a", "b", "b"]
    assert lines[1]["trouble"] == "ZeroDivisionError: no reason"
    assert lines[3]["passed"]


# The command


def test_it_needs_nothing_beyond_torch_triton_numba_and_hdbscan(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ALLOWED)
    report = tmp_path / "report.json"
    script = (
        "import sys; sys.path.insert(0, {root!r})\n"
        "from benchmarks import gpu_check, gpu_cases, gpu_steps, gpu_timing, gpu_training\n"
        "gpu_training.TRAIN = 128\n"
        "assert len(gpu_training.training_items('cpu', 1)) == 1\n"
        "assert gpu_training.compared(gpu_training.digits, 'cpu', 1)['passed']\n"
        "sys.exit(gpu_check.main(['--only', 'machine,suites,timing', '--json', {report!r}]))\n"
    )
    command = [sys.executable, "-c", script.format(root=str(ROOT), report=str(report))]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())["parts"]
    assert found["machine"]["status"] == "passed"
    assert set(found["machine"]["rows"][0]["operations"]) == set(backend.operations())


def test_without_a_gpu_it_says_what_was_not_run(
    no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert gpu_check.main(["--only", ",".join(GPU_PARTS), "--json", str(report)]) == 0
    assert "Nothing was run on a GPU." in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["device"] == "cpu"
    assert list(found["parts"]) == GPU_PARTS
    for part in found["parts"].values():
        assert part["status"] == "not run"
        assert part["note"] == "needs a GPU, and torch finds none here"
    assert gpu_check.main(["--only", "timing", "--require-gpu"]) == 2


def test_a_part_that_breaks_fails_and_the_others_run(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(options: gpu_check.Options) -> gpu_check.Part:
        raise ZeroDivisionError("no reason")

    monkeypatch.setitem(gpu_check.PARTS, "build", breaks)
    done = gpu_check.run_parts(options("build", "timing"), minutes=1)
    assert done["build"].status == "FAILED"
    assert done["build"].note == "ZeroDivisionError: no reason"
    assert done["timing"].status == "not run"
    assert gpu_check.status_of(done, False) == 1
    assert gpu_check.status_of({"timing": done["timing"]}, False) == 0
    assert gpu_check.status_of({"timing": done["timing"]}, True) == 2
    late = gpu_check.run_parts(options("build"), minutes=0)
    assert (late["build"].status, late["build"].note) == ("not run", "there was no time left")


def test_accuracy_says_which_cases_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"name": "a on b: c", "passed": True, "errors": {"float32": 0.5, "float64": 0.25}}
    bad = {"name": "a on d: c", "passed": False, "errors": {"float32": 7.0, "float64": 0.25}}
    gone = {"name": "a on e: c", "passed": False, "trouble": "stopped after 60 s"}
    monkeypatch.setattr(gpu_check, "items", lambda *_: {row["name"]: None for row in (good, bad, gone)})
    monkeypatch.setattr(gpu_check, "run_items", lambda *_, **__: iter([good, bad, gone]))
    part = gpu_check.accuracy(options("accuracy"))
    assert part.status == "FAILED"
    assert part.note.splitlines()[0].startswith("3 cases in two types, 2 wrong; on the CPU only")
    assert "a on e: c: stopped after 60 s" in part.note
    assert "WRONG" in capsys.readouterr().out
    monkeypatch.setattr(gpu_check, "run_items", lambda *_, **__: iter([good]))
    part = gpu_check.accuracy(options("accuracy"))
    assert part.status == "not run"
    assert "no time, or no process, for 2: a on d: c, a on e: c" in part.note


def test_commands_are_stopped_and_failures_shown() -> None:
    commands = {
        "good": [sys.executable, "-c", "print('fine')"],
        "bad": [sys.executable, "-c", "raise SystemExit('broken')"],
        "slow": ["sleep", "60"],
    }
    rows = {row["what"]: row for row in gpu_check._commands(commands, 5.0)}
    assert {what: row["passed"] for what, row in rows.items()} == {"good": True, "bad": False, "slow": False}
    assert gpu_check._last_line(rows["good"]) == "fine"
    assert "broken" in gpu_check._what_failed([rows["bad"]])[0]
    assert rows["slow"]["output"].endswith("stopped after 5 s")


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(["--only", "speed"])
    assert stopped.value.code == 2
    assert "there is no part speed" in capsys.readouterr().err


def test_missing_tools_are_named(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    built, compiled = gpu_check.build(options("build")), gpu_check.compile_(options("compile"))
    assert built.status == compiled.status == "not run"
    assert "no nvcc" in built.note
    assert "no pybind11" in built.note
    assert "CUDA kernels: not run, as nvcc is not there" in compiled.note
    there = options("suites", device="cuda")
    assert gpu_check.suites(there).note == "needs pytest and hypothesis (pip install pytest hypothesis)"
    assert gpu_check.sanitizer(there).note.startswith("compute-sanitizer is not on the PATH")


def test_training_is_compared_epoch_by_epoch() -> None:
    one = gpu_training.Epoch(2.0, 0.9, 8, [[2, 3]], 1.0)
    for other, same in (
        (gpu_training.Epoch(2.001, 0.905, 8, [[2, 3]], 9.0), True),
        (gpu_training.Epoch(2.01, 0.9, 8, [[2, 3]], 1.0), False),
        (gpu_training.Epoch(2.0, 0.8, 8, [[2, 3]], 1.0), False),
        (gpu_training.Epoch(2.0, 0.9, 8, [[2, 4]], 1.0), False),
        (gpu_training.Epoch(float("nan"), 0.9, 8, [[2, 3]], 1.0), False),
    ):
        row = gpu_training.compared(lambda device, _, other=other: [one if device == "cpu" else other], "there", 1)
        assert row["passed"] == same


def test_digits_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_training, "TRAIN", 320)
    first, second = gpu_training.digits("cpu", 2)
    assert second.loss < first.loss
    assert second.accuracy > 0.88
    (by_trainer,) = gpu_training.digits_by_trainer("cpu", 1)
    assert abs(by_trainer.loss - first.loss) < 0.2 * first.loss


def test_contests_do_the_same_work_and_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def milliseconds(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - started)

    monkeypatch.setattr(gpu_timing, "_milliseconds", milliseconds)
    part = 500
    for name, work in gpu_timing.timing_items("cpu", 1, part).items():
        row = work()
        assert name.partition(" ")[0] == row["operation"]
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert "ms" in gpu_check._timed(row)
    for make in (
        gpu_timing._linear,
        gpu_timing._weight_gradient,
        gpu_timing._gram,
        gpu_timing._project,
        gpu_timing._cores,
        gpu_timing._reachability,
    ):
        contest = make("cpu", part)
        off_diagonal = ~torch.eye(len(contest.ours()), dtype=torch.bool) if make is gpu_timing._reachability else ...
        torch.testing.assert_close(contest.ours()[off_diagonal], contest.theirs()[off_diagonal], rtol=1e-3, atol=1e-3)
    contest = gpu_timing._linear_backward("cpu", part)
    torch.testing.assert_close(contest.ours().inputs, contest.theirs()[0], rtol=1e-4, atol=1e-4)


def test_a_slow_contest_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_timing, "_milliseconds", lambda work: work() or 1.0)
    monkeypatch.setattr(gpu_timing, "PATIENCE", 0.0)
    calls: list[str] = []
    contest = gpu_timing.Contest("any", lambda: calls.append("ours"), lambda: calls.append("theirs"), "torch")
    assert gpu_timing._interleaved(contest, 20) == (1.0, 1.0)
    assert calls == ["ours", "theirs"]


def test_the_model_knows_what_fits_a_multiprocessor() -> None:
    if not cuda_model.cuda_library.path().exists():
        pytest.skip("the CUDA library was not built: nvcc is not on the PATH")
    launch = cuda_model.plan(cuda_model.A100, "eigh", torch.float32, 1000, (128,))
    assert cuda_model.resident(cuda_model.A100, launch) == 1
    assert cuda_model.resident(cuda_model.H100, launch) == 2
    times = [
        cuda_model.milliseconds(gpu, "eigh", torch.float64, count, (80,))
        for gpu, count in ((cuda_model.H100, 1000), (cuda_model.A100, 1000), (cuda_model.A100, 4000))
    ]
    assert times == sorted(times)
    assert "| eigh float64 | 128 | 512 | 69 / 198 | workspace / shared |" in cuda_model.tables((128,))


# Steps in a CUDA graph


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize(("capture", "branches"), [("exact", 10), ("sketch", 10), ("exact", 3)])
def test_replayed_steps_are_compared_with_steps(
    monkeypatch: pytest.MonkeyPatch, capture: str, branches: int, wrong: bool
) -> None:
    """On stand-ins for CUDA's: a graph that runs the step it was shown, or (``wrong``) leaves one out."""
    step, shown, replays = gpu_steps.step, [], []

    def maybe(*arguments: Any) -> None:
        if recording:
            shown.append(arguments)
        else:
            step(*arguments)

    recording: list[bool] = []

    @contextlib.contextmanager
    def graph(_: Any) -> Any:
        recording.append(True)
        yield
        recording.clear()

    def replay() -> None:
        replays.append(True)
        if not (wrong and len(replays) == 2):
            step(*shown[-1])

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(gpu_steps, "step", maybe)
    for name, stand_in in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: contextlib.nullcontext(),
        "synchronize": lambda: None,
        "CUDAGraph": lambda: SimpleNamespace(replay=replay),
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    expected = pytest.raises(AssertionError) if wrong else contextlib.nullcontext()
    with expected:
        assert gpu_steps.replayed_step_agrees("cpu", gpu_steps.OPTIMIZERS["BankSGD"], capture, branches)["passed"]
    assert len(shown) == 1
    assert len(replays) == gpu_steps.REPLAYS
