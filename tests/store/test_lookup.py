"""Where a fit begins: exact, transfer or cold, and why not something better."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import BlockRecord, FitArtifact, InvalidInput, InvalidKey, InvalidType, Producer
from tests.support.problems import Rows, wave
from tests.support.stores import carrier_fit, plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks


def keep(store, problem, value=1.0, **changes):
    outcome = store.keep(problem, result_of(problem, value, **changes))
    assert outcome.record.written, outcome.record.reason
    return outcome


# -- exact -----------------------------------------------------------------------------------------


def test_the_same_fit_starts_at_its_own_answer(store):
    problem = plain_fit()
    kept = keep(store, problem)
    result = result_of(problem)

    report = store.start_for(plain_fit())

    assert report.source == "exact"
    assert report.entry == kept.record.entry_id
    assert report.key == problem.key
    assert report.parent is None
    assert np.array_equal(report.start.rho, result.rho)
    assert all(np.array_equal(a, b) for a, b in zip(report.start.block_beta, result.block_beta, strict=True))
    assert report.start.cached_inner == result.inner
    assert report.start.objective == 1.0


def test_an_exact_start_holds_its_own_rho_and_not_the_default(store):
    problem = plain_fit()
    keep(store, problem, rho=[3.25])

    assert store.start_for(plain_fit()).start.rho.tolist() == [3.25]
    assert problem.layout.initial_rho.tolist() == [0.0]


def test_active_sets_come_back_with_an_exact_start(store):
    problem = plain_fit()
    keep(store, problem, active_sets=[[3, 1, 3]])

    assert store.start_for(plain_fit()).start.active_sets == ((1, 3),)


def test_a_checkpoint_of_this_fit_is_resumed_and_says_so(store):
    problem = plain_fit()
    keep(store, problem, converged=False)

    report = store.start_for(plain_fit())

    assert report.source == "exact"
    assert report.reason == "a checkpoint of this fit"


def test_a_final_of_another_build_is_resumed_as_a_checkpoint_and_says_whose_it_was(store):
    keep(store, plain_fit(engine_version="0.9"), 1.0)

    report = store.start_for(plain_fit(engine_version="1"))

    assert report.source == "exact"
    assert "tests 0.9" in report.reason
    assert "checkpoint" in report.reason


def test_another_builds_better_checkpoint_outranks_another_builds_final(store):
    keep(store, plain_fit(engine_version="0.9"), 2.0)
    keep(store, plain_fit(engine_version="0.9"), 1.0, converged=False)

    assert store.start_for(plain_fit(engine_version="1")).start.objective == 1.0


def test_the_final_of_this_build_beats_a_checkpoint_with_a_lower_objective(store):
    problem = plain_fit()
    keep(store, problem, 2.0)
    keep(store, problem, 1.0, converged=False)

    assert store.start_for(problem).start.objective == 2.0


def test_an_exact_record_that_does_not_fit_is_passed_over_with_its_reason(store):
    problem = plain_fit()
    assert store.put_record(record_of(rho=[0.0, 0.0])).written
    forged = record_of()
    store.put_record(
        BlockRecord(problem.key, problem.n_rows + 1, ["mean"], [4], [0.5], [np.ones(4)], objective=forged.objective)
    )

    report = store.start_for(problem)

    assert report.source == "cold"
    assert "the exact record does not fit (n_rows is 31 in the record, 30 in the fit)" in report.reason


def test_an_exact_record_that_does_not_fit_does_not_stand_in_the_way_of_a_parent(store):
    problem = plain_fit()
    keep(store, plain_fit(seed=2))
    store.put_record(BlockRecord(problem.key, 1, ["mean"], [4], [0.5], [np.ones(4)], objective=1.0))

    assert store.start_for(problem).source == "transfer"


# -- transfer --------------------------------------------------------------------------------------


def test_other_rows_of_the_same_terms_start_from_the_strict_parent(store):
    kept = keep(store, plain_fit(seed=1), 3.0)

    report = store.start_for(plain_fit(seed=2, n=25))

    assert report.source == "transfer"
    assert report.parent == report.entry == kept.artifact.entry_id
    assert [t.provenance for t in report.terms] == ["projected"]
    assert np.allclose(report.start.block_beta[0], 3.0 * np.arange(1.0, 5.0), rtol=1e-6)
    assert report.start.cached_inner is None
    assert report.start.active_sets is None


def test_reduced_width_35_starts_from_width_37_though_the_strict_key_is_missing(store):
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37), n=50)
    kept = keep(store, parent)
    assert child.descriptor.key != parent.descriptor.key
    assert store.get_artifact(child.descriptor.key) is None
    assert child.structural_key == parent.structural_key

    report = store.start_for(child)

    assert report.source == "transfer"
    assert report.parent == kept.artifact.entry_id
    assert [t.provenance for t in report.terms] == ["projected", "projected"]
    assert [b.shape for b in report.start.block_beta] == [(4,), (35,)]
    assert np.allclose(report.start.block_beta[1], np.arange(3.0, 38.0), rtol=1e-6)
    assert report.start.rho.tolist() == [0.5, 1.5]


def test_an_artifact_is_found_by_its_structural_key_too(store):
    keep(store, carrier_fit(range(39), n=20))
    most = keep(store, carrier_fit(range(37), n=90))
    whole = store.get_artifact(carrier_fit(range(37)).descriptor.key)

    assert store.get_artifact(carrier_fit(range(35)).structural_key) == whole
    assert whole.summary.n_rows == 90
    assert most.artifact.entry_id in store.entry_ids()


def test_a_direct_look_up_of_a_parent_passes_over_one_that_did_not_converge(store):
    keep(store, plain_fit(seed=2, n=20))
    usable = store.get_artifact(plain_fit().descriptor.key)
    assert store.put_artifact(replace(usable, summary=gamwarm.GlobalFitSummary(0.5, False, 500))).written

    assert store.get_artifact(plain_fit().descriptor.key) == usable


def test_a_width_too_different_carries_rho_only(store):
    keep(store, carrier_fit(range(37)))

    report = store.start_for(carrier_fit(range(20)))

    assert [t.provenance for t in report.terms] == ["projected", "rho-only"]
    assert "37" in report.terms[1].beta_reason


def test_nothing_related_is_a_cold_start_with_the_reason(store):
    keep(store, carrier_fit())

    report = store.start_for(plain_fit())

    assert (report.source, report.start, report.parent, report.entry) == ("cold", None, None, None)
    assert report.key == plain_fit().key
    assert report.reason == "no exact record, and no usable fit of these terms"


def test_a_parent_of_which_nothing_transfers_is_a_cold_start_that_names_it(store):
    parent = plain_fit(n=31, rho_bound=100.0)
    kept = keep(store, parent, 1.0, rho=[50.0], block_beta=[np.full(4, 1e7)], curvature=None)

    report = store.start_for(plain_fit())

    assert report.source == "cold"
    assert kept.artifact.entry_id in report.reason
    assert "nothing" in report.reason


# -- choosing a parent -----------------------------------------------------------------------------


def test_a_strict_parent_is_chosen_before_a_structural_one_of_more_rows(store):
    strict = keep(store, carrier_fit(range(35), n=40))
    keep(store, carrier_fit(range(37), n=90))

    assert store.start_for(carrier_fit(range(35), n=50)).parent == strict.artifact.entry_id


def test_among_structural_parents_the_nearest_width_is_chosen_before_more_rows(store):
    near = keep(store, carrier_fit(range(36), n=40))
    keep(store, carrier_fit(range(39), n=90))

    assert store.start_for(carrier_fit(range(35))).parent == near.artifact.entry_id


def test_among_equals_the_parent_of_most_rows_is_chosen(store):
    keep(store, plain_fit(seed=2, n=40))
    full = keep(store, plain_fit(seed=3, n=90))
    keep(store, plain_fit(seed=4, n=50))

    assert store.start_for(plain_fit()).parent == full.artifact.entry_id


def test_among_parents_of_equal_rows_the_newest_is_chosen(store):
    keep(store, plain_fit(seed=2, n=40))
    newest = keep(store, plain_fit(seed=3, n=40))

    assert store.start_for(plain_fit()).parent == newest.artifact.entry_id


def test_a_parent_named_by_the_caller_is_taken_before_any_other(store):
    small = keep(store, plain_fit(seed=2, n=20))
    keep(store, plain_fit(seed=3, n=90))

    report = store.start_for(plain_fit(), parent=small.artifact.entry_id)

    assert report.parent == small.artifact.entry_id
    assert "named by the caller" in report.reason


def test_an_exact_record_is_taken_before_a_named_parent(store):
    parent = keep(store, plain_fit(seed=2))
    keep(store, plain_fit())

    assert store.start_for(plain_fit(), parent=parent.artifact.entry_id).source == "exact"


def test_a_named_parent_that_is_not_there_is_a_cold_start_that_says_so(store):
    keep(store, plain_fit(seed=2))

    report = store.start_for(plain_fit(), parent="0" * 32)

    assert report.source == "cold"
    assert f"named parent {'0' * 32} is not in the file" in report.reason


def test_a_named_parent_of_another_model_is_a_cold_start_that_says_so(store):
    other = keep(store, carrier_fit())

    report = store.start_for(plain_fit(), parent=other.artifact.entry_id)

    assert report.source == "cold"
    assert "a parent must be of the same family" in report.reason


@pytest.mark.parametrize("parent", ["", "abc", "G" * 32, 7, b"0" * 32])
def test_a_malformed_named_parent_is_refused_with_the_culprit(store, parent):
    with pytest.raises(InvalidKey, match="not an entry id"):
        store.start_for(plain_fit(), parent=parent)


def test_a_parent_that_did_not_converge_is_passed_over(store):
    usable = keep(store, plain_fit(seed=2, n=20))
    whole = store.get_artifact(plain_fit().descriptor.key)
    unconverged = FitArtifact(
        whole.descriptor, whole.terms, gamwarm.GlobalFitSummary(0.5, False, 500), curvature=whole.curvature
    )
    assert store.put_artifact(unconverged).written

    assert store.start_for(plain_fit()).parent == usable.artifact.entry_id


# -- fits without a name ---------------------------------------------------------------------------


def test_a_family_that_opts_out_is_cold_without_a_key_and_without_a_word(store, caplog):
    with caplog.at_level(logging.WARNING, "gamwarm"):
        report = store.start_for(plain_fit(fingerprint=None))

    assert (report.source, report.key) == ("cold", None)
    assert "opted out" in report.reason
    assert caplog.records == []


class Unreadable(Rows):
    def row_chunk(self, start, stop, /):
        self.asked.append((start, stop))
        raise OSError("the tape is torn")


def test_a_design_that_cannot_be_read_is_cold_without_a_key_and_one_warning(store, caplog):
    design = Unreadable(wave(30, 4, 1))
    problem = plain_fit(design=design)

    with caplog.at_level(logging.WARNING, "gamwarm"), store.fit(problem) as fit:
        report = fit.start
        outcome = fit.keep(result_of(problem))

    assert (report.source, report.key) == ("cold", None)
    assert "'mean'" in report.reason
    assert "the tape is torn" in report.reason
    assert len(caplog.records) == 1
    assert not outcome.record.written
    assert "the tape is torn" in outcome.record.reason
    assert len(design.asked) == 1, "the unreadable design was read again"
    assert len(store) == 0


def test_a_fit_is_hashed_once_from_start_to_keep(store):
    design = Rows(wave(30, 4, 1))
    problem = plain_fit(design=design)

    with store.fit(problem) as fit:
        fit.keep(result_of(problem))
    store.start_for(problem)

    assert len(design.asked) == 1


# -- where the words are ---------------------------------------------------------------------------


def test_a_hit_and_its_source_are_logged_at_info_and_a_cold_start_is_not(store, caplog):
    kept = keep(store, plain_fit())
    with caplog.at_level(logging.INFO, "gamwarm"):
        store.start_for(carrier_fit())
        assert caplog.records == []
        store.start_for(plain_fit())

    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "exact start" in caplog.text
    assert kept.record.entry_id[:12] in caplog.text


def test_a_hit_is_logged_once_per_fit_and_not_once_per_rank(tmp_path, caplog):
    def body(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store:
            problem = plain_fit()
            store.keep(problem, result_of(problem))
            caplog.set_level(logging.INFO, "gamwarm")
            return store.start_for(problem).source, store.start_for(plain_fit(), each=True).source

    assert on_ranks(3, body) == [("exact", "exact")] * 3
    assert len(caplog.records) == 1 + 3  # one fit on all ranks, then one fit per rank


def test_what_a_gate_kept_from_a_transfer_is_logged_at_debug(store, caplog):
    keep(store, plain_fit(seed=2), rho=[8.5], curvature=None)
    with caplog.at_level(logging.DEBUG, "gamwarm"):
        store.start_for(plain_fit())

    assert [r.levelname for r in caplog.records] == ["INFO", "DEBUG"]
    assert "rho clamped (the parent's 8.5 is beyond ±8)" in caplog.records[1].getMessage()


def test_the_start_of_a_fit_in_progress_is_the_start_that_the_store_gives(store):
    keep(store, plain_fit(seed=2))

    with store.fit(plain_fit()) as fit:
        assert fit.start.source == "transfer"
        assert fit.start.parent == store.start_for(plain_fit()).parent


def test_the_start_of_a_fit_that_has_not_begun_is_refused_with_the_next_step(store):
    with pytest.raises(InvalidInput, match="with store"):
        _ = store.fit(plain_fit()).start


def test_a_problem_of_another_type_is_refused_by_name(store):
    with pytest.raises(InvalidType, match="problem is str; expected FitProblem"):
        store.start_for("mean")
    with pytest.raises(InvalidInput, match="problem is None"):
        store.start_for(None)


def test_a_round_without_work_is_a_cold_start_that_says_so(store):
    assert "nothing to do" in store.start_for(None, each=True).reason


def test_a_direct_look_up_ranks_builds_by_the_stores_own_engine(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        store.put_record(record_of(value=2.0, producer=Producer("a", "1")))
        store.put_record(record_of(value=1.0, kind="checkpoint", producer=Producer("b", "1")))
        assert store.get_record(record_of().key).objective == 2.0, "a store without an engine ranks nothing as foreign"
    with gamwarm.open(path, engine="b", engine_version="1") as store:
        assert store.get_record(record_of().key).objective == 1.0
    with gamwarm.open(path, engine="a", engine_version="1") as store:
        assert store.get_record(record_of().key).objective == 2.0
