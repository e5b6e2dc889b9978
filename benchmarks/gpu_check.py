"""``python benchmarks/gpu_check.py``: build the kernels and prove them on a GPU, in one command.

Parts, in order (``--only NAME,NAME`` takes some of them):

build      compiles csrc: the CUDA library with nvcc, the C++ extension where pybind11 is installed
machine    versions, GPU, and what each operation will use and why (as ``selshare doctor``)
accuracy   every implementation of every operation on the device against float64 references
timing     kernels against torch's operations and against the model's time, with CUDA events
steps      training steps in which the host never waits; operations and a whole step in a CUDA graph
training   the bundled digits end to end on the device, compared with the CPU
sanitizer  compute-sanitizer's four tools on the CUDA kernels, where it is installed
suites     tests/kernels on the device, where pytest and hypothesis are installed
compile    registers, stack and spills of the CUDA kernels (nvcc) and of the Triton kernels (triton)

Needs torch, triton, numba, hdbscan and this repository; what else a part needs is said where it is missing. No part
takes over two minutes (``build`` four) and all together no more than ``--minutes``; what there was no time for is
said. A kernel that fails, hangs or ends its process costs the others nothing. Without a GPU ``accuracy`` checks the
implementations for CPUs, and the parts that need a GPU are listed as not run.

Exit status: 0 nothing failed, 1 something failed, 2 the command line is wrong, or ``--require-gpu`` was given and a
part was not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [path for path in (str(Path(__file__).resolve().parents[1]),) if path not in sys.path]

from benchmarks.bare import ROOT, use_bare_package  # noqa: E402

use_bare_package()

import torch  # noqa: E402

from benchmarks.gpu_worker import items, run_items  # noqa: E402

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
NO_GPU = "needs a GPU, and torch finds none here"
LONGEST = 115.0  # seconds a part may take
BUILDING = 235.0  # and the part that builds: two busy cores need over two minutes for the C++ extension
EACH = 60.0  # seconds an item of a part may take
SUITES_AT_ONCE = 8
Row = dict[str, Any]


@dataclass
class Part:
    """How a part went; ``note`` is printed below it, ``rows`` go to the JSON file."""

    status: str
    note: str = ""
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Options:
    """The command line, and how long the part that runs may take."""

    device: str
    parts: list[str]
    quick: bool
    seconds: float = LONGEST


def say(*lines: str) -> None:
    """Print at once, so that what is known is on the screen if this is stopped."""
    print(*lines, sep="\n", flush=True)


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of columns."""
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# What is built, and on what


def build(options: Options) -> Part:
    """Compile what can be compiled, at once."""
    library = ROOT / "src" / "selshare" / "libselshare_cuda.so"
    commands: dict[str, list[str]] = {}
    notes = []
    if shutil.which("nvcc"):
        commands["CUDA library"] = [sys.executable, "csrc/cuda/compile.py", str(library)]
    else:
        notes.append(f"no nvcc: the CUDA library is {'the one already there' if library.exists() else 'missing'}")
    if importlib.util.find_spec("pybind11") and importlib.util.find_spec("setuptools"):
        commands["C++ extension"] = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    else:
        notes.append("no pybind11 or no setuptools: the C++ extension is the one already there, if any")
    rows = _commands(commands, options.seconds)
    return Part(_status(rows) if rows else NOT_RUN, "\n".join([*notes, *_what_failed(rows)]), rows)


def machine(options: Options) -> Part:
    """What selshare finds here."""
    from selshare.doctor import diagnose

    found = diagnose().to_json()
    versions = {**found["versions"], **{f"CUDA of {whose}": version for whose, version in found["cuda"].items()}}
    say(", ".join(f"{name} {version or 'none'}" for name, version in versions.items()))
    say(*(f"{gpu['name']}, {gpu['capability']}, {gpu['memory_gib']} GiB" for gpu in found["machine"]["gpus"]))
    say(*(f"{name} kernels cannot run: {reason}" for name, reason in found["missing"].items() if reason))
    kind = "cuda" if options.device != "cpu" else "cpu"
    uses = {operation: by_device[kind] for operation, by_device in found["operations"].items()}
    say(*aligned((operation, use["backend"] or "–", "; ".join(use["refused"])) for operation, use in uses.items()))
    slower = [operation for operation, use in uses.items() if use["refused"]]
    if kind == "cuda" and slower:
        return Part(FAILED, f"not the best implementation: {', '.join(slower)}", [found])
    return Part(PASSED, "", [found])


