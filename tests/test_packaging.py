"""What is installed from a wheel and an sdist is whole, and imports away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Run in the fresh environment: the compiled kernel, the dispatch and a training step, from the installed files.
PROBE = """
import pathlib, sys, torch, selshare
assert pathlib.Path(selshare.__file__).is_relative_to(sys.prefix), selshare.__file__
from selshare.kernels import backend, batched_eigh, use
with use("native"):
    values, vectors = batched_eigh(torch.eye(3, dtype=torch.float64).repeat(2, 1, 1))
assert values.eq(1).all()
model = selshare.MultiTaskModel(torch.nn.Linear(3, 4), 4, (5,), [selshare.Task.binary("a"), selshare.Task.binary("b")])
model.loss(model(torch.randn(6, 3)), torch.ones(6, 2)).backward()
print("works")
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, and the sdist, so that the sdist is known to hold all that the build needs."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_runs_in_a_fresh_environment(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    # The dependencies (gigabytes) are borrowed from this environment; the package is not, as the wheel's comes first.
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "works"


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
