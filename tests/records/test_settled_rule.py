"""When a certificate supports a coordinate where it is, and when a bound cut it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm import Curvature, InvalidInput, settled_flags
from gamwarm.records import cut_coordinates, pushes_outwards
from tests.support.entries import record

TOL, BOUND = 1e-5, 15.0


@pytest.mark.parametrize(
    ("rho", "gradient", "flag"),
    [
        (0.0, TOL, True),
        (0.0, np.nextafter(TOL, 1.0), False),
        (14.9, -TOL, True),
        (14.9, -2 * TOL, False),
        (BOUND, -3.0, True),
        (BOUND - 1e-9, -3.0, True),
        (BOUND - 2e-9, -3.0, False),
        (BOUND, 3.0, False),
        (-BOUND, 3.0, True),
        (-BOUND, -3.0, False),
        (BOUND, np.nan, False),
        (np.nan, -3.0, False),
    ],
)
def test_a_coordinate_is_settled_where_its_gradient_is_flat_or_its_bound_holds_it(rho, gradient, flag):
    assert settled_flags([rho], [gradient], TOL, BOUND).tolist() == [flag]


@given(st.floats(-20, 20), st.floats(-1, 1))
def test_without_a_bound_only_the_gradient_counts(rho, gradient):
    assert settled_flags([rho], [gradient], TOL, np.inf).tolist() == [abs(gradient) <= TOL]


@given(st.floats(-20, 20), st.floats(-1, 1))
def test_what_is_cut_pushes_outwards_and_is_settled(rho, gradient):
    inside = float(np.clip(rho, -BOUND, BOUND))
    for _ in cut_coordinates([inside], [gradient], TOL, BOUND):
        assert pushes_outwards([inside], [gradient], BOUND).tolist() == [True]
        assert settled_flags([inside], [gradient], TOL, BOUND).tolist() == [True]
        assert abs(gradient) > TOL


def test_shapes_that_disagree_and_bounds_that_are_none_are_refused():
    with pytest.raises(InvalidInput, match="lengths 1, 2"):
        settled_flags([0.0], [0.0, 0.0], TOL, BOUND)
    with pytest.raises(InvalidInput, match="above 2"):
        settled_flags([0.0], [0.0], TOL, 1.0)


def test_a_record_says_what_its_bound_cut():
    cut = record(rho=[10.0, -1.0], curvature=Curvature([-0.25, 0.0], settled=[True, True]))

    assert cut.cuts == ("rho[0] = 10 lies at its bound ±10 with slope -0.25",)
    assert "lies at its bound" in cut._repr_html_()
    assert record(rho=[10.0, -1.0], curvature=Curvature([-1e-7, 0.0], settled=[True, True])).cuts == ()
    assert record(rho=[9.0, -1.0], curvature=Curvature([-0.25, 0.0])).cuts == ()
    assert record().cuts == ()
