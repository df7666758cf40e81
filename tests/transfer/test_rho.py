"""What becomes of a parent's smoothing parameters, slot by slot, at the exact edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.identity import FitDescriptor
from gamwarm.transfer import RhoOutcome, TermContext, TransferPolicy, build_warm_start
from tests.support.entries import artifact, hex_of, term

ABOVE_8, BELOW_9, ABOVE_10 = np.nextafter(8.0, 9.0), np.nextafter(9.0, 8.0), np.nextafter(10.0, 11.0)


def context(number, slots, width=4, **changes):
    return TermContext(
        hex_of(number),
        slots,
        width,
        **{"gauge_block": np.eye(4)[:, :width], "structural_identity": hex_of(1000 + number)} | changes,
    )


def start_of(contexts, parent, rho_default, **policy):
    descriptor = FitDescriptor("gaussian", [c.identity for c in contexts])
    return build_warm_start(descriptor, contexts, rho_default, parent, TransferPolicy(**{"rho_bound": 10.0} | policy))


def carried(value, flag=None, **policy):
    """The one slot's report, and where the start's rho landed."""
    parent = artifact(term(1, rho_for_term=[value], plateau=None if flag is None else [flag]))
    start = start_of([context(1, [0])], parent, [-0.25], **policy)
    (report,) = start.terms
    (slot,) = report.slots
    assert report.rho == slot.outcome
    assert slot.value == start.rho[0]
    return slot.outcome, float(start.rho[0]), slot.reason


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("size", "outcome", "landed"),
    [
        (0.0, "copied", 0.0),
        (7.5, "copied", 7.5),
        (8.0, "copied", 8.0),
        (ABOVE_8, "clamped", 8.0),
        (BELOW_9, "clamped", 8.0),
        (9.0, "default", None),
        (25.0, "default", None),
    ],
)
def test_plain_values_are_copied_clamped_or_skipped(sign, size, outcome, landed):
    assert carried(sign * size)[:2] == (outcome, -0.25 if landed is None else sign * landed)
    assert carried(sign * size, flag=False)[:2] == (outcome, -0.25 if landed is None else sign * landed)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("size", "landed"), [(0.5, 0.5), (8.5, 8.5), (9.0, 9.0), (10.0, 10.0), (ABOVE_10, 10.0), (40.0, 10.0)]
)
def test_a_plateau_is_copied_within_the_childs_bound(sign, size, landed):
    assert carried(sign * size, flag=True)[:2] == ("plateau", sign * landed)


@pytest.mark.parametrize(
    ("bound", "value", "flag", "outcome", "landed"),
    [
        (6.0, 4.0, False, "copied", 4.0),
        (6.0, 4.5, False, "clamped", 4.0),
        (6.0, 5.0, False, "default", -0.25),
        (6.0, 9.5, True, "plateau", 6.0),
        (15.0, 12.0, False, "copied", 12.0),
        (15.0, 13.5, False, "clamped", 13.0),
        (15.0, 14.0, False, "default", -0.25),
        (math.inf, 500.0, False, "copied", 500.0),
        (math.inf, -500.0, True, "plateau", -500.0),
    ],
)
def test_the_bound_is_the_childs_and_not_the_parents(bound, value, flag, outcome, landed):
    assert carried(value, flag=flag, rho_bound=bound)[:2] == (outcome, landed)


@given(st.floats(-50, 50), st.none() | st.booleans(), st.floats(2.5, 20))
def test_a_start_never_leaves_the_childs_bound(value, flag, bound):
    outcome, landed, reason = carried(value, flag=flag, rho_bound=bound)

    assert abs(landed) <= bound
    assert (landed == value) or outcome != "copied"
    assert bool(reason) == (outcome != "copied")


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("size", "outcome", "landed"),
    [(0.5, "copied", 0.5), (9.5, "copied", 9.5), (10.0, "copied", 10.0), (ABOVE_10, "clamped", 10.0)],
)
def test_a_settled_value_is_copied_within_the_childs_bound(sign, size, outcome, landed):
    parent = artifact(term(1, rho_for_term=[sign * size], plateau=[False], settled=[True]))
    (report,) = start_of([context(1, [0])], parent, [-0.25]).terms

    assert (report.rho, report.slots[0].value) == (outcome, sign * landed)


def test_every_reason_names_the_number():
    assert "9.5" in carried(9.5)[2]
    assert "8.5" in carried(8.5)[2]
    assert "plateau" in carried(8.5, flag=True)[2]


def test_a_slot_out_of_range_is_skipped():
    parent = artifact(term(1, rho_for_term=[1.0, 2.0]))
    start = start_of([context(1, [0, 5])], parent, [-0.25])

    assert start.rho.tolist() == [1.0]
    assert [s.outcome for s in start.terms[0].slots] == ["copied", "default"]
    assert "slot 5 is out of range of 1" in start.terms[0].slots[1].reason


def test_terms_whose_counts_disagree_keep_the_default():
    start = start_of([context(1, [0, 1])], artifact(term(1, rho_for_term=[1.0])), [-0.25, 0.75])

    assert start.rho.tolist() == [-0.25, 0.75]
    assert {s.outcome for s in start.terms[0].slots} == {RhoOutcome.DEFAULT}
    assert "1 smoothing parameters, this one 2" in start.terms[0].rho_reason


def test_a_tied_slot_keeps_what_the_first_term_gave_it():
    parent = artifact(term(1, rho_for_term=[1.0]), term(2, rho_for_term=[2.0]))
    start = start_of([context(1, [0]), context(2, [0])], parent, [-0.25])

    assert start.rho.tolist() == [1.0]
    assert [t.rho for t in start.terms] == ["copied", "tied"]


def test_a_tied_slot_that_was_skipped_is_still_free():
    parent = artifact(term(1, rho_for_term=[9.5]), term(2, rho_for_term=[2.0]))
    start = start_of([context(1, [0]), context(2, [0])], parent, [-0.25])

    assert start.rho.tolist() == [2.0]
    assert [t.rho for t in start.terms] == ["default", "copied"]


def test_a_tied_slot_is_tied_even_where_counts_disagree():
    parent = artifact(term(1, rho_for_term=[1.0]), term(2, rho_for_term=[2.0, 3.0]))
    start = start_of([context(1, [0]), context(2, [0])], parent, [-0.25])

    assert start.rho.tolist() == [1.0]
    assert [t.rho for t in start.terms] == ["copied", "tied"]


def test_a_term_reports_the_outcome_furthest_from_copying():
    parent = artifact(term(1, rho_for_term=[1.0, 8.5, 20.0, 9.5], plateau=[False, False, True, False]))
    (report,) = start_of([context(1, [0, 1, 2, 3])], parent, np.zeros(4)).terms

    assert [s.outcome for s in report.slots] == ["copied", "clamped", "plateau", "default"]
    assert report.rho == "default"
    assert "9.5" in report.rho_reason


def test_a_term_without_smoothing_parameters_says_so():
    (report,) = start_of([context(1, [])], artifact(term(1, rho_for_term=[])), []).terms

    assert (report.rho, report.rho_reason) == ("default", "this term has no smoothing parameter")
    assert report.provenance == "projected"


def test_the_default_is_not_changed():
    default = np.array([-0.25])
    start_of([context(1, [0])], artifact(), default)

    assert default.tolist() == [-0.25]
