"""Builds csrc/: the CPU extension always, the CUDA library where nvcc is found."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

ROOT = Path(__file__).resolve().parent
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]
# The widest vectors a clone may use; which clone runs is decided at load time (csrc/cpu/dispatch.hpp).
WIDE = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []


def sources(folder: str, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern))


native = Pybind11Extension(
    "selshare._native",
    ["csrc/bindings.cpp", *sources("csrc/cpu", "*.cpp")],
    include_dirs=["csrc"],
    depends=sources("csrc", "**/*.hpp"),
    cxx_std=17,
    extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", *WIDE, *OPENMP],
    extra_link_args=OPENMP,
)


class BuildNative(build_ext):
    """Adds the CUDA library (plain C ABI, loaded with ctypes) beside the extension."""

    def run(self) -> None:
        super().run()
        if shutil.which("nvcc"):
            library = Path(self.get_ext_fullpath("selshare._cuda")).with_name("libselshare_cuda.so")
            library.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, "csrc/cuda/compile.py", str(library)], cwd=ROOT, check=True)


setup(ext_modules=[native], cmdclass={"build_ext": BuildNative})
