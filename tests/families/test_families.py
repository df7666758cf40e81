"""What a declared family needs besides its class; anything missing is named here."""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest

import gamwarm.engine
from gamwarm import families
from tests.support import models
from tests.support.declared import DOCS, public_classes

MODULES = [import_module(f"{families.__name__}.{found.name}") for found in iter_modules(families.__path__)]
FAMILIES = sorted(
    set().union(*(public_classes(module, gamwarm.engine.Family) for module in MODULES)) - {gamwarm.engine.Family},
    key=lambda f: f.__name__,
)


def test_every_family_is_tried_on_a_model():
    """The lists by which derivative tables, objectives and neutrality are tested."""
    assert {family.__name__ for family in FAMILIES} == {*models.MODELS, "Gaussian"}
    assert set(models.MODELS.values()) <= set(models.columns())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_public_described_named_and_complete(family):
    lacks = {
        name
        for name, function in inspect.getmembers(gamwarm.engine.Family, inspect.isfunction)
        if not name.startswith("_")
        and "raise NotImplementedError" in inspect.getsource(function)
        and getattr(family, name) is function
    }

    assert getattr(gamwarm.engine, family.__name__) is family
    assert f"| `{family.__name__}(" in (DOCS / "engine.md").read_text()
    assert family.kind == f"gamwarm.engine.{family.__name__}"
    assert set(family.response_units) <= set(family.predictors)
    # The variance of the Gaussian is profiled out, by an objective of its own.
    assert lacks == ({"loss", "constants", "derivatives"} if family.__name__ == "Gaussian" else set())
