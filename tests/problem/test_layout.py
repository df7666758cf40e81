"""Outer coordinates: one per free penalty, one per label, none for a fixed penalty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput
from gamwarm.problem import FixedPenalty, LabeledPenalty, PenaltyLayout
from tests.support.problems import block, smooth

# One penalty: (label or None, fixed value or None, label outside the fixing).
KINDS = st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([None, -0.5]), st.booleans())
FITS = st.lists(st.lists(KINDS, max_size=4), min_size=1, max_size=4)
START = {None: 0.25, "a": 1.0, "b": 2.0}


def penalty_of(kind):
    label, fixed, outside = kind
    if label is not None and fixed is not None and outside:
        return LabeledPenalty(label, FixedPenalty(fixed, smooth(2)))
    return smooth(2, label, fixed)


def specs_of(fit):
    return [
        block(f"b{i}", 2, penalties=[penalty_of(k) for k in kinds], initial_log_lambdas=[START[k[0]] for k in kinds])
        for i, kinds in enumerate(fit)
    ]


@given(FITS)
def test_free_penalties_get_coordinates_in_the_order_they_are_met(fit):
    layout = PenaltyLayout.from_specs(specs_of(fit))
    expected, starts, seen = [], [], {}
    for label, fixed, _ in (kind for kinds in fit for kind in kinds):
        if fixed is not None:
            expected.append(None)
        elif label in seen:
            expected.append(seen[label])
        else:
            expected.append(len(starts))
            if label is not None:
                seen[label] = len(starts)
            starts.append(START[label])

    assert list(layout.physical_to_outer) == expected
    assert layout.initial_rho.tolist() == starts
    assert layout.n_outer == len(starts)


@given(FITS, st.data())
def test_expanding_gives_every_penalty_its_own_value(fit, data):
    layout = PenaltyLayout.from_specs(specs_of(fit))
    rho = np.array(data.draw(st.lists(st.floats(), min_size=layout.n_outer, max_size=layout.n_outer)))

    physical = layout.expand(rho)

    kinds = [kind for block_kinds in fit for kind in block_kinds]
    assert physical.shape == (len(kinds),)
    for value, slot, (_, fixed, _) in zip(physical, layout.physical_to_outer, kinds, strict=True):
        np.testing.assert_array_equal(value, fixed if slot is None else rho[slot])


@given(FITS)
def test_every_block_knows_the_coordinates_it_uses(fit):
    layout = PenaltyLayout.from_specs(specs_of(fit))
    slots = layout.per_block_slots()
    physical = iter(layout.physical_to_outer)

    assert len(slots) == len(fit)
    for here, kinds in zip(slots, fit, strict=True):
        used = [slot for _, slot in zip(kinds, physical, strict=False)]
        assert list(here) == list(dict.fromkeys(slot for slot in used if slot is not None))
    assert {slot for here in slots for slot in here} == set(range(layout.n_outer))


def test_a_tied_label_is_listed_in_every_block_and_a_fixed_penalty_in_none():
    specs = [
        block("f", 2, penalties=[smooth(2, "tie"), smooth(2, fixed=1.0), smooth(2)]),
        block("g", 2, penalties=[smooth(2, fixed=2.0)]),
        block("h", 2, penalties=[smooth(2), smooth(2, "tie"), smooth(2, "tie", fixed=3.0)]),
    ]
    layout = PenaltyLayout.from_specs(specs)

    assert layout.physical_to_outer == (0, None, 1, None, 2, 0, None)
    assert layout.per_block_slots() == ((0, 1), (), (2, 0))
    assert layout.expand([10.0, 20.0, 30.0]).tolist() == [10.0, 1.0, 20.0, 2.0, 30.0, 10.0, 3.0]


def test_a_label_around_a_fixed_penalty_ties_nothing():
    inner = LabeledPenalty("tie", FixedPenalty(1.0, smooth(2)))
    specs = [
        block("f", 2, penalties=[inner], initial_log_lambdas=[5.0]),
        block("g", 2, penalties=[smooth(2, "tie")], initial_log_lambdas=[7.0]),
    ]

    layout = PenaltyLayout.from_specs(specs)
    assert layout.physical_to_outer == (None, 0)
    assert layout.initial_rho.tolist() == [7.0]


def tied(first, second):
    return [
        block("f", 2, penalties=[smooth(2), smooth(2, "tie")], initial_log_lambdas=[0.0, first]),
        block("g", 2, penalties=[smooth(2, "tie")], initial_log_lambdas=[second]),
    ]


def test_tied_initials_may_differ_by_rounding_and_the_first_counts():
    assert PenaltyLayout.from_specs(tied(1.0, 1.0 + 0.9e-10)).initial_rho.tolist() == [0.0, 1.0]


def test_tied_initials_that_disagree_are_refused_and_both_are_named():
    with pytest.raises(InvalidInput, match=r"'tie'.*penalty 1 of block 'f'.*penalty 0 of block 'g'") as caught:
        PenaltyLayout.from_specs(tied(1.0, 1.0 + 1.2e-10))

    assert "1.00000000012" in str(caught.value)


@pytest.mark.parametrize("rho", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_rho_of_another_length_is_not_expanded(rho):
    with pytest.raises(InvalidInput, match=r"rho \(2 outer coordinates\).*\(2,\)"):
        PenaltyLayout.from_specs(tied(1.0, 1.0)).expand(rho)


def test_a_fit_without_penalties_has_no_outer_coordinate():
    layout = PenaltyLayout.from_specs([block("f", 2, penalties=[])])

    assert layout.n_outer == 0
    assert layout.expand([]).shape == layout.initial_rho.shape == (0,)
    assert layout.per_block_slots() == ((),)
