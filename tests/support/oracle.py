"""The matrix digest written naively from the protocol, to compare with."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from blake3 import blake3
from scipy import sparse

__all__ = ["plain_digest", "plain_indexed_digest", "plain_sparse_digest"]


def plain_digest(values: Any) -> str:
    """Digest of a dense matrix, all in memory, one number at a time where it matters."""
    matrix = np.array(values, dtype="<f8")
    n, p = matrix.shape
    matrix[matrix == 0.0] = 0.0
    step = min(4096, max(1, 8388608 // max(8 * p, 1)))
    root = blake3(b"\x01" + struct.pack("<QQQ", n, p, step))
    for start in range(0, n, step):
        leaf = matrix[start : start + step]
        root.update(blake3(b"\x00" + struct.pack("<QQ", len(leaf), p) + leaf.tobytes()).digest())
    return str(root.hexdigest())


def plain_sparse_digest(row: Any, col: Any, data: Any, shape: tuple[int, int]) -> str:
    """Digest of a sparse matrix given by its entries, duplicates summed as binary64."""
    n, p = shape
    entries = (np.asarray(data).astype(np.float64), (np.asarray(row), np.asarray(col)))
    matrix = sparse.coo_array(entries, shape=shape).tocsr()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    root = blake3(b"\x03" + struct.pack("<QQQ", n, p, 4096))
    for start in range(0, n, 4096):
        stop = min(start + 4096, n)
        begin, end = int(matrix.indptr[start]), int(matrix.indptr[stop])
        leaf = b"\x02" + struct.pack("<QQQ", stop - start, p, end - begin)
        leaf += (matrix.indptr[start : stop + 1] - begin).astype("<u8").tobytes()
        leaf += matrix.indices[begin:end].astype("<u8").tobytes() + matrix.data[begin:end].astype("<f8").tobytes()
        root.update(blake3(leaf).digest())
    return str(root.hexdigest())


def plain_indexed_digest(rows_digest: str, shape: tuple[int, int], index: Any) -> str:
    """Digest of distinct rows of shape (m, p), which have a digest of their own, and an index into
    them.
    """
    m, p = shape
    numbers = np.array(index, dtype="<u8")
    root = blake3(b"\x05" + struct.pack("<QQQQ", len(numbers), p, m, 1048576) + bytes.fromhex(rows_digest))
    for start in range(0, len(numbers), 1048576):
        leaf = numbers[start : start + 1048576]
        root.update(blake3(b"\x04" + struct.pack("<Q", len(leaf)) + leaf.tobytes()).digest())
    return str(root.hexdigest())
