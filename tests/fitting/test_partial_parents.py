"""Fits from parents with other terms: they end at the cold answer, and an offer that does not help
costs little.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import engine
from gamwarm.engine import GaussianLocationScale, Intercept, Poisson, RandomEffect, Smooth
from gamwarm.fitting import Evaluation
from gamwarm.fitting.metric import complete_metric
from gamwarm.fitting.search import Search
from tests.support.ridge_engine import Ridge, describe, terms_and_response

SMOOTH, WEAK, GROUP = Smooth("x", 8), Smooth("z", 8), RandomEffect("g")
SCALE = Smooth("x", 8, predictor="scale")
COUNTS = (Intercept(), SMOOTH, WEAK, GROUP)
SPREAD = (Intercept(), SMOOTH, Intercept("scale"), SCALE)


def _data(n=240, seed=5):
    rng = np.random.default_rng(seed)
    x, z, g = rng.uniform(size=n), rng.uniform(size=n), rng.integers(0, 12, n)
    mean = np.sin(6.0 * x) + 0.1 * z + 0.4 * rng.normal(size=12)[g]
    noise = np.exp(-1.0 + 1.5 * x) * rng.normal(size=n)
    return {"x": x, "z": z, "g": g, "y": rng.poisson(np.exp(1.0 + mean)).astype(float), "u": mean + noise}


DATA = _data()


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as opened:
        yield opened


def _without(terms, *left):
    return tuple(term for term in terms if term not in left)


def _wide(terms, k):
    return tuple(replace(term, k=k) if isinstance(term, Smooth) else term for term in terms)


CHANGES = {
    "a strong term added": (Poisson("y"), _without(COUNTS, SMOOTH), COUNTS),
    "a strong term dropped": (Poisson("y"), COUNTS, _without(COUNTS, SMOOTH)),
    "a weak term added": (Poisson("y"), _without(COUNTS, WEAK), COUNTS),
    "a weak term dropped": (Poisson("y"), COUNTS, _without(COUNTS, WEAK)),
    "a random effect added": (Poisson("y"), _without(COUNTS, GROUP), COUNTS),
    "a wider basis": (Poisson("y"), COUNTS, _wide(COUNTS, 15)),
    "a narrower basis": (Poisson("y"), _wide(COUNTS, 15), COUNTS),
    "a smooth scale": (GaussianLocationScale("u"), _without(SPREAD, SCALE), SPREAD),
    "a constant scale": (GaussianLocationScale("u"), SPREAD, _without(SPREAD, SCALE)),
    "a wider basis of mean and scale": (GaussianLocationScale("u"), SPREAD, _wide(SPREAD, 15)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_fit_from_a_parent_with_other_terms_ends_at_the_cold_answer(store, change, monkeypatch):
    family, parent, child = CHANGES[change]
    offers = _count_offers(monkeypatch)
    engine.fit(engine.bind(DATA, parent, family).case(), store=store)

    cold = engine.fit(engine.bind(DATA, child, family).case())
    warm = engine.fit(engine.bind(DATA, child, family).case(), store=store)

    assert warm.start.source == "transfer"
    assert warm.start.start.is_partial
    assert warm.converged
    assert warm.result.objective == pytest.approx(cold.result.objective, rel=1e-6)
    np.testing.assert_allclose(warm.fitted["response"], cold.fitted["response"], rtol=1e-3)
    own = warm.cost.hessian_formations - warm.cost.for_children
    assert own <= cold.cost.hessian_formations + sum(offers), warm.guard


def _count_offers(monkeypatch):
    plain, spent = Search.evaluate_offer, []

    def counted(self, *args):
        before = self.objective.cost().hessian_formations
        at = plain(self, *args)
        spent.append(self.objective.cost().hessian_formations - before)
        return at

    monkeypatch.setattr(Search, "evaluate_offer", counted)
    return spent


@pytest.mark.parametrize(
    "change", ["a weak term dropped", "a random effect added", "a wider basis", "a narrower basis"]
)
def test_what_a_parent_knows_well_saves_half_of_the_formations(store, change):
    family, parent, child = CHANGES[change]
    engine.fit(engine.bind(DATA, parent, family).case(), store=store)

    cold = engine.fit(engine.bind(DATA, child, family).case())
    warm = engine.fit(engine.bind(DATA, child, family).case(), store=store)

    assert warm.guard.continued_from == "start"
    own = warm.cost.hessian_formations - warm.cost.for_children
    assert 2 * own <= cold.cost.hessian_formations


def test_a_model_that_a_parent_with_other_terms_started_has_an_outer_hessian_for_its_folds(store):
    family, parent, child = CHANGES["a weak term added"]
    engine.fit(engine.bind(DATA, parent, family).case(), store=store)

    first = engine.fit(engine.bind(DATA, child, family).case(), store=store)
    rows = np.arange(len(DATA["y"])) > 0
    fold = engine.fit(engine.bind(DATA, child, family).case(rows), store=store, parent=first.kept.artifact.entry_id)

    assert first.result.curvature.hessian is not None
    assert first.cost.for_children > 0
    assert not fold.start.start.is_partial
    assert fold.start.start.curvature.hessian is not None
    assert fold.result.curvature.hessian is None


class Slow(Ridge):
    """Says after every evaluation with a small budget that its inner solve is not done; the value
    is far too low.
    """

    def __init__(self, *args, says=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.says = says

    def evaluate(self, rho, theta, budget):
        at = super().evaluate(rho, theta, budget)
        if budget < 100:
            at.converged, at.value, at.gradient = self.says, at.value - 1e3, np.zeros(2)
        return at


def _offered_with_another_term(store, says):
    terms, y = terms_and_response()
    gamwarm.fit(describe(dict(list(terms.items())[:1]), y), _first_term(terms, y), store)
    slow = Slow(terms, y, says=says)
    return slow, gamwarm.fit(describe(terms, y, inner_max_cycles=100), slow, store)


def _first_term(terms, y):
    return Ridge(dict(list(terms.items())[:1]), y)


def test_an_offer_whose_inner_solve_is_not_done_soon_is_left_at_once(store):
    terms, y = terms_and_response()
    cold = gamwarm.fit(describe(terms, y, inner_max_cycles=100), Ridge(terms, y))
    slow, found = _offered_with_another_term(store, says=False)

    assert [budget for _, budget in slow.calls].count(15) == 1
    assert slow.calls[0][1] == 15
    assert found.guard.cold_evaluated
    assert not any("no answer" in note for note in found.guard.notes)
    assert found.guard.continued_from == "cold"
    assert found.cost.evaluations == cold.cost.evaluations + 1
    assert found.result.objective == cold.result.objective


def test_an_engine_that_does_not_say_whether_it_is_done_evaluates_an_offer_with_its_full_budget(store):
    slow, found = _offered_with_another_term(store, says=None)

    assert [budget for _, budget in slow.calls[:2]] == [15, 100]
    assert found.guard.continued_from == "start"
    assert found.converged


@pytest.mark.parametrize(("gradient", "edf"), [(0.7, 3.0), (-1.2, 3.0), (1e-12, 4.0)])
def test_a_coordinate_that_no_parent_knows_takes_the_step_of_fellner_and_schall(gradient, edf):
    """lambda theta' S theta is edf + 2 gradient; the step makes it the edf."""
    at = Evaluation([0.0, 0.0], np.zeros(1), 0.0, np.array([gradient, 5.0]), edf=np.array([edf, 1.0]))

    metric = complete_metric(np.array([[np.nan, np.nan], [np.nan, 2.0]]), at)

    assert metric[0, 1] == metric[1, 0] == 0.0
    assert metric[1, 1] == 2.0
    assert -gradient / metric[0, 0] == pytest.approx(np.log(edf / (edf + 2.0 * gradient)))


@pytest.mark.parametrize(("gradient", "edf"), [(-2.0, 3.0), (0.7, 0.01)])
def test_where_that_step_says_nothing_the_gradient_is_the_metric(gradient, edf):
    at = Evaluation([0.0], np.zeros(1), 0.0, np.array([gradient]), edf=np.array([edf]))

    assert complete_metric(np.array([[np.nan]]), at)[0, 0] == max(abs(gradient), 0.1)
