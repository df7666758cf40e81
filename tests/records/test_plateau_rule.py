"""The one place of the plateau rule, at its exact edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.records import Curvature, plateau_flags

BELOW, ABOVE = np.nextafter(0.1, 0.0), np.nextafter(0.1, 1.0)
TOL = 1e-5


@pytest.mark.parametrize(
    ("rho", "gradient", "edf", "flag"),
    [
        (9.0, 0.0, 0.0, True),
        (1e-9, 0.0, 0.0, True),
        (9.0, TOL, BELOW, True),
        (9.0, np.nextafter(TOL, 1.0), BELOW, False),
        (9.0, -1e9, BELOW, True),
        (9.0, 0.0, 0.1, False),
        (0.0, 0.0, 0.0, False),
        (0.0, 0.0, 5.0, False),
        (-9.0, 0.0, 5.0, True),
        (-9.0, -TOL, 5.0, True),
        (-9.0, np.nextafter(-TOL, -1.0), 5.0, False),
        (-9.0, 1e9, 5.0, True),
        (-9.0, 0.0, 4.95, True),
        (-9.0, 0.0, 4.85, False),
        (-9.0, 0.0, 0.0, False),
        (np.nan, 0.0, 0.0, False),
        (9.0, np.nan, 0.0, False),
        (9.0, 0.0, np.nan, False),
        (np.inf, 0.0, 0.0, True),
    ],
)
def test_the_rule_at_its_edges(rho, gradient, edf, flag):
    assert plateau_flags([rho], [gradient], [edf], 5.0, TOL, 10.0).tolist() == [flag]


@pytest.mark.parametrize(("edf", "flag"), [(0.0, False), (ABOVE, True), (0.1, False), (0.2, True)])
def test_the_lower_plateau_needs_less_than_a_tenth_of_a_degree_of_freedom_left(edf, flag):
    # max_edf - edf against 0.1: 0.2 - 0.1 is exactly 0.1, which is not below it.
    assert plateau_flags([-9.0], [0.0], [edf], 0.2 if edf >= 0.1 else 0.1, TOL, 10.0).tolist() == [flag]


def test_every_coordinate_has_its_own_top():
    assert plateau_flags([-9.0, -9.0], [0.0, 0.0], [3.0, 3.0], [3.0, 9.0], TOL, 10.0).tolist() == [True, False]


COLUMN = st.lists(st.floats(), min_size=3, max_size=3)


@given(COLUMN, COLUMN, COLUMN, st.floats(2.5, 30.0))
def test_the_rule_is_taken_coordinate_by_coordinate_whatever_the_bound(rho, gradient, edf, bound):
    together = plateau_flags(rho, gradient, edf, 5.0, TOL, bound)

    alone = [plateau_flags([r], [g], [e], 5.0, TOL, np.inf)[0] for r, g, e in zip(rho, gradient, edf, strict=True)]
    assert together.tolist() == alone
    assert together.dtype == np.bool_


@pytest.mark.parametrize(
    "arguments",
    [
        ([1.0], [0.0, 0.0], [0.0], 5.0, TOL, 10.0),
        ([1.0], [0.0], [], 5.0, TOL, 10.0),
        ([1.0], [0.0], [0.0], [5.0, 5.0], TOL, 10.0),
        ([1.0], [0.0], [0.0], 5.0, TOL, 2.0),
        ([1.0], [0.0], [0.0], 5.0, TOL, np.nan),
    ],
)
def test_lengths_that_disagree_and_bounds_that_are_none_are_refused(arguments):
    with pytest.raises(InvalidInput):
        plateau_flags(*arguments)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"gradient": [[0.0]]}, InvalidInput),
        ({"hessian": [[0.0, 1.0]]}, InvalidInput),
        ({"hessian": "x"}, InvalidType),
        ({"edf": 3.0}, InvalidInput),
        ({"plateau": [0.0, 1.0]}, InvalidInput),
        ({"plateau": [[True]]}, InvalidInput),
    ],
)
def test_curvature_of_another_shape_is_refused(parts, error):
    with pytest.raises(error):
        Curvature(**parts)


@pytest.mark.parametrize("name", ["gradient", "hessian", "edf", "plateau"])
def test_curvature_that_does_not_belong_says_which_part(name):
    value = {"hessian": np.eye(2), "plateau": [True, False]}.get(name, [0.0, 1.0])

    assert Curvature(**{name: value}).invalid_reason(2) is None
    assert name in Curvature(**{name: value}).invalid_reason(3)
