"""The guard as one object: anybody's engine gives callables and gets the point to go on from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gamwarm import InvalidInput, StartGuard, false_plateaus
from gamwarm.engine import fit
from gamwarm.engine._types import Counters
from tests.engine.cases import USUAL, mcycle


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
