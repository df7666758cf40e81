"""Equality by content for frozen dataclasses that hold arrays."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def same_content(a: Any, b: Any) -> bool:
    """Whether two values hold the same numbers and words; ``compare=False`` fields do not count."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape and _same_numbers(a, b)
    if is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(
            same_content(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare
        )
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same_content(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    return bool(a == b)


def _same_numbers(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


class ContentEquality:
    """``==`` by content; not hashable, since arrays are not."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return same_content(self, other)

    __hash__ = None  # type: ignore[assignment]
