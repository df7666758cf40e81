"""Smoothing parameters far out: of a minimum at rho 7 to 8, and on a plateau that is not the
fold's.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gamwarm
from gamwarm.engine import Intercept, Poisson, RandomEffect, Smooth, bind, fit
from gamwarm.fitting.search import Search, minimum_between

SEEDS = (23, 30, 55, 68)


def weak(seed):
    """Columns in which the curve in z is all but a straight line."""
    rng = np.random.default_rng(seed)
    x, z, group = rng.uniform(0, 1, 300), rng.uniform(0, 1, 300), np.arange(300) % 12
    eta = 1 + np.sin(6 * x) + 0.05 * np.sin(6 * z) + rng.normal(0, 0.3, 12)[group]
    return {"x": x, "z": z, "group": group.astype(str), "y": rng.poisson(np.exp(eta)).astype(float)}


@pytest.mark.parametrize("seed", SEEDS)
def test_folds_of_a_parent_far_out_cost_less_than_cold_ones_and_end_where_they_do(tmp_path, seed):
    columns = weak(seed)
    bound = bind(columns, [Intercept(), Smooth("x", 8), Smooth("z", 8), RandomEffect("group")], Poisson("y"))
    with gamwarm.open(tmp_path / "fits.gamwarm") as store:
        parent = fit(bound.case(), store=store, group_seeds="group")
        begin, costs = parent.kept.artifact.entry_id, []
        for label in sorted(set(columns["group"])):
            rows = columns["group"] != label
            cold, warm = fit(bound.case(rows)), fit(bound.case(rows), store=store, parent=begin, leave_out=label)
            assert warm.converged
            assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-5)
            costs.append((warm.cost.hessian_formations, cold.cost.hessian_formations))
    assert parent.result.rho[1] > 7.0
    assert parent.result.curvature.edf[1] < 1.0
    assert all(warm < cold for warm, cold in costs), costs
    assert 2.5 * sum(warm for warm, _ in costs) < sum(cold for _, cold in costs), costs


class Cliff:
    """One coordinate with its minimum at 2, a false plateau beyond it, and below 0.7 a slope so
    steep that it misleads about both.
    """

    def evaluate(self, rho, theta, budget):
        at = float(rho[0])
        value, slope = -(at - 1.0) * np.exp(-at), (at - 2.0) * np.exp(-at)
        if at < 0.7:
            value, slope = value + 1e5 * (0.7 - at), slope - 1e5
        edf = 0.05 if at < 0.7 else 3.0 * np.exp(-at)
        return gamwarm.Evaluation(rho, theta, value, np.array([slope]), edf=np.array([edf]))


def test_what_went_back_onto_a_false_plateau_goes_to_its_default_next():
    block = gamwarm.ParameterBlockSpec("block", np.ones((2, 1)), penalties=[gamwarm.DensePenalty(np.eye(1))])
    problem = gamwarm.FitProblem(gamwarm.family("tests.cliff", y=np.zeros(2)), [block], engine="t", engine_version="1")
    search = Search(problem, Cliff(), np.zeros(1), np.array([1.5]))

    outcome = search.run(search.evaluate(np.array([0.5]), np.zeros(1)))

    assert outcome.is_answer
    assert outcome.at.rho[0] == pytest.approx(2.0, abs=1e-3)
    assert [round(rho) for _, rho in outcome.resets] == [15, 10]


@given(st.floats(0.0, 12.0), st.floats(0.1, 15.0), st.floats(-6.0, 2.0), st.floats(-9.0, -2.0), st.floats(0.0, 1e-5))
def test_between_a_fall_and_a_rise_the_minimum_is_found_on_the_side_where_the_objective_falls(
    near, apart, fall, rise, margin
):
    falling, rising = -(10.0**fall), 10.0**rise * np.exp(-apart)

    found = minimum_between(near, falling, near + apart, rising, margin)

    assert near <= found <= near + apart
    u, far = np.exp(near - found), np.exp(-apart)
    c, d = np.linalg.solve([[-1.0, -2.0], [-far, -2.0 * far**2]], [falling, rising])
    slope, expected = -c * u - 2.0 * d * u**2, -min(margin, -falling)
    assert slope == pytest.approx(expected, abs=1e-8 * (abs(c) * u + 2.0 * d * u**2))
