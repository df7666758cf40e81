"""The objective: value, gradient and Hessian agree with each other and with an independent
fitter.
"""

from __future__ import annotations

import numpy as np
import pytest

from gamwarm.engine import fit
from gamwarm.engine.arrays import Counters
from gamwarm.engine.cholesky import factorise
from tests.support.models import FAMILIES, TIGHT, columns, mcycle, model


def relative(a, b):
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b)) / (1.0 + np.abs(np.asarray(b)))))


def differences(laml, rho, theta, step=1e-4):
    def at(r):
        return laml.evaluate(r, theta, 1e-10, 500)

    q = len(rho)
    pairs = [(at(rho + step * e), at(rho - step * e)) for e in np.eye(q)]
    gradient = np.array([(up.value - down.value) / (2 * step) for up, down in pairs])
    hessian = np.array([(up.gradient - down.gradient) / (2 * step) for up, down in pairs])
    return gradient, hessian


@pytest.mark.parametrize("discretised", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_and_hessian_are_those_of_the_value(family, discretised):
    laml = model(family).case().objective(Counters(), discretised)
    rho = np.linspace(-1.0, 1.5, laml.q)
    at = laml.evaluate(rho, laml.null, 1e-10, 500)

    gradient, hessian = differences(laml, rho, at.theta)

    assert at.converged
    assert relative(at.gradient, gradient) < 1e-6
    assert relative(laml.hessian(at), hessian) < 1e-6


def test_gradient_keeps_its_sign_on_a_deep_plateau():
    laml = mcycle().case().objective(Counters())
    rho = np.array([14.0, 14.0])

    at = laml.evaluate(rho, laml.null, 1e-10, 500)
    nearer = laml.evaluate(rho - 1.0, at.theta, 1e-10, 500)

    assert (at.edf < 0.01).all()
    assert (at.gradient > 0).all(), "the objective falls towards less smoothing, however flat it is here"
    assert nearer.gradient == pytest.approx(np.e * at.gradient, rel=0.01), "V ~ V_inf + c exp(-rho)"


@pytest.mark.parametrize("family", FAMILIES)
def test_value_at_a_loose_inner_tolerance_is_corrected_to_first_order(family):
    laml = model(family).case().objective(Counters())
    rho = np.zeros(laml.q)
    exact = laml.evaluate(rho, laml.null, 1e-10, 500)
    rng = np.random.default_rng(0)
    wobble = rng.normal(size=exact.theta.size)
    wobble *= 0.01 / np.sqrt(wobble @ np.linalg.inv(exact.inverse) @ wobble)

    loose = laml.evaluate(rho, exact.theta + wobble, 0.02, 500)

    assert loose.cycles == 1
    assert loose.decrement > 1e-3
    assert abs(loose.value - exact.value) < 1e-5


def test_hessian_formations_are_counted_once_per_gram():
    counters = Counters()
    laml = model("poisson").case().objective(counters)
    laml.reuse = False
    at = laml.evaluate(np.zeros(laml.q), laml.null, 1e-8, 500)
    assert counters.hessian_formations == counters.inner_iterations == at.cycles

    laml.hessian(at)
    laml.hessian(at)

    assert counters.hessian_formations == at.cycles + laml.q


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_with_an_old_factor_reach_the_same_mode_with_fewer_formations(family):
    plain, reusing = (model(family).case().objective(Counters()) for _ in range(2))
    plain.reuse = False
    rho = np.zeros(plain.q)
    near = plain.evaluate(rho + 0.3, plain.null, 1e-8, 500)
    formed = plain.counters.hessian_formations

    a = plain.evaluate(rho, near.theta, 1e-8, 500)
    b = reusing.evaluate(rho, near.theta, 1e-8, 500, near.gram)

    assert reusing.counters.hessian_formations < plain.counters.hessian_formations - formed
    assert b.decrement <= 1e-8
    assert a.value == pytest.approx(b.value, abs=1e-9)
    assert a.gradient == pytest.approx(b.gradient, abs=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_old_factor_costs_time_and_not_the_mode(family):
    laml = model(family).case().objective(Counters())
    rho = np.zeros(laml.q)
    right = laml.evaluate(rho, laml.null, 1e-8, 500)

    for wrong in (1e-3 * right.gram, 1e3 * right.gram, -right.gram, np.eye(len(right.theta))):
        again = laml.evaluate(rho, laml.null, 1e-8, 500, wrong)
        assert again.converged
        assert again.value == pytest.approx(right.value, abs=1e-9)


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_coefficients_agree_with_statsmodels_glmgam_at_the_same_smoothing(family):
    import statsmodels.api as sm
    from statsmodels.gam.api import GLMGam
    from statsmodels.gam.smooth_basis import GenericSmoothers, UnivariateGenericSmoother

    data = columns()
    data["binomial"] = (data["binomial"] > 0.5).astype(float)
    data["trials"] = np.ones(400)
    case = model(family, data).case()
    ours = fit(case, options=TIGHT)
    specs = case.problem(TIGHT).specs
    dense = {spec.name: spec.design.to_dense() for spec in specs}
    smooth = [spec for spec in specs if spec.penalties]
    smoothers = [
        UnivariateGenericSmoother(data["x"], dense[s.name], None, None, s.penalties[0].to_dense(), s.name)
        for s in smooth
    ]
    parametric = np.hstack([dense[spec.name] for spec in specs if not spec.penalties])

    theirs = GLMGam(
        data[family],
        exog=parametric,
        smoother=GenericSmoothers(np.column_stack([data["x"]] * len(smooth)), smoothers),
        alpha=np.exp(ours.result.rho) / 2.0,  # its penalty is alpha beta'S beta, ours lambda beta'S beta / 2
        family=sm.families.Poisson() if family == "poisson" else sm.families.Binomial(),
        offset=data["exposure"] if family == "poisson" else np.zeros(400),
    ).fit(tol=1e-12, maxiter=200)

    order = [spec.name for spec in specs if not spec.penalties] + [spec.name for spec in smooth]
    mine = np.concatenate([ours.beta(name) for name in order])
    assert np.abs(np.asarray(theirs.params) - mine).max() < 1e-6


def test_a_matrix_without_information_in_some_direction_has_no_factor():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(6, 4))

    assert factorise(half @ half.T) is None
    assert factorise(np.diag([1.0, -1.0])) is None
    assert factorise(np.diag([1.0, np.nan])) is None


def test_factor_of_a_badly_scaled_matrix_is_accurate():
    rng = np.random.default_rng(2)
    scale = np.logspace(-8, 8, 5)
    core = np.eye(5) + 0.1 * rng.uniform(size=(5, 5))
    core = (core + core.T) / 2
    factor = factorise(scale[:, None] * core * scale)

    assert factor is not None
    assert factor.logdet == pytest.approx(np.linalg.slogdet(core)[1], abs=1e-10)
    assert factor.inverse() * scale[:, None] * scale == pytest.approx(np.linalg.inv(core), rel=1e-9, abs=1e-12)
    assert factor.solve(scale) * scale == pytest.approx(np.linalg.solve(core, np.ones(5)))
