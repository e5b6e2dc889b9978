"""The documentation site: it builds without a warning, is whole, loads nothing from elsewhere, and its code runs."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import selshare
from selshare import cli
from selshare.kernels import backend

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(python|sh)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
PAGES = ["index.md", *sorted(str(page.relative_to(DOCS)) for folder in ("tutorials", "kernels", "extending")
                             for page in (DOCS / folder).glob("*.md"))]  # fmt: skip
WITH_CODE = [page for page in PAGES if BLOCK.search((DOCS / page).read_text(encoding="utf-8"))]


def run_page(page: Path) -> dict[str, Any]:
    """Run a page's code where it stands: titled blocks become files, Python shares one namespace, sh is selshare's."""
    names: dict[str, Any] = {}
    for kind, title, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile(text, str(page), "exec"), names)
        else:
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "selshare"
                cli.app(arguments, standalone_mode=False)
    return names


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(backend, "_REGISTRY", dict(backend._REGISTRY))  # operations that a page registers go again
    before = set(sys.modules)
    try:
        run_page(DOCS / page)
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("row_norms"):
                del sys.modules[name]


def test_every_tutorial_and_extension_has_code() -> None:
    without = {page for page in PAGES if page not in WITH_CODE}
    assert without == {"tutorials/index.md", "extending/index.md"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_public_name_is_on_a_page(site: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html")]
    documented = [_object(name) for page in pages for name in re.findall(r'<h\d id="(selshare\.[\w.]+)"', page)]
    # Not the compiled libraries: _native and, where nvcc is, libselshare_cuda.
    parts = [part.name for part in pkgutil.iter_modules(selshare.__path__) if not part.name.startswith(("_", "lib"))]
    modules = [selshare, *(imported(f"selshare.{name}") for name in parts)]
    missing = [
        f"{module.__name__}.{name}"
        for module in modules
        for name in getattr(module, "__all__", ())
        if name != "__version__" and not any(getattr(module, name) is one for one in documented)
    ]
    assert not missing, ", ".join(missing)


def imported(name: str) -> ModuleType:
    """A module, without what its dependencies warn of when they are imported (Lightning does)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _object(identifier: str) -> object:
    """What a heading of an API page stands for: the last part of the name in the longest module that there is."""
    parts = identifier.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: object = imported(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found
    raise AssertionError(identifier)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"' >]+)", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=[\"']?((?:https?:)?//[^\"' >]+)", text)
        assert loaded == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_roles_of_docstrings_become_links(site: Path) -> None:
    for page in (site / "api").glob("*.html"):
        assert not re.search(r":(?:func|class|meth|mod|attr|data):", page.read_text(encoding="utf-8")), page


def test_figures_are_those_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    draw = importlib.import_module("docs.figures.draw")
    committed = {path.name for path in (DOCS / "images" / "kernels").iterdir()}
    assert committed == {f"{name}.svg" for name in draw.FIGURES}
    monkeypatch.setattr(draw, "FIGURES", {name: draw.FIGURES[name] for name in ("fused-step", "clustering")})
    first, second = (draw.draw_all(tmp_path / folder) for folder in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
