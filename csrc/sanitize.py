"""Build csrc/cpu with AddressSanitizer and UBSan beside the package, and run the native tests on it: ``make sanitize``.

``python csrc/sanitize.py [pytest arguments]`` compiles into build/sanitized/selshare, a folder of links to src/selshare
that has a compiled extension of its own, and runs the tests of every operation that has native code, and those of
clusters, with each width of vectors that the processor has. The first error ends the run: nothing is recovered from.
What Python itself never frees is not looked at. The interpreted, CUDA and Triton tests touch no C++ and are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "selshare"
BUILT = ROOT / "build" / "sanitized"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = (
    "-std=c++17",
    "-O1",
    "-g1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fopenmp",
    "-fPIC",
    "-Wno-psabi",
)
TESTS = (
    "tests/kernels/test_batched_eigh.py",
    "tests/kernels/test_blocks.py",
    "tests/kernels/test_capture_gradients.py",
    "tests/kernels/test_cuda_solvers.py",
    "tests/kernels/test_fused_step.py",
    "tests/kernels/test_joint_tt_svd.py",
    "tests/kernels/test_left_svd.py",
    "tests/kernels/test_reachability.py",
    "tests/kernels/test_sketch.py",
    "tests/kernels/test_spanning_tree.py",
    "tests/kernels/test_stacked_linear.py",
    "tests/kernels/test_subnormals.py",
    "tests/kernels/test_tt_svd.py",
    "tests/model/test_dropout.py",
    "tests/cluster",
    "tests/stress/test_fuzzed_kernels.py",
    "tests/stress/test_kernel_threads.py",
)
WIDTH_TESTS = tuple(f"tests/kernels/test_{name}.py" for name in ("capture_gradients", "fused_step", "stacked_linear"))
WITHOUT = "not triton and not compil and not reference and not blocked and not numba"  # no C++ there


def build() -> Path:
    """Compile; objects whose sources have not changed since are kept. Returns the folder to import selshare from."""
    folder = BUILT / "selshare"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in PACKAGE.iterdir():
        link = folder / entry.name
        if entry.suffix != ".so" and entry.name != "__pycache__" and not link.exists():
            link.symlink_to(entry)
    target = folder / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    headers = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*.hpp"))
    includes = (f"-I{ROOT / 'csrc'}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}")
    objects, changed = [], not target.exists()
    for source in (ROOT / "csrc" / "bindings.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))):
        made = BUILT / f"{source.stem}.o"
        objects.append(str(made))
        newest = max(headers, source.stat().st_mtime)
        if not made.exists() or made.stat().st_mtime < newest:
            changed = True
            subprocess.run([COMPILER, *FLAGS, *includes, "-c", str(source), "-o", str(made)], check=True)
    if changed:
        subprocess.run([COMPILER, *FLAGS, "-shared", *objects, "-o", str(target)], check=True)
    return BUILT


def environment(package: Path) -> dict[str, str]:
    """The sanitizers' libraries before everything else, and the sanitized package before the installed one."""
    libraries = [_library(name) for name in ("libasan.so", "libstdc++.so")]  # the second: exceptions are looked at too
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:malloc_context_size=8",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONPATH": str(package),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }


def _library(name: str) -> str:
    """Where the compiler keeps one of its libraries."""
    found = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return str(Path(found.stdout.strip()).resolve())


BEYOND = (
    "import numpy as np; from selshare import _native; a = np.zeros(9000);"
    "_native.kth_smallest(a.ctypes.data, 100, 1, a.ctypes.data, 1)"  # 100 x 100 numbers: more than there are
)


def check(env: dict[str, str]) -> None:
    """Raise unless the sanitized extension is the one imported, and a read beyond an array ends the process."""
    found = "import selshare._native as native; print('testing', native.__file__, flush=True)"
    subprocess.run([sys.executable, "-c", found], cwd=ROOT, env=env, check=True)
    seen = subprocess.run(
        [sys.executable, "-c", BEYOND], cwd=ROOT, env=env, check=False, capture_output=True, text=True
    )
    if "heap-buffer-overflow" not in seen.stderr:
        raise RuntimeError(f"a read beyond an array went unseen; is {COMPILER} building with AddressSanitizer?")


def test(package: Path, arguments: list[str]) -> int:
    """Run the tests; the first exit status that is not zero."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", WITHOUT]
    base = environment(package)
    check(base)
    if arguments:
        return subprocess.run([*command, *arguments], cwd=ROOT, env=base, check=False).returncode
    status = subprocess.run([*command, *TESTS], cwd=ROOT, env=base, check=False).returncode
    for width in ("32", "16"):
        print(f"vectors of {width} bytes:", flush=True)
        narrow = {**base, "SELSHARE_VECTOR_BYTES": width}
        status = subprocess.run([*command, *WIDTH_TESTS], cwd=ROOT, env=narrow, check=False).returncode or status
    return status


if __name__ == "__main__":
    sys.exit(test(build(), sys.argv[1:]))
