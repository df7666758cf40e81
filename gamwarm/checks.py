"""Checks of the description and record classes: a refusal names the culprit and the next step."""

from __future__ import annotations

import math
import operator
import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from gamwarm.display import brief_repr
from gamwarm.errors import InvalidInput, InvalidType

FloatArray = npt.NDArray[np.float64]

_REAL_KINDS = "biuf"


def real_array(value: Any, what: str, expected: str) -> FloatArray:
    """Return a C-ordered float64 copy; text, complex, object and masked arrays are refused."""
    return np.array(_real(value, what, expected), dtype=np.float64, order="C")


def plain_array(value: Any, what: str, expected: str) -> npt.NDArray[Any]:
    """Return ``value`` as an array of whatever type; ragged and masked ones are refused, and what
    cannot be converted (a tensor on another device).
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInput(f"{what} is ragged; it must be {expected} ({error})") from None
    except (TypeError, RuntimeError) as error:
        raise InvalidType(f"{what} is {type(value).__name__}; it must be {expected} ({error})") from None
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidType(f"{what} is a masked array; fill or drop the masked entries first")
    return array


def _real(value: Any, what: str, expected: str) -> npt.NDArray[Any]:
    array = plain_array(value, what, expected)
    if array.dtype.kind not in _REAL_KINDS:
        raise InvalidType(f"{what} must be {expected}; it is {type(value).__name__} of element type {array.dtype}")
    return array


def frozen(values: npt.NDArray[Any]) -> FloatArray:
    """Return ``values`` as read-only C-ordered float64; a copy unless they are that already."""
    array = np.asarray(values, dtype=np.float64)
    if array.flags.c_contiguous and is_immutable(array):
        return array
    return np.ndarray(array.shape, dtype=np.float64, buffer=array.tobytes())


def is_immutable(array: npt.NDArray[Any]) -> bool:
    """Whether the numbers of ``array`` cannot change: they lie in a ``bytes`` object.

    The flag alone does not tell: the owner of the memory can make it writeable again, or write
    through another view.
    """
    root: Any = array
    while isinstance(root, np.ndarray):
        if root.flags.writeable:
            return False
        root = root.base
    return type(root) is bytes


_FEW: Final = 1024  # vectors so short that checking them again is cheaper than remembering


class _Noted(NamedTuple):
    array: weakref.ref[Any]
    layout: tuple[Any, ...]
    notes: dict[str, Any]


_noted: dict[int, _Noted] = {}


def notes_of(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return what this process has found out about an array: a dict to look into and to add to.

    Of an array that nothing can write to, it lasts as long as the array object; of any other it is
    empty and new each time. An array object may be given another shape or element type, which is
    compared.
    """
    if not is_immutable(array):
        return {}
    key = id(array)
    layout = array.shape, array.strides, array.dtype
    noted = _noted.get(key)
    if noted is not None and noted.array() is array and noted.layout == layout:
        return noted.notes

    def forget(dead: Any) -> None:
        found = _noted.get(key)
        if found is not None and found.array is dead:
            _noted.pop(key, None)

    notes: dict[str, Any] = {}
    _noted[key] = _Noted(weakref.ref(array, forget), layout, notes)
    return notes


_zeros: weakref.WeakValueDictionary[int, FloatArray] = weakref.WeakValueDictionary()


def zero_vector(n: int) -> FloatArray:
    """Return n immutable zeros: one array for all who ask while one of them holds it."""
    zeros = _zeros.get(n)
    if zeros is None:
        zeros = _zeros[n] = np.ndarray((n,), dtype=np.float64, buffer=bytes(8 * n))
    return zeros


def is_zero_vector(array: npt.NDArray[Any]) -> bool:
    """Whether this is an array of `zero_vector`. Others are not looked into."""
    return array.ndim == 1 and _zeros.get(array.shape[0]) is array


def is_finite(array: npt.NDArray[Any]) -> bool:
    """Whether all numbers are finite; checked only once if they are immutable."""
    if array.size < _FEW:
        return bool(np.isfinite(array).all())
    notes = notes_of(array)
    if "finite" not in notes:
        notes["finite"] = bool(np.isfinite(array).all())
    return bool(notes["finite"])


def is_sparse(value: object) -> TypeGuard[Any]:
    """Whether ``value`` is a SciPy sparse matrix or array."""
    # If scipy.sparse has not been imported there is none; importing it here would cost every
    # process a tenth of a second for the few fits that have one.
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(value))


def wrong_type(what: str, value: object, expected: Any) -> InvalidType | None:
    """Return what to raise if ``value`` is not of ``expected`` (``NoneType`` reads "None")."""
    if isinstance(value, expected):
        return None
    kinds = expected if isinstance(expected, tuple) else (expected,)
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
    return InvalidType(f"{what} is {type(value).__name__}; expected {names}")


def require(what: str, value: object, expected: Any) -> None:
    """Refuse a value of another type."""
    if isinstance(value, expected):
        return
    error = wrong_type(what, value, expected)
    assert error is not None
    raise error


def file_path(value: object, what: str = "path") -> Path:
    """Return ``value`` (text, or an `os.PathLike` of text) as a path, ``~`` expanded."""
    require(what, value, (str, os.PathLike))
    try:
        text = os.fspath(value)  # type: ignore[call-overload]
    except TypeError as error:
        raise InvalidType(f"{what} is not a path: {error}") from None
    if not isinstance(text, str):
        raise InvalidType(f"{what} is a path of bytes; give os.fsdecode of it")
    if not text:
        raise InvalidInput(f"{what} is empty; give the path of a file")
    try:
        no_name = b"\0" in os.fsencode(text)
    except UnicodeEncodeError:
        no_name = True
    if no_name:
        raise InvalidInput(f"{what} is {text!r}; this is not a valid file name")
    expanded = os.path.expanduser(text)  # leaves the name of an unknown user unchanged, as a shell does
    return value if isinstance(value, Path) and expanded == text else Path(expanded)


