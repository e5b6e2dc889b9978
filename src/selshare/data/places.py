"""Where data sets lie on disk: never downloaded, and a clear error where they are missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

ENVIRONMENT = "SELSHARE_DATA"


def find_data(
    what: str,
    root: str | os.PathLike[str] | None,
    layouts: Sequence[str],
    is_there: Callable[[Path], bool],
    how_to_get: str,
    *,
    further: Sequence[str] = (),
) -> Path:
    """Return the first folder that holds a data set.

    Parameters
    ----------
    what
        The data set's name, for the error.
    root
        The only folder to look in. Without it: the one named by the environment variable ``SELSHARE_DATA``, then
        ``./data``, then ``further``.
    layouts
        Where in such a folder the data may lie.
    is_there
        Tells whether a folder holds it.
    how_to_get
        The end of the error, in which ``{root}`` stands for the first folder looked in.

    Raises
    ------
    FileNotFoundError
        Where it is nowhere.
    """
    if root is not None:
        roots = [Path(root).expanduser()]
    else:
        named = os.environ.get(ENVIRONMENT)
        roots = [Path(place).expanduser() for place in (*([named] if named else []), "data", *further)]
    for place in (place / layout for place in roots for layout in layouts):
        if is_there(place):
            return place
    naming = "" if root is not None else f" (set {ENVIRONMENT} to that folder)"
    raise FileNotFoundError(
        f"{what} is not in {', '.join(map(str, roots))}; {how_to_get.format(root=roots[0])}{naming}."
    )
