"""Draw every figure into docs/images/kernels, or the folder given."""

from __future__ import annotations

import sys
from pathlib import Path

from .draw import draw_all

if __name__ == "__main__":
    for path in draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images" / "kernels"):
        print(path)
