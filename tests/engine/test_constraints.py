"""Models with inequality constraints: the mode, its face, and the objective's derivatives there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from gamwarm.engine import (
    Binomial,
    Convex,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    Monotone,
    Poisson,
    RandomEffect,
    Smooth,
    bind,
    fit,
)
from gamwarm.engine.arrays import Counters
from gamwarm.errors import InvalidInput

FAMILIES = {
    "gaussian": Gaussian("y"),
    "poisson": Poisson("count"),
    "binomial": Binomial("yes"),
    "location-scale": GaussianLocationScale("y"),
}


def columns(n=240, seed=3):
    """A curve with two flat stretches, twelve groups."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 1.0, n)
    f = np.clip(3.0 * (x - 0.35), 0.0, 0.9)
    g = rng.integers(0, 12, n)
    shift = rng.normal(0.0, 0.3, 12)[g]
    return {
        "x": x,
        "z": rng.uniform(0.0, 1.0, n),
        "g": np.array([f"g{i:02d}" for i in g]),
        "y": f + shift + rng.normal(0.0, 0.4, n),
        "count": rng.poisson(np.exp(f + shift)).astype(float),
        "yes": rng.binomial(1, 1.0 / (1.0 + np.exp(1.0 - 2.0 * f - shift))).astype(float),
    }


def case_of(family, shaped=None, **changes):
    shaped = Monotone("x", k=14) if shaped is None else shaped
    terms = [Intercept(), shaped, Smooth("z", k=6), RandomEffect("g")]
    if family == "location-scale":
        terms += [Intercept("scale"), Monotone("z", k=8, predictor="scale", direction="decreasing")]
    return bind(columns() | changes, terms, FAMILIES[family]).case()


def active(at):
    return np.flatnonzero(at.face.active).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", [-2.0, 3.0])
def test_gradient_and_hessian_are_those_of_finite_differences(family, first):
    case = case_of(family)
    laml = case.objective(Counters())
    rho = np.zeros(laml.q)
    rho[0] = first
    at = laml.evaluate(rho, laml.null, 1e-10, 200)
    step, gradient, hessian = 1e-4, np.zeros(laml.q), np.zeros((laml.q, laml.q))

    for j in range(laml.q):
        ends = [laml.evaluate(rho + sign * step * np.eye(laml.q)[j], at.theta, 1e-10, 200) for sign in (-1.0, 1.0)]
        assert active(ends[0]) == active(ends[1]) == active(at)
        gradient[j] = (ends[1].value - ends[0].value) / (2.0 * step)
        hessian[j] = (ends[1].gradient - ends[0].gradient) / (2.0 * step)

    assert active(at)
    np.testing.assert_allclose(at.gradient, gradient, atol=2e-7)
    np.testing.assert_allclose(laml.hessian(at), hessian, atol=2e-6)


SHAPES = [
    Monotone("x", k=10),
    Monotone("x", k=10, direction="decreasing"),
    Convex("x", k=10),
    Convex("x", k=10, direction="concave"),
]


@pytest.mark.parametrize("shaped", SHAPES, ids=lambda term: term.direction)
@pytest.mark.parametrize("family", ["gaussian", "poisson", "binomial"])
def test_the_mode_is_the_one_that_a_general_solver_finds(family, shaped):
    case = case_of(family, shaped)
    laml, rows = case.objective(Counters()), case.constraints.rows
    rho = np.array([0.5, 2.0, 0.0])
    at = laml.evaluate(rho, laml.null, 1e-9, 200)

    # P and its gradient from the rows and the terms' tables, with nothing of the inner solve.
    terms, s, y, w = case.bound.terms, laml.penalties.at(rho).diagonal, case.y, case.w
    x = np.hstack([t.table[case.groups[t.group].index][:, kept] for t, kept in zip(terms, case.kept, strict=True)])

    def objective(theta):
        eta = [x @ theta]
        slope = case.bound.family.derivatives(y, w, eta, (1,))[1][(0,)]
        return case.bound.family.nll(y, w, eta) + 0.5 * s @ theta**2, x.T @ slope + s * theta

    if family == "gaussian":  # phi does not move the mode

        def objective(theta):
            r = y - x @ theta
            return 0.5 * (w * r) @ r + 0.5 * s @ theta**2, s * theta - x.T @ (w * r)

    found = minimize(
        objective,
        laml.null,
        jac=True,
        method="SLSQP",
        constraints=[LinearConstraint(rows, 0.0, np.inf)],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    value = objective(at.theta)[0]
    assert value <= found.fun + 1e-9 * abs(found.fun)
    np.testing.assert_allclose(x @ at.theta, x @ found.x, atol=2e-4)
    assert (rows @ at.theta >= -1e-12).all()
    held = at.face.active
    assert np.abs((rows @ at.theta)[held]).max(initial=0.0) <= 1e-14
    # Complementary: no multiplier is negative, and what is not active has none.
    gradient = objective(at.theta)[1]
    multipliers = at.face.multipliers(gradient)
    assert (multipliers >= -1e-8).all()
    np.testing.assert_allclose(gradient, rows.T @ multipliers, atol=1e-6)


def test_what_the_data_contradict_ends_at_a_constant():
    data = columns()
    data["y"] = -3.0 * data["x"] + 0.1 * np.sin(40.0 * data["x"])
    done = fit(bind(data, [Intercept(), Monotone("x", k=12)], Gaussian("y")).case())

    assert done.converged, done.reason
    np.testing.assert_allclose(done.mu, data["y"].mean(), rtol=1e-9)


@pytest.mark.parametrize("shaped", SHAPES, ids=lambda term: term.direction)
def test_a_fit_has_the_shape_it_was_asked_for(shaped):
    case = case_of("poisson", shaped)
    done = fit(case)

    assert done.converged, done.reason
    sign = {"decreasing": -1.0, "concave": -1.0}.get(shaped.direction, 1.0)
    curve = sign * (case.bound.terms[1].table @ done.result.block_beta[1])
    x = case.bound.source.values["numbers(x)"][:, 0]
    slope = np.diff(curve) / np.diff(x)
    if isinstance(shaped, Monotone):
        assert slope.min() >= -1e-9
    else:
        wide = np.diff(x) > 1e-4
        assert np.diff(slope[wide]).min() >= -1e-6


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (
            lambda: Monotone("x", direction="up"),
            "Monotone('x'): direction 'up'; use one of ['increasing', 'decreasing']",
        ),
        (
            lambda: Convex("x", direction="increasing"),
            "Convex('x'): direction 'increasing'; use one of ['convex', 'concave']",
        ),
        (lambda: Monotone("x", direction=["increasing"]), "Monotone('x'): direction"),
        (lambda: Monotone("x", k=2), "Monotone('x'): k = 2 is too small; use k >= 4"),
    ],
)
def test_a_term_that_cannot_be_says_so_by_name(term, words):
    with pytest.raises(InvalidInput) as refused:
        term()
    assert words in str(refused.value)
