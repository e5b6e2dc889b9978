from __future__ import annotations

import pytest
from rich.console import Console
from rich.text import Text

from selshare.report import comparison_table, groups_summary


def row(method: str = "mtl", seed: int = 0, **changes: object) -> dict[str, object]:
    metrics = {"sandal": 0.91, "ankle boot": 0.95}
    entry: dict[str, object] = {"method": method, "seed": seed, "metrics": metrics, "mean_metric": 0.93}
    entry |= {"parameters": 1_630_664, "branch_parameters": 1000, "branches": 2, "lock_epoch": None, "groups": []}
    return entry | {"seconds_per_epoch": 0.1234, "adjusted_rand": None} | changes


def printed(rows: list[dict[str, object]], width: int = 120) -> list[list[str]]:
    """The cells of the printed table, line by line."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(rows, width=width))
    return [line.split() for line in capture.get().splitlines() if line.strip() and "─" not in line]


def test_papers_columns_in_a_wide_terminal() -> None:
    rows = [row("stl", branches=0), row("similarity", branches=1, lock_epoch=7)]
    top, header, stl, similarity = printed(rows)
    assert top == ["ankle", "lock"]
    assert header == ["method", "sandal", "boot", "mean", "parameters", "branches", "epoch", "s/epoch"]
    assert stl == ["stl", "0.9100", "0.9500", "0.9300", "1,630,664", "–", "–", "0.123"]
    assert similarity == ["similarity", "0.9100", "0.9500", "0.9300", "1,630,664", "1", "7", "0.123"]


def test_tasks_are_rows_where_the_terminal_is_narrow_and_nothing_is_cut() -> None:
    lines = printed([row("stl", branches=0), row("similarity", branches=1, lock_epoch=7)], width=50)
    assert lines[0] == ["stl", "similarity"]
    assert lines[1] == ["sandal", "0.9100", "0.9100"]
    assert ["lock", "epoch", "–", "7"] in lines
    assert ["parameters", "1,630,664", "1,630,664"] in lines


def test_long_methods_break_after_their_parts_and_lose_nothing() -> None:
    names = ["distribution-matching", "distribution-matching+similarity", "srdml+similarity", "mtl"]
    lines = printed([row(name) for name in names], width=80)
    assert lines[:3] == [
        ["distribution-"],
        ["distribution-", "matching+", "srdml+"],
        ["matching", "similarity", "similarity", "mtl"],
    ]


@pytest.mark.parametrize("width", range(40, 200, 10))
def test_no_width_cuts_a_number(width: int) -> None:
    rows = [row(metrics={f"digit {d}": 0.5 + d / 100 for d in range(10)}), row("dissimilarity")]
    cells = {cell for line in printed(rows, width) for cell in line}
    assert {"0.5900", "1,630,664", "0.9300"} <= cells
    assert not any("…" in cell for cell in cells)


def test_seeds_become_means_with_their_deviation() -> None:
    rows = [row(seed=0, mean_metric=0.90, lock_epoch=2), row(seed=1, mean_metric=0.94, lock_epoch=None, branches=4)]
    rows[1]["metrics"] = {"sandal": 0.93, "ankle boot": None}
    _, _, line, caption = printed(rows)
    assert line[1:6] == ["0.9200", "0.9500", "0.9200", "±", "0.0283"]  # stdev of .90 and .94 is .04/√2
    assert line[7:] == ["2–4", "2", "(1/2)", "0.123"]
    assert caption == ["mean", "of", "2", "seeds"]


def test_many_tasks_are_summed_up() -> None:
    rows = [row(metrics={f"task {t}": t / 100 for t in range(101)}, adjusted_rand=0.987)]
    lines = printed(rows)
    assert lines[1][:5] == ["method", "lowest", "median", "highest", "mean"]
    assert lines[2][:5] == ["mtl", "0.0000", "0.5000", "1.0000", "0.9300"]
    assert lines[2][-1] == "0.9870"


def test_accuracies_and_errors_are_kept_apart() -> None:
    errors = {f"price {t}": 100.0 + t for t in range(11)}
    rows = [row(metrics={f"task {t}": t / 100 for t in range(11)} | errors)]
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(rows, width=160, lower_is_better=set(errors)))
    line = next(line.split() for line in capture.get().splitlines() if "mtl" in line)
    assert line[1:8] == ["0.0000", "0.0500", "0.1000", "100.0", "105.0", "110.0", "0.9300"]
    assert "↑ 11 tasks, higher is better; ↓ 11, lower is better; the mean is of ↑" in " ".join(capture.get().split())
    few = comparison_table([row()], width=40, lower_is_better={"sandal"})
    assert list(few.columns[0].cells)[:3] == ["ankle boot ↑", "sandal ↓", "mean ↑"]


def test_large_metrics_missing_ones_and_long_epochs() -> None:
    lines = printed([row(metrics={"year": 135.432, "lost": None}, mean_metric=None, seconds_per_epoch=1234.5)])
    assert lines[-1] == ["mtl", "135.4", "–", "–", "1,630,664", "2", "–", "1,234"]


def test_groups_by_name() -> None:
    metrics = dict.fromkeys(["a", "b", "c", "d", "[e]"], 0.5)
    rows = [row(metrics=metrics), row("similarity", metrics=metrics, groups=[["a", "c"]])]
    assert isinstance(groups_summary(rows), Text)
    assert groups_summary(rows).plain == "similarity: {a, c}  alone: b, d, [e]"
    rows.append(row("similarity", seed=1, metrics=metrics, groups=[["a", "b"], ["c", "d", "[e]"]]))
    assert groups_summary(rows).plain.splitlines()[1] == "similarity, seed 1: {c, d, [e]}  {a, b}"
    assert groups_summary(rows[:1]).plain == "No tasks share a branch."


def test_long_groups_are_cut_and_say_so() -> None:
    names = [f"t{i}" for i in range(40)]
    text = groups_summary([row("variance", metrics=dict.fromkeys(names, 1.0), groups=[names[:5], names[5:35]])]).plain
    lines = text.splitlines()
    assert lines[0] == "variance: 2 groups"
    assert lines[1].startswith("  {t5, t6, ")
    assert lines[1].endswith("t16, … 18 more}")
    assert lines[2] == "  {t0, t1, t2, t3, t4}"
    assert lines[3] == "  alone: t35, t36, t37, t38, t39"


def test_many_tasks_with_several_seeds_show_sizes_after_the_first() -> None:
    names = [f"t{i}" for i in range(20)]
    metrics = dict.fromkeys(names, 1.0)
    found = [[names], [names[:10], names[10:]], [names[:3], names[3:10]]]
    rows = [row("random", seed, metrics=metrics, groups=groups) for seed, groups in enumerate(found)]
    assert groups_summary(rows).plain.splitlines()[-2:] == [
        "random, seed 1: 2 groups of 10 tasks",
        "random, seed 2: 2 groups of 3–7 tasks, 10 alone",
    ]


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="no results"):
        comparison_table([])
    with pytest.raises(ValueError, match="no results"):
        groups_summary([])
