"""Ahead-of-time compilation of Triton launches: what each needs of a multiprocessor, without a GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from selshare.kernels.launch import Launch

TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "i1",
}
# Of a multiprocessor, by compute capability: shared memory in bytes, threads, blocks. All have 65,536 registers.
LIMITS = {80: (164 << 10, 2048, 32), 90: (228 << 10, 2048, 32), 100: (228 << 10, 2048, 32)}
REGISTERS = 65536
RESERVED = 1024  # bytes of shared memory that the driver keeps of each block


@dataclass(frozen=True)
class Compiled:
    """A launch compiled for one architecture."""

    architecture: int
    registers: int
    stack: int
    shared: int
    threads: int
    ttir: str
    ptx: str

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor holds at once."""
        shared, threads, most = LIMITS[self.architecture]
        registers = -(-self.registers // 8) * 8 * self.threads
        return min(REGISTERS // registers, shared // (self.shared + RESERVED), threads // self.threads, most)

    @property
    def occupancy(self) -> float:
        """Threads that a multiprocessor holds at once, as a part of what it can."""
        return self.blocks * self.threads / LIMITS[self.architecture][1]

    @property
    def stored_bytes(self) -> int:
        """Bytes that the machine code's store instructions write, all threads of a block together."""
        words = re.findall(r"st\.global(?:\.v(\d))?\.b(\d+)", self.ptx)
        return self.threads * sum(int(count or 1) * int(bits) // 8 for count, bits in words)


def compiled(launch: Launch, architecture: int) -> Compiled:
    """Compile for ``architecture`` (80, 90, 100), specialised on the arguments as a launch would be."""
    target = GPUTarget("cuda", architecture, 32)
    options = {name: value for name, value in launch.options.items() if value is not None}
    kernel = triton.compile(_source(launch), target=target, options=options)
    registers, stack = _resources(kernel.asm["cubin"])
    return Compiled(
        architecture, registers, stack, kernel.metadata.shared, launch.warps * 32, kernel.asm["ttir"], kernel.asm["ptx"]
    )


def _source(launch: Launch) -> ASTSource:
    """The kernel with the types of its arguments, and what the launcher would tell the compiler of their values."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for position, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = "*" + TYPES[value.dtype]
            attributes[(position,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = parameter.annotation_type or "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(position,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack: spilled registers and frames."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", report)
    if found is None:
        raise RuntimeError(f"cuobjdump reports no resources: {report}")
    return int(found[1]), int(found[2]) + int(found[3])
