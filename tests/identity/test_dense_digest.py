"""Equal numbers give equal digests, however they are stored; anything binary64 cannot hold is
refused.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity import matrix_digest
from tests.support.oracle import plain_digest
from tests.support.problems import Rows, wave

MATRICES = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9), elements=st.floats(width=64)
)
SIGNALLING_NAN = np.array([0x7FF0000000000001], dtype=np.uint64).view(np.float64)[0]
LARGEST = np.finfo(np.float64).max


class Shuffled:
    """A row source that returns a copy, in another memory order and element type."""

    def __init__(self, values, dtype, order):
        self.values, self.dtype, self.order = values, dtype, order
        self.shape = values.shape

    def row_chunk(self, start, stop):
        return np.array(self.values[start:stop], dtype=self.dtype, order=self.order)


@given(MATRICES)
@example(np.zeros((0, 3)))
@example(np.zeros((3, 0)))
@example(np.full((2, 3), LARGEST))
@example(np.array([[np.inf, -np.inf, np.nan, -0.0]]))
def test_the_digest_is_the_one_the_protocol_describes(matrix):
    assert matrix_digest(matrix) == plain_digest(matrix)


@given(MATRICES)
def test_memory_order_views_and_row_sources_never_change_a_digest(matrix):
    digest = matrix_digest(matrix)
    padded = np.zeros((2 * matrix.shape[0], matrix.shape[1] + 2))
    padded[::2, 1:-1] = matrix

    assert matrix_digest(np.asfortranarray(matrix)) == digest
    assert matrix_digest(padded[::2, 1:-1]) == digest
    assert matrix_digest(matrix[::-1].copy()[::-1]) == digest
    assert matrix_digest(matrix.astype(">f8")) == digest
    assert matrix_digest(Rows(matrix)) == digest
    assert matrix_digest(Shuffled(matrix, ">f8", "F")) == digest


@given(
    st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.bool_]),
    st.data(),
)
def test_element_type_never_changes_a_digest(dtype, data):
    bound = {} if np.dtype(dtype).itemsize < 8 else {"elements": st.integers(0, 2**53)}
    matrix = data.draw(hnp.arrays(dtype, (5, 3), **bound))

    with np.errstate(invalid="ignore"):  # widening quietens a signalling NaN, loudly
        digest = plain_digest(matrix.astype(np.float64))
    assert matrix_digest(matrix) == digest
    assert matrix_digest(Rows(matrix)) == digest


@pytest.mark.parametrize("n", [0, 1, 4095, 4096, 4097, 8192, 8193])
@pytest.mark.parametrize("form", [np.asfortranarray, Rows])
def test_leaf_edges_are_where_the_protocol_puts_them(n, form):
    matrix = wave(n, 3, n)

    assert matrix_digest(form(matrix)) == plain_digest(matrix)


@pytest.mark.parametrize(
    ("p", "step"), [(256, 4096), (257, 4080), (1000, 1048), (2**20 - 1, 1), (2**20, 1), (2**20 + 1, 1)]
)
def test_wide_rows_shorten_a_leaf(p, step):
    narrow = np.arange(step + 1, dtype=np.float64)[:, None]
    matrix = np.broadcast_to(narrow, (step + 1, p))
    source = Rows(matrix)

    assert matrix_digest(source) == plain_digest(matrix)
    assert source.asked == [(0, step), (step, step + 1)]


@given(st.integers(0, 2**64 - 1))
def test_nan_bits_are_kept(payload):
    bits = np.array([[payload | 0x7FF0000000000001, 0x3FF0000000000000]], dtype=np.uint64)

    assert matrix_digest(bits.view(np.float64)) == plain_digest(bits.view(np.float64))


@pytest.mark.parametrize("dtype", ["<f8", ">f8"])
def test_a_signalling_nan_is_not_quietened(dtype):
    signalling = np.array([[1.0, SIGNALLING_NAN]]).astype(dtype)

    assert matrix_digest(signalling) == plain_digest(np.array([[1.0, SIGNALLING_NAN]]))
    assert matrix_digest(signalling) != matrix_digest(np.array([[1.0, np.nan]]))


def test_negative_zero_is_zero():
    assert matrix_digest(np.array([[-0.0, 1.0]])) == matrix_digest(np.array([[0.0, 1.0]]))


@given(MATRICES.filter(lambda m: m.size > 0), st.data())
def test_any_other_number_anywhere_gives_another_digest(matrix, data):
    at = tuple(data.draw(st.integers(0, side - 1)) for side in matrix.shape)
    value = data.draw(st.floats(allow_nan=False).filter(lambda v: v != matrix[at]))
    changed = matrix.copy()
    changed[at] = value

    assert matrix_digest(changed) != matrix_digest(matrix)


def test_shape_is_part_of_a_digest():
    numbers = np.arange(12.0)

    assert len({matrix_digest(numbers.reshape(s)) for s in [(3, 4), (4, 3), (2, 6), (12, 1), (1, 12)]}) == 5
    assert matrix_digest(np.zeros((0, 3))) != matrix_digest(np.zeros((0, 4)))


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**53 + 2, -(2**63), 2**62])
def test_large_integers_that_binary64_holds_are_taken(value):
    assert matrix_digest(np.array([[value]], dtype=np.int64)) == plain_digest([[float(value)]])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(2**53 + 1, np.int64), (-(2**53) - 1, np.int64), (2**63 - 1, np.int64), (2**64 - 1, np.uint64)],
)
@pytest.mark.parametrize("form", [np.asarray, Rows])
def test_integers_that_binary64_rounds_are_refused(value, dtype, form):
    with pytest.raises(InvalidType, match=str(value)):
        matrix_digest(form(np.array([[1], [value]], dtype=dtype)))


REFUSED = {
    "complex": np.ones((2, 2), dtype=complex),
    "object": np.ones((2, 2), dtype=object),
    "long double": np.ones((2, 2), dtype=np.longdouble),
    "text": np.array([["1", "2"]]),
    "time": np.array([["2020-01-01"]], dtype="datetime64[D]"),
    "masked": np.ma.masked_array(np.ones((2, 2)), mask=[[1, 0], [0, 0]]),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("form", [lambda m: m, Rows], ids=["array", "lazy"])
def test_other_element_types_are_refused(kind, form):
    with pytest.raises(InvalidType) as caught:
        matrix_digest(form(REFUSED[kind]))

    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [[[1.0]], 1.0, None, "x"])
def test_what_is_not_a_matrix_at_all_is_refused_by_type(value):
    with pytest.raises(InvalidType, match="row_chunk"):
        matrix_digest(value)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_another_number_of_axes_is_refused(shape):
    with pytest.raises(InvalidInput, match="expected"):
        matrix_digest(np.ones(shape))


@pytest.mark.parametrize("returned", [(4, 3), (5, 2), (5,)])
def test_a_row_source_that_breaks_its_promise_is_refused(returned):
    class Liar:
        shape = (5, 3)

        def row_chunk(self, start, stop):
            return np.ones(returned)

    with pytest.raises(InvalidInput, match=r"\(5, 3\)"):
        matrix_digest(Liar())


@pytest.mark.parametrize("p", [8, 100, 2000])
def test_a_lazy_design_larger_than_memory_is_hashed_in_little_memory(p):
    class Large:
        shape = (400_000_000 // (8 * p), p)

        def row_chunk(self, start, stop):
            return np.full((stop - start, p), 0.5)

    tracemalloc.start()
    try:
        matrix_digest(Large())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 * 2**20
