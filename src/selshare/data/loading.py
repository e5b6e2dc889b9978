"""`load`: a problem by name, bundled or the user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .alphabets import alphabets
from .cifar10 import cifar10
from .cub200 import cub200
from .digits import digits
from .fashion_mnist import fashion_mnist
from .glyphs import glyph_attributes, glyphs
from .mnist import mnist
from .omniglot import omniglot
from .problem import Problem
from .synthetic import synthetic
from .table import READERS, table
from .twelve import twelve

BUILDERS: Mapping[str, Callable[..., Problem]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "cifar-10": cifar10,
    "omniglot": omniglot,
    "cub-200": cub200,
    "alphabets": alphabets,
    "glyphs": glyphs,
    "glyph-attributes": glyph_attributes,
    "synthetic": synthetic,
    "twelve": twelve,
}


def load(name: str, **chosen: Any) -> Problem:
    """Return the problem called ``name``, built with the options given.

    Parameters
    ----------
    name
        One of :func:`names`, a file that :func:`selshare.data.table` reads (``"my.csv"``), or ``"my_module:build"``: a
        function of the user's own that returns a :class:`Problem`; its module may lie in the current directory.
    chosen
        The builder's keyword arguments, e.g. ``load("synthetic", tasks=200, groups=10)``.

    Raises
    ------
    ValueError
        Where the name or an option is unknown (lists what there is), a module or function cannot be imported, or an
        option is out of its range.
    TypeError
        Where an option has the wrong type, or the user's function is none or does not return a :class:`Problem`.
    FileNotFoundError
        Where data that must be on disk is not; says how to get it.
    """
    builder = _builder(name)
    _check_options(name, builder, chosen)
    problem = builder(**chosen)
    if not isinstance(problem, Problem):
        raise TypeError(f"{name} returned a {type(problem).__name__}; it must return a selshare.data.Problem.")
    return problem


def names() -> tuple[str, ...]:
    """Return the names of the data sets that :func:`load` knows without the user's help."""
    return tuple(BUILDERS)


def options(name: str) -> dict[str, inspect.Parameter]:
    """Return the options that :func:`load` accepts for ``name``, with their defaults and annotations.

    Raises
    ------
    ValueError, TypeError
        As :func:`load`, for the name.
    """
    return _named_parameters(_builder(name))


def _builder(name: str) -> Callable[..., Problem]:
    if name in BUILDERS:
        return BUILDERS[name]
    if Path(name).suffix.lower() in READERS:
        return partial(table, name)
    module, _, function = name.partition(":")
    if module and function:
        return _import(name, module, function)
    raise ValueError(
        f"There is no data set {name!r}; choose one of {', '.join(BUILDERS)}, a table ({', '.join(READERS)}), or "
        "name a function of your own as my_module:build."
    )


def _import(name: str, module_name: str, function_name: str) -> Callable[..., Problem]:
    """Import a function with the current directory on the path, as ``python -m`` has it."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"Cannot import {module_name!r} for the data set {name!r}: {error}.") from error
    if not hasattr(module, function_name):
        raise ValueError(f"{module_name!r} ({module.__file__}) has no function {function_name!r}.")
    function: Any = getattr(module, function_name)
    if not callable(function):
        raise TypeError(f"{name} is of type {type(function).__name__}; it must be a function that returns a Problem.")
    builder: Callable[..., Problem] = function
    return builder


def _check_options(name: str, builder: Callable[..., Problem], chosen: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for an option the builder does not accept, or one that it needs and was not given."""
    accepted = _named_parameters(builder)
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(builder).parameters.values())
    unknown = [] if anything else [option for option in chosen if option not in accepted]
    if unknown:
        what = f"accepts {', '.join(accepted)}" if accepted else "accepts none"
        raise ValueError(f"{name} has no option {', '.join(map(repr, unknown))}; it {what}.")
    missing = [o for o, p in accepted.items() if p.default is inspect.Parameter.empty and o not in chosen]
    if missing:
        hint = "; name the columns to learn: --targets price,sold" if missing == ["targets"] else ""
        raise ValueError(f"{name} needs the option {', '.join(map(repr, missing))}{hint}.")
    for option, value in chosen.items():
        default = accepted[option].default if option in accepted else None
        if isinstance(default, int | float) and not _fits(value, default):
            raise TypeError(f"{name} was given {option}={value!r}; it must be {_kind(default)}, like {default}.")


def _fits(value: object, default: int | float) -> bool:
    """Tell whether a value is of the default's type; an int does where a float is wanted."""
    wanted = int | float if isinstance(default, float) else type(default)
    return isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)


def _kind(default: int | float) -> str:
    return {bool: "True or False", int: "an integer", float: "a number"}[type(default)]


def _named_parameters(builder: Callable[..., Problem]) -> dict[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {option: p for option, p in inspect.signature(builder).parameters.items() if p.kind in named}
