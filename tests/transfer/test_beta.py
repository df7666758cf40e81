"""What becomes of a parent's coefficients: projected, approximate or cold, and why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity import FitDescriptor
from gamwarm.problem import Gauge
from gamwarm.transfer import BetaOutcome, TermContext, TransferPolicy, build_warm_start
from gamwarm.transfer.project import project, relative_residual
from tests.support.entries import artifact, hex_of, term


def context(number, width, block=None, shift=None):
    return TermContext(hex_of(number), [], width, block, shift)


def start_of(contexts, terms, gauge=None, **policy):
    parent = artifact(*terms)
    descriptor = FitDescriptor("gaussian", [c.identity for c in contexts])
    return build_warm_start(descriptor, contexts, [], parent, TransferPolicy(**policy), gauge)


def one(block, raw_beta, width=None, shift=None, parent_width=None, **policy):
    """The one term's report and its coefficients."""
    width = block.shape[1] if width is None else width
    given = term(1, raw_beta=raw_beta, rho_for_term=[], reduced_width=parent_width)
    start = start_of([context(1, width, block, shift)], [given], **policy)
    assert start.block_beta[0].shape == (width,)
    return start.terms[0], start.block_beta[0]


LIFTS = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 2**32 - 1))


def lift_of(reduced, extra, seed):
    """A lift of condition below about 30."""
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(reduced + extra, reduced)))[0] * rng.uniform(0.2, 5.0, reduced)


@given(
    st.integers(1, 5),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 1.0, 0.0, 2.0, -1.0, np.inf]),
    st.booleans(),
)
def test_a_lift_that_chooses_coefficients_is_projected_as_any_other(reduced, extra, seed, other, twice):
    rng = np.random.default_rng(seed)
    lift = np.eye(reduced + extra)[:, rng.choice(reduced + extra, reduced, replace=twice)]
    if other is not None:
        lift[rng.integers(reduced + extra), rng.integers(reduced)] = other
    target = rng.normal(size=reduced + extra)

    theta = project(lift, target)

    if not np.isfinite(lift).all():
        assert np.isnan(theta).all()
    else:
        normal = lift.T @ lift
        ridge = max(1e-8 * np.trace(normal) / reduced, 1e-12)
        expected = np.linalg.solve(normal + ridge * np.eye(reduced), lift.T @ target)
        np.testing.assert_allclose(theta, expected, rtol=1e-6, atol=1e-9)


@given(LIFTS)
def test_projecting_what_was_lifted_gives_it_back(shape):
    lift = lift_of(*shape)
    rng = np.random.default_rng(shape[2])
    theta, shift = rng.normal(size=lift.shape[1]), rng.normal(size=lift.shape[0])

    report, beta = one(lift, lift @ theta + shift, shift=shift)

    np.testing.assert_allclose(beta, theta, atol=2e-5)
    assert report.beta is BetaOutcome.PROJECTED
    assert report.provenance == "projected"
    assert report.residual < 1e-5


@given(LIFTS)
def test_the_projection_solves_the_ridge_normal_equations(shape):
    lift = lift_of(*shape)
    target = np.random.default_rng(shape[2]).normal(size=lift.shape[0])
    gram = lift.T @ lift
    ridge = max(1e-8 * np.trace(gram) / lift.shape[1], 1e-12)

    theta = project(lift, target)

    np.testing.assert_allclose((gram + ridge * np.eye(lift.shape[1])) @ theta, lift.T @ target, atol=1e-9)
    assert relative_residual(lift, theta, target) <= 1.0 + 1e-9


def test_the_ridge_of_a_vanishing_lift_has_a_floor():
    np.testing.assert_allclose(project(np.array([[1e-6]]), np.array([1e-6])), [0.5])
    np.testing.assert_array_equal(project(np.zeros((3, 2)), np.ones(3)), [0.0, 0.0])


def test_a_rank_deficient_lift_is_projected_to_the_smallest_answer():
    np.testing.assert_allclose(project(np.ones((3, 2)), np.full(3, 4.0)), [2.0, 2.0], rtol=1e-6)


