"""The report's figures as files of their own: the page's colours filled in, on white."""

from __future__ import annotations

import re
from pathlib import Path

import selshare.report

CSS = Path(selshare.report.__file__).parent / "page.css"


def standalone(svg: str) -> str:
    """An inline figure of the report as an SVG file: the light page's colours, font and background."""
    light = CSS.read_text(encoding="utf-8").split("}")[0]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light))
    filled = re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], svg)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', filled).groups()  # type: ignore[union-attr]
    space = "" if "xmlns=" in filled else ' xmlns="http://www.w3.org/2000/svg"'
    link = "" if "xmlns:xlink=" in filled or "xlink:" not in filled else ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening = f'<svg{space}{link} font-family="DejaVu Sans, Liberation Sans, Arial, sans-serif" '
    filled = filled.replace("<svg ", opening, 1)
    end = filled.index(">") + 1
    return f'{filled[:end]}<rect width="{width}" height="{height}" fill="#ffffff"/>{filled[end:]}\n'
