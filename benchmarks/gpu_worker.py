"""The items of gpu_check's parts, run in a process of their own, each result printed as a line as soon as it is there.

A kernel that goes wrong can leave the process without a usable GPU, or never end. So the process is not gpu_check's
own: :func:`run_items` starts another one for the items that are left, and says which one it was.

``python benchmarks/gpu_worker.py PART DEVICE QUICK NAMES``: ``QUICK`` is 0 or 1, ``NAMES`` a list in JSON.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

sys.path[:0] = [path for path in (str(Path(__file__).resolve().parents[1]),) if path not in sys.path]

from benchmarks.bare import ROOT, use_bare_package  # noqa: E402

use_bare_package()

PREFIX = "gpu_check: "
UNUSABLE = 3  # exit status: an error that the device does not recover from
SHORTEST = 5.0  # seconds that must be left for another process to be started
Row = dict[str, Any]


def items(part: str, device: str, quick: bool) -> dict[str, Callable[[], Row]]:
    """What a part consists of, by name; each returns its row, with ``passed``, or raises."""
    if part == "accuracy":
        from benchmarks.gpu_cases import accuracy_items

        return accuracy_items(device)
    if part == "steps":
        from benchmarks.gpu_steps import step_items

        return step_items(device)
    if part == "training":
        from benchmarks.gpu_training import training_items

        return training_items(device, 2 if quick else 4)
    if part == "timing":
        from benchmarks.gpu_timing import timing_items

        return timing_items(device, 3 if quick else 20)
    raise ValueError(f"part {part!r} has no items")


def run_items(part: str, device: str, quick: bool, names: Sequence[str], *, each: float, total: float) -> Iterator[Row]:
    """A row for each item: what it returned, or why there is nothing.

    Items that take over ``each`` seconds are stopped; those that ``total`` seconds do not suffice for are not begun,
    and get no row.
    """
    left, end = list(names), time.monotonic() + total
    while left and end - time.monotonic() > SHORTEST:
        with tempfile.TemporaryFile("w+") as errors:
            command = [sys.executable, __file__, part, device, str(int(quick)), json.dumps(left)]
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
            begun = None
            try:
                for row in _lines(process, each, end):
                    if row.get("begun"):
                        begun = row["name"]
                        continue
                    left.remove(row["name"])
                    begun = None
                    yield row
                status = process.wait(timeout=max(1.0, end - time.monotonic()))
                why = f"the process ended with status {status}: {_end_of(errors)}"
            except (TimeoutError, subprocess.TimeoutExpired) as stopped:
                if end - time.monotonic() <= 0 and begun is None:
                    return
                status, why = None, f"{stopped or 'stopped'}"
            finally:
                _kill(process)
            if begun is None and left and status != UNUSABLE:  # it did not even begin: another one would not either
                yield {"name": left[0], "passed": False, "trouble": why}
                return
            if begun is not None:
                left.remove(begun)
                yield {"name": begun, "passed": False, "trouble": why}


def _lines(process: subprocess.Popen[str], each: float, end: float) -> Iterator[Row]:
    """The results a process prints; ``TimeoutError`` where the next one does not come in time."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as printed:
            for line in printed:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        wait = min(each, end - time.monotonic())
        try:
            line = lines.get(timeout=max(0.0, wait))
        except queue.Empty:
            raise TimeoutError(f"stopped after {wait:.0f} s") from None
        if line is None:
            return
        if line.startswith(PREFIX):
            yield json.loads(line.removeprefix(PREFIX))


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process, and what it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(errors: IO[str]) -> str:
    """The last of what was written to stderr."""
    errors.seek(0)
    return errors.read().strip()[-600:]


def device_still_works(device: str) -> bool:
    """Whether the GPU answers: after an illegal access no later call in the process does."""
    import torch

    if device == "cpu":
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Run items, print a line when one begins and one when it ends."""
    part, device, quick, names = arguments

    def say(row: Row) -> None:
        print(f"{PREFIX}{json.dumps(row)}", flush=True)

    known = items(part, device, quick == "1")
    for name in json.loads(names):
        say({"name": name, "begun": True})
        started = time.perf_counter()
        try:
            row = known[name]()
        except Exception as trouble:  # whatever happens to one item, the others are to run
            row = {"passed": False, "trouble": f"{type(trouble).__name__}: {trouble}"[:600]}
        say({"name": name, "seconds": time.perf_counter() - started, **row})
        if not device_still_works(device):
            return UNUSABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
