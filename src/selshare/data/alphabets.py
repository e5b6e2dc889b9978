"""Which writing system is a letter of? Fifty one-vs-rest tasks on rendered letters, in OmniGlot's shape."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch.nn.functional import one_hot
from torch.utils.data import TensorDataset

from .letter_images import LetterImages, letter_images
from .letters import letter_sheet
from .one_vs_rest import one_vs_rest_tasks
from .problem import Problem
from .trunks import three_layer_trunk
from .writing_systems import chosen_systems

CITATION = "Letters of Google's Noto fonts (https://notofonts.github.io), rendered by selshare"
LICENCE = "The fonts are under the SIL Open Font License 1.1, which lets images of their letters be used freely."


def alphabets(
    *,
    root: str | os.PathLike[str] | None = None,
    systems: Sequence[str] | None = None,
    letters: int = 40,
    renderings: int = 20,
    train_size: int | None = None,
    held_out: str = "renderings",
    metric: str = "average_precision",
    seed: int = 0,
) -> Problem:
    """Return one task per writing system, *is this letter of it?*, on letters rendered from Noto fonts.

    With the defaults: 50 writing systems, 1,827 letters (OmniGlot has 1,623), 20 images of 28×28 pixels of each, in
    its fonts' regular and bold, sans and serif faces, each image with a small random distortion. Trunk, branch and
    recipe are those of Strezoski et al. (arXiv 1904.03011) for OmniGlot. Letters shared by several systems (A is
    Latin, Greek, Cyrillic, Coptic, Carian …) keep the tasks from being trivial.

    Parameters
    ----------
    root
        Folder that holds the fonts, see :func:`.letters.letter_sheet`. By default where Debian's ``fonts-noto-core``
        puts them.
    systems
        Names of two or more writing systems (see ``writing_systems.tsv``); all fifty by default.
    letters
        At most so many letters of each.
    renderings, held_out, train_size
        See :func:`.letter_images.letter_images`.
    metric
        Of every task: ``"average_precision"`` (*ours*: one image in fifty is positive, so that accuracy says little),
        ``"auroc"`` or ``"accuracy"``.
    seed
        Draws faces, distortions and splits.

    Raises
    ------
    FileNotFoundError
        Where the fonts are missing; says how to get them.
    ValueError
        Where a value is out of its range.
    """
    chosen = chosen_systems(systems)
    sheet = letter_sheet(chosen, root=root, letters=letters)
    parts = letter_images(sheet, renderings=renderings, held_out=held_out, train_size=train_size, seed=seed)

    def data(part: LetterImages) -> TensorDataset:
        return TensorDataset(part.images, one_hot(sheet.system[part.glyphs], len(chosen)).to(torch.float32))

    train, validation, test = map(data, parts)
    return Problem(
        name="alphabets",
        description=f"Letters of {len(chosen)} writing systems, 28×28 pixels, {len(train):,} training images: "
        "one task per system, is this letter of it?",
        tasks=one_vs_rest_tasks([system.name for system in chosen], metric=metric),
        train=train,
        validation=validation,
        test=test,
        make_trunk=three_layer_trunk,
        shared_features=300,
        hidden=(100, 100),
        dropout=0.2,
        citation=CITATION,
        licence=LICENCE,
    )
