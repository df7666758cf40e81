"""The affine gauge: lifting, restricting, and the laws that tie them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import Gauge
from tests.support.problems import Rows, wave


@st.composite
def gauges(draw, coupled=None):
    """A gauge of up to three blocks, with a shift, block-diagonal or coupled."""
    raw = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    reduced = [draw(st.integers(0, width)) for width in raw]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shift = rng.normal(size=sum(raw)) if draw(st.booleans()) else None
    raw_starts, reduced_starts = np.r_[0, np.cumsum(raw)].tolist(), np.r_[0, np.cumsum(reduced)].tolist()
    if draw(st.booleans()) if coupled is None else coupled:
        return Gauge(rng.normal(size=(sum(raw), sum(reduced))), raw_starts, reduced_starts, shift)
    return Gauge.from_blocks([rng.normal(size=shape) for shape in zip(raw, reduced, strict=True)], shift)


def theta_of(gauge, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=width) for width in gauge.reduced_widths]


SEEDS = st.integers(0, 2**32 - 1)


@given(gauges(), SEEDS)
def test_lifting_is_the_affine_map_cut_into_blocks(gauge, seed):
    theta = theta_of(gauge, seed)
    raw = gauge.lift_blocks(theta)

    assert tuple(map(len, raw)) == gauge.raw_widths
    np.testing.assert_allclose(np.concatenate(raw), gauge.lift @ np.concatenate(theta) + gauge.shift, atol=1e-12)


@given(gauges(), SEEDS)
def test_a_restricted_fit_has_the_predictor_of_the_lifted_one(gauge, seed):
    design = np.random.default_rng(seed).normal(size=(6, gauge.lift.shape[0]))
    offset = np.arange(6.0)
    theta = np.concatenate(theta_of(gauge, seed))
    raw = np.concatenate(gauge.lift_blocks(theta_of(gauge, seed)))
    predictor = design @ raw + offset

    restricted = gauge.restrict_design(design) @ theta + gauge.restrict_offset(design, offset)
    np.testing.assert_allclose(restricted, predictor, atol=1e-10)
    lean = sparse.csr_array(design)
    np.testing.assert_allclose(
        gauge.restrict_design(lean) @ theta + gauge.restrict_offset(lean, offset), predictor, atol=1e-10
    )


@given(gauges(), SEEDS)
def test_a_restricted_penalty_measures_the_lifted_direction(gauge, seed):
    half = np.random.default_rng(seed).normal(size=(gauge.lift.shape[0],) * 2)
    theta = np.concatenate(theta_of(gauge, seed))
    penalty = half @ half.T
    raw = gauge.lift @ theta

    np.testing.assert_allclose(theta @ gauge.restrict_penalty(penalty) @ theta, raw @ penalty @ raw, atol=1e-9)
    np.testing.assert_allclose(
        theta @ gauge.restrict_penalty(sparse.csr_array(penalty)) @ theta, raw @ penalty @ raw, atol=1e-9
    )


@given(gauges(), SEEDS)
def test_a_covariance_is_lifted_from_both_sides(gauge, seed):
    half = np.random.default_rng(seed).normal(size=(gauge.lift.shape[1],) * 2)
    sigma = half @ half.T

    np.testing.assert_allclose(gauge.lift_covariance(sigma), gauge.lift @ sigma @ gauge.lift.T, atol=1e-10)


@given(gauges())
def test_a_block_is_the_diagonal_slab_and_its_shift(gauge):
    for b, (raw, reduced) in enumerate(zip(gauge.raw_widths, gauge.reduced_widths, strict=True)):
        r, c = gauge.raw_starts[b], gauge.reduced_starts[b]
        np.testing.assert_array_equal(gauge.block(b), gauge.lift[r : r + raw, c : c + reduced])
        np.testing.assert_array_equal(gauge.block_shift(b), gauge.shift[r : r + raw])


@given(gauges(coupled=False))
def test_a_gauge_made_of_blocks_is_block_diagonal(gauge):
    assert gauge.is_block_diagonal


@given(gauges(coupled=False), SEEDS)
def test_a_gauge_made_of_blocks_is_that_of_its_full_lift(gauge, seed):
    sent = pickle.loads(pickle.dumps(gauge))
    full = Gauge(gauge.lift, gauge.raw_starts, gauge.reduced_starts, gauge.shift)
    theta = theta_of(gauge, seed)

    for each in (gauge, sent):
        np.testing.assert_array_equal(each.lift, full.lift)
        for mine, its in zip(each.lift_blocks(theta), full.lift_blocks(theta), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-13, atol=1e-13)
    with pytest.raises(AttributeError, match="lifted"):
        _ = gauge.lifted


def test_a_gauge_of_many_blocks_takes_no_more_memory_than_they_do():
    gauge = Gauge.from_blocks([np.ones((100, 50))] * 40)  # all of T would be 64 MB
    gauge.lift_blocks([np.ones(50)] * 40)

    assert len(pickle.dumps(gauge)) < 2e6


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), SEEDS)
def test_the_identity_changes_nothing(widths, seed):
    gauge = Gauge.identity(widths)
    theta = theta_of(gauge, seed)

    assert gauge.is_identity
    assert gauge.is_block_diagonal
    assert gauge.raw_widths == gauge.reduced_widths == tuple(widths)
    for lifted, own in zip(gauge.lift_blocks(theta), theta, strict=True):
        np.testing.assert_array_equal(lifted, own)


def test_a_shift_a_scale_or_another_partition_is_no_identity():
    assert not Gauge(np.eye(2), [0, 1, 2], [0, 1, 2], [0.0, 1e-300]).is_identity
    assert not Gauge(2 * np.eye(2), [0, 1, 2], [0, 1, 2]).is_identity
    assert not Gauge(np.eye(3)[:, :2], [0, 3], [0, 2]).is_identity


def test_one_entry_off_the_diagonal_couples_blocks():
    lift = np.eye(3)
    lift[0, 2] = 1e-12
    gauge = Gauge(lift, [0, 1, 3], [0, 1, 3])

    assert not gauge.is_block_diagonal
    assert not gauge.is_identity
    np.testing.assert_array_equal(gauge.block(0), [[1.0]])


def test_sum_to_zero_lifts_to_coefficients_of_the_constraint():
    basis = np.linalg.qr(np.c_[np.ones(4), np.eye(4)[:, :3]])[0][:, 1:]
    gauge = Gauge.sum_to_zero(basis)

    assert (gauge.raw_widths, gauge.reduced_widths) == ((4,), (3,))
    (raw,) = gauge.lift_blocks([np.array([1.0, -2.0, 3.0])])
    assert raw.sum() == pytest.approx(0.0, abs=1e-12)


def test_the_shift_of_a_gauge_of_blocks_is_the_intact_raw_vector():
    gauge = Gauge.from_blocks([np.ones((2, 1)), np.ones((1, 0))], shift=[1.0, 2.0, 3.0])

    assert [part.tolist() for part in gauge.lift_blocks([[10.0], []])] == [[11.0, 12.0], [3.0]]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Gauge(np.ones(3), [0, 3], [0, 1]), InvalidInput, r"lift.*\(3,\)"),
        (lambda: Gauge([[np.nan]], [0, 1], [0, 1]), InvalidInput, r"lift.*\[0, 0\]"),
        (lambda: Gauge(np.eye(2), [0, 1, 2], [0, 2]), InvalidInput, "3 numbers.*2"),
        (lambda: Gauge(np.eye(2), [1, 2], [0, 2]), InvalidInput, "raw_starts.*increase from 0 to 2"),
        (lambda: Gauge(np.eye(2), [0, 2], [0, 1]), InvalidInput, "reduced_starts.*increase from 0 to 2"),
        (lambda: Gauge(np.eye(2), [0, 2, 1, 2], [0, 2, 1, 2]), InvalidInput, "raw_starts"),
        (lambda: Gauge(np.eye(2), [], []), InvalidInput, "raw_starts"),
        (lambda: Gauge(np.eye(2), [0, 1.0, 2], [0, 1, 2]), InvalidType, "raw_starts"),
        (lambda: Gauge(np.eye(2), 2, [0, 2]), InvalidType, "raw_starts"),
        (lambda: Gauge(np.ones((2, 3)), [0, 2], [0, 3]), InvalidInput, "block 0 has reduced width 3.*width 2"),
        (lambda: Gauge(np.eye(3), [0, 1, 3], [0, 2, 3]), InvalidInput, "block 0 has reduced width 2.*width 1"),
        (lambda: Gauge(np.eye(2), [0, 2], [0, 2], [1.0]), InvalidInput, r"shift.*\(2, 2\).*\(1,\).*\(2,\)"),
        (lambda: Gauge(np.eye(1), [0, 1], [0, 1], [np.inf]), InvalidInput, "shift.*inf"),
        (lambda: Gauge.from_blocks([]), InvalidInput, "at least one block"),
        (lambda: Gauge.from_blocks([np.eye(2), np.ones(2)]), InvalidInput, "block 1"),
        (lambda: Gauge.identity([2, -1]), InvalidInput, "width"),
        (lambda: Gauge.identity(2), InvalidType, "widths"),
        (lambda: Gauge.sum_to_zero(np.ones((2, 3))), InvalidInput, r"\(2, 3\).*tall"),
        (lambda: Gauge.sum_to_zero(np.eye(2)), InvalidInput, r"\(2, 2\).*tall"),
    ],
)
def test_what_is_no_gauge_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


GAUGE = Gauge.from_blocks([np.ones((3, 2)), np.ones((1, 1))])


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: GAUGE.lift_blocks([[1.0, 2.0]]), InvalidInput, "2 blocks; 1"),
        (lambda: GAUGE.lift_blocks([[1.0], [2.0]]), InvalidInput, r"block 0.*\(1,\).*\(2,\)"),
        (lambda: GAUGE.lift_covariance(np.eye(4)), InvalidInput, r"\(4, 4\).*\(4, 3\).*\(3, 3\)"),
        (lambda: GAUGE.restrict_penalty(np.eye(3)), InvalidInput, r"\(3, 3\).*\(4, 3\).*\(4, 4\)"),
        (lambda: GAUGE.restrict_design(np.ones((5, 3))), InvalidInput, r"\(5, 3\).*\(4, 3\).*\(n, 4\)"),
        (lambda: GAUGE.restrict_design([[1.0] * 4]), InvalidType, "list"),
        (lambda: GAUGE.restrict_design(Rows(wave(5, 4, 1))), InvalidType, "row source"),
        (lambda: GAUGE.restrict_offset(Rows(wave(5, 4, 1)), np.ones(5)), InvalidType, "row source"),
        (lambda: GAUGE.restrict_offset(np.ones((5, 4)), np.ones(4)), InvalidInput, r"\(5, 4\).*\(4,\).*\(5,\)"),
        (lambda: GAUGE.block(2), InvalidInput, "0 to 1; block 2"),
        (lambda: GAUGE.block(-1), InvalidInput, "block -1"),
    ],
)
def test_shapes_that_do_not_fit_the_gauge_are_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_slab_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        GAUGE.block(0)[0, 0] = 2.0
