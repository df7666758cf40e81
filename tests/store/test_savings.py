"""What starts have saved: one fit against its parent, and the file added up, every fit once."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

import gamwarm
from gamwarm import Cost, Saving, Savings, StartReport
from tests.support.stores import carrier_fit, plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks

COLD = Cost(10, 6, 40, 50, seconds=2.0, for_children=5)
WARM = Cost(3, 2, 6, 7, seconds=0.25)


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", keep_last=2) as opened:
        yield opened


def run(store, problem, cost, value=1.0, **changes):
    """Fit ``problem`` as an engine would, at the stated cost."""
    with store.fit(problem) as fit:
        return fit.start, fit.keep(result_of(problem, value, cost=cost, start_used=True, **changes))


def test_an_empty_file_has_saved_nothing(store):
    report = store.savings()

    assert report.total == Saving()
    assert {name: part.fits for name, part in report.by_source.items()} == {"exact": 0, "transfer": 0, "cold": 0}


def test_a_transfer_saves_what_its_parent_took_for_itself_less_its_own_cost(store):
    run(store, carrier_fit(n=60), COLD)

    start, kept = run(store, carrier_fit(n=30), WARM)

    assert start.source == "transfer"
    assert start.entry_cost == COLD
    # 50 formations, of which 5 were for the children; of the parent's seconds the shares of rows
    # and formations.
    assert kept.saved == Saving(7, 4, 34, 38, 2.0 * (30 / 60) * (45 / 50) - 0.25)
    report = store.savings()
    assert report.by_source["transfer"].saved == kept.saved
    assert report.by_source["transfer"].saved_cold == kept.saved
    assert report.by_source["cold"].fits == 1
    assert report.by_source["cold"].saved == Saving()
    assert report.total == kept.saved


def test_a_fit_counts_once_although_it_is_filed_as_record_and_as_artifact(store):
    run(store, carrier_fit(n=60), COLD)
    run(store, carrier_fit(n=30), WARM)

    report = store.savings()

    assert len(store) == 4
    assert [part.fits for part in report.by_source.values()] == [0, 1, 1]
    assert report.by_source["transfer"].cost == WARM
    assert report.by_source["transfer"].cost.seconds == 0.25


def test_a_fit_whose_record_is_gone_still_counts_by_its_artifact(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        problem = carrier_fit(n=60)
        store.put_artifact(_artifact_of(tmp_path, problem))

        assert store.savings().by_source["cold"].fits == 1


def _artifact_of(tmp_path, problem):
    with gamwarm.open(tmp_path / "other.h5") as other:
        run(other, problem, COLD)
        return other.get_artifact(problem.descriptor.key)


def test_a_start_that_cost_more_than_its_parent_counts_against_the_sum(store):
    run(store, carrier_fit(n=60), COLD)

    run(store, carrier_fit(n=30), replace(COLD, evaluations=30, for_children=0))

    assert store.savings().total.evaluations == -20


def test_a_start_that_the_engine_threw_out_is_reported_apart(store):
    run(store, carrier_fit(n=60), COLD)
    problem = carrier_fit(n=30)
    with store.fit(problem) as fit:
        fit.keep(result_of(problem, cost=COLD, start_used=False))

    assert (store.savings().by_source["transfer"].fits, store.savings().by_source["transfer"].refused) == (1, 1)


def test_an_exact_hit_writes_nothing_and_is_counted_by_the_session(tmp_path):
    path, problem = tmp_path / "fits.h5", plain_fit()
    with gamwarm.open(path) as store:
        run(store, problem, COLD)
        before = store.generation
        for _ in range(3):
            _, kept = run(store, plain_fit(), Cost(1, 0, 1, 1, seconds=0.5))
            assert kept.saved == Saving(9, 6, 39, 44, 2.0 * (45 / 50) - 0.5)
        report = store.savings()

        assert store.generation == before
        assert (report.session.fits, report.session.saved.evaluations) == (3, 27)
        assert report.by_source["exact"].fits == 0
        assert report.total.evaluations == 27
    with gamwarm.open(path) as store:
        assert store.savings().session.fits == 0


def test_going_on_from_a_checkpoint_saves_what_had_been_spent_before_it(store):
    problem = plain_fit()
    run(store, problem, Cost(4, 3, 12, 15, seconds=1.0), converged=False)
    assert store.savings().unfinished == 1

    start, kept = run(store, plain_fit(), Cost(5, 4, 9, 11, seconds=1.0), 2.0)

    assert start.is_checkpoint
    assert kept.saved == Saving(4, 3, 12, 15, 1.0)
    report = store.savings()
    assert (report.unfinished, report.by_source["exact"].fits) == (0, 1)
    assert report.by_source["exact"].saved == kept.saved


def test_a_cold_fit_of_the_same_key_is_a_better_measure_than_one_of_the_same_terms(store):
    run(store, carrier_fit(n=60), COLD)
    problem, other = carrier_fit(n=30), carrier_fit(n=30, engine_version="2")
    cold = StartReport("cold", key=problem.key)
    store.keep(problem, result_of(problem, 3.0, cost=replace(COLD, evaluations=9)), cold)

    parent = store.get_artifact(problem.descriptor.key)
    start = store.start_for(carrier_fit(n=31))
    store.keep(other, result_of(other, 4.0, cost=WARM, start_used=True), start)

    assert parent.summary.n_rows == 60
    part = store.savings().by_source["transfer"]
    assert (part.fits, part.saved.evaluations, part.saved_cold.evaluations) == (1, 7, 6)


def test_a_fit_without_lineage_is_counted_and_one_that_counts_nothing_is_estimated_by_its_seconds(store):
    store.put_record(record_of(1))
    run(store, carrier_fit(n=60), None)
    run(store, carrier_fit(n=30), WARM)

    report = store.savings()

    assert report.without_lineage == 1
    transfer = report.by_source["transfer"]
    assert (transfer.fits, transfer.estimated) == (1, 1)
    assert replace(transfer.saved, seconds=0.0) == Saving()
    assert transfer.saved.seconds < 0.0, "the parent took no time to speak of"


def test_a_store_that_cannot_read_says_so(tmp_path):
    (tmp_path / "no").write_text("")
    with gamwarm.open(tmp_path / "no" / "fits.h5") as store:
        report = store.savings()

        assert "the store is off" in report.reason
        assert "the store is off" in str(report)


def test_the_report_reads_as_text_and_survives_pickling(store):
    run(store, carrier_fit(n=60), COLD)
    run(store, carrier_fit(n=30), WARM)

    report = store.savings()

    assert str(report).splitlines()[0] == "saved, by estimate: 7 evaluations, 38 Hessian formations, 0.65 s"
    assert "transfer: 1 fit, 7 Hessian formations" in str(report)
    assert pickle.loads(pickle.dumps(report)) == report
    assert isinstance(report, Savings)


def test_a_start_tells_term_by_term_what_it_holds(store):
    run(store, carrier_fit(range(37), n=60), COLD)

    report = store.start_for(carrier_fit(range(12), n=30))

    lines = report.summary().splitlines()
    assert lines[0] == str(report)
    assert lines[1] == "  that fit: 60 rows, 10 evaluations, 50 Hessian formations, 2 s"
    assert lines[2] == "  mean s(x): rho copied; beta projected"
    assert lines[3].startswith("  mean carrier: rho copied; beta cold (reduced widths differ by more than 25%")
    assert "array" not in repr(report)
    assert StartReport("cold", reason="no store").summary() == "cold start: no store"


def test_in_a_collective_store_every_rank_sees_the_sum_over_ranks(tmp_path):
    def campaign(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store:
            with store.fit(carrier_fit(n=60)) as fit:
                fit.keep(result_of(fit.problem, cost=COLD))
            for _ in range(2):
                mine = carrier_fit(n=20 + comm.rank)
                with store.fit(mine, each=True) as fit:
                    fit.keep(result_of(mine, 1.0 + comm.rank, cost=WARM, start_used=True))
            return store.savings()

    reports = on_ranks(3, campaign)

    assert reports[0] == reports[1] == reports[2]
    assert (reports[0].by_source["transfer"].fits, reports[0].session.fits) == (3, 3)
