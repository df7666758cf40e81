"""Columns of data as users have them: arrays, lists, and the columns of pandas, polars and Arrow.

What has no value is refused with its column and row, whatever says so: NaN, NaT, None, pandas.NA, a
mask, a null. Columns that carry an index are paired by it: where two indexes differ, they are
refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.display import brief_repr
from gamwarm.errors import InvalidInput, InvalidType

__all__ = [
    "Alignment",
    "columns_of",
    "index_of",
    "known_values",
    "level_values",
    "numeric_values",
    "values_and_missing",
]

FloatArray = npt.NDArray[np.float64]
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


def columns_of(table: Any) -> Mapping[str, Any]:
    """Return columns by name, of a mapping, a data frame or a record array."""
    if isinstance(table, Mapping):
        return table
    names = getattr(table, "column_names", None)  # Arrow
    if names is None:
        names = getattr(getattr(table, "dtype", None), "names", None)  # a structured array
    if names is None:
        names = getattr(table, "columns", None)  # pandas and polars
    if names is None or isinstance(table, type) or not hasattr(table, "__getitem__"):
        raise InvalidType(
            f"columns is {type(table).__name__}; give a data frame, or a mapping of names to arrays (a dict)"
        )
    return {name: table[name] for name in names}


def index_of(column: Any) -> Any:
    """Return the index that a column (or mask) carries, None if it has none."""
    index = getattr(column, "index", None)  # a method of lists and tuples
    return index if hasattr(index, "equals") else None


class Alignment:
    """The index that the columns of one data set share, as far as they carry one.

    Raises
    ------
    InvalidInput
        From `add`: the two columns and the first row where they differ.
    """

    def __init__(self) -> None:
        self.index: Any = None
        self._owner = ""

    def add(self, what: str, column: Any) -> None:
        """Compare the index of ``column`` with the others'."""
        index = index_of(column)
        if index is None or len(index) == 0:
            return
        if self.index is None:
            self.index, self._owner = index, what
            return
        if index is self.index or len(index) != len(self.index) or index.equals(self.index):
            return  # another length is refused as such
        row = next((i for i, (a, b) in enumerate(zip(index, self.index, strict=True)) if a is not b and a != b), 0)
        raise InvalidInput(
            f"{what} has another index than {self._owner} (row {row}: {brief_repr(index[row])}, there "
            f"{brief_repr(self.index[row])}); "
            "put both in one data frame, reindex one like the other, or pass .to_numpy() to pair them by position"
        )


