"""``python -m benchmarks.triton_aot``: every Triton kernel compiled for three architectures, and what it moves.

Prints the tables of docs/gpu.md; ``--json FILE`` writes the rows, ``--only NAME`` keeps the operations of that name.
Needs no GPU. Exits with 1 if a kernel spills registers or has a stack frame.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import triton

from benchmarks.triton_cases import CASES, Case
from benchmarks.triton_compile import compiled
from benchmarks.triton_ir import Code
from benchmarks.triton_traffic import stays_inside, traffic

ARCHITECTURES = (80, 90, 100)
COUNTED_CACHE = 10 << 20  # bytes: a quarter of an A100's L2, as other traffic shares it
# Memory bandwidth in bytes a second, operations a second by unit (NVIDIA's data sheets), and the part of each that
# well-written kernels reach.
GPUS = {
    "A100": {"memory": 1.555e12, "fp32": 19.5e12, "tf32": 156e12, "fp64": 9.7e12, "fp64 tensor": 19.5e12},
    "H100": {"memory": 3.35e12, "fp32": 66.9e12, "tf32": 494e12, "fp64": 33.5e12, "fp64 tensor": 66.9e12},
}
REACHED = {"memory": 0.85, "arithmetic": 0.6}


@dataclass(frozen=True)
class Row:
    """What is known of a case without running it."""

    operation: str
    variant: str
    registers: dict[int, int]
    stack: dict[int, int]
    shared: dict[int, int]
    occupancy: dict[int, float]
    least: int
    moved: float  # times the least
    requested: float  # times the least
    stores_agree: bool  # the machine code stores as many bytes as the intermediate code
    huge_stays_inside: bool  # no address overflows where offsets pass 2³¹
    separate: float  # times the least
    milliseconds: dict[str, float]
    separate_milliseconds: dict[str, float]


def row(case: Case) -> Row:
    """Compile and count a case."""
    launch = case.launch(case.size)
    made = {architecture: compiled(launch, architecture) for architecture in ARCHITECTURES}
    counted = case.launch(case.counted_size)
    code = Code(compiled(counted, ARCHITECTURES[0]).ttir)
    huge = case.launch(case.huge_size) if case.huge_size else None
    least = case.least(case.counted_size)
    bytes_ = traffic(code, counted, COUNTED_CACHE)
    moved = bytes_.moved / least
    return Row(
        case.operation,
        case.variant,
        {a: c.registers for a, c in made.items()},
        {a: c.stack for a, c in made.items()},
        {a: c.shared for a, c in made.items()},
        {a: c.occupancy for a, c in made.items()},
        case.least(case.size),
        moved,
        bytes_.requested * (case.size / case.counted_size) ** case.growth / case.least(case.size),
        all(c.stored_bytes == code.stored_bytes(c.threads) for c in made.values()),
        huge is None or stays_inside(Code(compiled(huge, ARCHITECTURES[0]).ttir), huge),
        case.separate(case.size) / case.least(case.size),
        {gpu: _milliseconds(case, gpu, moved * case.least(case.size)) for gpu in GPUS},
        {gpu: _milliseconds(case, gpu, case.separate(case.size)) for gpu in GPUS},
    )


def _milliseconds(case: Case, gpu: str, moved: float) -> float:
    """The longer of moving and computing."""
    rates = GPUS[gpu]
    moving = moved / (rates["memory"] * REACHED["memory"])
    computing = case.flops(case.size) / (rates[case.arithmetic] * REACHED["arithmetic"])
    return 1e3 * max(moving, computing)


def resources_table(rows: list[Row]) -> str:
    """Registers, shared memory and occupancy as Markdown."""
    lines = [
        "| kernel | registers sm_80 / 90 / 100 | spills, stack | shared memory, KiB | occupancy |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {_title(r)} | {' / '.join(map(str, r.registers.values()))} | {max(r.stack.values())} | "
        f"{' / '.join(f'{b / 1024:.0f}' for b in r.shared.values())} | "
        f"{' / '.join(f'{o:.0%}' for o in r.occupancy.values())} |"
        for r in rows
    ]
    return "\n".join(lines)


def traffic_table(rows: list[Row]) -> str:
    """Bytes and predicted times as Markdown."""
    lines = [
        "| kernel | least possible, MB | moved | asked of L2 | torch, separately | A100, µs: ours, torch | "
        "H100, µs: ours, torch |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        times = [f"{1e3 * r.milliseconds[gpu]:.3g}, {1e3 * r.separate_milliseconds[gpu]:.3g}" for gpu in GPUS]
        lines.append(
            f"| {_title(r)} | {r.least / 1e6:.0f} | {r.moved:.2f}× | {r.requested:.2f}× | {r.separate:.2f}× | "
            f"{' | '.join(times)} |"
        )
    return "\n".join(lines)


def _title(r: Row) -> str:
    return f"{r.operation}, {r.variant}" if r.variant else r.operation


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only")
    options = parser.parse_args()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the compiler runs outside the interpreter's lock
        rows = list(pool.map(row, [case for case in CASES if options.only in (None, case.operation)]))
    print(f"triton {triton.__version__}\n\n{resources_table(rows)}\n\n{traffic_table(rows)}")
    if options.json:
        options.json.write_text(json.dumps({"triton": triton.__version__, "rows": [asdict(r) for r in rows]}, indent=1))
    return int(any(any(r.stack.values()) for r in rows))


if __name__ == "__main__":
    sys.exit(main())
