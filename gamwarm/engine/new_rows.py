"""How a bound term evaluates itself at new rows, without the data that it was bound to.

A fit keeps one `NewRows` per term, so that it can predict after the data are gone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

from gamwarm.display import counted
from gamwarm.engine.arrays import BoolArray, FloatArray, IntArray
from gamwarm.engine.source import Source
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.records import group_label

__all__ = [
    "ByLevelRows",
    "ConstantRows",
    "LevelRows",
    "LinearRows",
    "NewRows",
    "SplineRows",
    "TensorRows",
    "gather",
    "spline_rows",
]

_SHOWN_LEVELS = 8


class NewRows(ABC):
    """Evaluates one bound term at new values; each term's ``bind`` makes one, `BoundTerm.new_rows`.

    A subclass is a small frozen dataclass that pickles and holds no column of the data: knots,
    levels, centring and the lift to reduced coordinates. At the values that the term was bound to
    it returns ``BoundTerm.table`` bit for bit. A value at which the term means nothing is refused
    with `InvalidInput`, which names column, value, term and the next step.
    """

    name: str

    @abstractmethod
    def table(self, new: Source) -> tuple[str, FloatArray]:
        """Return the group of ``new`` that indexes the table, and the distinct rows (m, p).

        As ``BoundTerm.group`` and ``BoundTerm.table``: all reduced columns, before any fold drops
        some.
        """

    def of_case(self, counts: IntArray) -> NewRows:
        """Return the rule for a fit to rows with these level counts (m,) (empty: no levels)."""
        return self

    def at_prior(self, new: Source) -> BoolArray | None:
        """Return which of the table's rows (m,) have an effect that no data inform; None: no row.

        Such a row of the table is zero: the effect is at its prior mean, and its prior variance,
        that of one coefficient of the term, is part of the standard error.
        """
        return None


@dataclass(frozen=True)
class ConstantRows(NewRows):
    """One, everywhere."""

    name: str

    def table(self, new: Source) -> tuple[str, FloatArray]:
        return new.unit(), np.ones((1, 1))


@dataclass(frozen=True, eq=False)
class LinearRows(NewRows):
    """Numeric columns less their full-data means, ``centre`` of shape (p,)."""

    name: str
    columns: tuple[str, ...]
    centre: FloatArray

    def table(self, new: Source) -> tuple[str, FloatArray]:
        group, rows = new.distinct(self.columns, f"term {self.name!r}")
        return group, rows - self.centre


@dataclass(frozen=True, eq=False)
class LevelRows(NewRows):
    """A column per level.

    Parameters
    ----------
    name, column : str
    levels : tuple
        All levels of the full data. Numbers are compared as numbers (1 is 1.0), all else by text.
    contrasts : bool
        Whether columns are contrasts to the first level, which has none. Then an unseen level is
        refused; else its effect is at its prior mean, 0.
    seen : array of bool of shape (levels,), optional
        The levels that the fit has rows of; default all.
    """

    name: str
    column: str
    levels: tuple[Any, ...]
    contrasts: bool
    seen: BoolArray | None = None

    @property
    def has_reference(self) -> bool:
        """Whether contrasts are to the first level of the full data, or there are none."""
        return not self.contrasts or self.seen is None or bool(self.seen[0])

    def of_case(self, counts: IntArray) -> LevelRows:
        return replace(self, seen=counts > 0)

    def _places(self, new: Source) -> tuple[str, IntArray]:
        """Return the group of ``new``, and the place here of each of its levels (-1: unseen)."""
        group, values = new.levels(self.column, f"term {self.name!r}")
        every = [_comparable(level) for level in self.levels]
        if values and isinstance(_comparable(values[0]), str) != isinstance(every[0], str):
            raise InvalidType(
                f"column {self.column!r} holds {type(values[0]).__name__} values such as {values[0]!r}; the levels of "
                f"term {self.name!r} are {type(self.levels[0]).__name__} values such as {self.levels[0]!r}: convert it"
            )
        known = {level: i for i, level in enumerate(every) if self.seen is None or self.seen[i]}
        places = np.array([known.get(_comparable(value), -1) for value in values], dtype=np.intp)
        if self.contrasts and (places < 0).any():
            index = new.groups[group].index
            row = int(np.flatnonzero(places[index] < 0)[0])
            had = [str(level) for level in known]
            shown = ", ".join(had[:_SHOWN_LEVELS]) + ", …" * (len(had) > _SHOWN_LEVELS)
            raise InvalidInput(
                f"column {self.column!r} has the level {values[index[row]]!r} at row {row}, of which the fit of term "
                f"{self.name!r} had no rows (it had {shown}); leave such rows "
                "out, or use RandomEffect for levels that may be new"
            )
        return group, places

    def table(self, new: Source) -> tuple[str, FloatArray]:
        group, places = self._places(new)
        columns = places - self.contrasts
        rows = np.zeros((places.size, len(self.levels) - self.contrasts))
        found = np.flatnonzero(columns >= 0)
        rows[found, columns[found]] = 1.0
        return group, rows

    def at_prior(self, new: Source) -> BoolArray | None:
        return None if self.contrasts else self._places(new)[1] < 0


def _comparable(level: Any) -> float | str:
    return level if isinstance(level, (bool, int, float)) else group_label(level)


@dataclass(frozen=True, eq=False)
class SplineRows(NewRows):
    """B-splines on equally spaced knots, in the reduced coordinates of ``lift`` (k, p)."""

    name: str
    column: str
    lower: float
    upper: float
    degree: int
    lift: FloatArray

    def table(self, new: Source) -> tuple[str, FloatArray]:
        group, rows = new.distinct((self.column,), f"term {self.name!r}")
        within_knots(rows[:, 0], self.lower, self.upper, self.name, self.column, new.groups[group].index)
        first, values = spline_rows(rows[:, 0], self.lower, self.upper, self.lift.shape[0], self.degree)
        return group, gather(first, values, self.lift)


@dataclass(frozen=True, eq=False)
class ByLevelRows(NewRows):
    """A spline where column ``by`` has one level, and zero elsewhere.

    Parameters
    ----------
    name : str
        Of the block.
    spline : SplineRows
    by, level : str
    levels : tuple of str
        Labels of all levels of the full data: at others the term says nothing.
    seen : bool
        Whether the fit has rows of the level.
    """

    name: str
    spline: SplineRows
    by: str
    level: str
    levels: tuple[str, ...]
    seen: bool = True

    def of_case(self, counts: IntArray) -> ByLevelRows:
        return replace(self, seen=bool(counts.any()))

    def own(self, new: Source) -> tuple[str, IntArray, BoolArray]:
        """Return the group of the pairs of value and level, which of the spline's distinct values
        each has, and whether its level is the block's.
        """
        factor, values = new.levels(self.by, f"term {self.name!r}")
        labels = [group_label(value) for value in values]
        refused = np.array([not (each in self.levels and (self.seen or each != self.level)) for each in labels])
        if refused.any():
            index = new.groups[factor].index
            row = int(np.flatnonzero(refused[index])[0])
            raise InvalidInput(
                f"column {self.by!r} has the level {labels[index[row]]!r} at row {row}, of which the fit of term "
                f"{self.name!r} had no rows, so it has no curve for it; leave such rows out"
            )
        group, x, place = new.crossed(self.spline.table(new)[0], factor)
        return group, x, np.array([each == self.level for each in labels])[place]

    def table(self, new: Source) -> tuple[str, FloatArray]:
        group, x, own = self.own(new)
        return group, np.where(own[:, None], self.spline.table(new)[1][x], 0.0)


@dataclass(frozen=True, eq=False)
class TensorRows(NewRows):
    """Products of two splines, less their full-data means, less what other terms account for.

    Parameters
    ----------
    name : str
    margins : pair of SplineRows
    centre : array of shape (p,)
        Full-data means of the products.
    held : int or None
        The product of both constants: exactly zero.
    mains : tuple of NewRows
        The terms that are projected out.
    projection : array of shape (columns of all mains, p)
        What of their columns is taken from each product.
    """

    name: str
    margins: tuple[SplineRows, SplineRows]
    centre: FloatArray
    held: int | None
    mains: tuple[NewRows, ...]
    projection: FloatArray

    def table(self, new: Source) -> tuple[str, FloatArray]:
        group, rows = self.centred(new)
        if self.mains:
            # One column after the other: no thread count changes a bit.
            for column, taken in zip(self.main_columns(new, group).T, self.projection, strict=True):
                rows -= column[:, None] * taken
        return group, rows

    def centred(self, new: Source) -> tuple[str, FloatArray]:
        """Return the group of the pairs of values, and the products there before any projection."""
        (first, left), (second, right) = (margin.table(new) for margin in self.margins)
        group, x, z = new.crossed(first, second)
        rows = (left[x][:, :, None] * right[z][:, None, :]).reshape(x.size, -1) - self.centre
        if self.held is not None:
            rows[:, self.held] = 0.0
        return group, rows

    def main_columns(self, new: Source, group: str) -> FloatArray:
        """Return the columns of all projected terms at the pairs."""
        index = new.groups[group].index
        row = np.zeros(new.groups[group].size, dtype=np.intp)
        row[index] = np.arange(index.size)
        found = []
        for main in self.mains:
            own, rows = main.table(new)
            found.append(rows[new.groups[own].index[row]])
        return np.hstack(found)


def within_knots(x: FloatArray, lower: float, upper: float, name: str, column: str, index: IntArray) -> None:
    """Refuse distinct values x (m,) outside the knots; ``index`` (n,) says which row has which."""
    outside = ((x < lower) | (x > upper))[index]
    if outside.any():
        row, rows = int(np.flatnonzero(outside)[0]), counted(int(outside.sum()), "such row")
        raise InvalidInput(
            f"column {column!r} holds {x[index[row]]:g} at row {row} ({rows}), outside the knots of term {name!r}, "
            f"[{lower:g}, {upper:g}]; leave such rows out, or bind the term with wider lower "
            "and upper"
        )


def spline_rows(x: FloatArray, lower: float, upper: float, k: int, degree: int) -> tuple[IntArray, FloatArray]:
    """Return, per x, the first of its degree + 1 non-zero basis functions and their values."""
    width = (upper - lower) / (k - degree)
    knots = lower + width * np.arange(-degree, k + 1)
    # The ends are exact, so that rounding cannot push the largest value out.
    knots[degree], knots[k] = lower, upper
    basis = BSpline.design_matrix(x, knots, degree).tocsr()
    values = basis.data.reshape(x.shape[0], degree + 1)
    first = basis.indices.reshape(x.shape[0], degree + 1)[:, 0]
    return first.astype(np.intp), np.array(values, dtype=np.float64)


def gather(first: IntArray, values: FloatArray, columns: FloatArray) -> FloatArray:
    """Return B @ columns by a fixed order of additions, so that no thread count changes a bit."""
    out = np.zeros((first.shape[0], columns.shape[1]))
    for t in range(values.shape[1]):
        out += values[:, t, None] * columns[first + t]
    return out
