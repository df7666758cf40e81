"""The columns of a data set, checked once, with the distinct values of each covariate."""

from __future__ import annotations

from typing import Any

import numpy as np

from gamwarm.checks import column_name
from gamwarm.columns import Alignment, columns_of, known_values, level_values, numeric_values
from gamwarm.engine.arrays import FloatArray, IntArray
from gamwarm.engine.design import Group
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import DistributedRows

__all__ = ["Source"]

# The square of a number, times a weight, is a number.
_LARGEST = 1e100


class Source:
    """The columns of a data set, checked once, with the distinct values of each covariate."""

    def __init__(self, columns: Any) -> None:
        columns = columns_of(columns)
        for name, column in columns.items():
            if isinstance(column, DistributedRows):
                raise InvalidType(
                    f"column {name!r} is distributed over {column.comm.size} ranks; this engine fits data that every "
                    "rank holds: gather the column first"
                )
        self.columns = columns
        self.n: int | None = None
        self._first = ""
        self.alignment = Alignment()
        self.groups: dict[str, Group] = {}
        self.values: dict[str, Any] = {}
        self.used: dict[str, None] = {}

    def _column(self, name: str, what: str) -> Any:
        name = column_name(name, what)
        if name not in self.columns:
            names = list(self.columns)
            known = ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            raise InvalidInput(f"{what} needs column {name!r}; the data has {known or 'no columns'}")
        self.alignment.add(f"column {name!r}", self.columns[name])
        self.used[name] = None
        return self.columns[name]

    def _length(self, name: str, n: int) -> None:
        if self.n is None:
            self.n, self._first = n, name
            if n == 0:
                raise InvalidInput(f"column {name!r} is empty; give at least one row")
        elif n != self.n:
            raise InvalidInput(f"column {name!r} has {n} rows, column {self._first!r} has {self.n}; make them agree")

    def numbers(self, name: str, what: str, *, largest: float = _LARGEST) -> FloatArray:
        """Return a numeric column, of shape (n,)."""
        array = numeric_values(self._column(name, what), f"column {name!r}", f"{what} needs numbers")
        self._length(name, array.shape[0])
        if array.size and float(np.abs(array).max()) > largest:
            row = int(np.abs(array).argmax())
            raise InvalidInput(f"column {name!r} holds {array[row]:g} at row {row}, too large to square; rescale it")
        return array

    def distinct(self, names: tuple[str, ...], what: str) -> tuple[str, FloatArray]:
        """Return group name and distinct rows (m, number of names) of numeric columns."""
        names = tuple(column_name(name, what) for name in names)
        key = f"numbers{names!r}"
        if key not in self.values:
            stacked = np.column_stack([self.numbers(name, what) + 0.0 for name in names])
            if len(names) == 1:
                flat, index = np.unique(stacked[:, 0], return_inverse=True)
                rows = flat[:, None]
            else:
                rows, index = np.unique(stacked, axis=0, return_inverse=True)
            self.values[key] = rows
            self.groups[key] = Group(index.reshape(-1).astype(np.intp), rows.shape[0])
        distinct: FloatArray = self.values[key]
        return key, distinct

    def levels(self, name: str, what: str) -> tuple[str, list[Any]]:
        """Return group name and sorted levels of a column of any sortable type."""
        key = f"factor({column_name(name, what)!r})"
        if key not in self.values:
            levels, index = level_values(self._column(name, what), f"column {name!r}")
            self._length(name, index.shape[0])
            self.values[key] = levels
            self.groups[key] = Group(index, len(levels))
        return key, self.values[key]

    def rows(self) -> int:
        """Return the number of rows: of the columns read so far, else of the first column."""
        if self.n is None:
            first = next(iter(self.columns), None)
            if first is None:
                raise InvalidInput("the data has no columns; give a mapping of names to arrays, or a data frame")
            self._length(first, len(known_values(self.columns[first], f"column {first!r}")))
        assert self.n is not None
        return self.n

    def crossed(self, left: str, right: str) -> tuple[str, IntArray, IntArray]:
        """Return the group of the pairs that occur of two groups, and each pair's places in the
        two, (m,).
        """
        key = f"{left} x {right}"
        if key not in self.values:
            a, b = self.groups[left], self.groups[right]
            codes, index = np.unique(a.index * b.size + b.index, return_inverse=True)
            self.values[key] = np.divmod(codes, b.size)
            self.groups[key] = Group(index.reshape(-1).astype(np.intp), codes.shape[0])
        return key, *self.values[key]

    def counts(self, group: str) -> FloatArray:
        """Return how many rows there are of each of a group's values, of shape (m,)."""
        own = self.groups[group]
        return np.bincount(own.index, minlength=own.size).astype(np.float64)

    def unit(self) -> str:
        """Group of the intercept: one value for all rows."""
        if "unit" not in self.groups:
            self.groups["unit"] = Group(np.zeros(self.rows(), dtype=np.intp), 1)
        return "unit"
