"""The guard's three tests, on plain numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm import InvalidInput
from gamwarm.transfer import beta_gate, false_plateaus, off_plateau, predicted_step

finite = st.floats(-1e6, 1e6)


@given(finite, finite)
def test_coefficients_worse_than_the_null_models_are_refused(offered, null):
    assert beta_gate(offered, null) == (offered <= null)


@pytest.mark.parametrize("offered", [np.nan, np.inf])
def test_coefficients_without_a_finite_likelihood_are_refused(offered):
    assert not beta_gate(offered, 1e9)


@pytest.mark.parametrize(
    ("rho", "edf", "gradient", "false"),
    [(14.0, 0.0, 1e-4, True), (14.0, 0.0, -1e-4, False), (5.9, 0.0, 1e-4, False), (8.0, 1.1, 1e-4, False),
     (14.0, 0.0, 1e-12, False), (14.0, np.nan, 1e-4, False)],
)  # fmt: skip
def test_a_plateau_is_false_where_the_objective_falls_towards_less_smoothing(rho, edf, gradient, false):
    assert false_plateaus([rho], [edf], [gradient]).tolist() == [false]


def test_the_predicted_step_is_the_newton_step_of_the_starts_own_metric():
    assert predicted_step([2.0, -3.0], np.diag([1.0, 0.5])) == pytest.approx(6.0)
    assert predicted_step([], np.zeros((0, 0))) == 0.0


@pytest.mark.parametrize("gradient", [[np.nan], [1.0]])
def test_a_predicted_step_that_is_not_a_number_is_infinite(gradient):
    assert predicted_step(gradient, np.zeros((1, 1))) == np.inf


def test_shapes_that_disagree_are_named():
    with pytest.raises(InvalidInput, match="metric has shape"):
        predicted_step([1.0, 2.0], np.eye(3))
    with pytest.raises(InvalidInput, match="gradient has shape"):
        false_plateaus([1.0], [1.0], [1.0, 2.0])


def test_a_false_plateau_goes_back_to_a_default_that_lies_on_none():
    assert off_plateau(np.array([40.0, 3.0, 40.0]), 2).tolist() == [6.0, 3.0, 40.0]
