"""Models with inequality constraints: the mode, its face, and the objective's derivatives there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from gamwarm.engine import (
    Binomial,
    Convex,
    Gamma,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    LogLogistic,
    LogNormal,
    Monotone,
    NegativeBinomial,
    Poisson,
    RandomEffect,
    Smooth,
    bind,
    fit,
)
from gamwarm.engine.arrays import Counters
from gamwarm.engine.constrained import least_of_hull
from gamwarm.engine.driver import CaseObjective
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.fitting.search import Search
from gamwarm.problem import BlockwiseFitOptions

FAMILIES = {
    "gaussian": Gaussian("y"),
    "poisson": Poisson("count"),
    "binomial": Binomial("yes"),
    "location-scale": GaussianLocationScale("y"),
    "negative binomial": NegativeBinomial("count"),
    "gamma": Gamma("positive"),
    "log-logistic": LogLogistic("positive", event="event"),
}


def columns(n=240, seed=3):
    """A curve with two flat stretches, twelve groups."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 1.0, n)
    f = np.clip(3.0 * (x - 0.35), 0.0, 0.9)
    g = rng.integers(0, 12, n)
    shift = rng.normal(0.0, 0.3, 12)[g]
    positive = rng.gamma(2.0, 0.5 * np.exp(f + shift))
    return {
        "positive": positive,
        "event": (positive < 4.0) * 1.0,
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
    if family in ("location-scale", "log-logistic"):
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
    assert (at.walls is not None) == (family in ("location-scale", "log-logistic"))
    step, gradient, hessian = 2e-4, np.zeros(laml.q), np.zeros((laml.q, laml.q))

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


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_coefficients_that_are_nearly_on_their_face_end_on_it(family):
    case = case_of(family)
    laml, rho = case.objective(Counters()), np.zeros(3)
    mode = laml.evaluate(rho, laml.null, 1e-9, 200)
    held = mode.face.active
    # Off the face by far less than the tolerance of the inner solve sees.
    near = mode.theta + 1e-9 * laml.constraints.basis[:, laml.constraints.place[held]].sum(axis=1)

    for start in (near, mode.theta - (near - mode.theta)):
        at = laml.evaluate(rho, start, 1e-4, 200)

        assert active(at) == active(mode)
        assert np.abs(laml.constraints.slack(at.theta)[held]).max() <= 1e-14
    assert np.array_equal(laml.evaluate(rho, mode.theta, 1e-9, 200).theta, mode.theta)


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
    x = case.bound.source.distinct(("x",), "the test")[1][:, 0]
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
        (lambda: Monotone("x", "increasing"), "Monotone('x'): k must be an integer; it is 'increasing' (str)"),
        (lambda: Smooth("x", 7.5), "Smooth('x'): k must be an integer; it is 7.5 (float)"),
    ],
)
def test_a_term_that_cannot_be_says_so_by_name(term, words):
    with pytest.raises((InvalidInput, InvalidType)) as refused:
        term()
    assert words in str(refused.value)


@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
@pytest.mark.parametrize("seed", range(3))
def test_a_location_scale_fit_that_contradicts_its_data_has_an_answer(direction, seed):
    # The residuals keep a trend, so off the face of the constraints the Hessian is indefinite.
    data = columns(seed=seed)
    data["y"] = np.sin(6.0 * data["x"]) + 0.3 * data["y"]
    terms = [Intercept(), Monotone("x", k=12, direction=direction), Intercept("scale")]
    done = fit(bind(data, terms, GaussianLocationScale("y")).case())

    assert done.converged, done.reason
    assert done.active[f"mean:{direction}(x)"]


def at_a_kink():
    """A location-scale fit whose objective is least where its face changes."""
    rng = np.random.default_rng(41)
    n = int(rng.integers(60, 300))
    x = rng.uniform(0.0, 1.0, n)
    g = rng.integers(0, 8, n)
    y = 1.0 * (x > 0.5) + rng.normal(0.0, 0.3, n) * np.exp(0.5 * x)
    terms = [Intercept(), Monotone("x", k=12), RandomEffect("g")]
    terms += [Intercept("scale"), Monotone("x", k=6, predictor="scale")]
    return bind({"x": x, "g": g.astype(str), "y": y}, terms, GaussianLocationScale("y")).case()


