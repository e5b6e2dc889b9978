"""Compile csrc/cuda into one shared library: ``python csrc/cuda/compile.py OUTPUT.so``; needs nvcc and nothing else.

``python csrc/cuda/compile.py --resources`` prints what each kernel takes of a multiprocessor, as ptxas counts it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TARGETS = ("80,code=sm_80", "90,code=sm_90", "90,code=compute_90")
NEWEST = "100,code=sm_100"  # nvcc 12.8 and newer: its resources are counted; the library has it as compute_90
FLAGS = ("-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-cudart", "static", f"-I{FOLDER.parent}")

ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
KERNEL = re.compile(r"\d([a-z_]+_kernel)I([fd])Li(\d)E")


@dataclass(frozen=True, slots=True)
class Resources:
    """What ptxas says of one kernel on one architecture."""

    kernel: str
    dtype: str
    shared: int
    architecture: int
    registers: int
    stack: int
    spills: int


def nvcc() -> str | None:
    """The compiler, where there is one."""
    return shutil.which("nvcc")


def knows(target: str) -> bool:
    """Whether this nvcc compiles for a target such as ``"100,code=sm_100"``."""
    said = subprocess.run([str(nvcc()), "--list-gpu-code"], capture_output=True, text=True, check=False).stdout
    return target.partition("code=")[2] in said.split()


def compile_sources(output: Path, *flags: str, targets: tuple[str, ...] = TARGETS) -> str:
    """Compile all of csrc/cuda; what the compiler said.

    Raises
    ------
    FileNotFoundError
        If there is no nvcc on the path.
    RuntimeError
        If it fails: the message is the compiler's.
    """
    compiler = nvcc()
    if compiler is None:
        raise FileNotFoundError("nvcc is not on the PATH; install the CUDA toolkit, 12.0 or newer.")
    wanted = [flag for target in targets for flag in ("-gencode", f"arch=compute_{target}")]
    sources = sorted(str(source) for source in FOLDER.glob("*.cu"))
    command = [compiler, *FLAGS, *flags, *wanted, "-o", str(output), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout + done.stderr


def resources() -> list[Resources]:
    """Compile without linking; registers, stack and spills of every kernel on every architecture."""
    with tempfile.TemporaryDirectory() as folder:
        targets = (*TARGETS, NEWEST) if nvcc() and knows(NEWEST) else TARGETS
        log = compile_sources(Path(folder) / "kernels.fatbin", "-fatbin", "--ptxas-options=-v", targets=targets)
    found = []
    for block in log.split("ptxas info    : Compiling")[1:]:
        entry = ENTRY.search("Compiling" + block)
        stack, registers = STACK.search(block), REGISTERS.search(block)
        kernel = KERNEL.search(entry[1]) if entry else None
        if entry is None or kernel is None or stack is None or registers is None:
            raise RuntimeError(f"ptxas said something new: {block}")
        dtype = {"f": "float32", "d": "float64"}[kernel[2]]
        spills = int(stack[2]) + int(stack[3])
        found.append(
            Resources(kernel[1], dtype, int(kernel[3]), int(entry[2]), int(registers[1]), int(stack[1]), spills)
        )
    return sorted(found, key=lambda one: (one.architecture, one.kernel, one.dtype, one.shared))


def main(arguments: list[str]) -> int:
    """Build the library, or print the resources."""
    if arguments == ["--resources"]:
        for one in resources():
            print(
                f"sm_{one.architecture}  {one.kernel:16} {one.dtype}  shared {one.shared}  "
                f"{one.registers:3} registers  {one.stack} bytes of stack  {one.spills} bytes of spills"
            )
        return 0
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    print(compile_sources(Path(arguments[0]), "-shared"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
