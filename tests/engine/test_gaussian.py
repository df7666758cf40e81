"""Gaussian identity models: restricted likelihood on moments, and folds by subtraction."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm import ConstrainedWarmStart, FitFailed, InvalidInput
from gamwarm.engine import Gaussian, GaussianLocationScale, Intercept, Linear, Smooth, bind, fit
from gamwarm.engine.arrays import Counters
from tests.engine.test_objective import differences, relative
from tests.support.models import TIGHT, USUAL, columns, mean_terms

DATA = columns()
GROUPS = sorted(set(DATA["group"]))


def gaussian(data=None, **more):
    data = DATA if data is None else data
    return bind(data, mean_terms(), Gaussian("gaussian", weights="trials", offset="exposure", **more))


def test_gradient_and_hessian_are_those_of_the_value():
    objective = gaussian().case().objective(Counters())
    rho = np.linspace(-1.0, 1.5, objective.q)
    at = objective.evaluate(rho, objective.null, 1e-10, 1)

    gradient, hessian = differences(objective, rho, at.theta)

    assert relative(at.gradient, gradient) < 1e-6
    assert relative(objective.hessian(at), hessian) < 1e-6


def test_the_objective_is_the_restricted_likelihood_of_the_marginal_model():
    """Dense, from the textbook: y ~ N(X b, phi (W^-1 + Z D Z')), REML with phi at its best."""
    bound = gaussian()
    case = bound.case()
    objective = case.objective(Counters())
    rho = np.linspace(-0.5, 0.7, objective.q)
    at = objective.evaluate(rho, objective.null, 1e-10, 1)
    x = np.hstack([spec.design.to_dense() for spec in case.problem(TIGHT).specs])
    s = objective.penalties.at(rho).diagonal
    free, z = x[:, s == 0.0], x[:, s > 0.0]
    n = int(case.w.sum())  # a row of weight w is w rows
    rows = np.repeat(np.arange(case.n_rows), case.w.astype(int))
    free, z, y = free[rows], z[rows], (case.y - case.offset)[rows]
    v = np.eye(n) + z / s[s > 0.0] @ z.T
    inverse = np.linalg.inv(v)
    information = free.T @ inverse @ free
    residual = y - free @ np.linalg.solve(information, free.T @ inverse @ y)
    freedom = n - free.shape[1]
    phi = residual @ inverse @ residual / freedom

    reml = 0.5 * (
        freedom * (np.log(2 * np.pi * phi) + 1.0) + np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1]
    )

    assert at.scale == pytest.approx(phi, rel=1e-9)
    assert at.value == pytest.approx(reml, abs=1e-7)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(GROUPS))
