"""The package without its ``__init__``, which imports the Trainer and with it torchmetrics, rich and more.

What runs on a GPU machine is to need nothing beyond torch, triton, numba, hdbscan and the repository.
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def use_bare_package() -> None:
    """Let ``import selshare.kernels`` and the like work from the checkout; does nothing where selshare is imported."""
    sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "src")) if path not in sys.path]
    if "selshare" in sys.modules:
        return
    spec = PathFinder.find_spec("selshare", [str(ROOT / "src")])
    assert spec is not None
    package = module_from_spec(spec)
    version = re.search(r'__version__ = "(.*)"', (ROOT / "src" / "selshare" / "__init__.py").read_text())
    package.__version__ = version[1] if version else "unknown"  # type: ignore[attr-defined]
    sys.modules["selshare"] = package