def test_a_residual_says_what_the_projection_lost():
    report, beta = one(np.eye(2)[:, :1], [3.0, 4.0])

    np.testing.assert_allclose(beta, [3.0], rtol=1e-7)
    assert report.residual == pytest.approx(0.8, abs=1e-7)


def test_the_shift_is_taken_off_first():
    np.testing.assert_allclose(one(np.eye(2), [3.0, 4.0], shift=[1.0, -1.0])[1], [2.0, 5.0], rtol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"block": np.eye(3), "raw_beta": [1.0, 2.0]}, "raw widths disagree: 3 here, 2 in the parent"),
        ({"block": np.array([[1.0], [np.nan]]), "raw_beta": [1.0, 2.0]}, "non-finite"),
        ({"block": np.eye(2), "raw_beta": [1.0, 2.0], "shift": [0.0, np.inf]}, "non-finite"),
        ({"block": np.eye(1) * 1e200, "raw_beta": [1.0]}, "not finite"),
        ({"block": np.eye(2), "raw_beta": [0.0, 1.1e6]}, "exceeds 1e+06"),
        ({"block": np.eye(2), "raw_beta": [0.0, -1.1e6]}, "exceeds 1e+06"),
        ({"block": np.eye(2), "raw_beta": [1.0, 2.0], "parent_width": 1}, "more than 25%: 2 here, 1 in the parent"),
    ],
)
def test_coefficients_that_cannot_be_trusted_start_cold_with_the_reason(arguments, said):
    report, beta = one(**arguments)

    assert not beta.any()
    assert report.beta == "cold"
    assert report.provenance == "cold"
    assert report.residual is None
    assert said in report.beta_reason


def test_a_million_is_still_a_coefficient():
    report, beta = one(np.eye(1), [1e6])

    assert report.beta == "projected"
    assert beta[0] == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("here", "there", "outcome"),
    [
        (30, 40, "projected"),
        (29, 40, "cold"),
        (50, 40, "projected"),
        (51, 40, "cold"),
        (35, 37, "projected"),
        (40, 40, "projected"),
        (5, 4, "projected"),
        (3, 4, "projected"),
        (2, 3, "cold"),
        (1, 0, "cold"),
        (9, None, "projected"),
    ],
)
def test_widths_may_differ_by_a_quarter_of_the_parents(here, there, outcome):
    report, _ = one(np.eye(60)[:, :here], np.ones(60), parent_width=there)

    assert report.beta == outcome


@pytest.mark.parametrize(("gap", "outcome"), [(0.0, "cold"), (0.05, "cold"), (0.1, "projected"), (np.inf, "projected")])
def test_the_width_gap_is_the_policys(gap, outcome):
    assert one(np.eye(20)[:, :9], np.ones(20), parent_width=10, max_width_gap=gap)[0].beta == outcome


def test_a_term_without_a_gauge_block_starts_cold():
    start = start_of([context(1, 3)], [term(1, rho_for_term=[])])

    assert start.block_beta[0].tolist() == [0.0, 0.0, 0.0]
    assert (start.terms[0].beta, start.terms[0].beta_reason) == ("cold", "this term has no gauge block")


def test_a_term_of_no_width_has_an_empty_vector():
    report, beta = one(np.zeros((3, 0)), [1.0, 2.0, 3.0], parent_width=0)

    assert beta.shape == (0,)
    assert report.beta_reason == "this term has no coefficients"


COUPLED = Gauge(
    [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 1.0]], [0, 2, 4], [0, 2, 3], [1, 2, 3, 4]
)
THETA = [np.array([0.5, -1.0]), np.array([3.0])]
RAW = COUPLED.lift_blocks(THETA)


def coupled_contexts(gauge=COUPLED):
    return [context(b, gauge.reduced_widths[b], gauge.block(b), gauge.block_shift(b)) for b in range(gauge.n_blocks)]


def raw_terms(*betas, **changes):
    return [term(b, raw_beta=beta, rho_for_term=[], reduced_width=None, **changes) for b, beta in enumerate(betas)]


def test_a_gauge_that_couples_blocks_is_projected_through_the_intact_of_it():
    start = start_of(coupled_contexts(), raw_terms(*RAW), COUPLED)

    for beta, theta in zip(start.block_beta, THETA, strict=True):
        np.testing.assert_allclose(beta, theta, atol=1e-6)
    assert [t.beta for t in start.terms] == ["projected", "projected"]
    assert all(t.residual < 1e-6 for t in start.terms)


