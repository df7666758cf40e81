"""What a module declares: for tests that every one of a kind has what it needs elsewhere."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

__all__ = ["DOCS", "public_classes"]

DOCS = Path(__file__).resolve().parents[2] / "docs"


def public_classes(module: ModuleType, base: type = object) -> set[type]:
    """Return the public classes that a module defines."""
    return {
        value
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and issubclass(value, base) and name[0] != "_"
    }
