"""What is installed from a wheel and an sdist is whole, and imports away from the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Run in the fresh environment, from the installed files: the compiled kernel, and a few epochs of training that merge.
PROBE = """
import importlib.util, pathlib, shutil, sys, torch, selshare
assert pathlib.Path(selshare.__file__).is_relative_to(sys.prefix), selshare.__file__
assert importlib.util.find_spec("triton") is None
assert not any(shutil.which(program) for program in ("gcc", "cc", "g++", "clang", "nvcc"))
from selshare.kernels import batched_eigh, use
with use("{backend}"):
    values, vectors = batched_eigh(torch.eye(3, dtype=torch.float64).repeat(2, 1, 1))
assert values.eq(1).all()
tasks = [selshare.Task.binary(name) for name in "abcd"]
model = selshare.MultiTaskModel(torch.nn.Linear(3, 4), 4, (5,), tasks)
inputs = torch.randn(64, 3)
targets = (inputs[:, [0, 0, 1, 1]] > 0).float()
sharing = selshare.SelectiveSharing(warmup=1)
selshare.Trainer(model, sharing=sharing, progress=False).fit((inputs, targets), epochs=2)
assert len(sharing.events) == 2
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
print("works, OpenMP:", *sorted({{line.split()[-1] for line in maps if "libgomp" in line}}))
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, and the sdist, so that the sdist is known to hold all that the build needs."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def environment(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and links to the dependencies (gigabytes) but for Triton."""
    (wheel,) = distributions.glob("*.whl")
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    install = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", wheel], check=True)
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"triton|selshare|__editable__|_.*\.pth$", entry.name):
            (borrowed / entry.name).symlink_to(entry)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "borrowed.pth").write_text(f"{borrowed}\n")
    return folder


def run_in(environment: Path, *arguments: str) -> str:
    """Run Python there, without compilers or nvcc in reach and away from the repository; what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SELSHARE"))}
    done = subprocess.run(
        [environment / "bin" / "python", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=environment,
        env=clean | {"PATH": str(environment / "bin"), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_runs_without_triton_and_compilers(environment: Path) -> None:
    said = run_in(environment, "-W", "error::UserWarning", "-c", PROBE.format(backend="native"))
    assert said.startswith("works")
    assert said.count("/libgomp.so.1") == 1, "the extension has no OpenMP of its own beside PyTorch's"


def test_without_the_compiled_kernels_it_is_slower_and_says_so(environment: Path) -> None:
    (native,) = environment.rglob("selshare/_native.*.so")
    aside = native.rename(environment / native.name)
    try:
        said = run_in(environment, "-c", PROBE.format(backend="reference"))
        doctor = run_in(environment, "-c", "from selshare.cli import main; main()", "doctor")
    finally:
        aside.rename(native)
    assert "works" in said
    assert "runs on the slower backend 'reference', because of native: the compiled extension" in said
    assert re.search(r"Slower than they could be: .*batched_eigh", doctor)


def test_the_wheel_is_manylinux(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    command = [sys.executable, "-m", "auditwheel", "repair", "--exclude", "libgomp.so.1", "-w", str(tmp_path)]
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([*command, str(wheel)], env=os.environ | {"PATH": tools}, check=True, capture_output=True)
    (repaired,) = tmp_path.glob("*.whl")
    assert "manylinux" in repaired.name
    with zipfile.ZipFile(repaired) as archive:
        assert not [name for name in archive.namelist() if "libgomp" in name]


def test_the_distributions_are_whole(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    (sdist,) = distributions.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        wheel_names = archive.namelist()
    assert any(name.startswith("selshare/_native.") and name.endswith(".so") for name in wheel_names)
    for name in ("selshare/py.typed", "selshare/kernels/backend.py", "selshare/_native.pyi"):
        assert name in wheel_names
    with tarfile.open(sdist) as archive:
        sdist_names = {name.split("/", 1)[-1] for name in archive.getnames()}
    tracked = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert tracked <= sdist_names
