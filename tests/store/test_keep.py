"""What `keep` stores, what the gates refuse and why, and that storing the same answer again
changes nothing.
"""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

import gamwarm
from gamwarm import Curvature, FitArtifact, GlobalFitSummary, InnerMode, InvalidInput, InvalidType
from tests.support.stores import artifact_of, carrier_fit, exact_key_of, leftovers, plain_fit, record_of, result_of


def test_a_converged_fit_files_a_final_record_and_an_artifact(store):
    problem = carrier_fit()
    result = result_of(problem, 2.5)

    outcome = store.keep(problem, result)

    assert outcome.record.written
    assert outcome.artifact.written
    assert not outcome.record.pending
    assert store.entry_ids() == {outcome.record.entry_id, outcome.artifact.entry_id}
    record = store.get_record(problem.key)
    assert (record.kind, record.converged, record.objective) == ("final", True, 2.5)
    assert (record.block_names, record.block_dims) == (problem.block_names, problem.block_dims)
    assert (record.producer.engine, record.producer.engine_version) == ("tests", "1")
    assert record.inner == result.inner
    assert record.curvature == result.curvature
    assert record.cost == result.cost
    assert record.cost.seconds == 0.1
    artifact = store.get_artifact(problem.descriptor.key)
    assert artifact.structural_key == problem.structural_key
    assert [t.raw_beta.shape for t in artifact.terms] == [(4,), (40,)]
    assert [t.reduced_width for t in artifact.terms] == [4, 37]
    assert artifact.fit_key == problem.key


def test_a_fit_that_did_not_converge_files_a_checkpoint_and_no_artifact(store):
    problem = plain_fit()

    outcome = store.keep(problem, result_of(problem, converged=False))

    assert outcome.record.written
    assert not outcome.artifact.written
    assert "converge" in outcome.artifact.reason
    record = store.get_record(problem.key)
    assert (record.kind, record.converged) == ("checkpoint", False)
    assert len(store) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"rho": [9.5], "curvature": Curvature(plateau=[False])},
            r"rho\[0\] = 9.5 is saturated \(\|rho\| >= 9\) and its plateau flag is False",
        ),
        ({"rho": [-9.5], "curvature": None}, r"rho\[0\] = -9.5 is saturated .* no plateau or settled flag"),
        ({"rho": [np.nan]}, "rho holds a non-finite number at coordinate 0"),
        ({"block_beta": [[1.0, np.inf, 0.0, 0.0]]}, "block 'mean': block_beta holds a non-finite number"),
        ({"objective": np.nan}, "objective is nan"),
        ({"curvature": Curvature(gradient=[np.nan])}, "curvature gradient holds a non-finite number"),
    ],
)
def test_a_gate_that_refuses_says_which_number_of_what(store, changes, reason):
    problem = plain_fit()

    outcome = store.keep(problem, result_of(problem, **changes))

    refused = outcome.record
    assert not refused.written
    assert not refused.pending
    assert refused.entry_id is None
    assert re.search(reason, refused.reason), refused.reason
    assert store.get_record(problem.key) is None


def test_a_gate_that_refuses_writes_nothing(store):
    problem = plain_fit()
    before = store.generation

    store.keep(problem, result_of(problem, objective=np.nan))

    assert len(store) == 0
    assert store.generation == before


def test_a_refusal_is_logged_at_debug_with_key_and_value(store, caplog):
    with caplog.at_level(logging.DEBUG, "gamwarm"):
        store.put_record(record_of(rho=[9.75, 0.0]))

    assert [r.levelname for r in caplog.records] == ["DEBUG"]
    assert exact_key_of(1) in caplog.text
    assert "9.75" in caplog.text


def test_a_saturated_coordinate_with_a_plateau_flag_is_kept(store):
    problem = plain_fit()

    outcome = store.keep(problem, result_of(problem, rho=[9.9], curvature=Curvature(plateau=[True])))

    assert outcome.record.written
    assert outcome.artifact.written


def test_an_inner_summary_with_a_non_finite_number_is_dropped_and_the_record_kept(store):
    problem = plain_fit()

    outcome = store.keep(problem, result_of(problem, inner=InnerMode(np.nan, 0.0, 3, True, [0.0], [0.0])))

    assert outcome.record.written
    assert store.get_record(problem.key).inner is None
    assert store.put_record(record_of(inner=InnerMode(0.0, np.inf, 3, True, [0.0], [0.0]))).written