def compile_(options: Options) -> Part:
    """Resources of the compiled kernels."""
    commands, notes = {}, []
    if shutil.which("nvcc"):
        commands["CUDA kernels"] = [sys.executable, "csrc/cuda/compile.py", "--resources"]
    else:
        notes.append("CUDA kernels: not run, as nvcc is not there")
    if importlib.util.find_spec("triton"):
        commands["Triton kernels"] = [sys.executable, "-m", "benchmarks.triton_aot"]
    else:
        notes.append("Triton kernels: not run, as triton is not there")
    rows = _commands(commands, options.seconds)
    for row in rows:
        if row["what"] == "CUDA kernels" and row["passed"]:
            lines = row["output"].splitlines()
            row["passed"] = bool(lines) and all("  0 bytes of stack  0 bytes of spills" in line for line in lines)
        if row["passed"]:
            notes.append(f"{row['what']}: no stack, no spills")
    return Part(_status(rows) if rows else NOT_RUN, "\n".join([*notes, *_what_failed(rows)]), rows)


# What runs on the device, item by item


def accuracy(options: Options) -> Part:
    """Every implementation against float64 references."""
    rows, skipped = _items("accuracy", options, lambda row: "" if row["passed"] else _trouble(row))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["name"].partition(":")[0], []).append(row)
    titles = ("operation on implementation", "cases", "error / allowed: float32", "float64")
    say(*aligned([titles, *((name, str(len(members)), *_worst(members)) for name, members in groups.items())]))
    where = "" if options.device != "cpu" else "; on the CPU only: the GPU's implementations were not run"
    wrong = [f"{row['name']}: {_trouble(row)}" for row in rows if not row["passed"]]
    note = f"{len(rows)} cases in two types, {len(wrong)} wrong{where}"
    return Part(_status(rows, skipped), "\n".join([note, *wrong, *_no_time(skipped)]), rows)


def _worst(rows: list[Row]) -> tuple[str, str]:
    """The largest errors, or that some are wrong."""
    if not all(row["passed"] for row in rows):
        return ("WRONG", "")
    return tuple(f"{max(row['errors'][dtype] for row in rows):.2g}" for dtype in ("float32", "float64"))  # type: ignore[return-value]


def timing(options: Options) -> Part:
    """Ours, torch's and the model's."""
    if options.device == "cpu":
        return Part(NOT_RUN, NO_GPU)
    rows, skipped = _items("timing", options, _timed)
    return Part(_status(rows, skipped), "\n".join(_no_time(skipped)), rows)


def _timed(row: Row) -> str:
    """A line of the table."""
    if not row["passed"]:
        return _trouble(row)
    line = f"{row['ours']:9.3f} ms, {row['peer']} {row['theirs']:.3f} ms: {row['theirs'] / row['ours']:.2f}×"
    return line if row["model"] is None else f"{line}; model {row['model']:.3f} ms, {row['model'] / row['ours']:.0%}"


def steps(options: Options) -> Part:
    """Steps without waiting, and in CUDA graphs."""
    if options.device == "cpu":
        return Part(NOT_RUN, NO_GPU)
    rows, skipped = _items("steps", options, lambda row: "yes" if row["passed"] else _trouble(row))
    return Part(_status(rows, skipped), "\n".join(_no_time(skipped)), rows)


