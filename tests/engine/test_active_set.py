"""Quadratic programs over the orthant: the conditions of Karush, Kuhn and Tucker, and all faces."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from gamwarm.engine.active_set import minimize_over_orthant

seeds = st.integers(0, 2**32 - 1)


def problem(seed, m, rank=None):
    """A matrix (m, m), a linear part and a set to begin with; integers make ties."""
    rng = np.random.default_rng(seed)
    root = rng.integers(-2, 3, (m, m if rank is None else rank)).astype(float)
    matrix = root @ root.T + np.diag(10.0 ** rng.integers(-3, 2, m))
    return matrix, rng.integers(-3, 4, m).astype(float), rng.random(m) < 0.5


def best_of_all_faces(matrix, linear):
    best = 0.0
    for free in product([False, True], repeat=linear.size):
        free = np.array(free)
        if not free.any():
            continue
        x = np.zeros(linear.size)
        x[free] = np.linalg.solve(matrix[np.ix_(free, free)], linear[free])
        if (x >= 0.0).all():
            best = min(best, float(0.5 * x @ matrix @ x - linear @ x))
    return best


@given(seeds, st.integers(1, 7))
def test_a_minimum_is_the_lowest_of_those_of_all_faces(seed, m):
    matrix, linear, start = problem(seed, m)

    x, free = minimize_over_orthant(matrix, linear, start)

    assert (x >= 0.0).all()
    assert (x[~free] == 0.0).all()
    value = 0.5 * x @ matrix @ x - linear @ x
    assert value == pytest.approx(best_of_all_faces(matrix, linear), rel=1e-9, abs=1e-9)


@given(seeds, st.integers(1, 40))
def test_a_minimum_is_feasible_dual_feasible_and_complementary(seed, m):
    matrix, linear, start = problem(seed, m)

    x, free = minimize_over_orthant(matrix, linear, start)

    slope = matrix @ x - linear
    noise = 1e-9 * (np.abs(matrix) @ x + np.abs(linear)).max()
    assert (x >= 0.0).all()
    assert (slope >= -noise).all()
    assert (np.abs(slope[free]) <= noise).all()


@given(seeds, st.integers(1, 20))
def test_the_set_that_a_solve_begins_with_changes_nothing(seed, m):
    matrix, linear, start = problem(seed, m)

    found = minimize_over_orthant(matrix, linear, start)[0]

    np.testing.assert_allclose(found, minimize_over_orthant(matrix, linear, ~start)[0], rtol=1e-7, atol=1e-9)
    # Of the Lawson-Hanson in SciPy.
    upper = np.linalg.cholesky(matrix).T
    np.testing.assert_allclose(found, nnls(upper, np.linalg.solve(upper.T, linear))[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("linear", [np.zeros(12), np.full(12, -1.0), np.full(12, 1e-300)])
def test_equal_rows_and_multipliers_of_zero_end(start, linear):
    matrix = np.ones((12, 12)) + 1e-10 * np.eye(12)

    x, _ = minimize_over_orthant(matrix, linear, np.full(12, start))

    np.testing.assert_allclose(x.sum(), max(linear.sum() / 12.0, 0.0), atol=1e-290)


def test_where_a_solve_begins_saves_changes_of_the_active_set(monkeypatch):
    matrix, linear, _ = problem(4, 30)
    free = minimize_over_orthant(matrix, linear, np.zeros(30, dtype=bool))[1]
    calls = []
    inner = minimize_over_orthant.__globals__["_on_free"]
    monkeypatch.setitem(minimize_over_orthant.__globals__, "_on_free", lambda *a: calls.append(1) or inner(*a))

    again = minimize_over_orthant(matrix, linear, free)[1]

    assert (again == free).all()
    assert len(calls) == 1
