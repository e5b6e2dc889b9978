"""Puts the study's tables into ``docs/results.md``, between ``<!-- table NAME -->`` and ``<!-- end -->``.

python -m benchmarks.study.document
"""

from __future__ import annotations

import re
from pathlib import Path

from . import accuracy, planted, regions
from .results import RESULTS, read
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
    if name not in SETTINGS:
        raise ValueError(f"docs/results.md asks for the table {name!r}, which the study does not have.")
    rows = read(RESULTS / f"accuracy-{name}.jsonl")
    parts = []
    for epochs in sorted({row["epochs"] for row in rows}):
        own = [row for row in rows if row["epochs"] == epochs]
        parts.append(f"{epochs} epochs:\n\n{accuracy.table(own)}\n")
    return "\n".join(parts) or "Not run yet."


if __name__ == "__main__":
    main()