def test_a_final_that_did_not_converge_is_refused_with_the_reason(store):
    outcome = store.put_record(record_of(kind="final", converged=False))

    assert not outcome.written
    assert "checkpoint" in outcome.reason


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        (artifact_of(summary=GlobalFitSummary(np.inf, True, 5)), "objective is inf"),
        (artifact_of(schema="elsewhere-9"), "schema is 'elsewhere-9'"),
        (artifact_of(value=np.nan, summary=GlobalFitSummary(1.0, True, 5)), "raw_beta holds a non-finite number"),
        (
            FitArtifact(artifact_of("s(y)").descriptor, artifact_of("s(x)").terms, GlobalFitSummary(1.0, True, 5)),
            "not the terms of its descriptor",
        ),
    ],
)
def test_an_artifact_that_contradicts_itself_is_refused_with_the_reason(store, artifact, reason):
    outcome = store.put_artifact(artifact)

    assert not outcome.written
    assert reason in outcome.reason
    assert len(store) == 0


# -- again -----------------------------------------------------------------------------------------


def test_keeping_the_same_answer_again_changes_no_byte(path):
    problem = carrier_fit()
    with gamwarm.open(path) as store:
        first = store.keep(problem, result_of(problem))
    before = path.read_bytes()

    with gamwarm.open(path) as store, store.fit(carrier_fit()) as fit:
        again = fit.keep(result_of(problem, cost=gamwarm.Cost(1, 0, 1, 1, seconds=9.0), start_used=True))

    assert again.record.written
    assert again.artifact.written
    assert again.record.entry_id == first.record.entry_id
    assert again.artifact.entry_id == first.artifact.entry_id
    assert "unchanged" in again.record.reason
    assert path.read_bytes() == before
    assert leftovers(path) == set()


def test_putting_the_same_record_or_artifact_again_changes_no_byte(path):
    with gamwarm.open(path) as store:
        first = [store.put_record(record_of()), store.put_artifact(artifact_of())]
        generation = store.generation
    before = path.read_bytes()

    with gamwarm.open(path) as store:
        again = [store.put_record(record_of()), store.put_artifact(artifact_of())]
        assert store.generation == generation

    assert [o.entry_id for o in again] == [o.entry_id for o in first]
    assert all(o.written and "unchanged" in o.reason for o in again)
    assert path.read_bytes() == before


def test_a_worse_checkpoint_is_not_kept_and_changes_no_byte(path):
    with gamwarm.open(path) as store:
        store.put_record(record_of(value=1.0, kind="checkpoint"))
    before = path.read_bytes()

    with gamwarm.open(path) as store:
        outcome = store.put_record(record_of(value=2.0, kind="checkpoint"))

    assert not outcome.written
    assert "better checkpoint" in outcome.reason
    assert path.read_bytes() == before


def test_another_answer_of_the_same_fit_replaces_the_final_and_adds_an_artifact(store):
    problem = plain_fit()
    first = store.keep(problem, result_of(problem, 1.0))
    second = store.keep(problem, result_of(problem, 1.5))

    assert store.get_record(problem.key).objective == 1.5
    assert store.entry_ids() == {first.artifact.entry_id, second.record.entry_id, second.artifact.entry_id}
    assert len(store) == 3


def test_a_key_holds_one_final_and_one_checkpoint(store):
    for value in (5.0, 4.0, 3.0):
        store.put_record(record_of(value=value, kind="checkpoint"))
        store.put_record(record_of(value=value))

    assert len(store) == 2
    assert store.keys() == [exact_key_of(1)]
    assert store.verify().ok


def test_created_rises_strictly_within_a_file_also_when_the_clock_stands_still(path, monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_000_000)
    stamps = []
    for key in (1, 2):
        with gamwarm.open(path) as store:
            store.put_record(record_of(key))
            store.put_record(record_of(key + 10))
            stamps += [store.get_record(exact_key_of(k)).created for k in (key, key + 10)]

    assert stamps == sorted(set(stamps))
    assert stamps[0] == 1_700_000_000_000_000


# -- lineage ---------------------------------------------------------------------------------------


