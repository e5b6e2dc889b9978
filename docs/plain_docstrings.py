"""What mkdocstrings shows of the docstrings: Sphinx's roles become links, its code blocks Markdown's."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(\w+):`~?\.?([\w.]+)`")


class PlainDocstrings(griffe.Extension):
    """Rewrites each docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """One module, class, function or attribute."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda role: _link(obj, role[1], role[2]), obj.docstring.value)
            text = re.sub(r"^ *\.\. code-block:: python\n", "", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)


def _link(obj: griffe.Object, role: str, name: str) -> str:
    """A link to ``name`` where a page has it, else its last part in code type."""
    owner = obj if obj.is_class or obj.is_module or obj.parent is None else obj.parent
    if name.startswith("selshare"):
        target = name
    elif role in ("meth", "attr") and owner.is_class:
        target = f"{owner.path}.{name}"
    else:
        target = ".".join([*obj.path.split(".")[:2], name])
    return f'<autoref identifier="{target}" optional><code>{name.rsplit(".", 1)[-1]}</code></autoref>'
