"""Sphinx: `sphinx -W` must stay silent (scripts/test runs it so)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gamwarm
from gamwarm.version import __version__

project = "gamwarm"
author = "the gamwarm developers"
project_copyright = "2026, the gamwarm developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"gamwarm {__version__}"

myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_ivar = True  # an "Attributes" section beside real attributes would describe them twice
autodoc_typehints = "none"  # signatures of arrays and unions hide the names; the docstrings say what matters
autodoc_member_order = "bysource"
suppress_warnings = [
    "ref.python"
]  # the words of "array of shape (n,)" are looked up as names; several classes have a shape
autodoc_mock_imports = ["mpi4py"]


def _names_of_gamwarm() -> str:
    """Return the sections of the reference: the comments in ``gamwarm.__all__`` are the
    headings.
    """
    lines, inside = [], False
    for line in (Path(__file__).parents[1] / "gamwarm" / "__init__.py").read_text().splitlines():
        inside = inside or line.startswith("__all__")
        entry = line.strip()
        if inside and entry.startswith("# "):
            lines += ["", f"## {entry[2:].capitalize()}", ""]
        elif inside and (name := entry.strip('",')).isidentifier() and name != "__version__":
            lines += ["```{eval-rst}", *_directive(name), "```"]
    return "\n".join(lines)


def _directive(name: str) -> list[str]:
    value = getattr(gamwarm, name)
    if not isinstance(value, type):
        return [f".. autofunction:: gamwarm.{name}"]
    kind = "exception" if issubclass(value, BaseException) else "class"
    return [f".. auto{kind}:: gamwarm.{name}", "   :members:", "   :inherited-members: BaseException, str, int, tuple"]


def _fill_in_names(_app: object, docname: str, source: list[str]) -> None:
    if docname == "reference":
        source[0] = source[0].replace("{{ names }}", _names_of_gamwarm())


def setup(app: Any) -> None:
    app.connect("source-read", _fill_in_names)