def test_a_search_ends_where_the_objective_has_its_minimum_at_a_face_change():
    case = at_a_kink()
    done = fit(case)

    assert done.converged, done.reason
    laml, rho = case.objective(Counters()), done.result.rho
    theta = np.concatenate(done.result.block_beta)
    here = laml.evaluate(rho, theta, 1e-9, 200)
    apart = 1e-2 * np.eye(laml.q)[0]
    ends = [laml.evaluate(rho + sign * apart, here.theta, 1e-9, 200) for sign in (-1.0, 1.0)]
    # Not flat on either side, and a minimum nevertheless.
    assert ends[0].gradient[0] < -1e-3
    assert ends[1].gradient[0] > 1e-3
    assert min(end.value for end in ends) > here.value
    assert active(ends[0]) != active(ends[1])


def along_a_kink(family, seed):
    """A fit whose objective is least on a kink that bends through all its coordinates."""
    rng = np.random.default_rng(seed)
    n = 300
    x, z, offset = rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 1.0, n), rng.normal(0.0, 0.3, n)
    y = 2.0 * (x > 0.5) + 0.4 * np.sin(6.0 * z) + offset + rng.normal(0.0, 0.5, n) * np.exp(0.5 * z)
    data = {"x": x, "z": z, "offset": offset, "w": rng.uniform(0.3, 2.0, n), "y": y, "time": np.exp(y)}
    data["event"] = (y < 2.0) * 1.0
    terms = [Intercept(), Monotone("x"), Smooth("z"), Intercept("scale"), Smooth("z", predictor="scale")]
    return bind(data, terms, family).case()


EITHER = {"weights": "w", "offset": "offset"}
ALONG_A_KINK = [
    (LogNormal("time", event="event", **EITHER), 6, 60),
    (LogNormal("time", event="event", **EITHER), 9, 60),
    (LogLogistic("time", **EITHER), 8, 60),
    (GaussianLocationScale("y", **EITHER), 8, 60),
]


@pytest.mark.parametrize(("family", "seed", "most"), ALONG_A_KINK)
def test_a_search_follows_a_kink_to_its_minimum_from_anywhere(family, seed, most):
    case = along_a_kink(family, seed)
    options, rng = BlockwiseFitOptions(), np.random.default_rng(0)
    values = []
    for _ in range(4):
        objective = CaseObjective(case, options)
        search = Search(case.problem(options), objective, objective.null, objective.laml.origin)
        outcome = search.run(search.evaluate(rng.uniform(-4.0, 8.0, objective.laml.q), objective.null))

        assert outcome.is_answer, outcome.reason
        assert search.cost.evaluations < most
        assert outcome.at.kink is not None
        values.append(outcome.at.value)

    assert np.ptp(values) < 2e-4  # of log lambda a kink is met to 1e-4


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4))
def test_the_least_gradient_of_a_kink_is_the_shortest_of_all_between(seed, k, q):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(k, q)) * 10.0 ** rng.integers(-6, 3)

    least = least_of_hull(gradients)

    size = np.linalg.norm(least)
    between = rng.dirichlet(np.ones(k), 200) @ gradients
    assert size <= np.linalg.norm(np.vstack([between, gradients]), axis=1).min() * (1.0 + 1e-6)
    # It is between them: no direction separates it from all.
    for direction in rng.normal(size=(20, q)):
        assert least @ direction <= (gradients @ direction).max() + 1e-9 * np.abs(gradients).max()


