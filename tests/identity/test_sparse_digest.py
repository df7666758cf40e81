"""One canonical form for every sparse format; the user's matrix is left alone; sparse is never
dense.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from gamwarm.errors import InvalidType
from gamwarm.identity import matrix_digest
from tests.support.oracle import plain_sparse_digest
from tests.support.problems import wave

FORMATS = ["csr", "csc", "coo", "bsr", "lil", "dok"]


def entries(shape, dtype, max_size=40):
    """Lists of (row, column, value): duplicates, explicit zeros and any order."""
    if np.dtype(dtype).kind == "f":
        # Halves and quarters: sums are exact, so that the order of duplicates cannot show.
        values = st.integers(-64, 64).map(lambda k: k / 4)
    else:
        info = np.iinfo(dtype)
        values = st.integers(info.min, info.max)
    cell = st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1), values)
    return st.lists(cell, max_size=max_size)


def columns_of(cells, dtype):
    row, col, data = zip(*cells, strict=True) if cells else ((), (), ())
    return np.array(row, dtype=np.int32), np.array(col, dtype=np.int32), np.array(data, dtype=dtype)


def raw_csr(row, col, data, shape):
    """CSR with the entries as they come: duplicates, zeros and disorder stay."""
    order = np.argsort(row, kind="stable")
    indptr = np.searchsorted(row[order], np.arange(shape[0] + 1))
    return sparse.csr_array((data[order], col[order], indptr), shape=shape)


def raw_csc(row, col, data, shape):
    return raw_csr(col, row, data, shape[::-1]).T


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8, np.int16])
@given(data=st.data())
def test_duplicates_zeros_and_disorder_never_change_a_digest(dtype, data):
    shape = (data.draw(st.sampled_from([1, 7, 4100])), data.draw(st.integers(1, 5)))
    row, col, values = columns_of(data.draw(entries(shape, dtype)), dtype)
    digest = plain_sparse_digest(row, col, values, shape)

    assert matrix_digest(sparse.coo_array((values, (row, col)), shape=shape)) == digest
    assert matrix_digest(raw_csr(row, col, values, shape)) == digest
    assert matrix_digest(raw_csc(row, col, values, shape)) == digest
    assert matrix_digest(sparse.csr_matrix(raw_csr(row, col, values.astype(np.float64), shape))) == digest


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 9000])
def test_every_format_and_leaf_edge_agrees(form, n):
    matrix = wave(n, 4, n)
    matrix[np.abs(matrix) < 0.95] = 0.0
    row, col = np.nonzero(matrix)

    converted = sparse.csr_matrix(matrix).asformat(form)
    assert matrix_digest(converted) == plain_sparse_digest(row, col, matrix[row, col], matrix.shape)


def test_diagonals_agree_with_their_entries():
    bands = wave(3, 5000, 2)
    bands[1, ::7] = 0.0
    matrix = sparse.dia_array((bands, [-4990, 0, 2]), shape=(5000, 20))
    plain = sparse.coo_array(matrix.toarray())

    assert matrix_digest(matrix) == plain_sparse_digest(plain.row, plain.col, plain.data, plain.shape)


@pytest.mark.parametrize("blocksize", [(1, 1), (3, 2), (50, 4)])
def test_blocks_that_straddle_leaves_and_repeat_agree(blocksize):
    rng = np.random.default_rng(3)
    height, width = blocksize
    n, p = 4200, 8
    indices = np.array([1, 0, 1] * (n // height)) % (p // width)
    indptr = np.arange(0, 3 * (n // height) + 1, 3)
    data = rng.integers(-9, 9, (len(indices), height, width)).astype(np.int8)
    matrix = sparse.bsr_array((data, indices, indptr), shape=(n, p))
    plain = matrix.astype(np.float64).tocsr().tocoo()

    assert matrix_digest(matrix) == plain_sparse_digest(plain.row, plain.col, plain.data, (n, p))


@pytest.mark.parametrize(("dtype", "value"), [(np.int8, 100), (np.uint8, 200), (np.float32, 16777216.0)])
@pytest.mark.parametrize("form", [raw_csr, raw_csc, lambda r, c, v, s: sparse.coo_array((v, (r, c)), shape=s)])
def test_duplicates_are_summed_as_binary64(dtype, value, form):
    values = np.array([value, value, 1], dtype=dtype)
    zeros = np.zeros(3, dtype=np.int32)
    summed = sparse.csr_array(np.array([[2.0 * float(value) + 1.0, 0.0]]))

    assert matrix_digest(form(zeros, zeros, values, (1, 2))) == matrix_digest(summed)


@pytest.mark.parametrize("form", [raw_csr, raw_csc, lambda r, c, v, s: sparse.coo_array((v, (r, c)), shape=s)])
def test_the_users_matrix_is_not_touched(form):
    row, col = np.array([0, 0, 0, 1], dtype=np.int32), np.array([2, 0, 2, 1], dtype=np.int32)
    matrix = form(row, col, np.array([1.0, 0.0, 3.0, -0.0]), (2, 3))
    parts = ["data", *(["row", "col"] if matrix.format == "coo" else ["indices", "indptr"])]
    before = {name: (getattr(matrix, name), getattr(matrix, name).copy()) for name in parts}
    flags = (matrix.nnz, matrix.has_canonical_format)

    matrix_digest(matrix)

    assert (matrix.nnz, matrix.has_canonical_format) == flags
    for name, (array, copy) in before.items():
        assert getattr(matrix, name) is array
        np.testing.assert_array_equal(array, copy)


def test_a_read_only_matrix_can_be_hashed():
    matrix = raw_csr(np.array([0, 0]), np.array([1, 0]), np.array([1.0, 2.0]), (1, 2))
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.flags.writeable = False

    assert matrix_digest(matrix) == matrix_digest(sparse.csr_array([[2.0, 1.0]]))


def test_sparse_and_dense_of_equal_values_differ():
    matrix = wave(20, 3, 1)

    assert matrix_digest(sparse.csr_array(matrix)) != matrix_digest(matrix)
    assert matrix_digest(sparse.csr_array((0, 3))) != matrix_digest(np.zeros((0, 3)))


def test_nan_bits_and_negative_zero_follow_the_dense_rule():
    payload = np.array([0x7FF0000000000123], dtype=np.uint64).view(np.float64)
    kept = sparse.csr_array((payload, [0], [0, 1]), shape=(1, 2))
    quiet = sparse.csr_array(([np.nan], [0], [0, 1]), shape=(1, 2))
    zero = sparse.csr_array(([-0.0], [0], [0, 1]), shape=(1, 2))

    assert matrix_digest(kept) == plain_sparse_digest([0], [0], payload, (1, 2)) != matrix_digest(quiet)
    assert matrix_digest(zero) == matrix_digest(sparse.csr_array((1, 2)))


@pytest.mark.parametrize("form", [*FORMATS, "dia"])
def test_integers_that_binary64_rounds_are_refused(form):
    exact = sparse.csr_array(np.array([[2**53 + 2, 0], [0, 1]])).asformat(form)
    rounded = sparse.csr_array(np.array([[2**53 + 1, 0], [0, 1]])).asformat(form)

    matrix_digest(exact)
    with pytest.raises(InvalidType, match="9007199254740993"):
        matrix_digest(rounded)


@pytest.mark.parametrize("dtype", [complex, np.longdouble])
def test_other_element_types_are_refused(dtype):
    with pytest.raises(InvalidType):
        matrix_digest(sparse.csr_array(np.eye(2, dtype=dtype)))


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr"])
def test_a_large_sparse_design_is_hashed_in_little_memory(form):
    n, per_row = 1_000_000, 4
    indices = np.tile(np.arange(per_row, dtype=np.int32), n)
    indptr = np.arange(0, n * per_row + 1, per_row, dtype=np.int32)
    matrix = sparse.csr_array((np.full(n * per_row, 0.5), indices, indptr), shape=(n, per_row)).asformat(form)
    assert matrix.nnz * 12 > 45 * 2**20

    tracemalloc.start()
    try:
        matrix_digest(matrix)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 * 2**20
