"""Columns of the user's data as columns of an R data frame."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from gamwarm.adapters.mgcv.session import session
from gamwarm.columns import columns_of, values_and_missing
from gamwarm.errors import InvalidInput, InvalidType

__all__ = ["Frame", "Levels", "chosen_rows", "columns_named", "data_frame"]

Levels = Mapping[str, tuple[str, ...]]
"""Levels of factors, by the name of their column."""


def columns_named(data: Any, names: Iterable[str], what: str) -> dict[str, Any]:
    """Return the columns of these names; refuses one that is not there."""
    columns = columns_of(data)
    found = {}
    for name in names:
        if name not in columns:
            near = ", ".join(sorted(str(each) for each in columns)[:12])
            raise InvalidInput(f"{what} uses {name!r}, which is no column of data; there are {near}")
        found[name] = columns[name]
    return found


def chosen_rows(column: Any, rows: Any) -> Any:
    """Return the rows of a column where the mask is true; categories stay known."""
    if hasattr(column, "filter") and not hasattr(column, "iloc"):  # polars, Arrow
        return column.filter(rows)
    return column[rows] if hasattr(column, "dtype") else np.asarray(column)[rows]


@dataclass(frozen=True)
class Frame:
    """R's data frame.

    Attributes
    ----------
    r : R's object
    levels : mapping of str to levels
        Of its factors.
    has_dropped : bool
        Whether a factor lost levels that no row has.
    keeps_contrasts : bool
        Whether the other levels' contrasts mean the same without those.
    """

    r: Any
    levels: Levels
    has_dropped: bool
    keeps_contrasts: bool


def data_frame(columns: Mapping[str, Any], fixed: Levels, whole: Container[str]) -> Frame:
    """Return R's data frame of these columns.

    Numbers become numbers, truth values logical, text and categories factors; what is missing
    becomes NA. A factor has the levels of ``fixed`` first; those in ``whole`` keep levels that no
    row has, of the others they are dropped.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the column, and the row at fault if it is one.
    """
    made, levels = dict[str, Any](), dict[str, tuple[str, ...]]()
    n_rows, first, dropped, comparable = None, "", False, True
    for name, column in columns.items():
        vector, own, n, lost = _vector(column, name, fixed.get(name, ()), name in whole)
        dropped |= lost is not _Lost.NONE
        comparable &= lost is not _Lost.REFERENCE
        if n_rows is None:
            n_rows, first = n, name
        if n != n_rows:
            raise InvalidInput(f"column {name!r} has {n} rows, {first!r} has {n_rows}; give columns of one length")
        made[name] = vector
        if own is not None:
            levels[name] = own
    return Frame(session().call("frame", made, int(n_rows or 0)), levels, dropped, comparable)


class _Lost(Enum):
    """Which levels of a factor have no rows."""

    NONE = 0
    OTHER = 1
    REFERENCE = 2


def _vector(
    column: Any, name: str, fixed: tuple[str, ...], whole: bool
) -> tuple[Any, tuple[str, ...] | None, int, _Lost]:
    """Return R's vector, its levels if it is a factor, its length, and what levels it lost."""
    what = f"column {name!r}"
    categories = _categories(column)
    values, missing = values_and_missing(column, what)
    kind = values.dtype.kind
    if kind in "mM":
        raise InvalidType(
            f"{what} holds dates or durations ({values.dtype}); convert it to numbers, such as days: "
            "(column - column.min()) / numpy.timedelta64(1, 'D')"
        )
    if categories is None and kind == "O":
        present = [value for value, gone in zip(values, missing, strict=True) if not gone]
        if all(isinstance(value, (int, float, np.number, np.bool_)) for value in present):
            numbers = np.full(len(values), np.nan)
            numbers[~missing] = np.array(present, dtype=np.float64)
            values, kind = numbers, "f"
    if categories is None and kind in "biuf":
        if kind == "b":
            return session().rinterface.BoolSexpVector(values.tolist()), None, len(values), _Lost.NONE
        numbers = np.array(values, dtype=np.float64)
        numbers[missing] = np.nan
        infinite = np.isinf(numbers)
        if infinite.any():
            row = int(np.flatnonzero(infinite)[0])
            raise InvalidInput(f"{what} holds {numbers[row]} at row {row}; drop or fill such rows in every column")
        return numbers, None, len(values), _Lost.NONE
    ordered = bool(getattr(getattr(column, "cat", None), "ordered", False))
    texts = [None if gone else str(value) for value, gone in zip(values, missing, strict=True)]
    present_texts = {text for text in texts if text is not None}
    known = list(dict.fromkeys([*fixed, *(sorted(present_texts) if categories is None else categories)]))
    levels = tuple(level for level in known if whole or level in present_texts)
    place = {level: code for code, level in enumerate(levels, 1)}
    codes = np.array([_NA if text is None else place[text] for text in texts], dtype=np.int32)
    made = session().call("factor_of", codes, list(levels), ordered)
    lost = _Lost.NONE
    if len(levels) < len(known):
        lost = _Lost.REFERENCE if ordered or levels[:1] != tuple(known[:1]) else _Lost.OTHER
    return made, levels, len(values), lost


_NA = np.iinfo(np.int32).min  # R's integer NA


def _categories(column: Any) -> list[str] | None:
    """Return the categories of a pandas categorical column, in their order; None of any other."""
    known = getattr(getattr(column, "cat", None), "categories", None)
    return None if known is None or callable(known) else [str(each) for each in known]
