"""Every gate on writing, at its exact edge, with its reason."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput, InvalidKey, InvalidType
from gamwarm.identity import FitDescriptor
from gamwarm.records import (
    ConstrainedWarmStart,
    Curvature,
    FitArtifact,
    FitResult,
    GlobalFitSummary,
    artifact_refusal,
    check_entry_id,
    gate_record,
    rejection_reason,
)
from tests.support.entries import artifact, hex_of, inner, record, term

NINE_LESS = np.nextafter(9.0, 0.0)


def test_a_intact_record_is_written_unchanged():
    whole = record(inner=inner())

    assert gate_record(whole) == (whole, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"converged": False}, "final record must be converged"),
        ({"block_dims": [3]}, "block_dims has 1 entries for 2 blocks"),
        ({"block_beta": [np.ones(3)]}, "block_beta has 1 entries for 2 blocks"),
        ({"active_sets": [None, None, None]}, "active_sets has 3 entries for 2 blocks"),
        ({"block_beta": [np.ones(3), np.ones(4)]}, "'scale'.*4 numbers.*width is 2"),
        ({"block_beta": [np.ones(3), [0.0, np.nan]]}, "'scale'.*non-finite"),
        ({"rho": [0.0, np.inf]}, "rho.*non-finite.*coordinate 1"),
        ({"objective": np.nan}, "objective is nan"),
        ({"objective": -np.inf}, "objective is -inf"),
        ({"curvature": Curvature(gradient=[0.0])}, "gradient has length 1; rho has 2"),
        ({"curvature": Curvature(hessian=[[0.0, np.nan], [0.0, 0.0]])}, "hessian.*non-finite"),
        ({"curvature": Curvature(edf=[np.inf, 0.0])}, "edf.*non-finite"),
        ({"curvature": Curvature(plateau=[True])}, "plateau has length 1"),
    ],
)
def test_a_record_that_disagrees_with_itself_is_not_written(changes, said):
    kept, reason = gate_record(record(**changes))

    assert kept == record(**changes)
    assert re.search(said, reason)


def test_a_checkpoint_need_not_have_converged():
    assert rejection_reason(record(kind="checkpoint", converged=False, objective=None)) is None


def flags(*values):
    return Curvature(plateau=np.array(values, dtype=bool))


@pytest.mark.parametrize(
    ("rho", "curvature", "written"),
    [
        ([NINE_LESS, -NINE_LESS], None, True),
        ([0.0, 9.0], None, False),
        ([0.0, -9.0], None, False),
        ([0.0, 9.0], Curvature(gradient=[0.0, 0.0]), False),
        ([0.0, 9.0], flags(True, False), False),
        ([0.0, 9.0], flags(False, True), True),
        ([0.0, -40.0], flags(False, True), True),
        ([9.5, -9.5], flags(True, True), True),
        ([0.0, 9.5], Curvature(settled=[False, True]), True),
        ([0.0, 9.5], Curvature(settled=[True, False]), False),
        ([0.0, 9.5], Curvature(plateau=[True, False], settled=[False, True]), True),
    ],
)
def test_a_saturated_coordinate_needs_a_flag_of_its_own(rho, curvature, written):
    assert (rejection_reason(record(rho=rho, curvature=curvature)) is None) is written


def test_the_refusal_names_coordinate_and_flag():
    assert "rho[1] = 9" in rejection_reason(record(rho=[0.0, 9.0]))
    assert "no plateau or settled flag" in rejection_reason(record(rho=[0.0, 9.0]))
    assert "its plateau flag is False" in rejection_reason(record(rho=[0.0, 9.0], curvature=flags(True, False)))


@given(st.floats(2.5, 100.0), st.floats(-200.0, 200.0))
def test_saturation_begins_one_below_the_records_own_bound(bound, rho):
    refused = rejection_reason(record(rho=[rho, 0.0], rho_bound=bound)) is not None

    assert refused == (abs(rho) >= bound - 1.0)


def test_without_a_bound_nothing_is_saturated():
    assert rejection_reason(record(rho=[1e300, -1e300], rho_bound=np.inf)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"log_likelihood": np.nan},
        {"penalty_value": -np.inf},
        {"inner_tol": np.inf},
        {"block_logdet_h": [0.0, np.nan]},
        {"block_logdet_s": [np.inf, 0.0]},
        {"log_lambdas": [np.nan, 0.0, 0.0]},
    ],
)
def test_a_non_finite_inner_summary_is_dropped_and_the_record_kept(changes):
    kept, reason = gate_record(record(inner=inner(**changes)))

    assert reason is None
    assert kept.inner is None
    assert kept == record()


def test_a_intact_artifact_is_usable():
    whole = artifact()

    assert whole.is_usable
    assert artifact_refusal(whole) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: artifact(schema="gamwarm-artifact-2"), "schema is 'gamwarm-artifact-2'"),
        (lambda: artifact(summary=GlobalFitSummary(np.nan, True, 20)), "objective is nan"),
        (lambda: artifact(term(1, raw_beta=[0.0, np.nan])), "raw_beta holds a non-finite"),
        (lambda: artifact(term(1, name="s(x)", rho_for_term=[np.inf])), r"'s\(x\)'.*rho_for_term holds a non-finite"),
        (lambda: artifact(term(1, plateau=[True, False])), "2 plateau flags for 1 rho"),
        (lambda: artifact(term(1, rho_slots=[0, 1])), "2 rho_slots for 1 rho"),
        (lambda: artifact(term(1, rho_slots=[0]), curvature=Curvature([0.0, 1.0])), "gradient has length 2; rho has 1"),
        (lambda: artifact(curvature=Curvature([0.0], np.eye(2))), "gradient has length 1; rho has 2"),
        (lambda: artifact(curvature=Curvature(hessian=[[np.nan]])), "hessian holds a non-finite"),
    ],
)
def test_a_damaged_artifact_is_neither_usable_nor_written(make, said):
    damaged = make()

    assert not damaged.is_usable
    assert re.search(said, artifact_refusal(damaged))


def test_curvature_without_slots_needs_only_to_agree_with_itself():
    tied = artifact(term(1), term(2), curvature=Curvature([0.0], [[1.0]], plateau=[True]))

    assert tied.is_usable
    assert artifact(term(1), term(2), curvature=Curvature(plateau=[True])).is_usable


def test_an_artifact_that_did_not_converge_is_intact_but_not_usable():
    stopped = artifact(summary=GlobalFitSummary(1.0, False, 20))

    assert stopped.invalid_reason() is None
    assert not stopped.is_usable


def test_terms_that_are_not_the_descriptors_are_not_written():
    assert "descriptor" in artifact_refusal(artifact(term(1), descriptor=FitDescriptor("gaussian", [hex_of(2)])))
    assert artifact_refusal(artifact(term(2), term(1), descriptor=FitDescriptor("g", [hex_of(1), hex_of(2)]))) is None


def test_a_structural_key_needs_every_term():
    terms = (term(1), term(2))

    assert artifact(*terms).structural_key == FitDescriptor("gaussian", [hex_of(1001), hex_of(1002)]).key
    assert artifact(*terms[::-1]).structural_key == artifact(*terms).structural_key
    assert artifact(term(1), term(2, structural_identity=None)).structural_key is None
    assert artifact(*terms).reduced_width == 8


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: term(1, identity="x"), InvalidKey),
        (lambda: term(1, structural_identity="x"), InvalidKey),
        (lambda: term(1, role="median"), InvalidInput),
        (lambda: term(1, basis_meta="bspline"), InvalidType),
        (lambda: term(1, raw_beta=[[0.0]]), InvalidInput),
        (lambda: term(1, reduced_width=-1), InvalidInput),
        (lambda: term(1, plateau=[1.0]), InvalidInput),
        (lambda: term(1, rho_slots=[-1]), InvalidInput),
        (lambda: artifact(descriptor="d"), InvalidType),
        (lambda: artifact(summary=None), InvalidType),
        (lambda: artifact(terms=["t"]), InvalidType),
        (lambda: artifact(curvature=np.eye(2)), InvalidType),
        (lambda: artifact(producer="r"), InvalidType),
        (lambda: artifact(rho_bound=np.nan), InvalidInput),
        (lambda: artifact(fit_key="cf-1"), InvalidKey),
        (lambda: GlobalFitSummary("low", True, 1), InvalidType),
        (lambda: GlobalFitSummary(1.0, 1, 1), InvalidType),
        (lambda: GlobalFitSummary(1.0, True, -1), InvalidInput),
        (lambda: FitResult([0.0], [[0.0]], 1.0, "yes"), InvalidType),
        (lambda: FitResult([0.0], 3.0, 1.0, True), InvalidType),
        (lambda: FitResult([0.0], [[0.0]], "low", True), InvalidType),
        (lambda: FitResult([0.0], [[0.0]], 1.0, True, cost=3), InvalidType),
        (lambda: FitResult([0.0], [[0.0]], 1.0, True, start_used=1), InvalidType),
        (lambda: ConstrainedWarmStart([0.0], [[0.0]], cached_inner=3), InvalidType),
        (lambda: ConstrainedWarmStart([0.0], [[0.0]], curvature=np.eye(1)), InvalidType),
        (lambda: ConstrainedWarmStart([0.0], 3.0), InvalidType),
    ],
)
def test_results_terms_and_artifacts_of_wrong_types_are_refused(make, error):
    with pytest.raises(error):
        make()


def test_the_positional_order_of_an_artifact_is_the_published_one():
    whole = FitArtifact(artifact().descriptor, artifact().terms, GlobalFitSummary(12.5, True, 20), None, 10.0)

    assert whole == artifact()


def test_an_entry_id_is_thirty_two_hex_digits():
    assert check_entry_id(32 * "a") == 32 * "a"
    for other in (None, "", 31 * "a", 33 * "a", 32 * "A", 32 * "g"):
        with pytest.raises(InvalidKey, match="32 lower-case hex"):
            check_entry_id(other)