def hidden_by_walls(seed):
    """A simulated fit of which the Hessian is indefinite off the face of its mode."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 200))
    x, z = rng.uniform(size=n), rng.uniform(size=n)
    shapes = [2.0 * (x > 0.5), 3.0 * x, np.sin(6.0 * x), 0.0 * x, -x]
    scales = [0.0 * x, x, -1.5 * x, np.sin(5.0 * z)]
    y = shapes[rng.integers(5)] + rng.normal(0.0, 0.4, n) * np.exp(scales[rng.integers(4)])
    family = [GaussianLocationScale("y"), LogNormal("time", event="event")][rng.integers(2)]
    direction = ["increasing", "decreasing"][rng.integers(2)]
    scale = [
        Smooth("x", 10, predictor="scale"),
        Smooth("z", 10, predictor="scale"),
        Monotone("x", 6, predictor="scale"),
    ]
    terms = [Intercept(), Monotone("x", 12, direction=direction), Intercept("scale"), scale[rng.integers(3)]]
    return bind({"x": x, "z": z, "y": y, "time": np.exp(y), "event": (y < 1.5) * 1.0}, terms, family).case()


@pytest.mark.parametrize("seed", [45, 49, 94, pytest.param(142, marks=pytest.mark.long), 169, 182, 214])
def test_a_mode_that_constraints_hold_is_an_answer_and_the_same_from_any_start(seed):
    case = hidden_by_walls(seed)
    cold = fit(case)
    assert cold.converged, cold.reason

    laml, rng = case.objective(Counters()), np.random.default_rng(seed)
    at = laml.evaluate(cold.result.rho, np.concatenate(cold.result.block_beta), 1e-6, 200)
    assert at.face.active.any()
    starts = [(0.0, 0.0), (0.3, 0.0), (0.0, 1.0), (2.0, 0.5)]
    for far, noise in starts:
        rho = np.clip(cold.result.rho + far * rng.choice([-1.0, 1.0], laml.q), -15.0, 15.0)
        beta = [part + noise * rng.normal(size=part.size) for part in cold.result.block_beta]
        warm = fit(case, start=SimpleNamespace(rho=rho, block_beta=beta))

        assert warm.converged, warm.reason
        assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-6), (far, noise)


def test_the_objective_at_a_mode_held_by_walls_is_the_integral_over_feasible_coefficients():
    rng = np.random.default_rng(5)
    n = 60
    x = rng.uniform(size=n)
    data = {"x": x, "y": -4.0 * x + rng.normal(0.0, 0.5, n)}
    terms = [Intercept(), Monotone("x", 5), Intercept("scale")]
    case = bind(data, terms, GaussianLocationScale("y")).case()
    laml, rho = case.objective(Counters()), np.array([1.0])
    at = laml.evaluate(rho, laml.null, 1e-10, 200)
    constraints, penalties = laml.constraints, laml.penalties.at(rho)
    assert at.face.active.all()

    # Importance sampling: exponential behind each wall, normal on the face.
    gradient = laml.products.adjoint(list(laml.family.derivatives(laml.y, laml.w, at.etas, (1,))[1].values()))
    gradient = gradient + penalties.diagonal * at.theta
    draws, place = 20_000, constraints.place
    inside = constraints.along(at.face.active)
    multipliers = at.face.multipliers(gradient)
    slack = rng.exponential(size=(draws, place.size)) / multipliers
    z = constraints.basis[:, inside]
    half = np.linalg.cholesky(np.linalg.inv(z.T @ at.face.matrix @ z))
    normal = rng.normal(size=(draws, int(inside.sum())))
    theta = at.theta + slack @ constraints.basis[:, place].T + (normal @ half.T) @ z.T
    density = np.log(multipliers).sum() - slack @ multipliers - 0.5 * (normal**2).sum(axis=1)
    density += -0.5 * inside.sum() * np.log(2.0 * np.pi) - np.log(np.diagonal(half)).sum()
    values = np.array([laml.penalised_nll(rho, each) for each in theta])
    integral = np.log(np.mean(np.exp(at.nll + at.penalty - values - density)))
    integral += np.linalg.slogdet(constraints.basis)[1]
    rank = laml.penalties.p - laml.penalties.unpenalised
    exact = at.nll + at.penalty - integral - 0.5 * penalties.log_det + 0.5 * rank * np.log(2.0 * np.pi)

    assert at.value - laml.constant == pytest.approx(exact, abs=0.3)