def as_tuple(value: Iterable[Any], what: str) -> tuple[Any, ...]:
    """Return a sequence as a tuple; a single object, a string, a set or a mapping is refused."""
    if type(value) is tuple:
        return value
    single = isinstance(value, (str, bytes)) or (isinstance(value, np.ndarray) and value.ndim == 0)
    unordered = isinstance(value, (set, frozenset, Mapping))
    if single or unordered or not isinstance(value, Iterable):
        raise InvalidType(f"{what} must be a sequence; it is {type(value).__name__}")
    return tuple(value)


def float_vector(value: Any, what: str, *, length: int | None = None, finite: bool = True) -> FloatArray:
    """Return ``value`` as an immutable float64 vector of shape (length,)."""
    array = frozen(_real(value, what, "a vector of real numbers"))
    if array.ndim != 1 or (length is not None and array.shape[0] != length):
        expected = "(n,)" if length is None else f"({length},)"
        raise InvalidInput(f"{what} has shape {array.shape}; expected {expected}")
    if finite and not is_finite(array):
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidInput(f"{what} holds a non-finite number at position {bad} ({array[bad]}); fix it before fitting")
    return array


def float_matrix(value: Any, what: str) -> FloatArray:
    """Return ``value`` (array or SciPy sparse) as an immutable, finite float64 matrix."""
    dense = value.toarray() if hasattr(value, "toarray") else value
    array = frozen(_real(dense, what, "a matrix of real numbers"))
    if array.ndim != 2:
        raise InvalidInput(f"{what} has shape {array.shape}; expected a matrix (rows, columns)")
    if not is_finite(array):
        row, col = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(f"{what} holds a non-finite number at [{row}, {col}] ({array[row, col]})")
    return array


def symmetric_matrix(value: Any, what: str) -> FloatArray:
    """`float_matrix` that is also square and symmetric within 1e-10 * max(1, max|S|)."""
    array = float_matrix(value, what)
    if array.shape[0] != array.shape[1]:
        raise InvalidInput(f"{what} has shape {array.shape}; a penalty is square")
    notes = notes_of(array)
    if array.size and "symmetric" not in notes:
        gap = float(np.abs(array - array.T).max())
        if gap > 1e-10 * max(1.0, float(np.abs(array).max())):
            raise InvalidInput(
                f"{what} is not symmetric: max|S - S^T| = {gap:.3g}; pass (S + S.T) / 2 if that is intended"
            )
        notes["symmetric"] = True
    return array


MOST: Final = 2**63 - 1
"""The largest integer that a file can hold."""


def as_int(value: Any, what: str, *, minimum: int = 0, maximum: int = MOST) -> int:
    """Return ``value`` as an int within the limits; booleans and fractions are refused."""
    if type(value) is int and minimum <= value <= maximum:
        return value
    if isinstance(value, (bool, np.bool_)):
        raise InvalidType(f"{what} must be an integer; it is a boolean")
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidType(f"{what} must be an integer; it is {brief_repr(value)} ({type(value).__name__})") from None
    if number < minimum:
        raise InvalidInput(f"{what} is {brief_repr(number)}; it cannot be below {minimum}")
    if number > maximum:
        raise InvalidInput(f"{what} is {brief_repr(number)}; it cannot be above {maximum}")
    return number


def as_finite_float(value: Any, what: str, *, minimum: float | None = None, infinite: bool = False) -> float:
    """Return ``value`` as a float of at least ``minimum``; +inf only if ``infinite``."""
    number = as_float(value, what)
    if not math.isfinite(number) and not (infinite and number == math.inf):
        raise InvalidInput(f"{what} is {number}; it must be finite")
    if minimum is not None and number < minimum:
        raise InvalidInput(f"{what} is {number}; it cannot be below {minimum}")
    return number


def as_float(value: Any, what: str) -> float:
    """Return ``value`` as a float; non-finite numbers may pass, a gate sees them later."""
    if type(value) is float:
        return value
    # NumPy before 2.5 takes an array of one element for a number.
    if isinstance(value, (bool, np.bool_, str, bytes, np.complexfloating)) or getattr(value, "ndim", 0) != 0:
        raise InvalidType(f"{what} must be a number; it is {brief_repr(value)}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidType(f"{what} must be a number; it is {brief_repr(value)} ({type(value).__name__})") from None


def as_bool(value: Any, what: str) -> bool:
    """Return ``value`` as a bool; only real booleans are taken."""
    if type(value) is bool:
        return value
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidType(f"{what} must be True or False; it is {brief_repr(value)}")
    return bool(value)


def as_str(value: Any, what: str, *, empty: bool = False) -> str:
    """Return ``value`` if it is a non-empty string that UTF-8 can encode."""
    if type(value) is str and value and value.isascii():
        return value
    if not isinstance(value, str):
        raise InvalidType(f"{what} must be a string; it is {brief_repr(value)} ({type(value).__name__})")
    if not value and not empty:
        raise InvalidInput(f"{what} is empty; give a name")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} ({brief_repr(value)}) cannot be written as UTF-8") from None
    return str(value)


def column_name(value: Any, what: str) -> str:
    """Return ``value`` if it is a string."""
    if isinstance(value, str):
        return as_str(value, what, empty=True)
    shown = "this" if hasattr(value, "__array__") else brief_repr(value)
    several = isinstance(value, (list, tuple, set, dict))
    advice = "give names one by one" if several else "values belong in a column, numbered columns can be renamed"
    raise InvalidType(f"{what}: {shown} ({type(value).__name__}) is not the name of a column, a string; {advice}")