def training(options: Options) -> Part:
    """Digits on the device and on the CPU."""
    if options.device == "cpu":
        return Part(NOT_RUN, NO_GPU)
    rows, skipped = _items("training", options, lambda row: "as on the CPU" if row["passed"] else _trouble(row))
    for row in rows:
        lines = [("epoch", "loss CPU", "GPU", "accuracy CPU", "GPU", "branches CPU", "GPU", "s CPU", "GPU")]
        for one in row.get("epochs", []):
            cpu, gpu = one["cpu"], one["device"]
            pairs = [f"{side[key]:.5f}" for key in ("loss", "accuracy") for side in (cpu, gpu)]
            counts = [str(side["branches"]) for side in (cpu, gpu)] + [f"{side['seconds']:.2f}" for side in (cpu, gpu)]
            lines.append((str(one["epoch"]), *pairs, *counts))  # type: ignore[arg-type]
        say(row["name"], *aligned(lines))
    return Part(_status(rows, skipped), "\n".join(_no_time(skipped)), rows)


def _items(part: str, options: Options, words: Callable[[Row], str]) -> tuple[list[Row], list[str]]:
    """Run all items of a part, say each as it ends; the rows, and the names of those without a row."""
    names = list(items(part, options.device, options.quick))
    rows = []
    for row in run_items(part, options.device, options.quick, names, each=EACH, total=options.seconds):
        rows.append(row)
        if words(row):
            say(f"  {row['name']}: {words(row)}")
    done = {row["name"] for row in rows}
    return rows, [name for name in names if name not in done]


def _trouble(row: Row) -> str:
    """Why an item did not pass."""
    return str(row.get("trouble") or row.get("errors") or "it differs")


def _no_time(skipped: list[str]) -> list[str]:
    return [f"no time, or no process, for {len(skipped)}: {', '.join(skipped)}"] if skipped else []


# What runs other programs on the device


def sanitizer(options: Options) -> Part:
    """The CUDA kernels under compute-sanitizer."""
    if options.device == "cpu":
        return Part(NOT_RUN, NO_GPU)
    program = shutil.which("compute-sanitizer")
    if program is None:
        return Part(NOT_RUN, "compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
    target = [sys.executable, str(ROOT / "benchmarks" / "gpu_sanitized.py")]
    commands = {tool: [program, "--tool", tool, "--error-exitcode", "99", *target] for tool in TOOLS}
    # Without torch's cache every tensor is an allocation of its own, so that each byte beside it is noticed.
    rows = _commands(commands, options.seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    return Part(_status(rows), "\n".join([f"{row['what']}: {_last_line(row)}" for row in rows]), rows)


def suites(options: Options) -> Part:
    """The tests of all operations, Triton and CUDA implementations on the device; several files at once."""
    if options.device == "cpu":
        return Part(NOT_RUN, NO_GPU)
    missing = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing:
        return Part(NOT_RUN, f"needs {' and '.join(missing)} (pip install {' '.join(missing)})")
    chosen = ["-k", "(triton or cuda or every_backend) and not compiled and not interpreted"]
    base = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", *chosen]
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "tests" / "kernels").glob("test_*.py"))
    rows = _commands(
        {file.stem: [*base, str(file)] for file in files},
        options.seconds,
        accepted=(0, 5),  # 5: the file has no such test
        at_once=SUITES_AT_ONCE,
        SELSHARE_TEST_DEVICE=options.device,
        OMP_NUM_THREADS="1",
    )
    lines = [f"{row['what']}: {'' if row['passed'] else 'FAILED, '}{_last_line(row)}" for row in rows]
    return Part(_status(rows), "\n".join([*lines, *_what_failed(rows)]), rows)


def _commands(
    commands: Mapping[str, list[str]],
    seconds: float,
    *,
    accepted: tuple[int, ...] = (0,),
    at_once: int = 4,
    **environment: str,
) -> list[Row]:
    """Run several at once; for each whether it succeeded and the end of what it printed."""
    end = time.monotonic() + seconds

    def run(what: str) -> Row:
        row = _command(commands[what], end - time.monotonic(), accepted, environment)
        return {"what": what, **row}

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(run, commands))


