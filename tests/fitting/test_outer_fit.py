"""`gamwarm.fit` for any engine: the same answer from every start, at the least cost, and described
in words.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import InvalidInput, InvalidType
from tests.support.ridge_engine import Ridge, describe, terms_and_response

TERMS, Y = terms_and_response()
PROBLEM = describe(TERMS, Y)
OPTIONAL = ("hessian", "edf", "max_edf", "tangent", "converged", "last_step")


def fold(seed=3):
    rows = np.repeat(np.arange(12), 10) != seed
    return {name: X[rows] for name, X in TERMS.items()}, Y[rows]


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as opened:
        yield opened


def test_the_same_fit_again_is_one_evaluation_and_the_same_bits(store):
    full = gamwarm.fit(PROBLEM, Ridge(TERMS, Y), store)
    again = gamwarm.fit(PROBLEM, Ridge(TERMS, Y), store)

    assert full.converged
    assert full.kept.record.written
    assert full.kept.artifact.written
    assert (again.start.source, again.cost.evaluations, again.cost.outer_iterations) == ("exact", 1, 0)
    assert np.array_equal(again.result.rho, full.result.rho)
    assert all(np.array_equal(a, b) for a, b in zip(again.result.block_beta, full.result.block_beta, strict=True))


def test_a_fold_from_its_parent_ends_where_the_cold_fold_does_and_costs_less(store):
    gamwarm.fit(describe(TERMS, Y, outer_tol=1e-3), Ridge(TERMS, Y), store)
    problem = describe(*fold(), outer_tol=1e-3)
    cold = gamwarm.fit(problem, Ridge(*fold()))
    warm = gamwarm.fit(problem, Ridge(*fold()), store)

    assert warm.start.source == "transfer"
    assert warm.result.start_used
    assert warm.cost.evaluations < cold.cost.evaluations
    assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-6)


@pytest.mark.parametrize("without", [(), *((name,) for name in OPTIONAL), OPTIONAL])
def test_what_an_engine_does_not_have_only_weakens_what_needs_it(without):
    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y))
    found = gamwarm.fit(PROBLEM, Ridge(TERMS, Y, without=without))

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(best.result.objective, abs=1e-7)
    missing = [part for part in ("converged", "edf", "last_step") if part in without]
    assert bool(missing) == ("no means to check" in " ".join(found.summary().split()))


def test_an_inner_solve_that_ran_into_its_cap_is_repeated_before_its_value_counts(store):
    """The capped value is far too low: accepted, it would end the search at a wrong point."""
    inner = gamwarm.InnerMode(0.0, 0.0, 1, True, [0.0, 0.0], [0.0, 0.0])
    begun = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result
    problem = describe(TERMS, Y, inner_max_cycles=100)

    class Capped(Ridge):
        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            if budget < 100:
                at.converged, at.value, at.gradient = False, at.value - 1e3, np.zeros(2)
            return at

    away = replace(begun, rho=begun.rho + 0.5, converged=False, inner=inner, curvature=None, objective=None)
    store.keep(problem, away)
    engine = Capped(TERMS, Y)
    found = gamwarm.fit(problem, engine, store)

    assert {budget for _, budget in engine.calls} == {6, 100}
    assert found.converged
    assert found.result.objective == pytest.approx(begun.objective, abs=1e-8)


def test_a_start_whose_predicted_step_is_far_has_a_cold_one_evaluated_too():
    start = gamwarm.FitResult([-9.0, -9.0], [np.zeros(6), np.zeros(4)], None, True, curvature=gamwarm.Curvature(
        hessian=1e-3 * np.eye(2)))  # fmt: skip
    found = gamwarm.fit(PROBLEM, Ridge(TERMS, Y), start=start)

    assert found.guard.predicted_step > 2.0
    assert found.guard.cold_evaluated
    assert found.guard.continued_from == "cold"
    assert found.result.start_used is False
    assert "doubtful" in " ".join(found.summary().split())


def test_a_metric_that_predicted_a_step_too_far_is_not_searched_by():
    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result
    start = gamwarm.FitResult(np.asarray(best.rho) + 0.2, best.block_beta, None, True, curvature=gamwarm.Curvature(
        hessian=1e-3 * np.eye(2)))  # fmt: skip
    objective = Ridge(TERMS, Y)

    found = gamwarm.fit(PROBLEM, objective, start=start)

    assert found.guard.cold_evaluated
    assert found.guard.continued_from == "start"
    offered, _, *searched = [rho for rho, _ in objective.calls]
    assert np.abs(offered - best.rho).max() == pytest.approx(0.2, abs=1e-3)
    assert max(np.abs(rho - best.rho).max() for rho in searched) < 0.2


def test_a_record_whose_objective_is_not_what_is_evaluated_is_guarded_like_an_offer(store, caplog):
    true = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result
    store.keep(PROBLEM, replace(true, rho=[14.0, 14.0], objective=true.objective - 1.0, curvature=gamwarm.Curvature(
        np.zeros(2), edf=np.zeros(2), plateau=[True, True])))  # fmt: skip

    with caplog.at_level(logging.WARNING, "gamwarm"):
        found = gamwarm.fit(PROBLEM, Ridge(TERMS, Y), store)

    assert found.start.source == "exact"
    assert found.guard.resets == [(0, 14.0), (1, 14.0)]
    assert found.result.objective == pytest.approx(true.objective, abs=1e-8)
    assert any("stored objective" in note for note in found.notes)
    assert "stored objective" in caplog.text


def test_a_search_that_ran_out_of_iterations_is_a_checkpoint_and_continues_from_there(store):
    problem = describe(TERMS, Y, outer_max_iter=1)
    values, evaluations = [], []
    for _ in range(20):
        found = gamwarm.fit(problem, Ridge(TERMS, Y), store)
        values.append(found.result.objective)
        evaluations.append(found.cost.outer_iterations)
        if found.converged:
            break
    assert found.converged
    assert len(values) > 2
    assert values == sorted(values, reverse=True)
    assert set(evaluations[:-1]) == {1}


class Noisy(Ridge):
    """A line search cannot improve what the certificate refuses: noise in the fifth digit of value
    and gradient.
    """

    def evaluate(self, rho, theta, budget):
        at = super().evaluate(rho, theta, budget)
        noise = np.sin(1e7 * rho.sum())
        at.value, at.gradient = at.value + 1e-3 * noise, at.gradient + 1e-2 * np.cos(1e7 * rho + 1.0)
        return at


def test_repeats_of_a_noisy_search_cost_no_more_than_the_first(store):
    first = gamwarm.fit(PROBLEM, Noisy(TERMS, Y), store)
    again = [gamwarm.fit(PROBLEM, Noisy(TERMS, Y), store) for _ in range(3)]

    assert not first.converged
    assert first.kept.record.written
    assert "checkpoint" in first.reason
    assert all(each.cost.evaluations <= first.cost.evaluations for each in again)
    assert again[-1].cost.evaluations < first.cost.evaluations / 2


def test_steps_that_only_move_within_the_noise_of_the_value_are_no_progress():
    flat = Ridge(TERMS, Y, value=1e6, gradient=np.full(2, 1e-3), hessian=np.eye(2))
    found = gamwarm.fit(PROBLEM, flat)

    assert "no step lowers the objective further" in found.reason
    assert found.cost.outer_iterations == 0


def test_a_cold_search_without_an_answer_is_followed_by_the_next_cold_start():
    class Trap(Ridge):
        def cold_starts(self):
            yield np.array([-14.0, -14.0])
            yield np.zeros(2)

        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            if rho[0] < -10.0:  # flat, and without a finite optimum
                at.gradient, at.last_step, at.last_block = np.zeros(2), 1.0, "s(time)"
            return at

    found = gamwarm.fit(PROBLEM, Trap(TERMS, Y))

    assert found.converged
    assert found.result.objective == pytest.approx(gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result.objective, abs=1e-8)
    assert "next cold start" in " ".join(found.summary().split())


def test_a_cold_start_that_the_guard_preferred_and_that_ends_nowhere_gives_way_to_the_offered_one():
    class OnlyTrap(Ridge):
        def cold_starts(self):
            yield np.array([-14.0, -14.0])

        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            if rho[0] < -10.0:  # lower, flat, and without a finite optimum
                at.value, at.gradient = at.value - 1e3, np.zeros(2)
                at.last_step, at.last_block = 1.0, "s(time)"
            return at

    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result
    doubtful = gamwarm.ConstrainedWarmStart(np.array([-3.0, -3.0]), best.block_beta)
    found = gamwarm.fit(PROBLEM, OnlyTrap(TERMS, Y), start=doubtful)

    assert not gamwarm.fit(PROBLEM, OnlyTrap(TERMS, Y)).converged
    assert found.converged
    assert found.result.objective == pytest.approx(best.objective, abs=1e-8)
    assert "the offered start was searched too" in " ".join(found.summary().split())


def test_an_answer_that_the_bound_cut_says_so_for_each_term():
    flat = describe(TERMS, np.zeros(120), rho_bound=3.0)
    found = gamwarm.fit(flat, Ridge(TERMS, np.zeros(120)))

    assert found.converged
    assert found.result.rho.tolist() == [3.0, 3.0]
    assert sum("was cut by rho_bound" in note for note in found.notes) == 2
    assert "'s(time)' was cut by rho_bound" in " ".join(found.summary().split())


def test_a_fit_that_met_two_answers_takes_the_lower_and_says_so():
    class TwoAnswers(Ridge):
        def cold_starts(self):
            yield np.full(2, -5.0)

        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            if rho[0] < -4.5:  # an answer of its own, and a higher one
                at.value, at.gradient, at.hessian = at.value + 50.0, rho + 5.0, np.eye(2)
            return at

    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result
    doubtful = gamwarm.ConstrainedWarmStart(np.array([-3.0, -3.0]), best.block_beta)
    found = gamwarm.fit(PROBLEM, TwoAnswers(TERMS, Y), start=doubtful)
    cold = gamwarm.fit(PROBLEM, TwoAnswers(TERMS, Y))

    assert cold.converged
    assert cold.result.objective > best.objective + 50.0
    assert found.result.objective == pytest.approx(best.objective, abs=1e-8)
    assert "this objective has more than one answer" in " ".join(found.summary().split())


class Elsewhere(Ridge):
    """Its cold start leads to a higher answer; it knows where a lower one is, and a place that is
    none.
    """

    asked = 0

    def cold_starts(self):
        yield np.full(2, -5.0)

    def evaluate(self, rho, theta, budget):
        at = super().evaluate(rho, theta, budget)
        if rho[0] < -4.5:
            at.value, at.gradient, at.hessian = at.value + 50.0, rho + 5.0, np.eye(2)
        return at

    def alternatives(self, evaluation):
        self.asked += 1
        if evaluation.rho[0] < -4.5:
            yield np.full(2, -4.9), evaluation.theta
            yield np.zeros(2), evaluation.theta


def test_an_answer_gives_way_to_a_lower_one_that_the_engine_points_to(store):
    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result.objective
    found = gamwarm.fit(PROBLEM, Elsewhere(TERMS, Y), store)
    again = Elsewhere(TERMS, Y)
    hit = gamwarm.fit(PROBLEM, again, store)

    assert found.converged
    assert found.result.objective == pytest.approx(best, abs=1e-8)
    assert "this objective has more than one answer" in " ".join(found.summary().split())
    assert (hit.cost.evaluations, again.asked) == (1, 0)


@pytest.mark.parametrize("given", ["nothing", "higher", "not finite", "raises", "raises later"])
def test_an_alternative_that_is_no_better_leaves_the_answer_as_it_is(given):
    class Misled(Ridge):
        def alternatives(self, evaluation):
            if given == "raises":
                raise ValueError("no model")
            if given != "nothing":
                yield evaluation.rho + 1.0, evaluation.theta
            if given == "raises later":
                raise ValueError("no model")

        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            if given == "not finite" and rho[0] > best.result.rho[0] + 0.9:
                at.value, at.gradient = np.inf, np.full(2, np.nan)
            return at

    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y))
    found = gamwarm.fit(PROBLEM, Misled(TERMS, Y), start=best.result)

    assert found.converged
    assert np.array_equal(found.result.rho, best.result.rho)
    assert found.notes == best.notes
    assert ("no model" in found.summary()) == given.startswith("raises")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "alternatives.. returned int"),
        ([(np.zeros(3), np.zeros(10))], "an alternative's rho"),
        ([(np.zeros(2), np.zeros(3))], "an alternative's theta"),
    ],
)
def test_alternatives_of_another_shape_are_refused_by_name(given, said):
    class Wrong(Ridge):
        def alternatives(self, evaluation):
            return given

    with pytest.raises((InvalidInput, InvalidType), match=said):
        gamwarm.fit(PROBLEM, Wrong(TERMS, Y))


class Branches(Ridge):
    """Its second evaluation may end in another mode; from its second cold start it has a lower
    answer.
    """

    def __init__(self, jump, fails=False):
        super().__init__(TERMS, Y)
        self.jump, self.fails = jump, fails

    def cold_starts(self):
        yield np.zeros(2)
        yield np.full(2, -5.0)

    def evaluate(self, rho, theta, budget):
        at = super().evaluate(rho, theta, budget)
        if len(self.calls) == 2:
            at.value += self.jump
        if rho[0] < -4.5:
            if self.fails:
                raise RuntimeError("no way on")
            at.value, at.gradient, at.hessian = at.value - 50.0, rho + 5.0, np.eye(2)
        return at


def test_a_search_that_met_another_branch_is_followed_by_the_next_cold_start_and_says_so():
    best = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result.objective
    one, two = (gamwarm.fit(PROBLEM, Branches(jump)) for jump in (0.0, 90.0))

    assert one.result.objective == pytest.approx(best, abs=1e-8)
    assert one.notes == ()
    assert two.result.objective < best - 20.0
    assert "the inner problem has more than one mode" in " ".join(two.summary().split())
    assert "this objective has more than one answer" in " ".join(two.summary().split())


def test_a_second_opinion_that_fails_takes_no_answer_away():
    found = gamwarm.fit(PROBLEM, Branches(90.0, fails=True))

    assert found.converged
    assert "no way on" in " ".join(found.summary().split())


@pytest.mark.parametrize("one_mode", [True, False, None])
def test_an_inner_problem_that_may_have_several_modes_is_named(one_mode):
    engine = Ridge(TERMS, Y)
    engine.one_mode = one_mode

    assert ("may have several modes" in " ".join(gamwarm.fit(PROBLEM, engine).summary().split())) == (one_mode is False)


def test_a_cut_answer_is_kept_found_again_and_warned_of_once(store, caplog):
    flat = describe(TERMS, np.zeros(120), rho_bound=3.0)
    with caplog.at_level(logging.WARNING, "gamwarm"):
        found = gamwarm.fit(flat, Ridge(TERMS, np.zeros(120)), store)

    assert found.kept.record.written, found.kept.record.reason
    assert len([r for r in caplog.records if "cut by rho_bound" in r.getMessage()]) == 1
    assert store.get_record(flat.key).cuts
    again = gamwarm.fit(flat, Ridge(TERMS, np.zeros(120)), store)
    assert (again.start.source, again.cost.evaluations) == ("exact", 1)


def test_active_sets_are_kept_and_offered_to_the_engine_that_restores_them(store):
    class Constrained(Ridge):
        offered = None

        def offer_active_sets(self, sets):
            assert not self.calls
            self.offered = sets

    first = gamwarm.fit(PROBLEM, Constrained(TERMS, Y, active_sets=[[4, 1, 4], []]), store)
    assert first.result.active_sets == store.get_record(PROBLEM.key).active_sets == ((1, 4), None)
    restored, silent = Constrained(TERMS, Y, active_sets=[[2], None]), Ridge(TERMS, Y)
    again = gamwarm.fit(PROBLEM, restored, store)

    assert restored.offered == ((1, 4), None)
    assert again.result.active_sets == ((2,), None)
    assert gamwarm.fit(PROBLEM, silent, store).result.active_sets is None
    for wrong, error in (([[-1], None], InvalidInput), ([[0.5], None], InvalidType), (3, InvalidType)):
        with pytest.raises(error, match="active"):
            gamwarm.fit(PROBLEM, Ridge(TERMS, Y, active_sets=wrong))
    with pytest.raises(InvalidInput, match="active_sets has 1 entries"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, active_sets=[[0]]), store)


def test_attributes_reach_the_record(store):
    gamwarm.fit(PROBLEM, Ridge(TERMS, Y), store, attributes={"job": "a"})

    assert store.get_record(PROBLEM.key).attributes == {"job": "a"}


def test_what_is_handed_in_wrongly_is_refused_by_name(store):
    class Wrong(Ridge):
        def evaluate(self, rho, theta, budget):
            return replace(super().evaluate(rho, theta, budget), gradient=np.zeros(3))

    with pytest.raises(InvalidInput, match=r"gradient has shape \(3,\); expected \(2,\)"):
        gamwarm.fit(PROBLEM, Wrong(TERMS, Y))
    with pytest.raises(InvalidType, match="evaluate"):
        gamwarm.fit(PROBLEM, object())
    with pytest.raises(InvalidInput, match="pass the store too"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y), parent="ab" * 16)
    with pytest.raises(InvalidInput, match="each needs a store"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y), each=True)
    with pytest.raises(InvalidInput, match="problem is None"):
        gamwarm.fit(None, Ridge(TERMS, Y))
    with pytest.raises(InvalidInput, match="group_seeds"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y), group_seeds="subject")


def test_a_rank_without_work_takes_part_in_the_round(store):
    found = gamwarm.fit(None, None, store, each=True)

    assert found.result is None
    assert not found.converged


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_clear_minimum_whose_gradient_has_a_rounded_sign_is_no_false_plateau(sign):
    class Rounded(Ridge):
        """A minimum at rho = (7, 0) with few degrees of freedom; gradients are rounded."""

        def cold_starts(self):
            yield np.array([7.3, 0.2])

        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            away = rho - np.array([7.0, 0.0])
            at.value, at.hessian = 100.0 + 0.025 * float(away @ away), 0.05 * np.eye(2)
            at.gradient = np.round(0.05 * away, 7) + sign * np.array([2e-9, 0.0])
            at.edf, at.max_edf, at.tangent = np.array([0.3, 1.0]), np.full(2, 4.0), None
            return at

    found = gamwarm.fit(PROBLEM, Rounded(TERMS, Y))

    assert found.converged, found.reason
    assert found.result.rho == pytest.approx([7.0, 0.0], abs=1e-3)
    assert found.guard.resets == []