def test_a_cold_fit_says_that_it_began_cold(store):
    problem = plain_fit()
    with store.fit(problem) as fit:
        fit.keep(result_of(problem, start_used=False))

    lineage = store.get_record(problem.key).lineage
    assert (lineage.source, lineage.entry, lineage.terms) == ("cold", None, ())


def test_a_warm_fit_names_its_parent_what_transferred_and_whether_it_was_used(store):
    parent = carrier_fit()
    kept = store.keep(parent, result_of(parent))
    child = carrier_fit(range(20))
    with store.fit(child) as fit:
        fit.keep(result_of(child, start_used=True))

    for lineage in (store.get_record(child.key).lineage, store.get_artifact(child.descriptor.key).lineage):
        assert lineage.source == "transfer"
        assert lineage.entry == kept.artifact.entry_id
        assert lineage.terms == (("mean s(x)", "projected"), ("mean carrier", "rho-only"))
        assert lineage.consumed is True


def test_a_result_kept_without_a_start_has_no_lineage(store):
    problem = plain_fit()
    store.keep(problem, result_of(problem))

    assert store.get_record(problem.key).lineage is None


def test_the_start_of_another_fit_is_refused_as_lineage(store):
    parent = carrier_fit()
    store.keep(parent, result_of(parent))
    start = store.start_for(carrier_fit(range(36)))

    with pytest.raises(InvalidInput, match="start has 2 terms, the fit 1 blocks"):
        store.keep(plain_fit(), result_of(plain_fit()), start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a fit", None), "problem is str"),
        ((plain_fit(), 7), "result is int; expected FitResult"),
        ((plain_fit(), result_of(plain_fit()), "warm"), "start is str; expected StartReport or None"),
    ],
)
def test_what_is_not_a_fit_is_refused_by_name(store, arguments, message):
    with pytest.raises(InvalidType, match=message):
        store.keep(*arguments)


def test_the_wrong_kind_of_entry_is_refused_by_name(store):
    with pytest.raises(InvalidType, match="record is FitArtifact; expected BlockRecord"):
        store.put_record(artifact_of())
    with pytest.raises(InvalidType, match="artifact is BlockRecord; expected FitArtifact"):
        store.put_artifact(record_of())
    with pytest.raises(InvalidType, match="record is NoneType"):
        store.put_record(None)


def test_nothing_to_keep_in_a_round_is_an_outcome_that_says_so(store):
    outcome = store.keep(None, None, each=True)

    assert not outcome.record.written
    assert "nothing to keep" in outcome.record.reason
    assert "nothing to put" in store.put_record(None, each=True).reason


def test_an_unkeyable_fit_is_not_kept_and_says_why(store):
    problem = plain_fit(fingerprint=None)

    outcome = store.keep(problem, result_of(problem))

    assert not outcome.record.written
    assert "opted out" in outcome.record.reason
    assert "opted out" in outcome.artifact.reason


def test_records_are_stamped_with_the_stores_engine_unless_they_have_their_own(path):
    with gamwarm.open(path, engine="mine", engine_version="7") as store:
        store.put_record(record_of(1))
        store.put_record(record_of(2, producer=gamwarm.Producer("theirs", "3")))
        assert store.get_record(exact_key_of(1)).producer == gamwarm.Producer("mine", "7")
        assert store.get_record(exact_key_of(2)).producer == gamwarm.Producer("theirs", "3")


def test_what_a_result_says_of_itself_is_kept_with_record_and_artifact(tmp_path):
    problem = carrier_fit()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.keep(problem, result_of(problem, attributes={"job": "4711", "fold": 3}))
        again = store.keep(problem, result_of(problem, attributes={"job": "4712"}))

        assert store.get_record(problem.key).attributes == {"job": "4711", "fold": 3}
        assert store.get_artifact(problem.descriptor.key).attributes == {"job": "4711", "fold": 3}
        assert len(store) == 2, "the same answer is not written again because another job found it"
        assert again.record.written


@pytest.mark.parametrize("attributes", [["job"], {"job": None}, {"": 1}, {"x": float("nan")}])
def test_attributes_of_a_result_are_strings_and_finite_numbers(attributes):
    problem = carrier_fit()
    with pytest.raises((gamwarm.InvalidInput, gamwarm.InvalidType)):
        result_of(problem, attributes=attributes)
