"""A family from named values: what its fingerprint distinguishes, and what it refuses.

Values are hashed by type, each after the name of its type: the numbers of an array with its mask, a
data frame with its column names and index, categories with their order. Equal numbers are equal
whatever holds them in memory (element type, memory order, list or tuple); times keep their unit. An
object whose meaning is not all in its numbers (a unit, coordinates, a gradient) is refused.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from gamwarm.checks import as_str, is_sparse
from gamwarm.columns import columns_of
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.formats import NAMED_VALUES
from gamwarm.identity.fingerprint import Fingerprinter
from gamwarm.problem import BlockwiseFitOptions, DistributedRows, IndexedDesign, ParameterBlockSpec

__all__ = ["NamedFamily", "family", "write_value"]

_DEEPEST: Final = 64
_PLAIN_ARRAYS: Final = (np.ndarray, np.memmap, np.matrix, np.recarray, np.ma.MaskedArray)


class NamedFamily:
    """A family of named values; made by `gamwarm.family`.

    Attributes
    ----------
    family_kind : str
    """

    def __init__(self, kind: str, fingerprint: str) -> None:
        self.family_kind = as_str(kind, "family kind")
        self._fingerprint = fingerprint

    def persistent_warm_start_fingerprint(
        self, specs: Sequence[ParameterBlockSpec], options: BlockwiseFitOptions
    ) -> str | None:
        """Hash of the values."""
        return self._fingerprint

    def __repr__(self) -> str:
        return f"NamedFamily({self.family_kind!r}, {self._fingerprint[:12]}…)"


def family(kind: str, /, **values: Any) -> NamedFamily:
    """Return a family whose fingerprint is that of named values (response, weights, priors …).

    Parameters
    ----------
    kind : str
        Names the model ("my-project.gamma"); it cannot be hashed, so other models need other kinds.
    **values
        Everything that the answer depends on and that blocks and options do not hold: None, truth
        values, numbers, strings, dates, NumPy and SciPy sparse arrays, columns and data frames of
        pandas, polars and Arrow, lists and mappings of these. Masks, column names, index and
        category order count.

    Raises
    ------
    InvalidType
        A value whose values cannot all be distinguished; it is named.
    """
    fp = Fingerprinter()
    fp.write_str(NAMED_VALUES)
    for name in sorted(values):
        fp.write_str(name)
        write_value(fp, values[name], name)
    return NamedFamily(kind, fp.hexdigest())


def write_value(fp: Fingerprinter, value: Any, what: str, depth: int = 0) -> None:
    """Hash a value after the name of its type.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the part of ``what`` at fault.
    """
    if depth > _DEEPEST:
        raise InvalidInput(f"{what[:80]}… is nested more than {_DEEPEST} deep; does it contain itself?")
    scalar = _scalar(value)
    if scalar is not None:
        kind, text = scalar
        fp.write_str(kind)
        if kind == "number":
            fp.write_f64(value)
        else:
            fp.write_str(text)
    elif isinstance(value, Mapping) and not hasattr(value, "dtype"):
        fp.write_str("mapping")
        fp.write_u64(len(value))
        for key in sorted(as_str(key, f"a key of {what}", empty=True) for key in value):
            fp.write_str(key)
            write_value(fp, value[key], f"{what}[{key!r}]", depth + 1)
    elif is_sparse(value):
        fp.write_str("sparse")
        fp.write_matrix(value)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        fp.write_str("named tuple")
        write_value(fp, value._fields, what, depth + 1)
        write_value(fp, tuple(value), what, depth + 1)
    elif type(value) in (list, tuple, range):
        fp.write_str("sequence")
        fp.write_u64(len(value))
        for i, each in enumerate(value):
            write_value(fp, each, f"{what}[{i}]", depth + 1)
    elif isinstance(value, IndexedDesign) or (isinstance(value, DistributedRows) and value.distinct is not None):
        fp.write_str("indexed")
        fp.write_matrix(value)
    elif isinstance(value, DistributedRows):  # as the plain array of all its rows
        fp.write_str("array")
        fp.write_u64(len(value.shape))
        for size in value.shape:
            fp.write_u64(size)
        if len(value.shape) == 2:
            fp.write_matrix(value)
        else:
            fp.write_f64_array(value)
    elif type(value) in _PLAIN_ARRAYS or isinstance(value, np.generic):
        _write_array(fp, value, what, depth)
    elif _library(value) in ("pandas", "polars", "pyarrow"):
        _write_foreign(fp, value, what, depth)
    else:
        raise _indistinct(value, what)


def _indistinct(value: Any, what: str) -> InvalidType:
    advice = "pass numpy.asarray(…) of it, and its other contents as separate values"
    if isinstance(value, (set, frozenset)):
        advice = "it has no order; pass sorted(…) of it"
    elif not hasattr(value, "__array__"):
        advice = "pass arrays, numbers or strings, and express other changes by a name or version"
    return InvalidType(f"{what} is {type(value).__name__}, whose values cannot all be distinguished; {advice}")


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _scalar(value: Any) -> tuple[str, str] | None:
    """Return kind and text of a plain value, None if it is none; numbers by their bits."""
    if value is None:
        return "none", ""
    if isinstance(value, (bool, np.bool_)):
        return "bool", str(bool(value))
    if isinstance(value, str):
        return "str", str(value)
    if isinstance(value, bytes):
        return "bytes", value.hex()
    if type(value) is np.timedelta64:  # NumPy calls it an integer; it has a unit
        return None
    if isinstance(value, (int, np.integer)):
        return "int", str(int(value))
    if isinstance(value, (float, np.floating)) and not isinstance(value, np.longdouble):
        return "number", ""
    if isinstance(value, complex) and not isinstance(value, np.generic):
        return "complex", f"{value.real.hex()} {value.imag.hex()}"
    if isinstance(value, (decimal.Decimal, fractions.Fraction)):
        return type(value).__name__, str(value)
    if type(value).__name__ in ("NAType", "NaTType", "Period", "Interval"):  # of pandas
        return type(value).__name__, repr(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return "time", f"{value.isoformat()} {getattr(value, 'tzinfo', None)}"
    if isinstance(value, datetime.timedelta):
        exact = getattr(value, "value", None)  # nanoseconds of a pandas.Timedelta
        return "duration", str(exact if exact is not None else value)
    return None


def _write_array(fp: Fingerprinter, value: Any, what: str, depth: int) -> None:
    if isinstance(value, np.ma.MaskedArray):
        fp.write_str("masked")
        mask = np.ma.getmaskarray(value)
        if mask.dtype.names:
            raise _indistinct(value, what)
        _write_array(fp, mask, what, depth)
        value = np.where(mask, np.zeros((), dtype=value.dtype), value.data)
    array = np.asarray(value)
    kind = array.dtype.kind
    most = {"i": 8, "u": 8, "f": 8, "c": 16}.get(kind)
    if kind not in "biufcmMUSTOV" or (most is not None and array.dtype.itemsize > most):
        raise InvalidType(f"{what} is an array of {array.dtype}; convert it to float64 or to strings")
    is_text = kind in "UTO" and array.size > 0 and all(isinstance(each, str) for each in array.flat)
    fp.write_str("array" if kind in "biuf" else "text" if is_text else f"array of {kind}")
    fp.write_u64(array.ndim)
    for size in array.shape:
        fp.write_u64(size)
    if kind in "biuf":
        if array.ndim == 2:
            fp.write_matrix(array)
        else:
            fp.write_f64_array(array.reshape(-1))
    elif kind == "c":
        for part in (array.real, array.imag):
            fp.write_f64_array(np.asarray(part).reshape(-1))
    elif kind in "mM":
        fp.write_str(str(array.dtype.newbyteorder("=")))
        fp.write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    elif kind == "V":
        if not array.dtype.names:
            raise InvalidType(f"{what} is an array of {array.dtype}; convert it to float64 or to strings")
        for name in array.dtype.names:
            fp.write_str(name)
            _write_array(fp, np.ascontiguousarray(array[name]), f"{what}[{name!r}]", depth)
    elif is_text:
        for each in array.flat:
            fp.write_str(str(each))
    else:
        for i, each in enumerate(array.flat):
            write_value(fp, each, f"{what}[{i}]", depth + 1)


def _write_foreign(fp: Fingerprinter, value: Any, what: str, depth: int) -> None:
    """Hash a scalar, column, index or table of pandas, polars or Arrow."""
    kind = type(value).__name__
    if hasattr(value, "as_py"):  # a scalar of Arrow
        write_value(fp, value.as_py(), what, depth + 1)
    elif hasattr(value, "levels") and hasattr(value, "get_level_values"):
        fp.write_str("index of several levels")
        write_value(fp, list(value.names), what, depth + 1)
        for level in range(value.nlevels):
            _write_column(fp, value.get_level_values(level), what, depth)
    elif getattr(value, "ndim", None) == 2 or hasattr(value, "column_names") or kind == "DataFrame":
        fp.write_str("table")
        names = list(getattr(value, "column_names", None) or value.columns)
        write_value(fp, names, f"the column names of {what}", depth + 1)
        if len({str(name) for name in names}) < len(names):
            raise InvalidInput(f"{what} has two columns of one name; rename one")
        if _library(value) == "pandas":
            _write_foreign(fp, value.columns, f"the columns of {what}", depth + 1)
        for name, column in columns_of(value).items():
            fp.write_str("column")
            _write_column(fp, column, f"{what}[{name!r}]", depth)
        if _library(value) == "pandas":
            _write_foreign(fp, value.index, f"the index of {what}", depth + 1)
    elif hasattr(value, "dtype") or hasattr(value, "type"):
        fp.write_str("column")
        write_value(fp, getattr(value, "name", None), f"the name of {what}", depth + 1)
        _write_column(fp, value, what, depth)
        index = getattr(value, "index", None)
        if hasattr(index, "equals"):
            _write_foreign(fp, index, f"the index of {what}", depth + 1)
    else:
        raise _indistinct(value, what)


def _write_column(fp: Fingerprinter, column: Any, what: str, depth: int) -> None:
    """Hash a column's values: plain ones by their bits, else one by one, so nulls differ."""
    dtype = getattr(column, "dtype", None)
    dtype = getattr(column, "type", dtype) if dtype is None else dtype
    categories = _categories(column)
    if categories is not None:
        fp.write_str("categories")
        write_value(fp, [*categories], f"the categories of {what}", depth + 1)
        fp.write_bool(bool(getattr(dtype, "ordered", False)))
    if isinstance(dtype, np.dtype) and categories is None:
        _write_array(fp, np.asarray(column), what, depth)
        return
    fp.write_str(str(dtype))
    to_list = next(getattr(column, name) for name in ("to_pylist", "to_list", "tolist") if hasattr(column, name))
    write_value(fp, to_list(), what, depth + 1)


def _categories(column: Any) -> Any:
    known = getattr(getattr(column, "dtype", None), "categories", None)  # pandas, and an Enum of polars
    if known is not None:
        return known.to_list() if hasattr(known, "to_list") else list(known)
    if str(getattr(column, "dtype", "")).startswith("Categorical"):  # polars, whose order is that of its strings
        return column.unique(maintain_order=True).cast(str).to_list()
    chunks = getattr(column, "chunks", [column])
    if all(hasattr(chunk, "dictionary") for chunk in chunks) and hasattr(column, "type"):
        return [chunk.dictionary.to_pylist() for chunk in chunks]
    return None
