"""What may be a design matrix: NumPy array, SciPy sparse, `IndexedDesign`, or row source."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray, frozen, is_finite, is_sparse
from gamwarm.display import brief_repr
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.interrupts import allowed

__all__ = [
    "IndexedDesign",
    "RowChunkSource",
    "check_exact_dtype",
    "check_exact_integers",
    "check_row_numbers",
    "design_shape",
    "is_row_source",
    "read_rows",
]

_EXACT_KINDS: Final = "biuf"
_EXACT: Final = 1 << 53


@runtime_checkable
class RowChunkSource(Protocol):
    """A design too large to hold: rows are produced on demand.

    ``shape`` is (n, p); ``row_chunk(start, stop)`` returns an array of shape (stop - start, p) and
    must return the same numbers every time it is asked.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    def row_chunk(self, start: int, stop: int, /) -> npt.ArrayLike: ...


def is_row_source(design: object) -> TypeGuard[RowChunkSource]:
    """Whether ``design`` is neither an array nor sparse nor indexed, and can be read by rows."""
    return (
        not isinstance(design, (np.ndarray, IndexedDesign))
        and not is_sparse(design)
        and hasattr(design, "shape")
        and callable(getattr(design, "row_chunk", None))
    )


def check_exact_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Refuse element types that binary64 cannot hold exactly (complex, object, text, time)."""
    if dtype.kind not in _EXACT_KINDS or dtype.itemsize > 8:
        raise InvalidType(
            f"{what} has element type {dtype}; use bool, an integer type, float16, float32 or float64 "
            "(convert it before describing the fit)"
        )


def check_exact_integers(array: Any, what: str) -> None:
    """Refuse 64-bit integers that binary64 cannot hold; arrays of other element types pass."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return
    if array.size == 0 or (int(array.max()) <= _EXACT and int(array.min()) >= -_EXACT):
        return
    for value in array[(array > _EXACT) | (array < -_EXACT if array.dtype.kind == "i" else False)].tolist():
        if int(float(value)) != value:
            raise InvalidType(
                f"{what} holds the integer {value}, which binary64 cannot hold; convert it to float64 yourself"
            )


def design_shape(design: object, what: str = "design") -> tuple[int, int]:
    """Return (n, p) of a design, refusing anything that is not one.

    Raises
    ------
    InvalidType
        Not an array, sparse matrix or row source; or numbers that binary64 cannot hold.
    InvalidInput
        Not two-dimensional.
    """
    if isinstance(design, IndexedDesign):
        return design.shape
    if isinstance(design, np.ma.MaskedArray):
        raise InvalidType(f"{what} is a masked array; fill or drop the masked rows first")
    if isinstance(design, np.ndarray) or is_sparse(design):
        check_exact_dtype(np.dtype(design.dtype), what)
        shape: Any = design.shape
    elif is_row_source(design):
        shape = design.shape
    else:
        raise InvalidType(
            f"{what} is {type(design).__name__}; give a NumPy array, a SciPy sparse matrix, an IndexedDesign, "
            "or an object with `shape` and `row_chunk(start, stop)`"
        )
    try:
        dims = tuple(operator.index(d) for d in shape)
    except TypeError:
        raise InvalidInput(f"{what} has shape {brief_repr(shape)}; expected two integers (n, p)") from None
    if len(dims) != 2 or min(dims, default=0) < 0:
        raise InvalidInput(f"{what} has shape {dims}; expected (n, p)")
    return dims[0], dims[1]


def read_rows(source: RowChunkSource, start: int, stop: int, p: int) -> npt.NDArray[Any]:
    """Return rows start:stop of a row source, (stop - start, p); refuse another shape."""
    with allowed():
        given = source.row_chunk(start, stop)
    if isinstance(given, np.ma.MaskedArray):
        raise InvalidType(f"row_chunk({start}, {stop}) returned a masked array; fill the masked entries first")
    block = np.asarray(given)
    if block.shape != (stop - start, p):
        raise InvalidInput(
            f"row_chunk({start}, {stop}) returned shape {block.shape}; its shape promises ({stop - start}, {p})"
        )
    check_exact_dtype(block.dtype, "row_chunk result")
    return block


