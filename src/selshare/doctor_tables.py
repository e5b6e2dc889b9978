"""What :mod:`selshare.doctor` finds as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .doctor import DEVICES, Diagnosis, Use
from .kernels import backend


def render(found: Diagnosis) -> Group:
    """The diagnosis as tables for the terminal."""
    return Group(_machine_table(found), Text(), _operations_table(found), _reasons(found.operations))


def _machine_table(found: Diagnosis) -> Table:
    """Versions, machine and what is built, a line each."""
    machine, missing = found.machine, found.missing
    gpus = [
        f"{gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_gib']} GiB" for gpu in machine["gpus"]
    ]
    lines: dict[str, Any] = {
        "versions": ", ".join(f"{name} {version or 'missing'}" for name, version in found.versions.items()),
        "processor": f"{machine['processor']}, {machine['vectors']}, {machine['cores']} cores",
        "threads": f"{machine['threads']} (torch)",
        "GPU": "; ".join(gpus) or "none that torch finds",
        "CUDA": ", ".join(f"{version or 'none'} ({whose})" for whose, version in found.cuda.items()),
        "C++ kernels": found.built["native"] or _bad(missing["native"]),
        "Numba kernels": _bad(missing["numba"]) if missing["numba"] else "can run",
        "Triton kernels": _bad(missing["triton"]) if missing["triton"] else "can run",
        "CUDA kernels": _library_line(found.built["cuda"], missing["cuda"]),
        "environment": ", ".join(f"{name}={value}" for name, value in found.environment.items() if value)
        or f"none of {', '.join(found.environment)} is set",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, line in lines.items():
        table.add_row(name, line)
    return table


def _operations_table(found: Diagnosis) -> Table:
    """A row per operation; in each cell its implementations, best first, and which of them runs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("operation", no_wrap=True)
    for device, title in DEVICES.items():
        absent = device == "cuda" and not found.machine["gpus"]
        table.add_column(f"on {title} (not here)" if absent else f"on {title}", no_wrap=True)
    for operation, uses in found.operations.items():
        table.add_row(operation, *(_chain(use) for use in uses.values()))
    return table


def _chain(use: Use) -> Text:
    """``native > reference``: the one that runs in brackets and green, what cannot run in red."""
    refused = {reason.partition(":")[0] for reason in use.refused}
    parts = []
    for name in use.candidates:
        runs = name == use.backend
        style = "bold green" if runs else "red" if name in refused else "dim"
        parts.append(Text(f"[{name}]" if runs else name, style=style))
    return Text(" > ", style="dim").join(parts)


def _reasons(operations: Mapping[str, Mapping[str, Use]]) -> Text:
    """How to read the table, and each reason once."""
    uses = [use for by_device in operations.values() for use in by_device.values()]
    lines = ["Best first; the one in brackets runs."]
    if any(use.forced for use in uses):
        lines.append(f"{backend.VARIABLE} names them.")
    slower = [
        operation
        for operation, by_device in operations.items()
        if any(use.backend is not None and use.refused and not use.forced for use in by_device.values())
    ]
    if slower:
        lines.append(f"Slower than they could be: {', '.join(slower)}; docs/installing.md says by how much.")
    reasons = dict.fromkeys(reason for use in uses if use.backend is not None or use.forced for reason in use.refused)
    return Text("\n".join([" ".join(lines), *(f"Cannot run: {reason}" for reason in reasons)]))


def _bad(reason: str | None) -> Text:
    """Why something cannot run."""
    return Text(f"cannot run: {reason}", style="yellow")


def _library_line(path: str | None, reason: str | None) -> Text:
    """Where the CUDA library is and whether it can run."""
    if path is None or reason is None:
        return Text(path or "") if reason is None else _bad(reason)
    return Text.assemble(path, (f", cannot run: {reason}", "yellow"))
