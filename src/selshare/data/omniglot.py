"""OmniGlot (Lake, Salakhutdinov, Tenenbaum, Science 350, 2015): 1,623 letters of 50 alphabets, from disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import TensorDataset

from .one_vs_rest import one_vs_rest_data, one_vs_rest_tasks
from .places import find_data
from .problem import Problem
from .trunks import three_layer_trunk

PARTS = ("images_background", "images_evaluation")  # 30 and 20 alphabets
SIDE = 28
VALIDATION_HANDS, TEST_HANDS = 2, 4  # of the 20 people who drew every letter


def omniglot(
    *, root: str | os.PathLike[str] | None = None, metric: str = "average_precision", seed: int = 0
) -> Problem:
    """Return one task per alphabet, *is this letter of it?*, with the set-up of Strezoski et al. (arXiv 1904.03011).

    All 50 alphabets of both parts, scaled from 105×105 to 28×28 pixels, 1 is ink. Every letter was drawn by the same
    20 people: the drawings of 14 are for training, of 2 for validation, of 4 for testing. The paper does not say how
    it splits; this is *ours*.

    Parameters
    ----------
    root
        Folder that holds ``images_background`` and ``images_evaluation``, directly or in ``omniglot-py`` (where
        torchvision puts them). Without it: the folder named by the environment variable ``SELSHARE_DATA``, then
        ``./data``. The folders are read directly, as torchvision's reader does not tell a letter's alphabet.
    metric
        Of every task: ``"average_precision"`` (*ours*: one drawing in fifty is positive, so that accuracy says
        little), ``"auroc"`` or ``"accuracy"``.
    seed
        Draws the people.

    Raises
    ------
    FileNotFoundError
        Where the folders are in none of those places; says how to get them.
    ValueError
        Where a drawing is missing or has another name than OmniGlot's.
    """
    folder = find_data(
        "OmniGlot",
        root,
        ["omniglot-py", "."],
        lambda place: all((place / part).is_dir() for part in PARTS),
        "run torchvision.datasets.Omniglot('{root}', background=background, download=True) once with background=True "
        "and once with background=False",
    )
    alphabets = sorted(path for part in PARTS for path in (folder / part).iterdir() if path.is_dir())
    drawings = [(drawing, label) for label, alphabet in enumerate(alphabets) for drawing in alphabet.rglob("*.png")]
    drawings.sort()
    if not drawings:
        raise ValueError(f"{folder} holds no drawings; unpack both parts of OmniGlot there.")
    hands = np.array([_hand(drawing) for drawing, _ in drawings])
    labels = np.array([label for _, label in drawings])
    images = np.stack([_image(drawing) for drawing, _ in drawings])
    people = np.random.default_rng(seed).permutation(np.unique(hands))
    if len(people) < VALIDATION_HANDS + TEST_HANDS + 1:
        raise ValueError(f"{folder} holds drawings by {len(people)} people, not 20; unpack OmniGlot anew.")

    def by(chosen: NDArray[np.int64]) -> TensorDataset:
        rows = np.isin(hands, chosen)
        return one_vs_rest_data(images[rows], labels[rows], len(alphabets))

    return Problem(
        name="omniglot",
        description=f"OmniGlot, 28×28 pixels: one task per alphabet of {len(alphabets)}, is this letter of it?",
        tasks=one_vs_rest_tasks([path.name.replace("_", " ") for path in alphabets], metric=metric),
        train=by(people[VALIDATION_HANDS + TEST_HANDS :]),
        validation=by(people[:VALIDATION_HANDS]),
        test=by(people[VALIDATION_HANDS : VALIDATION_HANDS + TEST_HANDS]),
        make_trunk=three_layer_trunk,
        shared_features=300,
        hidden=(100, 100),
        dropout=0.2,
        citation="B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum: Human-level concept learning through probabilistic "
        "program induction, Science 350, 2015",
        licence="MIT.",
    )


def _hand(drawing: Path) -> int:
    """Return who drew it: drawings are called ``<letter>_<person>.png``."""
    person = drawing.stem.rpartition("_")[2]
    if not person.isdigit():
        raise ValueError(f"{drawing} is not called as OmniGlot's drawings are (0001_01.png); remove it.")
    return int(person)


def _image(drawing: Path) -> NDArray[np.float32]:
    """Return ``(28, 28)``, 1 is ink (in the file ink is black)."""
    with Image.open(drawing) as image:
        scaled = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    ink: NDArray[np.float32] = np.float32(1) - np.asarray(scaled, dtype=np.float32) / np.float32(255)
    return ink
