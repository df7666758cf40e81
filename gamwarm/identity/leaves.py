"""Digests of leaves, dense, sparse or of an index, at the speed of the hash.

Memory: one leaf of a lazy source (8 MiB of float64, if rows are not wider than that) and one buffer
of half a MiB. Sparse: the canonical copy of one leaf, or of about 400,000 entries; DIA and DOK
matrices are converted at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from gamwarm.checks import FloatArray
from gamwarm.interrupts import deliver
from gamwarm.problem import check_exact_integers, check_row_numbers

__all__ = [
    "INDEX_LEAF",
    "LEAF_ROWS",
    "DenseLeaves",
    "IndexLeaves",
    "as_bytes",
    "dense_step",
    "plain_numbers",
    "positive_zeros",
    "sparse_leaves",
]

LEAF_ROWS: Final = 4096
LEAF_BYTES: Final = 8_388_608
INDEX_LEAF: Final = 1_048_576  # numbers: as many bytes as a dense leaf
# Half of a small level-2 cache, and enough for the hash library's threads (from 128 KiB).
_BUFFER_BYTES: Final = 1 << 19
_THREADS_FROM: Final = 1 << 22  # bytes to hash below which starting the hash library's threads does not pay
_NEGATIVE_ZERO: Final = np.iinfo(np.int64).min  # the bits of -0.0, and the least of all bit patterns read as integers
_DENSE_LEAF, _SPARSE_LEAF, _INDEX_LEAF = b"\x00", b"\x02", b"\x04"
_WINDOW_ENTRIES: Final = 3 << 17  # explicit entries converted to CSR at a time; their temporaries take up to 26 MiB


def dense_step(p: int) -> int:
    """Return the rows of one leaf of a dense matrix of p columns."""
    return min(LEAF_ROWS, max(1, LEAF_BYTES // max(8 * p, 1)))


def positive_zeros(values: Any, what: str, out: FloatArray | None = None) -> FloatArray:
    """Return ``values`` as C-ordered little-endian float64, -0.0 as +0.0, NaN bits kept.

    Raises `InvalidType` for integers that binary64 cannot hold exactly.
    """
    array = np.asarray(values)
    check_exact_integers(array, what)
    if out is None:
        out = np.empty(array.shape, dtype="<f8")
    with np.errstate(invalid="ignore"):
        np.copyto(out, array)
    if array.dtype.kind == "f":
        bits = out.view(np.int64)
        if _has_negative_zeros(bits):
            _normalize_zeros(out, bits)
    return out


def plain_numbers(values: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """Return `positive_zeros` of ``values``: themselves where they lie as they are hashed."""
    if is_hashable_in_place(values):
        return values
    return positive_zeros(values, what)


def is_hashable_in_place(values: npt.NDArray[Any]) -> bool:
    """Whether the bytes of ``values`` are those to hash."""
    return (
        values.dtype == np.dtype("<f8") and values.flags.c_contiguous and not _has_negative_zeros(values.view(np.int64))
    )


def _has_negative_zeros(bits: npt.NDArray[np.int64]) -> bool:
    return bool(bits.size) and int(bits.min()) == _NEGATIVE_ZERO


def _normalize_zeros(values: FloatArray, bits: npt.NDArray[np.int64]) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        quiet = not np.isnan(values.sum())
    if quiet:
        np.add(values, 0.0, out=values)
    else:  # adding zero would quieten a signalling NaN, and values are hashed unchanged
        bits[bits == _NEGATIVE_ZERO] = 0


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of a C-contiguous array, without copying."""
    return array.reshape(-1).view(np.uint8).data