@dataclass(frozen=True, eq=False)
class IndexedDesign:
    """A design of few distinct rows: row i is ``rows[index[i]]``, without n x p numbers.

    For a discretised covariate, a factor, a random effect or an intercept. Its digest depends on
    its form: the digest is that of ``rows`` and ``index`` as given. The dense matrix of the same
    values, or the same rows in another order, has another digest.

    Parameters
    ----------
    rows : array or sparse matrix of shape (m, p)
        Distinct rows, finite; duplicates and rows that no index names are allowed. Copied unless
        nothing can write to it; sparse rows become CSR.
    index : array of int of shape (n,)
        Any integer type, each in 0 to m - 1. Kept by reference and read when the fit is named; do
        not change it afterwards.

    Raises
    ------
    InvalidType
        ``rows`` is not a matrix of numbers that binary64 holds, or ``index`` is not of integers.
    InvalidInput
        Wrong shapes, a non-finite number in ``rows``, or an index outside of them; the message says
        where.
    """

    rows: Any
    index: Any

    def __post_init__(self) -> None:
        rows = _distinct_rows(self.rows)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "index", _row_numbers(self.index, rows.shape[0]))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)."""
        return int(self.index.shape[0]), int(self.rows.shape[1])

    def row_chunk(self, start: int, stop: int, /) -> FloatArray:
        """Rows start:stop, of shape (stop - start, p)."""
        chunk = self.rows[self.index[start:stop]]
        dense: FloatArray = chunk.toarray() if is_sparse(chunk) else chunk
        return dense

    def to_dense(self) -> FloatArray:
        """All rows, of shape (n, p)."""
        return self.row_chunk(0, self.shape[0])

    def __repr__(self) -> str:
        n, p = self.shape
        kind = "sparse " if is_sparse(self.rows) else ""
        return f"IndexedDesign({n} x {p}, {self.rows.shape[0]} distinct {kind}rows)"


def _distinct_rows(rows: Any) -> Any:
    what = "IndexedDesign rows"
    if not isinstance(rows, np.ndarray) and not is_sparse(rows):
        raise InvalidType(f"{what} are {type(rows).__name__}; give a NumPy array or a SciPy sparse matrix (m, p)")
    if rows.ndim != 2:
        raise InvalidInput(f"{what} have shape {rows.shape}; expected (m, p)")
    design_shape(rows, what)
    if is_sparse(rows):
        return _sparse_rows(rows, what)
    check_exact_integers(rows, what)
    array = frozen(rows)
    if not is_finite(array):
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(f"{what} hold a non-finite number at [{row}, {column}] ({array[row, column]})")
    return array


def _sparse_rows(rows: Any, what: str) -> Any:
    if rows.format in ("lil", "dok"):  # these keep no array of values, and no duplicates
        rows = rows.tocsr()
    check_exact_integers(rows.data, what)
    csr = rows.astype(np.float64).tocsr()  # values first: duplicates are summed as binary64; always a copy
    csr.sum_duplicates()
    if not np.isfinite(csr.data).all():
        at = int(np.flatnonzero(~np.isfinite(csr.data))[0])
        row = int(np.searchsorted(csr.indptr, at, side="right")) - 1
        raise InvalidInput(f"{what} hold a non-finite number at [{row}, {csr.indices[at]}] ({csr.data[at]})")
    for part in (csr.data, csr.indices, csr.indptr):
        part.flags.writeable = False
    return csr


def _row_numbers(index: Any, m: int) -> npt.NDArray[Any]:
    what = "IndexedDesign index"
    if isinstance(index, np.ma.MaskedArray):
        raise InvalidType(f"{what} is a masked array; fill or drop the masked rows first")
    try:
        array = np.asarray(index)
    except ValueError as error:
        raise InvalidInput(f"{what} is ragged; give row numbers of shape (n,) ({error})") from None
    if array.size == 0 and isinstance(index, (list, tuple)):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise InvalidType(f"{what} has element type {array.dtype}; give integer row numbers")
    if array.ndim != 1:
        raise InvalidInput(f"{what} has shape {array.shape}; expected (n,)")
    check_row_numbers(array, m, 0)
    return array


def check_row_numbers(index: npt.NDArray[Any], m: int, first: int) -> None:
    """Refuse numbers outside 0 to m - 1 in a part of an index that begins at position ``first``."""
    # As unsigned, a negative number is over half the type's range: one pass finds both.
    half = 1 << (8 * index.dtype.itemsize - 1)
    numbers = index.view(index.dtype.str.replace("i", "u"))
    if index.size == 0 or int(numbers.max()) < (m if index.dtype.kind == "u" else min(m, half)):
        return
    bad = int(np.flatnonzero((index < 0) | (index >= m))[0])
    raise InvalidInput(
        f"IndexedDesign index is {int(index[bad])} at position {first + bad}; there are {m} distinct rows, 0 to {m - 1}"
        if m
        else f"IndexedDesign index names row {int(index[bad])} at position {first + bad}; there are no distinct rows"
    )