def test_a_fold_by_subtraction_is_the_fold_from_its_rows(label):
    bound = gaussian()

    direct = fit(bound.case(DATA["group"] != label), options=TIGHT)
    downdated = fit(bound.without("group", label), options=TIGHT)

    assert downdated.cost.hessian_formations == 0
    assert direct.cost.hessian_formations == 1
    assert downdated.result.objective == pytest.approx(direct.result.objective, abs=1e-8)
    assert downdated.result.rho == pytest.approx(direct.result.rho, abs=1e-5)
    for a, b in zip(downdated.result.block_beta, direct.result.block_beta, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    assert downdated.fitted["mean"] == pytest.approx(direct.fitted["mean"], abs=1e-6)


def test_both_ways_to_describe_a_fold_have_one_key_and_the_other_resumes(tmp_path):
    bound = gaussian()
    rows = DATA["group"] != "g03"
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        first = fit(bound.without("group", "g03"), options=USUAL, store=store)
        again = fit(bound.without("group", "g03"), options=USUAL, store=store)
        direct = fit(bound.case(rows), options=USUAL, store=store)

    assert again.start.source == direct.start.source == "exact"
    for other in (again, direct):
        assert (other.cost.evaluations, other.cost.outer_iterations) == (1, 0)
        for a, b in zip(first.result.block_beta, other.result.block_beta, strict=True):
            assert np.array_equal(a, b)


def test_seeded_folds_start_next_to_their_end(tmp_path):
    bound = gaussian()
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        parent = fit(bound.case(), options=USUAL, store=store, group_seeds="group")
        for label in GROUPS[:3]:
            cold = fit(bound.without("group", label), options=USUAL)
            warm = fit(bound.without("group", label), options=USUAL, store=store, parent=parent.kept.artifact.entry_id)

            assert warm.start.seeds == "used"
            assert warm.cost.evaluations <= 2 < cold.cost.evaluations
            assert abs(warm.result.objective - cold.result.objective) < 1e-3
            assert np.abs(warm.mu - cold.mu).max() < 1e-3 * np.std(cold.mu)
    assert parent.result.seeds.rho.shape == (12, 2)


@pytest.mark.parametrize("spoil", [lambda r: np.full_like(r, 14.0), lambda r: r[::-1], lambda r: r - 6.0])
def test_a_corrupted_start_costs_time_and_not_the_answer(spoil):
    case = gaussian().case()
    honest = fit(case, options=USUAL, outer_hessian=True).result
    start = ConstrainedWarmStart(
        spoil(np.array(honest.rho)), [-b for b in honest.block_beta], curvature=honest.curvature
    )

    done = fit(case, options=USUAL, start=start)

    assert done.converged
    assert done.result.objective < honest.objective + 1e-3


def test_it_agrees_with_the_location_scale_family_where_the_scale_is_constant():
    one = fit(bind(DATA, [Intercept(), Smooth("x", 12)], Gaussian("gaussian")).case(), options=TIGHT)
    terms = [Intercept(), Smooth("x", 12), Intercept("scale")]
    two = fit(bind(DATA, terms, GaussianLocationScale("gaussian")).case(), options=TIGHT)

    assert one.mu == pytest.approx(two.mu, abs=0.02)


def test_digits_survive_a_large_mean():
    shifted = {**DATA, "gaussian": DATA["gaussian"] + 1e6}

    near, far = (fit(gaussian(d).case(), options=USUAL) for d in (DATA, shifted))

    assert far.result.objective == pytest.approx(near.result.objective, abs=1e-5)
    assert far.mu - 1e6 == pytest.approx(near.mu, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-100, 1e100])
@pytest.mark.parametrize("family", [Gaussian("y"), GaussianLocationScale("y")])
def test_the_unit_of_the_response_moves_no_smoothing_parameter(family, unit):
    terms = [Intercept(), Smooth("x", 12)]
    terms += [Intercept("scale")] if isinstance(family, GaussianLocationScale) else []

    plain, scaled = (
        fit(bind({"x": DATA["x"], "y": u * DATA["gaussian"]}, terms, family).case(), options=TIGHT) for u in (1.0, unit)
    )

    assert scaled.converged, scaled.reason
    assert scaled.result.rho == pytest.approx(plain.result.rho, abs=1e-3)
    assert scaled.mu / unit == pytest.approx(plain.mu, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("family", [Gaussian("y"), GaussianLocationScale("y")])
def test_a_response_that_cannot_be_squared_is_refused_as_that(family, unit):
    with pytest.raises(InvalidInput, match=r"'y' has numbers such as .* too small or large to square"):
        bind({"y": unit * DATA["gaussian"]}, [Intercept(each) for each in family.predictors], family)


def test_what_a_gaussian_model_cannot_do_is_said():
    with pytest.raises(InvalidInput, match="constant"):
        fit(bind({"x": DATA["x"], "y": np.ones(400)}, [Intercept(), Smooth("x")], Gaussian("y")).case())
    with pytest.raises(InvalidInput, match="no value 'nobody'"):
        gaussian().without("group", "nobody")
    few = {"x": np.arange(2.0), "y": np.array([0.0, 1.0])}
    with pytest.raises(FitFailed):
        fit(bind(few, [Intercept(), Linear("x")], Gaussian("y")).case())


def test_a_fit_travels_without_its_data():
    done = fit(gaussian().case(), options=USUAL)

    again = pickle.loads(pickle.dumps(done))

    assert np.array_equal(again.mu, done.mu)
    assert again.fitted_by is None
