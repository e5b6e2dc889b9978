"""Every Triton kernel compiled for three architectures: no spills, and hardly more bytes than it must move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What ``python -m benchmarks.triton_aot`` finds, in a process without the interpreter."""
    report = tmp_path_factory.mktemp("aot") / "rows.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.triton_aot", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert report.exists(), done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(report.read_text())["rows"]
    return found


def title(row: dict[str, Any]) -> str:
    return f"{row['operation']} {row['variant']}".strip()


def test_no_kernel_spills_or_has_a_stack_frame(
    rows: list[dict[str, Any]], record_property: Callable[[str, object], None]
) -> None:
    for row in rows:
        for what in ("registers", "shared", "occupancy"):
            record_property(f"{title(row)}: {what}", row[what])
    assert [title(row) for row in rows if any(row["stack"].values())] == []


def test_a_multiprocessor_holds_enough_threads(rows: list[dict[str, Any]]) -> None:
    assert [title(row) for row in rows if min(row["occupancy"].values()) < 0.1] == []


def test_the_fused_steps_move_hardly_more_than_they_must(rows: list[dict[str, Any]]) -> None:
    steps = [row for row in rows if row["operation"].startswith("fused")]
    assert len(steps) >= 4
    for row in steps:
        assert 0.99 <= row["moved"] <= 1.15, title(row)
        assert row["moved"] < row["separate"] / 1.3


def test_the_machine_code_stores_what_was_counted(rows: list[dict[str, Any]]) -> None:
    assert [title(row) for row in rows if not row["stores_agree"]] == []


def test_offsets_past_two_to_the_31_do_not_overflow(rows: list[dict[str, Any]]) -> None:
    assert [title(row) for row in rows if not row["huge_stays_inside"]] == []
