"""Terms and descriptors: what makes two fits relatives, and what must not."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput, InvalidKey, InvalidType, UnkeyableFit
from gamwarm.identity import FitDescriptor, FitProblem, check_descriptor_key, term_identity
from gamwarm.problem import BlockwiseFitOptions, Gauge, ParameterBlockSpec
from tests.support.problems import NamedFamily, block, fit_problem, smooth, wave

NAMES = ["s(x)", "s(y)", "f", "scale", "ti(x,y)"]
BASE = {"role": "mean", "name": "s(x)", "labels": [None, "tie"], "nullspace_dims": [1], "width": 9}


def lift_of(raw, reduced):
    return np.eye(raw)[:, :reduced]


@given(st.permutations(NAMES))
def test_block_order_never_changes_a_descriptor(order):
    def problem(names):
        return fit_problem([block(name, 3 + NAMES.index(name)) for name in names])

    assert problem(order).descriptor.key == problem(NAMES).descriptor.key
    assert problem(order).structural_key == problem(NAMES).structural_key
    assert (problem(order).key == problem(NAMES).key) == (order == NAMES)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "log-slope"},
        {"role": "generic"},
        {"name": "s(y)"},
        {"labels": [None, None]},
        {"labels": [None, ""]},
        {"labels": ["tie", None]},
        {"labels": [None, "tie", None]},
        {"nullspace_dims": []},
        {"nullspace_dims": [1, 1]},
        {"nullspace_dims": [2]},
        {"width": 10},
    ],
)
def test_every_part_of_a_term_moves_its_identity(change):
    assert term_identity(**BASE | change) != term_identity(**BASE)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"role": "median"}, InvalidInput),
        ({"width": -1}, InvalidInput),
        ({"width": 1.5}, InvalidType),
        ({"name": 3}, InvalidType),
        ({"nullspace_dims": [-1]}, InvalidInput),
    ],
)
def test_a_term_of_impossible_parts_is_refused(change, error):
    with pytest.raises(error):
        term_identity(**BASE | change)


def test_rows_response_offset_start_and_options_never_change_a_descriptor():
    first = fit_problem([block("mean", 4, n=20)])
    other = fit_problem(
        [block("mean", 4, n=35, offset=np.ones(35), initial_beta=np.ones(4), initial_log_lambdas=[2.0])],
        family=NamedFamily("gaussian", "another response"),
        engine="another engine",
        outer_tol=1e-3,
    )

    assert other.descriptor.key == first.descriptor.key
    assert other.structural_key == first.structural_key
    assert other.key != first.key


def test_signature_and_population_are_not_part_of_the_key():
    identity = term_identity(**BASE)
    plain, told = FitDescriptor("g", [identity]), FitDescriptor("g", [identity], "y", "adults")

    assert plain.key == told.key


def test_family_kind_and_multiplicity_are_part_of_the_key():
    identity = term_identity(**BASE)
    keys = [FitDescriptor(k, [identity] * n).key for k in ("g", "h") for n in (0, 1, 2)]

    assert len(set(keys)) == 6


def test_the_reduced_width_is_strict_and_the_raw_width_structural():
    parent = fit_problem([block("f", 37)], Gauge.from_blocks([lift_of(38, 37)]))
    child = fit_problem([block("f", 35)], Gauge.from_blocks([lift_of(38, 35)]))
    other = fit_problem([block("f", 37)], Gauge.from_blocks([lift_of(39, 37)]))

    assert child.descriptor.key != parent.descriptor.key == other.descriptor.key
    assert child.structural_key == parent.structural_key != other.structural_key


def test_null_space_dimensions_are_strict_only():
    first, other = (fit_problem([block("f", 4, nullspace_dims=[d])]) for d in (1, 2))

    assert first.descriptor.key != other.descriptor.key
    assert first.structural_key == other.structural_key


def test_the_structural_identity_hashes_the_raw_width_and_no_null_space():
    stated = fit_problem([block("f", 4, raw_width=6, nullspace_dims=[1])])
    lifted = fit_problem([block("f", 4, nullspace_dims=[1])], Gauge.from_blocks([lift_of(6, 4)]))
    plain = fit_problem([block("f", 4, nullspace_dims=[1])])

    expected = term_identity("generic", "f", [None], [], 6)
    assert stated.structural_identities == lifted.structural_identities == (expected,)
    assert plain.structural_identities == (term_identity("generic", "f", [None], [], 4),)
    assert plain.strict_identities == (term_identity("generic", "f", [None], [1], 4),)


def test_labels_enter_a_term_and_fixing_hides_them():
    def identity(penalty):
        return fit_problem([block("f", 4, penalties=[penalty])]).strict_identities[0]

    assert identity(smooth(4, "tie")) == term_identity("generic", "f", ["tie"], [], 4)
    assert identity(smooth(4, "tie", fixed=1.0)) == identity(smooth(4)) == term_identity("generic", "f", [None], [], 4)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", []), InvalidInput),
        ((3, []), InvalidType),
        (("g", "a" * 64), InvalidType),
        (("g", ["a"]), InvalidKey),
        (("g", ["A" * 64]), InvalidKey),
        (("g", [], 3), InvalidType),
    ],
)
def test_a_descriptor_of_malformed_parts_is_refused(arguments, error):
    with pytest.raises(error):
        FitDescriptor(*arguments)


def test_a_well_formed_descriptor_key_passes_the_check():
    key = FitDescriptor("g", []).key

    assert check_descriptor_key(key) == key
    with pytest.raises(InvalidKey, match="64 lower-case hex"):
        check_descriptor_key(key[:-1])


def test_a_descriptor_is_immutable_and_compares_by_content():
    descriptor = FitDescriptor("g", [])

    assert descriptor == FitDescriptor("g", ())
    with pytest.raises(dataclasses.FrozenInstanceError):
        descriptor.family_kind = "h"


class Portable(NamedFamily):
    """A family that can be pickled, as workers need."""


def test_a_problem_is_immutable():
    problem = fit_problem([block("mean", 4)])

    for name in ("engine", "specs", "gauge", "anything"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(problem, name, None)
    with pytest.raises(AttributeError, match="immutable"):
        del problem.engine


def test_a_problem_knows_its_parts():
    gauge = Gauge.from_blocks([lift_of(5, 4), lift_of(3, 3)])
    problem = fit_problem([block("mean", 4, penalties=[smooth(4), smooth(4, fixed=1.0)]), block("sigma", 3)], gauge)

    assert problem.n_rows == 20
    assert problem.block_names == ("mean", "sigma")
    assert problem.block_dims == (4, 3)
    assert problem.raw_widths == (5, 3)
    assert problem.layout.n_outer == 2


def test_a_problem_travels_to_a_worker_and_keeps_its_names():
    problem = FitProblem(
        Portable(),
        [ParameterBlockSpec("mean", wave(20, 3, 1))],
        BlockwiseFitOptions(),
        engine="reference",
        engine_version="1",
        gauge=Gauge.from_blocks([lift_of(4, 3)], shift=np.ones(4)),
    )
    arrived = pickle.loads(pickle.dumps(problem))

    assert (arrived.key, arrived.descriptor.key, arrived.structural_key, arrived.engine_version) == (
        problem.key,
        problem.descriptor.key,
        problem.structural_key,
        "1",
    )


def test_a_family_without_a_stable_name_has_no_descriptor():
    problem = fit_problem([block("mean", 4)], family=NamedFamily("__main__.Mine"))

    with pytest.raises(UnkeyableFit):
        _ = problem.descriptor


@pytest.mark.parametrize(
    ("gauge", "said"),
    [
        (Gauge.identity([5]), r"\[5\].*'mean'.*\[4\]"),
        (Gauge.identity([2, 2]), r"\[2, 2\].*'mean'.*\[4\]"),
        (Gauge.from_blocks([np.eye(6)[:, :4]]), r"'mean' states raw_width 5.*6"),
    ],
)
def test_blocks_that_do_not_fit_the_gauge_are_refused(gauge, said):
    with pytest.raises(InvalidInput, match=said):
        fit_problem([block("mean", 4, raw_width=5)], gauge)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"family": object()}, InvalidType),
        ({"options": {"outer_tol": 1e-5}}, InvalidType),
        ({"gauge": np.eye(4)}, InvalidType),
        ({"engine": ""}, InvalidInput),
        ({"engine_version": 3}, InvalidType),
        ({"specs": []}, InvalidInput),
    ],
)
def test_a_problem_of_other_parts_is_refused(changes, error):
    arguments = {
        "family": NamedFamily(),
        "specs": [block("mean", 4)],
        "options": BlockwiseFitOptions(),
        "engine": "reference",
    } | changes
    family, specs, options = (arguments.pop(name) for name in ("family", "specs", "options"))

    with pytest.raises(error):
        FitProblem(family, specs, options, **arguments)


def test_a_problem_without_options_has_the_usual_ones():
    family, specs = NamedFamily(), [block("mean", 4)]

    assert FitProblem(family, specs, engine="e").options == BlockwiseFitOptions()
    assert FitProblem(family, specs, engine="e").key == FitProblem(family, specs, BlockwiseFitOptions(), engine="e").key


def test_what_is_no_term_is_refused_also_after_an_equal_term_was_named():
    term_identity("mean", "s(x)", [None], [1], 1)
    for wrong in (
        ("mean", "s(x)", [None], [True], 1),
        ("mean", "s(x)", [None], [1], True),
        ("mean", ["s(x)"], [], [], 1),
    ):
        with pytest.raises(InvalidType):
            term_identity(*wrong)
    with pytest.raises(InvalidType):
        term_identity("mean", "s(x)", [7], [1], 1)
