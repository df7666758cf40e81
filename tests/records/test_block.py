"""What a record holds, what it fills in, and which fit it may restart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput, InvalidKey, InvalidType
from gamwarm.records import BlockRecord, Cost, Curvature, Lineage, Producer, RecordKind, normalize_active_sets
from tests.support.entries import KEY, inner, record


def test_a_record_fills_in_the_promised_defaults():
    plain = BlockRecord(KEY, 20, ["mean", "scale"], [3, 2], [0.5, -1.0], [np.ones(3), np.zeros(2)])

    assert plain.kind == "final"
    assert plain.converged is True
    assert plain.active_sets == (None, None)
    assert plain.rho_bound == 15.0
    assert plain.attributes == {}
    for name in ("inner", "objective", "iteration", "curvature", "producer", "created", "lineage", "cost"):
        assert getattr(plain, name) is None


def test_the_positional_order_is_the_published_one():
    names = [field.name for field in dataclasses.fields(BlockRecord)]

    assert names[:10] == [
        "key",
        "n_rows",
        "block_names",
        "block_dims",
        "rho",
        "block_beta",
        "active_sets",
        "inner",
        "objective",
        "kind",
    ]


@pytest.mark.parametrize(
    ("kind", "stated", "converged"),
    [("final", None, True), ("checkpoint", None, False), ("checkpoint", True, True), ("final", False, False)],
)
def test_only_a_final_is_converged_unless_stated(kind, stated, converged):
    assert record(kind=kind, converged=stated).converged is converged


def test_kinds_are_the_plain_words():
    assert [str(k) for k in RecordKind] == ["checkpoint", "final"]
    assert record(kind="checkpoint").kind == "checkpoint"


ROWS = st.lists(st.integers(0, 9), max_size=6)


@given(st.lists(st.none() | ROWS, max_size=4))
def test_active_sets_have_one_form(sets):
    normal = normalize_active_sets(sets)

    assert normal == tuple(tuple(sorted(set(rows))) or None if rows is not None else None for rows in sets)
    assert normalize_active_sets(normal) == normal
    assert normalize_active_sets([None if rows is None else np.array(rows, dtype=int) for rows in sets]) == normal


def test_no_active_sets_stay_none():
    assert normalize_active_sets(None) is None


@pytest.mark.parametrize(
    ("sets", "error"),
    [([[-1]], InvalidInput), ([[0.5]], InvalidType), ([[True, False]], InvalidType), ([3], InvalidType)],
)
def test_an_active_set_of_anything_but_row_numbers_is_refused(sets, error):
    with pytest.raises(error, match="active set of block 0"):
        record(active_sets=sets)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"key": "cf-1"}, InvalidKey, "64 lower-case hex"),
        ({"n_rows": -1}, InvalidInput, "n_rows"),
        ({"n_rows": 2.0}, InvalidType, "n_rows"),
        ({"block_names": ["mean", ""]}, InvalidInput, "block name"),
        ({"block_names": "mean"}, InvalidType, "block_names"),
        ({"block_dims": [3, -2]}, InvalidInput, "block_dims"),
        ({"block_dims": 3}, InvalidType, "block_dims"),
        ({"rho": "0.5"}, InvalidType, "rho"),
        ({"rho": [[0.5]]}, InvalidInput, r"rho.*\(1, 1\)"),
        ({"rho": [1j]}, InvalidType, "rho"),
        ({"block_beta": [np.ones(3), "x"]}, InvalidType, r"block_beta\[1\]"),
        ({"block_beta": 3.0}, InvalidType, "block_beta"),
        ({"kind": "draft"}, InvalidInput, "'draft'.*'final' or 'checkpoint'"),
        ({"converged": 1}, InvalidType, "converged"),
        ({"objective": "low"}, InvalidType, "objective"),
        ({"iteration": -1}, InvalidInput, "iteration"),
        ({"rho_bound": np.nan}, InvalidInput, "rho_bound"),
        ({"inner": {"cycles": 3}}, InvalidType, "inner"),
        ({"curvature": np.eye(2)}, InvalidType, "curvature"),
        ({"producer": "reference"}, InvalidType, "producer"),
        ({"lineage": "cold"}, InvalidType, "lineage"),
        ({"cost": 3}, InvalidType, "cost"),
        ({"created": -5}, InvalidInput, "created"),
        ({"attributes": {"note": None}}, InvalidType, "'note'"),
        ({"attributes": {"flag": True}}, InvalidType, "'flag'"),
        ({"attributes": {"x": np.inf}}, InvalidInput, "'x'"),
        ({"attributes": {"": 1}}, InvalidInput, "attribute name"),
        ({"attributes": [("note", 1)]}, InvalidType, "attributes is list; expected Mapping"),
        ({"active_sets": 5}, InvalidType, "active_sets must be a sequence"),
    ],
)
def test_a_record_of_wrong_types_is_refused(changes, error, said):
    with pytest.raises(error, match=said):
        record(**changes)


def test_attributes_are_strings_and_numbers():
    kept = record(attributes={"note": "", "group": np.int64(3), "share": np.float32(0.5)}).attributes

    assert kept == {"note": "", "group": 3, "share": 0.5}
    assert type(kept["group"]) is int
    assert type(kept["share"]) is float


def test_a_record_holds_what_a_gate_will_refuse():
    held = record(rho=[np.nan, np.inf], block_beta=[np.ones(7)], objective=np.nan, block_dims=[1])

    assert np.isnan(held.rho[0])
    assert np.isnan(held.objective)


def test_records_compare_by_content_and_not_by_time():
    first = record(created=1, cost=Cost(evaluations=3, seconds=1.0), curvature=Curvature([0.0, np.nan]))
    later = record(created=2, cost=Cost(evaluations=3, seconds=9.0), curvature=Curvature([0.0, np.nan]))

    assert first == later
    assert first != record(created=1, cost=Cost(evaluations=4))
    assert first != record(rho=[0.5, -2.0])
    assert record() != "record"


def test_a_record_copies_its_arrays_and_cannot_be_changed():
    rho = np.array([0.5, -1.0])
    kept = record(rho=rho)
    rho[0] = 9.0

    assert kept.rho[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        kept.rho[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        kept.objective = 0.0


FIT = {"key": KEY, "n_rows": 20, "block_names": ["mean", "scale"], "block_dims": [3, 2], "rho_len": 2}


def test_a_record_restarts_its_own_fit():
    assert record().is_compatible(**FIT)
    assert record(inner=inner()).is_compatible(**FIT)
    assert record(kind="checkpoint", rho=[99.0, 0.0], objective=None).is_compatible(**FIT)


@pytest.mark.parametrize(
    "other",
    [
        {"key": "cf-" + 64 * "1"},
        {"n_rows": 21},
        {"block_names": ["scale", "mean"]},
        {"block_names": ["mean"]},
        {"block_dims": [3, 3]},
        {"rho_len": 3},
    ],
)
def test_a_record_never_restarts_another_fit(other):
    assert not record().is_compatible(**FIT | other)
    (name,) = other
    assert name.removesuffix("_len") in record().mismatch_reason(**FIT | other) or name == "rho_len"


@pytest.mark.parametrize(
    "changes",
    [
        {"rho": [0.5, np.nan]},
        {"block_beta": [np.ones(3), [0.0, np.inf]]},
        {"block_beta": [np.ones(3), np.zeros(3)]},
        {"block_beta": [np.ones(3)]},
        {"objective": np.nan},
        {"active_sets": [None]},
        {"inner": inner(log_likelihood=np.nan)},
        {"inner": inner(penalty_value=np.inf)},
        {"inner": inner(inner_tol=np.nan)},
        {"inner": inner(block_logdet_h=[np.nan, 0.0])},
        {"inner": inner(block_logdet_s=[-np.inf, 0.0])},
        {"inner": inner(log_lambdas=[0.0, 0.0, np.nan])},
        {"curvature": Curvature(gradient=[0.0, np.nan])},
    ],
)
def test_a_damaged_record_restarts_nothing(changes):
    assert not record(**changes).is_compatible(**FIT)


def test_the_package_version_is_not_part_of_compatibility():
    assert record(producer=Producer("reference", "1", "0.0.1")).is_compatible(**FIT)


def test_numbers_that_an_inner_summary_leaves_out_are_finite():
    assert inner(inner_tol=None, log_lambdas=None).is_finite


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: inner(cycles=-1), InvalidInput),
        (lambda: inner(converged=1), InvalidType),
        (lambda: inner(log_likelihood=None, penalty_value="x"), InvalidType),
        (lambda: Cost(evaluations=-1), InvalidInput),
        (lambda: Cost(seconds=-1.0), InvalidInput),
        (lambda: Cost(seconds=np.nan), InvalidInput),
        (lambda: Producer(engine=3), InvalidType),
        (lambda: Lineage("warm"), InvalidInput),
        (lambda: Lineage("exact", "xyz"), InvalidKey),
        (lambda: Lineage("transfer", terms=(("f", "lost"),)), InvalidInput),
    ],
)
def test_parts_of_a_record_are_checked_too(make, error):
    with pytest.raises(error):
        make()


@pytest.mark.parametrize(
    ("mine", "other", "same"),
    [
        (Producer("r", "1"), Producer("r", "1"), True),
        (Producer("r", "1"), Producer("r", "1", "0.0.1"), True),
        (Producer("r", "1"), Producer("r", "2"), False),
        (Producer("r", "1"), Producer("s", "1"), False),
        (Producer("r", "1"), None, False),
        (Producer(), Producer(), False),
    ],
)
def test_a_build_is_engine_and_version(mine, other, same):
    assert mine.is_same_build(other) is same


def test_words_are_the_plain_words():
    lineage = Lineage("transfer", 32 * "a", (("f", "rho-only"),), True)

    assert lineage.source == "transfer"
    assert lineage.terms == (("f", "rho-only"),)
