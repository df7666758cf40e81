"""Smooths of a given shape: monotone, or convex or concave.

A B-spline increases where its coefficients do, and is convex where their second differences, at
equally spaced knots, are not negative. Both conditions are sufficient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from gamwarm.display import brief_repr
from gamwarm.engine.bound_term import BoundTerm, Information
from gamwarm.engine.smooth import Smooth
from gamwarm.engine.source import Source
from gamwarm.errors import InvalidInput

__all__ = ["Convex", "Monotone"]


@dataclass(frozen=True)
class _Shaped(Smooth):
    """A P-spline whose differences of some order have one sign: -1, or 1 where they must not be
    negative.
    """

    direction: str = ""

    order: ClassVar[int]
    signs: ClassVar[dict[str, float]]

    def __post_init__(self) -> None:
        if self.direction not in list(self.signs):
            raise InvalidInput(
                f"{type(self).__name__}({self.column!r}): direction {brief_repr(self.direction)}; "
                f"use one of {list(self.signs)}"
            )
        super().__post_init__()

    @property
    def word(self) -> str:
        """What names the term: another direction is another term."""
        return self.direction

    def bind(self, source: Source, information: Information) -> tuple[BoundTerm, ...]:
        """Fix knots, centring, penalties, their scales and the inequalities on the full data."""
        sign = self.signs[self.direction]
        blocks = super().bind(source, information)
        return tuple(replace(block, constraint=sign * np.diff(block.lift, self.order, axis=0)) for block in blocks)


@dataclass(frozen=True)
class Monotone(_Shaped):
    """A monotone P-spline of one column: a `Smooth` whose coefficients only rise, or only fall.

    Row i of its inequalities is about coefficients i and i + 1.

    Parameters
    ----------
    direction : {"increasing", "decreasing"}
        The others are those of `Smooth`.
    """

    direction: str = "increasing"

    order: ClassVar[int] = 1
    signs: ClassVar[dict[str, float]] = {"increasing": 1.0, "decreasing": -1.0}


@dataclass(frozen=True)
class Convex(_Shaped):
    """A convex or concave P-spline of one column: a `Smooth` whose slope only rises, or only falls.

    Row i of its inequalities is about coefficients i to i + 2.

    Parameters
    ----------
    direction : {"convex", "concave"}
        The others are those of `Smooth`.
    """

    direction: str = "convex"

    order: ClassVar[int] = 2
    signs: ClassVar[dict[str, float]] = {"convex": 1.0, "concave": -1.0}
