"""Fifty writing systems and what is known of them, from the table beside this file."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("writing_systems.tsv")
LETTER_CATEGORIES = {"Lu": "uppercase", "Ll": "lowercase", "Lo": "without case"}  # unicodedata's names → ours


@dataclass(frozen=True)
class WritingSystem:
    """One row of the table.

    Attributes
    ----------
    name
        As Unicode names the script.
    letters
        Its letters in the order of their code points.
    fonts
        Font families that hold it: ``NotoSans…`` and, where there is one, ``NotoSerif…``.
    type
        ``"alphabet"``, ``"abjad"``, ``"abugida"`` or ``"syllabary"``.
    descent
        The line its letters come from, e.g. ``"semitic"``.
    year, evidence, source
        First attestation (negative before Christ), what attests it, and who says so.
    """

    name: str
    letters: tuple[str, ...]
    fonts: tuple[str, ...]
    type: str
    descent: str
    year: int
    evidence: str
    source: str


@cache
def writing_systems() -> tuple[WritingSystem, ...]:
    """Return all fifty, in the table's order."""
    with TABLE.open(encoding="utf-8", newline="") as table:
        rows = csv.DictReader((line for line in table if not line.startswith("#")), delimiter="\t", strict=True)
        return tuple(
            WritingSystem(
                name=row["name"],
                letters=_letters(row["letters"]),
                fonts=tuple(row["fonts"].split()),
                type=row["type"],
                descent=row["descent"],
                year=int(row["year"]),
                evidence=row["evidence"],
                source=row["source"],
            )
            for row in rows
        )


def chosen_systems(names: Sequence[str] | None) -> tuple[WritingSystem, ...]:
    """Return the writing systems of these names, in their order; all where ``names`` is ``None``.

    Raises
    ------
    ValueError
        Where a name is unknown or there twice, or fewer than two are named.
    """
    known = {system.name: system for system in writing_systems()}
    if names is None:
        return tuple(known.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"There is no writing system {unknown[0]!r}; choose from {', '.join(known)}.")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"systems={list(names)} does not name two or more different writing systems.")
    return tuple(known[name] for name in names)


def letter_category(letter: str) -> str:
    """Return ``"uppercase"``, ``"lowercase"`` or ``"without case"``, by Unicode's general category."""
    return LETTER_CATEGORIES[unicodedata.category(letter)]


def _letters(ranges: str) -> tuple[str, ...]:
    """Return the letters of ranges like ``"0041-005A 0061-007A"``."""
    spans = [[int(end, 16) for end in span.split("-")] for span in ranges.split()]
    points = [chr(point) for first, last in spans for point in range(first, last + 1)]
    return tuple(point for point in points if unicodedata.category(point) in LETTER_CATEGORIES)
