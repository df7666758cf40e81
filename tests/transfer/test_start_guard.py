"""The guard as one object: any engine passes callables and gets the point to continue from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gamwarm import InvalidInput, StartGuard, false_plateaus
from gamwarm.engine import fit
from gamwarm.engine.arrays import Counters
from tests.support.models import USUAL, mcycle


@dataclass
class Point:
    rho: np.ndarray
    value: float
    gradient: np.ndarray
    edf: np.ndarray


def quadratic(best=(1.0, -2.0)):
    """V = |rho - best|^2 / 2; coefficients are one number whose likelihood is its square."""
    calls = []

    def evaluate(rho, beta):
        calls.append((np.array(rho), beta))
        gradient = rho - np.array(best)
        return Point(np.array(rho), float(gradient @ gradient / 2), gradient, np.full(2, 5.0))

    guard = StartGuard(
        penalised_nll=lambda rho, beta: beta**2,
        evaluate=evaluate,
        evaluate_cold=lambda: evaluate(np.zeros(2), 0.0),
        null=1.0,
        default_rho=np.zeros(2),
    )
    return guard, calls


def test_a_good_start_costs_one_evaluation():
    guard, calls = quadratic()

    done = guard.admit([1.1, -2.1], 0.5, np.eye(2))

    assert (done.continued_from, done.beta_used, done.evaluations, len(calls)) == ("start", True, 1, 1)
    assert done.predicted_step == pytest.approx(0.1)


@pytest.mark.parametrize("beta", [2.0, np.nan, np.inf])
def test_coefficients_worse_than_the_null_ones_are_left_out(beta):
    guard, calls = quadratic()

    done = guard.admit([1.0, -2.0], beta)

    assert not done.beta_used
    assert calls[0][1] == 1.0


def test_a_start_far_from_its_end_is_weighed_against_the_cold_one():
    guard, _ = quadratic()

    far, less_far = guard.admit([9.0, 9.0], 0.5, np.eye(2)), guard.admit([3.5, -2.0], 0.5, np.eye(2) / 10)

    assert far.continued_from == "cold"
    assert far.point.rho.tolist() == [0.0, 0.0]
    assert less_far.predicted_step == pytest.approx(25.0)
    assert less_far.continued_from == "cold"
    assert less_far.evaluations == 2


def test_a_coordinate_that_is_not_a_number_starts_at_its_default():
    guard, calls = quadratic()

    guard.admit([np.nan, -2.0], 0.5)

    assert calls[0][0].tolist() == [0.0, -2.0]


def test_false_plateaus_of_a_real_objective_go_back_to_their_default():
    laml = mcycle().case().objective(Counters())
    guard = StartGuard(
        penalised_nll=laml.penalised_nll,
        evaluate=lambda rho, theta: laml.evaluate(rho, theta, 1e-8, 500),
        evaluate_cold=lambda: laml.evaluate(np.zeros(2), laml.null, 1e-8, 500),
        null=laml.null,
        default_rho=np.zeros(2),
    )
    best = fit(mcycle().case(), options=USUAL).result

    done = guard.admit(np.full(2, 14.0), np.concatenate(best.block_beta))

    assert done.resets == [(0, 14.0), (1, 14.0)]
    assert not false_plateaus(done.point.rho, done.point.edf, done.point.gradient).any()


def test_shapes_that_disagree_are_named():
    guard, _ = quadratic()
    with pytest.raises(InvalidInput, match="rho"):
        guard.admit([1.0], 0.5)
    with pytest.raises(InvalidInput, match="metric"):
        guard.admit([1.0, 2.0], 0.5, np.eye(3))


def plateau(edf, scale=100.0):
    """V = scale * (1 - exp(-rho)) beyond rho = 1: whatever is offered far out is a false
    plateau.
    """
    asked = []

    def evaluate(rho, beta=None):
        asked.append(float(rho[0]))
        value = scale * float(1.0 - np.exp(-rho[0]))
        return Point(np.array(rho), value, scale * np.exp(-rho), None if edf is None else np.array([edf]))

    guard = StartGuard(evaluate=evaluate, evaluate_cold=lambda: evaluate(np.zeros(1)), null=0.0, default_rho=[0.0])
    return guard, asked


@pytest.mark.parametrize("edf", [0.0, 0.05, 0.5, 0.99])
def test_a_plateau_that_leads_uphill_goes_back_whatever_little_edf_it_has(edf):
    guard, _ = plateau(edf)

    assert guard.admit([7.0], 0.0).resets == [(0, 7.0)]


def test_with_an_edf_of_one_the_gradient_is_believed():
    guard, _ = plateau(1.01)

    assert guard.admit([7.0], 0.0).resets == []


@pytest.mark.parametrize(("curvature", "stays"), [(0.3, True), (0.1, False), (0.6, False), (np.nan, False)])
def test_where_the_metric_knows_a_minimum_the_sign_of_the_gradient_proves_no_plateau(curvature, stays):
    guard, asked = plateau(0.5)  # the gradient at 7 is 0.09

    done = guard.admit([7.0], 0.0, np.array([[curvature]]))

    assert (done.resets == []) is stays
    assert len(asked) == (1 if stays else 2)


def test_what_a_probe_found_is_reset_whatever_the_metric_says():
    guard, _ = plateau(1e-6)

    assert guard.admit([40.0], 0.0, np.array([[1e-7]])).resets == [(0, 40.0)]


def test_of_a_coordinate_that_went_back_the_metric_predicts_nothing():
    def evaluate(rho, beta):
        edf = np.array([0.01 if rho[0] > 6.0 else 3.0, 5.0])
        return Point(np.array(rho), float(rho @ rho), np.array([0.1, 0.1]), edf)

    guard = StartGuard(evaluate=evaluate, evaluate_cold=pytest.fail, null=0.0, default_rho=np.zeros(2))

    done = guard.admit([9.0, 1.0], 0.0, np.diag([1e-3, 1.0]))

    assert done.resets == [(0, 9.0)]
    assert done.predicted_step == pytest.approx(0.1)


@pytest.mark.parametrize("rho", [19.0, 26.0, 40.0, 300.0])
def test_where_the_gradient_is_lost_one_evaluation_nearer_0_decides(rho):
    guard, asked = plateau(0.0)

    done = guard.admit([rho], 0.0)

    assert done.resets == [(0, rho)]
    assert len(asked) == done.evaluations <= 3


def test_a_true_plateau_far_out_stays():
    guard, _ = plateau(0.0, scale=-100.0)

    done = guard.admit([40.0], 0.0)

    assert done.resets == []
    assert done.point.rho.tolist() == [40.0]


@pytest.mark.parametrize(("scale", "back"), [(100.0, True), (-100.0, False)])
def test_without_edf_one_evaluation_a_unit_nearer_0_decides(scale, back):
    guard, asked = plateau(None, scale)

    assert bool(guard.admit([9.0], 0.0).resets) == back
    assert asked[:2] == ([9.0, 8.0] if back else [9.0])


def test_nuisance_coordinates_have_no_bound_and_no_plateau():
    def evaluate(rho, beta):
        return Point(np.array(rho), float(rho.sum()), np.ones(2), np.array([0.0, 0.0]))

    guard = StartGuard(
        evaluate=evaluate,
        evaluate_cold=lambda: evaluate(np.zeros(2), 0.0),
        null=0.0,
        default_rho=np.zeros(2),
        rho_bound=5.0,
        nuisance=1,
    )

    done = guard.admit([9.0, 9.0], 0.0)

    assert done.point.rho.tolist() == [5.0, 9.0]
    assert done.resets == []


def test_the_start_that_was_not_gone_on_from_is_handed_back():
    guard, _ = quadratic()

    done = guard.admit([9.0, 9.0], 0.5, np.eye(2))

    assert done.continued_from == "cold"
    assert done.other.rho.tolist() == [9.0, 9.0]
    assert quadratic()[0].admit([1.1, -2.1], 0.5, np.eye(2)).other is None


def test_a_point_that_is_an_answer_is_not_doubted():
    guard = StartGuard(
        evaluate=lambda rho, beta: Point(np.array(rho), 1.0, np.full(1, 1e-3), np.full(1, 5.0)),
        evaluate_cold=lambda: pytest.fail("nobody doubts an answer"),
        null=0.0,
        default_rho=[0.0],
        is_answer=lambda point: True,
    )

    assert guard.admit([3.0], 0.0, np.eye(1) * 1e-6).continued_from == "start"


def test_without_a_likelihood_coefficients_that_are_no_numbers_start_cold():
    guard, _ = plateau(5.0)

    assert guard.admit([1.0], np.array([1.0])).beta_used
    assert not guard.admit([1.0], np.array([np.nan])).beta_used


def test_what_is_handed_to_the_engine_may_be_written_to():
    def evaluate(rho, beta):
        rho += 0.0
        return Point(rho, 1.0, np.zeros(1), np.full(1, 5.0))

    offered = np.array([2.0])
    offered.flags.writeable = False
    guard = StartGuard(evaluate=evaluate, evaluate_cold=pytest.fail, null=0.0, default_rho=[0.0])

    assert guard.admit(offered, 0.0).point.rho.tolist() == [2.0]


def other_terms(**changes):
    """A guard of an offer from other terms, and its evaluations' coefficients; "cold" is the cold
    one.
    """
    calls = []

    def evaluate(rho, beta):
        calls.append(beta)
        return Point(np.array(rho), float(rho @ rho / 2), np.array(rho), np.full(2, 5.0))

    guard = StartGuard(
        penalised_nll=lambda rho, beta: beta**2,
        evaluate=evaluate,
        evaluate_cold=lambda: evaluate(np.zeros(2), "cold"),
        null=1.0,
        default_rho=np.zeros(2),
        **{"partial": True} | changes,
    )
    return guard, calls


def test_other_terms_whose_coefficients_are_worse_than_the_null_ones_cost_no_evaluation():
    guard, calls = other_terms()

    done = guard.admit([1.0, 1.0], 2.0, np.eye(2))

    assert calls == ["cold"]
    assert (done.continued_from, done.beta_used, done.evaluations, done.other) == ("cold", False, 1, None)
    assert "other terms" in str(done)


@pytest.mark.parametrize(
    ("partial", "step", "doubted"), [(True, 3.9, False), (True, 4.1, True), (False, 1.9, False), (False, 2.1, True)]
)
def test_other_terms_are_doubted_from_the_longest_step_of_a_search_on(partial, step, doubted):
    guard, _ = other_terms(partial=partial)

    assert guard.admit([step, 0.0], 0.5, np.eye(2)).cold_evaluated is doubted


def test_a_coordinate_that_other_terms_do_not_know_is_no_reason_for_doubt():
    guard, _ = other_terms()
    metric = np.array([[1.0, np.nan], [np.nan, np.nan]])

    done = guard.admit([1.0, 9.0], 0.5, metric)

    assert not done.cold_evaluated
    assert done.predicted_step == pytest.approx(1.0)
