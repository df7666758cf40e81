"""The budget of an intermediate evaluation: a table, and the stored state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.problem import BlockwiseFitOptions
from gamwarm.transfer import InnerCapState, inner_cap
from tests.support.entries import inner


def cap(cycles, converged, norm, first=None, full=1200):
    state = InnerCapState(first)
    return inner_cap(BlockwiseFitOptions(inner_max_cycles=full), inner(cycles=cycles, converged=converged), norm, state)


@pytest.mark.parametrize(
    ("cycles", "converged", "norm", "first", "full", "budget"),
    [
        (10, True, 1.0, None, 1200, 15),
        (0, True, 1.0, None, 1200, 5),
        (10, False, 1.0, None, 1200, 20),
        (5, False, 1.0, None, 1200, 10),
        (4, False, 1.0, None, 1200, 9),
        (0, False, 1.0, None, 1200, 5),
        (1195, True, 1.0, None, 1200, 1200),
        (1196, True, 1.0, None, 1200, 1200),
        (700, False, 1.0, None, 1200, 1200),
        (10, True, 1.0, None, 12, 12),
        (10, True, 1.0, None, 1, 1),
        (10, True, 1.0, None, 0, 1),
        (10, True, 1.0, 100.0, 1200, 15),
        (10, True, 0.9999, 100.0, 1200, 1200),
        (10, True, 500.0, 100.0, 1200, 15),
        (10, True, None, 100.0, 1200, 15),
        (10, True, np.nan, 100.0, 1200, 15),
        (10, True, np.inf, 100.0, 1200, 15),
        (10, True, 0.0, 100.0, 1200, 15),
        (10, True, -0.5, 100.0, 1200, 15),
    ],
)
def test_the_budget_follows_the_table(cycles, converged, norm, first, full, budget):
    assert cap(cycles, converged, norm, first, full) == budget


@pytest.mark.parametrize("full", [1200, 7, 0])
def test_without_a_cached_inner_the_budget_is_full_and_no_norm_is_recorded(full):
    state = InnerCapState()

    assert inner_cap(BlockwiseFitOptions(inner_max_cycles=full), None, 1.0, state) == max(1, full)
    assert state == InnerCapState()


def test_the_first_finite_positive_norm_is_remembered():
    state = InnerCapState()
    options, cached = BlockwiseFitOptions(), inner(cycles=10)
    seen = [inner_cap(options, cached, n, state) for n in (None, np.nan, np.inf, 0.0, -1.0, 50.0, 1.0, 0.5, 0.49)]

    assert state.first_norm == 50.0
    assert seen == [15, 15, 15, 15, 15, 15, 15, 15, 1200]


@given(
    st.integers(0, 5000), st.booleans(), st.none() | st.floats(), st.none() | st.floats(1e-9, 1e9), st.integers(0, 3000)
)
def test_a_budget_is_never_empty_and_never_more_than_full(cycles, converged, norm, first, full):
    assert 1 <= cap(cycles, converged, norm, first, full) <= max(1, full)
