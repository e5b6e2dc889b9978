from __future__ import annotations

import unicodedata

import pytest

from selshare.data.writing_systems import chosen_systems, letter_category, writing_systems


def test_fifty_systems_each_complete_and_sourced() -> None:
    systems = writing_systems()
    assert len(systems) == 50
    assert len({system.name for system in systems}) == 50
    for system in systems:
        assert system.fonts
        assert all(font.startswith("Noto") for font in system.fonts)
        assert system.type in {"alphabet", "abjad", "abugida", "syllabary"}
        assert -3200 < system.year < 2020
        assert system.evidence
        assert system.source
        assert len(system.letters) >= 20
    descents = [system.descent for system in systems]
    assert all(descents.count(descent) >= 2 for descent in descents), "no class of one"


def test_letters_are_of_the_script_that_unicode_says() -> None:
    prefixes = {"N'Ko": "NKO", "Canadian Aboriginal": "CANADIAN SYLLABICS"}
    for system in writing_systems():
        prefix = prefixes.get(system.name, system.name.upper())
        assert all(unicodedata.name(letter).startswith(prefix) for letter in system.letters), system.name


def test_no_letter_belongs_to_two_systems() -> None:
    letters = [letter for system in writing_systems() for letter in system.letters]
    assert len(letters) == len(set(letters))


def test_categories() -> None:
    assert [letter_category(letter) for letter in "Aaא"] == ["uppercase", "lowercase", "without case"]


def test_systems_by_name() -> None:
    assert [system.name for system in chosen_systems(["Thai", "Latin"])] == ["Thai", "Latin"]
    with pytest.raises(ValueError, match="no writing system 'Klingon'; choose from Latin, Greek"):
        chosen_systems(["Klingon", "Latin"])
    for names in (["Thai"], ["Thai", "Thai"]):
        with pytest.raises(ValueError, match="does not name two or more different"):
            chosen_systems(names)
