"""What may stand as a design matrix: NumPy array, SciPy sparse matrix or array, or a lazy row source."""

from __future__ import annotations

import operator
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from gamwarm.checks import is_sparse
from gamwarm.display import told
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.interrupts import allowed

__all__ = ["RowChunkSource", "check_exact_dtype", "design_shape", "is_row_source", "read_rows"]

_EXACT_KINDS = "biuf"


@runtime_checkable
class RowChunkSource(Protocol):
    """A design too large to hold: rows are produced on demand.

    ``shape`` is (n, p); ``row_chunk(start, stop)`` returns an array of shape (stop - start, p) and must return the
    same numbers every time it is asked.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    def row_chunk(self, start: int, stop: int, /) -> npt.ArrayLike: ...


def is_row_source(design: object) -> TypeGuard[RowChunkSource]:
    """Whether ``design`` is neither an array nor sparse, and can be read by rows."""
    return (
        not isinstance(design, np.ndarray)
        and not is_sparse(design)
        and hasattr(design, "shape")
        and callable(getattr(design, "row_chunk", None))
    )


def check_exact_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Refuse element types whose values binary64 cannot hold exactly (complex, long double, object, text, time)."""
    if dtype.kind not in _EXACT_KINDS or dtype.itemsize > 8:
        raise InvalidType(
            f"{what} has element type {dtype}; use bool, an integer type, float16, float32 or float64 "
            "(convert it before describing the fit)"
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
    if isinstance(design, np.ma.MaskedArray):
        raise InvalidType(f"{what} is a masked array; fill or drop the masked rows first")
    if isinstance(design, np.ndarray) or is_sparse(design):
        check_exact_dtype(np.dtype(design.dtype), what)
        shape: Any = design.shape
    elif is_row_source(design):
        shape = design.shape
    else:
        raise InvalidType(
            f"{what} is {type(design).__name__}; give a NumPy array, a SciPy sparse matrix, "
            "or an object with `shape` and `row_chunk(start, stop)`"
        )
    try:
        dims = tuple(operator.index(d) for d in shape)
    except TypeError:
        raise InvalidInput(f"{what} has shape {told(shape)}; expected two whole numbers (n, p)") from None
    if len(dims) != 2 or min(dims, default=0) < 0:
        raise InvalidInput(f"{what} has shape {dims}; expected (n, p)")
    return dims[0], dims[1]


def read_rows(source: RowChunkSource, start: int, stop: int, p: int) -> npt.NDArray[Any]:
    """Return rows start:stop of a row source, of shape (stop - start, p), refusing what its shape does not promise."""
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