def test_a_coupled_gauge_with_another_raw_width_falls_back_to_slabs():
    start = start_of(coupled_contexts(), raw_terms(RAW[0], np.ones(3)), COUPLED)

    assert [t.beta for t in start.terms] == ["approximate", "cold"]
    assert "slab" in start.terms[0].beta_reason
    np.testing.assert_allclose(start.block_beta[0], RAW[0] - [1.0, 2.0], atol=1e-6)
    assert start.terms[0].provenance == "projected"


def test_a_block_diagonal_gauge_gives_what_its_slabs_give():
    gauge = Gauge.from_blocks([np.array([[1.0], [2.0]]), np.eye(2)], [1.0, 1.0, 0.0, 0.0])
    terms = raw_terms([3.0, 5.0], [1.0, 2.0])

    with_gauge, without = (start_of(coupled_contexts(gauge), terms, g) for g in (gauge, None))

    for a, b in zip(with_gauge.block_beta, without.block_beta, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [t.beta for t in with_gauge.terms] == ["projected", "projected"]


@pytest.mark.parametrize("gauge", [Gauge.identity([3]), Gauge.identity([2, 2]), Gauge.identity([1, 1, 1])])
def test_a_gauge_of_another_fit_is_refused_with_both_widths(gauge):
    with pytest.raises(InvalidInput, match="gauge has"):
        start_of(coupled_contexts(), raw_terms(*RAW), gauge)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: TermContext("x", [], 1), InvalidInput, "64"),
        (lambda: TermContext(hex_of(1), [], 1, structural_identity="x"), InvalidInput, "64"),
        (lambda: TermContext(hex_of(1), [-1], 1), InvalidInput, "rho_slots"),
        (lambda: TermContext(hex_of(1), 0, 1), InvalidType, "rho_slots"),
        (lambda: TermContext(hex_of(1), [], -1), InvalidInput, "reduced_width"),
        (lambda: TermContext(hex_of(1), [], 2, np.eye(3)), InvalidInput, r"\(3, 3\).*2"),
        (lambda: TermContext(hex_of(1), [], 2, "T"), InvalidType, "gauge_block"),
        (lambda: TermContext(hex_of(1), [], 1, np.ones((2, 1)), [1.0]), InvalidInput, r"gauge_shift.*\(1,\).*\(2,\)"),
        (lambda: TransferPolicy(max_width_gap=-0.1), InvalidInput, "max_width_gap"),
        (lambda: TransferPolicy(rho_bound=2.0), InvalidInput, "rho_bound"),
        (lambda: TransferPolicy(require_converged="no"), InvalidType, "require_converged"),
    ],
)
def test_terms_and_policies_that_mean_nothing_are_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


@given(st.integers(1, 12), st.integers(0, 12), st.sampled_from([1.0, -1.0, 2.0, np.nan]), st.randoms())
def test_a_lift_that_leaves_coefficients_out_is_solved_as_any_other(raw, reduced, entry, random):
    rows = random.sample(range(raw), min(reduced, raw))
    lift = np.zeros((raw, len(rows)))
    lift[rows, range(len(rows))] = 1.0
    target = np.array([random.uniform(-5.0, 5.0) for _ in range(raw)])

    gram = lift.T @ lift + 1e-8 * np.eye(len(rows))
    np.testing.assert_allclose(project(lift, target), np.linalg.solve(gram, lift.T @ target), rtol=1e-15)
    if rows:
        lift[rows[0], 0] = entry
        doubled = np.column_stack([lift[:, 0], lift[:, 0]])
        for other in (lift, doubled):
            width = other.shape[1]
            gram = other.T @ other
            ridge = max(1e-8 * np.trace(gram) / width, 1e-12)
            expected = np.linalg.solve(gram + ridge * np.eye(width), other.T @ target)
            np.testing.assert_allclose(project(other, target), expected, rtol=1e-7)
        target[0] = np.inf
        assert np.isnan(project(lift, target)).all()
