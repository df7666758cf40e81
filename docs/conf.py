"""Sphinx: `sphinx -W` must stay silent (scripts/test runs it so)."""

from __future__ import annotations

from gamwarm._version import __version__

project = "gamwarm"
author = "the gamwarm developers"
project_copyright = "2025, the gamwarm developers"
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
autodoc_mock_imports = ["mpi4py"]