class DenseLeaves:
    """Hashes one leaf of p columns after another: `begin`, rows in any number of `add`, `end`.

    Parameters
    ----------
    p : int
    total : int
        Bytes that will be hashed; decides whether threads pay.
    cores : callable
        Tells how many threads the hash library may use; asked where they pay.
    """

    def __init__(self, p: int, total: int, cores: Callable[[], int]) -> None:
        self._p = p
        self._at_once = max(1, _BUFFER_BYTES // max(8 * p, 1))
        self._buffer: FloatArray | None = None
        # One hasher for all leaves: it starts its threads once.
        self._hasher = blake3(max_threads=cores() if total >= _THREADS_FROM else 1)

    def begin(self, rows: int) -> None:
        """Start a leaf of so many rows."""
        deliver()
        self._hasher.reset()
        self._hasher.update(_DENSE_LEAF)
        self._hasher.update(struct.pack("<QQ", rows, self._p))

    def add(self, block: Any) -> None:
        """Hash further rows, of shape (any, p) and any element type that binary64 holds."""
        for at in range(0, block.shape[0], self._at_once):
            part = block[at : at + self._at_once]
            self._hasher.update(as_bytes(self._plain(np.asarray(part))))

    def end(self) -> bytes:
        """Return the digest of the leaf."""
        return bytes(self._hasher.digest())

    def _plain(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return rows as bytes to hash: in place, else through a buffer that stays in cache."""
        if is_hashable_in_place(part):
            return part
        if self._buffer is None or len(self._buffer) < len(part):
            self._buffer = np.empty((len(part), self._p), dtype="<f8")
        return positive_zeros(part, "matrix", out=self._buffer[: len(part)])


class IndexLeaves:
    """Hashes leaf after leaf of an `IndexedDesign`'s index, as `DenseLeaves` does rows.

    Parameters
    ----------
    m : int
        Distinct rows; a number outside of 0 to m - 1 is refused, wherever it came from since the
        design was made.
    total, cores : int
        As of `DenseLeaves`.
    first : int
        Position of the first number, for messages.
    """

    def __init__(self, m: int, total: int, cores: Callable[[], int], first: int) -> None:
        self._m, self._position = m, first
        self._hasher = blake3(max_threads=cores() if total >= _THREADS_FROM else 1)

    def begin(self, rows: int) -> None:
        """Start a leaf of so many numbers."""
        deliver()
        self._hasher.reset()
        self._hasher.update(_INDEX_LEAF)
        self._hasher.update(struct.pack("<Q", rows))

    def add(self, index: npt.NDArray[Any]) -> None:
        """Hash further numbers, of shape (any,) and any integer type."""
        for at in range(0, len(index), _BUFFER_BYTES // 8):
            part = index[at : at + _BUFFER_BYTES // 8]
            check_row_numbers(part, self._m, self._position)
            self._position += len(part)
            if part.dtype == np.dtype("<i8") and part.flags.c_contiguous:
                self._hasher.update(as_bytes(part))  # not negative: the bits of unsigned numbers
            else:
                self._hasher.update(as_bytes(part.astype("<u8")))

    def end(self) -> bytes:
        """Return the digest of the leaf."""
        return bytes(self._hasher.digest())


def sparse_leaves(m: Any, n: int, p: int, mine: range) -> Iterator[bytes]:
    """Yield the digests of leaves of a SciPy sparse matrix or array of shape (n, p)."""
    # A window of leaves is made canonical at a time: a full copy could exceed memory.
    if m.format in ("dia", "dok"):
        m = m.tocsr()
    leaves_at_once = 1
    if m.format in ("csc", "coo"):  # every window walks all entries of these: as few windows as memory allows
        leaves_at_once = max(1, _WINDOW_ENTRIES * n // max(m.nnz, 1) // LEAF_ROWS)
    for first in range(mine.start, mine.stop, leaves_at_once):
        deliver()
        last = min(first + leaves_at_once, mine.stop)
        top = first * LEAF_ROWS
        window = _canonical_rows(m, top, min(last * LEAF_ROWS, n), p)
        for leaf in range(first, last):
            start = leaf * LEAF_ROWS - top
            stop = min(start + LEAF_ROWS, len(window.indptr) - 1)
            indptr = window.indptr[start : stop + 1].astype("<u8")
            at, end = int(indptr[0]), int(indptr[-1])
            hasher = blake3(_SPARSE_LEAF)
            hasher.update(struct.pack("<QQQ", stop - start, p, end - at))
            hasher.update(as_bytes(indptr - indptr[0]))
            hasher.update(as_bytes(window.indices[at:end].astype("<u8")))
            hasher.update(as_bytes(positive_zeros(window.data[at:end], "sparse matrix")))
            yield bytes(hasher.digest())


class _Rows(NamedTuple):
    indptr: Any
    indices: Any
    data: Any

    def are_canonical(self) -> bool:
        """Whether no entry is zero and the columns of each row rise."""
        with np.errstate(invalid="ignore"):  # signalling NaNs
            if not self.data.all():
                return False
        falls = self.indices[1:] <= self.indices[:-1]
        begins = self.indptr[(self.indptr > 0) & (self.indptr < len(self.indices))]
        falls[begins - 1] = False
        return not falls.any()


def _canonical_rows(m: Any, start: int, stop: int, p: int) -> _Rows:
    """Rows start:stop of a sparse matrix: duplicates summed, zeros dropped, indices sorted."""
    from scipy import sparse  # noqa: PLC0415 - slow to import; whoever gives a sparse matrix has done so already

    if m.format == "csr":
        at, end = int(m.indptr[start]), int(m.indptr[stop])
        indptr, indices, data = m.indptr[start : stop + 1] - m.indptr[start], m.indices[at:end], m.data[at:end]
    elif m.format == "coo":
        row, col, data = m.row, m.col, m.data
        found = []
        for at in range(0, len(data), _WINDOW_ENTRIES):
            part = row[at : at + _WINDOW_ENTRIES]
            found.append(at + np.flatnonzero((part >= start) & (part < stop)))
        inside = np.concatenate(found) if found else np.zeros(0, dtype=np.intp)
        inside = inside[np.argsort(row[inside], kind="stable")]
        indices, data = col[inside], data[inside]
        indptr = np.searchsorted(row[inside], np.arange(start, stop + 1))
    elif m.format == "bsr":
        height = m.blocksize[0]
        first, last = start // height, -(-stop // height)
        at, end = int(m.indptr[first]), int(m.indptr[last])
        blocks = (m.data[at:end], m.indices[at:end], m.indptr[first : last + 1] - at)
        part = sparse.bsr_array(blocks, shape=((last - first) * height, p)).tocsr()
        part = part[start - first * height : stop - first * height, :]
        indptr, indices, data = part.indptr, part.indices, part.data
    else:
        part = m[start:stop, :].tocsr()
        indptr, indices, data = part.indptr, part.indices, part.data
    check_exact_integers(data, "sparse matrix")
    given = _Rows(indptr, indices, data)
    if given.are_canonical():  # found out here: the flags of the user's matrix may be stale
        return given
    shape = (stop - start, p)
    rows = sparse.csr_array((data.astype(np.float64), np.array(indices), np.array(indptr)), shape=shape)
    rows.has_canonical_format = False
    rows.has_sorted_indices = False
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return _Rows(rows.indptr, rows.indices, rows.data)
