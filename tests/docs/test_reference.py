"""Every public name is on the page of names, with its parameters."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
MODULES = ["gamwarm", *(f"gamwarm.{name}" for name in ("adapters", "archive", "engine", "report", "testing"))]
PUBLIC = [
    (module, name)
    for module in MODULES
    for name in importlib.import_module(module).__all__
    if name not in ("__version__", "ENGINE", "Term")  # a constant and a union, which name themselves
]


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> set[str]:
    """Build the page of names alone, and return the names that it describes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Sphinx and its extensions, at import
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace, patch_docutils

        source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
        conf = (DOCS / "conf.py").read_text().replace("__file__", repr(str(DOCS / "conf.py")))
        (source / "conf.py").write_text(conf)
        shutil.copy(DOCS / "reference.md", source / "reference.md")
        settings = {"master_doc": "reference", "suppress_warnings": ["ref", "myst.xref_missing"]}
        with patch_docutils(), docutils_namespace():
            app = Sphinx(source, source, out, out / "doctrees", "dummy", settings, status=None, warning=None)
            app.build()
        return set(app.env.domains["py"].objects)


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_a_public_name_is_on_the_page(described, module, name):
    assert {f"{module}.{name}", f"{getattr(importlib.import_module(module), name).__module__}.{name}"} & described


def taken_by(value: Any) -> list[str]:
    parameters = inspect.signature(value).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in plain and not p.name.startswith("_")]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_what_a_public_name_takes_is_described(module, name):
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) and issubclass(value, (BaseException, enum.Enum, str)):
        return
    telling = inspect.getmro(value) if inspect.isclass(value) else [value]
    text = " ".join(inspect.getdoc(each) or "" for each in telling)
    if re.search(r"Make\s+it\s+with|made\s+by\s+`", text):
        return  # its maker says what it takes

    assert [parameter for parameter in taken_by(value) if not re.search(rf"\b{parameter}\b", text)] == []
