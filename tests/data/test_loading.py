from __future__ import annotations

import sys
from pathlib import Path

import pytest

from selshare.data import Problem, Recipe, load, names, options

OWN = """
from selshare.data import load
def build(*, size=3):
    return load("synthetic", tasks=size, groups=1, samples=20)
def demanding(folder):
    return build()
def anything(**chosen):
    return build(**chosen)
def wrong():
    return ["not a problem"]
constant = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module into the current directory, and forget it afterwards."""
    (tmp_path / "my_problem.py").write_text(OWN)
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    for module in ("my_problem", "my_broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return "my_problem"


def test_every_name_of_the_error_message_is_known() -> None:
    assert names() == (
        "digits", "fashion-mnist", "mnist", "cifar-10", "omniglot", "cub-200", "alphabets", "glyphs",
        "glyph-attributes", "synthetic", "twelve",
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"no data set 'imagenet'; choose one of {', '.join(names())}"):
        load("imagenet")


@pytest.mark.parametrize("name", ["digits", "synthetic", "twelve"])
def test_every_problem_says_whose_data_it_is(name: str) -> None:
    problem = load(name)
    assert problem.citation
    assert problem.licence


def test_an_unknown_option_lists_the_accepted_ones() -> None:
    with pytest.raises(ValueError, match=r"digits has no option 'groups'; it accepts seed"):
        load("digits", groups=3)
    assert list(options("digits")) == ["seed"]
    assert options("synthetic")["tasks"].default == 200


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [("tasks", "many", "an integer"), ("tasks", 2.5, "an integer"), ("noise", "0", "a nu")],
)
def test_an_option_of_the_wrong_type_is_named(option: str, value: object, wanted: str) -> None:
    with pytest.raises(TypeError, match=f"{option}={value!r}; it must be {wanted}"):
        load("synthetic", **{option: value})


def test_own_function_with_and_without_options(own_module: str) -> None:
    assert len(load(f"{own_module}:build").tasks) == 3
    assert len(load(f"{own_module}:build", size=4).tasks) == 4
    assert len(load(f"{own_module}:anything", size=5).tasks) == 5
    assert isinstance(load(f"{own_module}:demanding", folder="here"), Problem)


@pytest.mark.parametrize(
    ("name", "chosen", "error", "message"),
    [
        ("my_problem:build", {"sizes": 4}, ValueError, "no option 'sizes'; it accepts size"),
        ("my_problem:demanding", {}, ValueError, "needs the option 'folder'"),
        ("my_problem:wrong", {}, TypeError, r"returned a list; it must return a selshare\.data\.Problem"),
        ("my_problem:wrong", {"a": 1}, ValueError, "accepts none"),
        ("my_problem:constant", {}, TypeError, "is of type int; it must be a function"),
        ("my_problem:absent", {}, ValueError, "has no function 'absent'"),
        ("my_broken:build", {}, ValueError, "No module named 'a_module_that_is_not_there'"),
        ("my_absent:build", {}, ValueError, "Cannot import 'my_absent'"),
        (":build", {}, ValueError, "my_module:build"),
        ("my_problem:", {}, ValueError, "my_module:build"),
    ],
)
@pytest.mark.usefixtures("own_module")
def test_own_function_errors(name: str, chosen: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(name, **chosen)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "lion"}, "choose one of sgd, adam, adamw"),
        ({"lr": 0.0}, "above 0"),
        ({"schedule": "linear"}, "choose one of constant, cosine"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_recipes_check_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**values)