def _command(command: list[str], seconds: float, accepted: tuple[int, ...], environment: dict[str, str]) -> Row:
    """Run a command in the repository, for so many seconds."""
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    if seconds <= 0:
        return {"passed": False, "output": "not begun: there was no time left", "seconds": 0.0}
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths} | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            passed, why = process.wait(timeout=seconds) in accepted, ""
        except subprocess.TimeoutExpired:
            passed, why = False, f"\nstopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # whatever it has started, too
                process.wait()
        output.seek(0)
        said = output.read()[-8000:] + why
    return {"passed": passed, "output": said, "seconds": time.monotonic() - started}


def _last_line(row: Row) -> str:
    return (row["output"].strip().splitlines() or [""])[-1]


def _what_failed(rows: list[Row]) -> list[str]:
    """The end of what failed commands said."""
    return [f"{row['what']} FAILED:\n{row['output'].strip()[-1500:]}" for row in rows if not row["passed"]]


def _status(rows: list[Row], skipped: Sequence[str] = ()) -> str:
    """Failed where a row is, not run where nothing ran, or something was left out."""
    if any(not row["passed"] for row in rows):
        return FAILED
    return NOT_RUN if skipped or not rows else PASSED


PARTS: dict[str, Callable[[Options], Part]] = {
    "build": build,
    "machine": machine,
    "accuracy": accuracy,
    "timing": timing,
    "steps": steps,
    "training": training,
    "sanitizer": sanitizer,
    "suites": suites,
    "compile": compile_,
}


def run_parts(options: Options, minutes: float, report: Path | None = None) -> dict[str, Part]:
    """Run parts one after the other; one that breaks is a failure, and the next one runs."""
    done: dict[str, Part] = {}
    end = time.monotonic() + 60 * minutes
    for name in options.parts:
        left = end - time.monotonic()
        say("", f"== {name} ({left / 60:.1f} minutes left)")
        started = time.monotonic()
        options.seconds = min(BUILDING if name == "build" else LONGEST, left)
        try:
            part = PARTS[name](options) if left > 0 else Part(NOT_RUN, "there was no time left")
        except Exception as error:  # the report is worth more than this part
            part = Part(FAILED, f"{type(error).__name__}: {error}")
        part.seconds = time.monotonic() - started
        if part.note:
            say(part.note)
        say(f"{name}: {part.status}, {part.seconds:.0f} s")
        done[name] = part
        if report is not None:
            report.write_text(as_json(options.device, done))
    return done


def as_json(device: str, done: dict[str, Part]) -> str:
    """All results."""
    parts = {
        name: {"status": part.status, "note": part.note, "seconds": part.seconds, "rows": part.rows}
        for name, part in done.items()
    }
    return json.dumps({"device": device, "parts": parts}, indent=1)


def status_of(done: dict[str, Part], require_gpu: bool) -> int:
    """The exit status."""
    found = {part.status for part in done.values()}
    return 1 if FAILED in found else 2 if require_gpu and NOT_RUN in found else 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="parts to run, separated by commas; all by default")
    parser.add_argument("--json", type=Path, help="write all results here, after each part")
    parser.add_argument("--quick", action="store_true", help="fewer epochs and repeats")
    parser.add_argument("--minutes", type=float, default=9.5, help="stop beginning anything after so many (9.5)")
    parser.add_argument("--require-gpu", action="store_true", help="exit with 2 where a part was not run")
    found = parser.parse_args(arguments)
    found.parts = found.only.split(",") if found.only else list(PARTS)
    unknown = [name for name in found.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    found = parsed(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if found.require_gpu and device == "cpu":
        say(f"gpu_check {NO_GPU}.")
        return 2
    done = run_parts(Options(device, found.parts, found.quick), found.minutes, found.json)
    say("", "== summary", *aligned((name, part.status, _first_line(part)) for name, part in done.items()))
    if device == "cpu":
        say("Nothing was run on a GPU.")
    return status_of(done, found.require_gpu)


def _first_line(part: Part) -> str:
    return re.split(r"\n", part.note)[0][:150]


if __name__ == "__main__":
    sys.exit(main())
