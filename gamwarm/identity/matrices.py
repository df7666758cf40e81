"""Digest of a matrix as a two-level tree of row leaves.

The cut into leaves depends on the shape alone, so ranks and chunked sources share the work without changing a bit.
Memory: one leaf of a lazy source (8 MiB of float64, if rows are not wider than that) and one buffer of 1 MiB. Sparse:
the canonical copy of one leaf, or of about 400,000 entries; DIA and DOK matrices are converted whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from scipy import sparse

from gamwarm.checks import FloatArray
from gamwarm.errors import CollectiveError, InvalidInput, InvalidType
from gamwarm.parallel import Communicator, agree, as_communicator, mark_agreed, share
from gamwarm.problem import RowChunkSource, check_exact_dtype, design_shape

__all__ = ["as_bytes", "matrix_digest", "positive_zeros"]

_LEAF_ROWS = 4096
_LEAF_BYTES = 8_388_608
_BUFFER_BYTES = 1 << 20
_DENSE_LEAF, _DENSE_ROOT, _SPARSE_LEAF, _SPARSE_ROOT = b"\x00", b"\x01", b"\x02", b"\x03"
_WINDOW_ENTRIES = 3 << 17  # explicit entries converted to CSR at a time; their temporaries take up to 26 MiB
_EXACT = 1 << 53
_WITNESS_ROWS = 16

_Plan = tuple[bool, int, int, bytes]  # sparse or not, n, p, witness rows


def positive_zeros(values: Any, what: str, out: FloatArray | None = None) -> FloatArray:
    """Return ``values`` as C-ordered little-endian float64 with -0.0 as +0.0 and NaN bits untouched.

    Raises `InvalidType` for integers that binary64 cannot hold exactly.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        _check_exact_integers(array, what)
    if out is None:
        out = np.empty(array.shape, dtype="<f8")
    with np.errstate(invalid="ignore", over="ignore"):
        np.add(array, 0.0, out=out)
        # Adding zero quietens a signalling NaN; its bits are restored, since values are hashed as they are.
        if array.dtype.kind == "f" and array.dtype.itemsize == 8 and np.isnan(out.sum()):
            bad = np.isnan(out)
            out.view(np.int64)[bad] = np.ascontiguousarray(array, dtype="<f8").view(np.int64)[bad]
    return out


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of a C-contiguous array, without copying."""
    return array.reshape(-1).view(np.uint8).data


def _check_exact_integers(array: Any, what: str) -> None:
    if array.size == 0 or (int(array.max()) <= _EXACT and int(array.min()) >= -_EXACT):
        return
    for value in array[(array > _EXACT) | (array < -_EXACT if array.dtype.kind == "i" else False)].tolist():
        if int(float(value)) != value:
            raise InvalidType(
                f"{what} holds the integer {value}, which binary64 cannot hold; convert it to float64 yourself"
            )


def matrix_digest(m: Any, comm: Any = None) -> str:
    """Return the digest of a matrix, 64 hex digits.

    Parameters
    ----------
    m : array, sparse matrix or row source of shape (n, p)
        bool, integer, float16, float32 or float64. Memory order and chunking do not matter; sparse and dense differ.
    comm : mpi4py communicator, optional
        Collective: every rank passes an equal ``m`` and hashes its share of the leaves.

    Raises
    ------
    InvalidType
        A ``TypeError``: element types or integers that binary64 cannot hold exactly.
    InvalidInput
        Not two-dimensional, or a row source that returns another shape than asked for.
    CollectiveError
        With ``comm``: a rank failed, or the shapes differ.
    """
    ranks = as_communicator(comm)
    error: BaseException | None = None
    plan: _Plan = (False, 0, 0, b"")
    leaves = b""
    step = _LEAF_ROWS
    count = 0
    try:
        n, p = design_shape(m, "matrix")
        is_sparse = sparse.issparse(m)
        plan = (is_sparse, n, p, b"" if ranks.is_serial else _witness(m))
        if not is_sparse:
            step = min(_LEAF_ROWS, max(1, _LEAF_BYTES // max(8 * p, 1)))
        count = -(-n // step)
        mine = _leaves_of(ranks, count)
        hashed = _sparse_leaves(m, n, p, mine) if is_sparse else _dense_leaves(m, n, p, step, mine)
        leaves = b"".join(hashed)
    except Exception as caught:  # every rank must reach the agreement below
        error = caught
    reports = agree(ranks, "matrix_digest", (plan, leaves), error)
    root_plan = reports[0][0]
    for rank, other in _strangers(reports, count):
        differ = CollectiveError(
            f"matrix_digest: rank {rank} holds another matrix ({other[1]} x {other[2]}) than rank 0 "
            f"({root_plan[1]} x {root_plan[2]}); pass the same matrix on every rank, or each=True for one fit per rank",
            rank=rank,
            cause="matrices differ",
            failed=False,
        )
        mark_agreed(differ)
        raise differ
    is_sparse, n, p, _ = plan
    root = blake3(_SPARSE_ROOT if is_sparse else _DENSE_ROOT)
    root.update(struct.pack("<QQQ", n, p, step))
    for _, part in reports[:count] if count < ranks.size else reports:
        root.update(part)
    return str(root.hexdigest())


def _leaves_of(ranks: Communicator, count: int) -> range:
    """Return this rank's share of ``count`` leaves; where there are more ranks than leaves, leaves are hashed again.

    No rank hashes more than ceil(count / ranks) leaves, and the repeats are compared.
    """
    if 0 < count < ranks.size:
        return range(ranks.rank % count, ranks.rank % count + 1)
    return share(count, ranks)


def _strangers(reports: list[tuple[_Plan, bytes]], count: int) -> Iterator[tuple[int, _Plan]]:
    """Yield the ranks that hold another matrix than the ranks before them, as far as the reports can tell."""
    root = reports[0][0]
    witness = b""
    for rank, (plan, leaves) in enumerate(reports):
        witness = witness or plan[3]
        if (
            plan[:3] != root[:3]
            or (plan[3] and plan[3] != witness)
            or (0 < count < len(reports) and leaves != reports[rank % count][1])
        ):
            yield rank, plan


def _witness(m: Any) -> bytes:
    """Return a few rows of an array in memory, digested, so that ranks which hold different arrays notice.

    Each rank hashes its own leaves only: without a witness, different arrays of one shape would agree on one digest.
    """
    if not isinstance(m, np.ndarray) or m.shape[0] == 0:
        return b""
    rows = np.unique(np.linspace(0, m.shape[0] - 1, _WITNESS_ROWS).astype(np.intp))
    return bytes(blake3(as_bytes(positive_zeros(m[rows], "matrix"))).digest(length=16))


def _dense_leaves(m: Any, n: int, p: int, step: int, mine: range) -> Iterator[bytes]:
    rows_at_once = max(1, _BUFFER_BYTES // max(8 * p, 1))
    buffer = np.empty((min(rows_at_once, step), p), dtype="<f8")
    for leaf in mine:
        start, stop = leaf * step, min((leaf + 1) * step, n)
        block = m[start:stop] if isinstance(m, np.ndarray) else _read_rows(m, start, stop, p)
        hasher = blake3(_DENSE_LEAF)
        hasher.update(struct.pack("<QQ", stop - start, p))
        for at in range(0, stop - start, len(buffer)):
            part = np.asarray(block[at : at + len(buffer)])
            hasher.update(as_bytes(positive_zeros(part, "matrix", out=buffer[: len(part)])))
        yield bytes(hasher.digest())


def _read_rows(source: RowChunkSource, start: int, stop: int, p: int) -> Any:
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


def _sparse_leaves(m: Any, n: int, p: int, mine: range) -> Iterator[bytes]:
    # A window of whole leaves is made canonical at a time: a copy of the whole matrix could exceed memory.
    if m.format in ("dia", "dok"):
        m = m.tocsr()
    leaves_at_once = 1
    if m.format in ("csc", "coo"):  # every window walks all entries of these: as few windows as memory allows
        leaves_at_once = max(1, _WINDOW_ENTRIES * n // max(m.nnz, 1) // _LEAF_ROWS)
    for first in range(mine.start, mine.stop, leaves_at_once):
        last = min(first + leaves_at_once, mine.stop)
        top = first * _LEAF_ROWS
        window = _canonical_rows(m, top, min(last * _LEAF_ROWS, n), p)
        for leaf in range(first, last):
            start = leaf * _LEAF_ROWS - top
            stop = min(start + _LEAF_ROWS, window.shape[0])
            indptr = window.indptr[start : stop + 1].astype("<u8")
            at, end = int(indptr[0]), int(indptr[-1])
            hasher = blake3(_SPARSE_LEAF)
            hasher.update(struct.pack("<QQQ", stop - start, p, end - at))
            hasher.update(as_bytes(indptr - indptr[0]))
            hasher.update(as_bytes(window.indices[at:end].astype("<u8")))
            hasher.update(as_bytes(positive_zeros(window.data[at:end], "sparse matrix")))
            yield bytes(hasher.digest())


def _canonical_rows(m: Any, start: int, stop: int, p: int) -> Any:
    """Rows start:stop of a sparse matrix: float64, duplicates summed, zeros dropped, indices sorted."""
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
    _check_values(data)
    rows = sparse.csr_array((data.astype(np.float64), np.array(indices), np.array(indptr)), shape=(stop - start, p))
    rows.has_canonical_format = False
    rows.has_sorted_indices = False
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _check_values(data: Any) -> None:
    if data.dtype.kind in "iu" and data.dtype.itemsize == 8:
        _check_exact_integers(data, "sparse matrix")
