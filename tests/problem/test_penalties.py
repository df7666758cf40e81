"""Every penalty kind is one symmetric matrix, one label, and one fixed value or none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import (
    PENALTY_KINDS,
    BlockwisePenalty,
    DensePenalty,
    FixedPenalty,
    KroneckerPenalty,
    LabeledPenalty,
    Penalty,
    penalty_form,
)


@st.composite
def symmetric(draw, max_side=4):
    side = draw(st.integers(0, max_side))
    half = draw(hnp.arrays(np.float64, (side, side), elements=st.integers(-9, 9).map(float)))
    return half + half.T


@given(symmetric())
def test_a_dense_penalty_is_its_matrix(matrix):
    penalty = DensePenalty(matrix)

    assert penalty.dim == len(matrix)
    np.testing.assert_array_equal(penalty.to_dense(), matrix)


def test_a_dense_penalty_may_be_given_sparse_or_as_lists():
    np.testing.assert_array_equal(DensePenalty(sparse.eye_array(3)).to_dense(), np.eye(3))
    np.testing.assert_array_equal(DensePenalty([[1, 0], [0, 1]]).to_dense(), np.eye(2))


@given(symmetric(), symmetric())
def test_a_kronecker_penalty_runs_over_the_right_index_fastest(left, right):
    penalty = KroneckerPenalty(left, right)
    dense = penalty.to_dense()

    assert dense.shape == (penalty.dim, penalty.dim) == (len(left) * len(right),) * 2
    for i in range(len(left)):
        for j in range(len(right)):
            for k in range(len(left)):
                for m in range(len(right)):
                    assert dense[i * len(right) + j, k * len(right) + m] == left[i, k] * right[j, m]


@given(symmetric(), st.integers(0, 3), st.integers(0, 3))
def test_a_blockwise_penalty_is_embedded_in_zeros(local, before, after):
    start, stop = before, before + len(local)
    dense = BlockwisePenalty(local, start, stop, stop + after).to_dense()

    np.testing.assert_array_equal(dense[start:stop, start:stop], local)
    dense[start:stop, start:stop] = 0.0
    assert dense.shape == (stop + after,) * 2
    assert not dense.any()


PLAIN = DensePenalty(np.diag([1.0, 2.0]))


@pytest.mark.parametrize(
    ("penalty", "label", "fixed"),
    [
        (PLAIN, None, None),
        (KroneckerPenalty([[1.0]], np.eye(2)), None, None),
        (BlockwisePenalty([[1.0]], 0, 1, 2), None, None),
        (LabeledPenalty("tie", PLAIN), "tie", None),
        (FixedPenalty(-0.5, PLAIN), None, -0.5),
        (FixedPenalty(-0.5, LabeledPenalty("tie", PLAIN)), None, -0.5),
        (LabeledPenalty("tie", FixedPenalty(-0.5, PLAIN)), "tie", -0.5),
        (FixedPenalty(1.0, FixedPenalty(-0.5, PLAIN)), None, 1.0),
    ],
)
def test_labels_and_fixed_values_shine_through_as_specified(penalty, label, fixed):
    assert isinstance(penalty, Penalty)
    assert penalty.dim == 2
    assert penalty.precision_label == label
    assert penalty.fixed_log_lambda == fixed


@pytest.mark.parametrize("wrap", [lambda p: LabeledPenalty("tie", p), lambda p: FixedPenalty(0.0, p)])
def test_a_wrapper_has_the_matrix_of_what_it_wraps(wrap):
    np.testing.assert_array_equal(wrap(PLAIN).to_dense(), PLAIN.to_dense())


@pytest.mark.parametrize(("scale", "gap"), [(1.0, 0.9e-10), (1e6, 0.9e-4), (1e-6, 0.9e-10)])
def test_rounding_is_no_asymmetry(scale, gap):
    DensePenalty([[scale, gap], [0.0, scale]])


@pytest.mark.parametrize(("scale", "gap"), [(1.0, 1.2e-10), (1e6, 1.2e-4), (1e-6, 1.2e-10)])
def test_asymmetry_beyond_rounding_is_refused(scale, gap):
    with pytest.raises(InvalidInput, match="not symmetric"):
        DensePenalty([[scale, gap], [0.0, scale]])


def test_each_kronecker_factor_is_symmetric_by_itself():
    skew = np.array([[0.0, 1.0], [-1.0, 0.0]])  # the product of two skew factors is symmetric

    np.testing.assert_array_equal(np.kron(skew, skew), np.kron(skew, skew).T)
    with pytest.raises(InvalidInput, match="left factor"):
        KroneckerPenalty(skew, np.eye(2))
    with pytest.raises(InvalidInput, match="right factor"):
        KroneckerPenalty(np.eye(2), skew)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: DensePenalty(np.ones((2, 3))), InvalidInput, r"\(2, 3\).*square"),
        (lambda: DensePenalty(np.ones(3)), InvalidInput, r"\(3,\)"),
        (lambda: DensePenalty([[np.nan]]), InvalidInput, r"\[0, 0\] \(nan\)"),
        (lambda: DensePenalty([[np.inf]]), InvalidInput, "non-finite"),
        (lambda: DensePenalty([[1j]]), InvalidType, "complex"),
        (lambda: DensePenalty([["1"]]), InvalidType, "real numbers"),
        (lambda: DensePenalty([[1.0], [1.0, 2.0]]), InvalidInput, "ragged"),
        (lambda: DensePenalty(None), InvalidType, "NoneType"),
        (lambda: KroneckerPenalty(np.eye(2), [[np.nan]]), InvalidInput, "right factor"),
        (lambda: BlockwisePenalty(np.eye(2), 1, 4, 5), InvalidInput, r"\(2, 2\).*1:4.*\(3, 3\)"),
        (lambda: BlockwisePenalty(np.eye(2), 1, 3, 2), InvalidInput, "1:3 of 2"),
        (lambda: BlockwisePenalty(np.eye(2), 3, 1, 4), InvalidInput, "3:1 of 4"),
        (lambda: BlockwisePenalty(np.eye(2), -1, 1, 4), InvalidInput, "start"),
        (lambda: BlockwisePenalty(np.eye(2), 0.0, 2, 4), InvalidType, "start"),
        (lambda: LabeledPenalty("", PLAIN), InvalidInput, "label"),
        (lambda: LabeledPenalty(3, PLAIN), InvalidType, "label"),
        (lambda: LabeledPenalty("tie", np.eye(2)), InvalidType, "'tie'.*ndarray"),
        (lambda: FixedPenalty(np.nan, PLAIN), InvalidInput, "fixed log lambda"),
        (lambda: FixedPenalty(np.inf, PLAIN), InvalidInput, "fixed log lambda"),
        (lambda: FixedPenalty("1", PLAIN), InvalidType, "fixed log lambda"),
        (lambda: FixedPenalty(1.0, np.eye(2)), InvalidType, "ndarray"),
    ],
)
def test_what_is_no_penalty_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_a_penalty_copies_its_matrix_and_cannot_be_changed():
    matrix = np.eye(2)
    penalty = DensePenalty(matrix)
    matrix[0, 0] = 9.0
    penalty.to_dense()[0, 0] = 7.0

    np.testing.assert_array_equal(penalty.to_dense(), np.eye(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        penalty.matrix = matrix


def test_a_penaltys_form_says_in_words_what_it_is():
    kron = KroneckerPenalty(np.eye(2), np.eye(3))
    held = FixedPenalty(2.5, LabeledPenalty("a", BlockwisePenalty(np.eye(1), 1, 2, 3)))

    class Own:
        dim, precision_label, fixed_log_lambda = 1, None, None

        def to_dense(self):
            return np.eye(1)

    assert set(PENALTY_KINDS) == {DensePenalty, KroneckerPenalty, BlockwisePenalty, LabeledPenalty, FixedPenalty}
    assert [penalty_form(p) for p in (DensePenalty(np.eye(2)), kron, held, Own())] == [
        "dense", "kron 2 x 3", "fixed 2.5: labeled a: blockwise 1:2", "other",
    ]  # fmt: skip