def values_and_missing(column: Any, what: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return a column as an array of shape (n,), and which of its rows have no value.

    Raises
    ------
    InvalidInput, InvalidType
        As `known_values`, but for missing values.
    """
    mask = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    try:
        values = np.asarray(column)
    except ValueError as error:
        raise InvalidInput(f"{what} is ragged; give one value per row, shape (n,) ({error})") from None
    if values.ndim != 1:
        raise InvalidInput(f"{what} has shape {values.shape}; expected (n,)")
    if values.dtype.kind in "SU" and not hasattr(column, "dtype"):
        # NumPy turns a NaN or None among strings into text.
        each = np.fromiter(column, dtype=object, count=len(values))
        values = each if _missing(each).any() else values
    if values.dtype.kind == "T":  # its missing strings are objects of the user's choice
        values = values.astype(object)
    if values.dtype.kind in "cV":
        raise InvalidType(f"{what} holds {values.dtype} values; give real numbers, or text for groups")
    mask = _missing(values) if mask is None else mask | _missing(values)
    return values, mask


def known_values(column: Any, what: str, rows: str = "rows") -> npt.NDArray[Any]:
    """Return a column as an array of shape (n,) of which every row has a value.

    Raises
    ------
    InvalidInput
        Not one column, or the first row without a value.
    InvalidType
        Complex numbers, records.
    """
    values, mask = values_and_missing(column, what)
    if mask.any():
        row, missing = int(np.flatnonzero(mask)[0]), int(mask.sum())
        others = f"; {missing} such rows in all" if missing > 1 else ""
        raise InvalidInput(
            f"{what} has no value at row {row} ({values[row]}{others}); drop or fill these {rows} in every column"
        )
    return values


def _missing(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    kind = values.dtype.kind
    missing: npt.NDArray[np.bool_]
    if kind == "f":
        missing = np.isnan(values)
    elif kind in "mM":
        missing = np.isnat(values)
    elif kind == "O":
        missing = np.fromiter(map(_is_missing, values), np.bool_, len(values))
    else:
        missing = np.zeros(len(values), dtype=np.bool_)
    return missing


def _is_missing(value: Any) -> bool:
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)  # NaN and NaT of any library are not themselves
    except Exception:  # pandas.NA has no truth value, a signalling decimal NaN raises
        return True


def numeric_values(column: Any, what: str, needs: str = "numbers") -> FloatArray:
    """Return a finite float64 copy of a column of numbers, of shape (n,).

    Raises
    ------
    InvalidInput, InvalidType
        Naming ``what`` and the row at fault, if it is one.
    """
    values = known_values(column, what)
    kind, row = values.dtype.kind, 0
    if kind == "O":
        row = next((i for i, value in enumerate(values) if not _is_number(value)), -1)
    if row >= 0 and (kind in "mM" or (kind == "O" and isinstance(values[row], _TIMES))):
        raise InvalidType(
            f"{what} holds dates or durations ({values.dtype}), and {needs}; convert it, such as to days: "
            "(column - column.min()) / numpy.timedelta64(1, 'D')"
        )
    if row >= 0 and kind in "OSU" and len(values):
        # Digits may be the names of groups: text is never taken for numbers.
        row = next((i for i, value in enumerate(values) if not _is_number(value, text=True)), row)
        raise InvalidType(
            f"{what} holds {values.dtype} values ({brief_repr(values[row])} at row {row}), and {needs}; convert it, "
            "such as by numpy.asarray(column, float), or use Factor or RandomEffect for groups"
        )
    try:
        with np.errstate(over="ignore"):  # of a longer type: refused as infinite
            array = np.array(values, dtype=np.float64)
    except OverflowError:
        raise InvalidInput(f"{what} holds an integer of more than 308 digits; rescale it") from None
    bad = ~np.isfinite(array)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InvalidInput(
            f"{what} holds {array[row]} at row {row} ({int(bad.sum())} non-finite in all); "
            "drop or fill these rows in every column"
        )
    return array


def _is_number(value: Any, *, text: bool = False) -> bool:
    """Whether this is a real number, or with ``text`` reads as one."""
    if isinstance(value, (complex, *_TIMES) if text else (str, bytes, complex, *_TIMES)):
        return False
    try:
        float(value)
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return False
    return True


def level_values(column: Any, what: str) -> tuple[list[Any], npt.NDArray[np.intp]]:
    """Return the sorted levels of a column of groups, and the level of every row (n,).

    Raises
    ------
    InvalidInput, InvalidType
        Naming ``what`` and the row at fault, if it is one.
    """
    values = known_values(column, what)
    infinite = np.zeros(0, dtype=np.bool_)
    if values.dtype.kind == "f":
        infinite = np.isinf(values)
    elif values.dtype.kind == "O":
        infinite = np.fromiter((isinstance(v, float) and not np.isfinite(v) for v in values), np.bool_, len(values))
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise InvalidInput(
            f"{what} has no level at row {row} ({brief_repr(values[row])}); drop such rows or name their group"
        )
    try:
        levels, index = np.unique(values, return_inverse=True)
    except TypeError:
        raise InvalidInput(f"{what} mixes types that cannot be sorted; convert it to strings") from None
    times = levels.dtype.kind in "mM"  # as plain Python values they would be numbers, dates or times by their unit
    return list(levels) if times else levels.tolist(), index.reshape(-1).astype(np.intp)
