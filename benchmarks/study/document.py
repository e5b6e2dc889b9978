"""Puts the study's tables into ``docs/results.md``, between ``<!-- table NAME -->`` and ``<!-- end -->``.

python -m benchmarks.study.document
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from . import ablation, accuracy, clustered, early, partitions, planted, regions
from .results import RESULTS, Row, read
from .settings import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
MARKED = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite the tables; the text around them stays."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda found: f"{found[1]}{content(found[2])}\n{found[3]}", page), encoding="utf-8")


def content(name: str) -> str:
    """The Markdown that a marker stands for."""
    if name == "planted-scale":
        return planted.scale_table(read(RESULTS / "planted-scale.jsonl"))
    if name == "planted-relatedness":
        return planted.relatedness_table(read(RESULTS / "planted-relatedness.jsonl"))
    if name == "regions":
        return regions.table(read(RESULTS / "regions.jsonl"))
    if name == "partitions":
        return partitions.table(read(partitions.PATH)) or "Not run yet."
    if name == "early":
        return early.table(read(early.PATH))
    if name == "clustered":
        return clustered.table(read(clustered.PATH))
    if name.startswith("ablation-"):
        return _by_epochs(read(RESULTS / f"{name}.jsonl"), ablation.table)
    if name not in SETTINGS:
        raise ValueError(f"docs/results.md asks for the table {name!r}, which the study does not have.")
    return _by_epochs(read(RESULTS / f"accuracy-{name}.jsonl"), accuracy.table) or "Not run yet."


def _by_epochs(rows: Sequence[Row], table: Callable[[Sequence[Row]], str]) -> str:
    """A table for each number of epochs that was trained for."""
    counts = sorted({row["epochs"] for row in rows})
    return "\n".join(f"{count} epochs:\n\n{table([r for r in rows if r['epochs'] == count])}\n" for count in counts)


if __name__ == "__main__":
    main()
