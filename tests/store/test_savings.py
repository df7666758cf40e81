"""What starts have saved: one fit against its parent, and the file added up, every fit once."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm import Cost, Saving, Savings, StartReport
from gamwarm.records import attributes_of_cold_run
from gamwarm.store import Basis, add_up, compare_costs
from tests.support.entries import line_of
from tests.support.stores import carrier_fit, plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks

COLD = Cost(10, 6, 40, 50, seconds=2.0, for_children=5)
WARM = Cost(3, 2, 6, 7, seconds=0.25)
COSTS = st.builds(
    lambda counts, seconds, part: Cost(
        *counts, seconds, for_children=counts[3] // 3, seconds_for_children=seconds * part
    ),
    st.tuples(*[st.integers(0, 99)] * 4),
    st.floats(0, 9),
    st.floats(0, 1),
)


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
    assert (report.by_source["transfer"].compared, report.by_source["transfer"].measured) == (1, 0)
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
    assert (part.fits, part.measured, part.saved.evaluations) == (1, 1, 6)
    assert store.savings().basis == "measured"


def test_a_fit_without_lineage_is_counted_and_one_that_counts_nothing_is_compared_by_its_seconds(store):
    store.put_record(record_of(1))
    run(store, carrier_fit(n=60), None)
    run(store, carrier_fit(n=30), WARM)

    report = store.savings()

    assert report.without_lineage == 1
    transfer = report.by_source["transfer"]
    assert (transfer.fits, transfer.compared) == (1, 1)
    assert replace(transfer.saved, seconds=0.0) == Saving()
    assert transfer.saved.seconds < 0.0, "the parent took no time to speak of"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["cold", "transfer"]), COSTS, st.integers(1, 90)), min_size=1, max_size=12))
def test_no_fit_is_said_to_have_saved_more_than_a_cold_fit_of_the_file_took(fits):
    lines = [line_of(n, source, cost, rows) for n, (source, cost, rows) in enumerate(fits)]
    cold = [line.cost for line in lines if line.source == "cold"]

    compared = [each for each in compare_costs(lines) if each.saved is not None]

    assert bool(compared) == (bool(cold) and len(cold) < len(lines))
    for each in compared:
        for name, value in vars(each.saved).items():
            assert value <= max(getattr(cost, name) for cost in cold), name
        assert each.saved.seconds <= max(cost.seconds - cost.seconds_for_children for cost in cold) + 1e-9


def test_a_cold_run_of_the_same_fit_bounds_what_it_is_said_to_have_saved():
    costs = {"cold": Cost(9, 5, 30, 40, seconds=2.0), "transfer": Cost(2, 1, 3, 4, seconds=0.3)}
    lines = [line_of(7, source, cost, 50) for source, cost in costs.items()]
    dear = line_of(8, "cold", Cost(90, 50, 300, 400, seconds=20.0), 50)

    (warm,) = (each for each in compare_costs([*lines, dear]) if each.summary.source == "transfer")

    assert warm.basis is Basis.SAME_FIT
    assert warm.saved == Saving(7, 4, 27, 36, 2.0 - 0.3)


def test_the_nearest_cold_fit_in_rows_counts_and_of_equally_near_ones_the_cheapest():
    near = [line_of(n, "cold", Cost(1, 1, 1, formations), 62) for n, formations in enumerate((50, 40, 45))]
    far = line_of(7, "cold", Cost(1, 1, 1, 20), 90)
    above = line_of(8, "cold", Cost(1, 1, 1, 30), 58)
    warm = line_of(9, "transfer", Cost(1, 1, 1, 9), 60)

    for lines, formations in (([*near, far], 40), ([*reversed(near), far], 40), ([*near, above], 30)):
        assert add_up([*lines, warm]).total.hessian_formations == formations - 9


def test_seconds_that_only_the_first_fit_of_a_process_took_are_left_out():
    first = line_of(0, "cold", Cost(10, 6, 40, 50, seconds=30.0), 60)
    folds = [line_of(n, "transfer", Cost(3, 2, 6, 10, seconds=0.5), 60) for n in range(1, 9)]

    saved = add_up([first, *folds]).total

    assert saved.hessian_formations == 8 * 40
    assert saved.seconds == pytest.approx(8 * (50 * 0.05 - 0.5)), "0.05 s a formation, by the other fits"


def test_seconds_of_work_for_later_fits_are_left_out_as_they_were_clocked():
    parent = line_of(0, "cold", Cost(10, 6, 40, 50, seconds=3.0, for_children=5, seconds_for_children=2.0), 60)
    fold = line_of(1, "transfer", Cost(3, 2, 6, 9, seconds=0.5), 60)

    assert add_up([parent, fold]).total.seconds == pytest.approx(1.0 - 0.5)


def test_a_fit_too_short_to_time_says_nothing_of_the_seconds_of_a_cold_one():
    cold, warm = line_of(0, "cold", Cost(10, seconds=0.5), 60), line_of(1, "transfer", Cost(3, seconds=1e-5), 60)

    assert add_up([cold, warm]).total.seconds == pytest.approx(0.5, abs=1e-4)


def test_a_record_that_states_its_own_cold_run_is_measured(store):
    run(store, carrier_fit(n=60), COLD)
    problem, cold = carrier_fit(n=30), Cost(12, 8, 50, 60, seconds=1.5, for_children=10, seconds_for_children=0.5)
    with store.fit(problem, attributes=attributes_of_cold_run(cold)) as fit:
        fit.keep(result_of(problem, cost=WARM, start_used=True))

    report = store.savings()

    assert report.basis == "measured"
    assert report.total == Saving(9, 6, 44, 43, 1.0 - 0.25)


@pytest.mark.parametrize("wrong", [{"cold_seconds": "1"}, {"cold_evaluations": -1}, {"cold_evaluations": 2.5}])
def test_attributes_that_only_look_like_a_cold_run_are_not_one(wrong):
    told = {**attributes_of_cold_run(COLD), **wrong}
    lines = [line_of(0, "cold", COLD, 60), replace(line_of(1, "transfer", WARM, 60), attributes=told)]

    assert add_up(lines).basis == "estimated"


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

    assert str(report).splitlines()[0] == "saved: 7 evaluations, 38 Hessian formations, 0.65 s (estimated)"
    assert "transfer: 1 fit, 3 evaluations, 7 Hessian formations" in str(report)
    assert pickle.loads(pickle.dumps(report)) == report
    assert isinstance(report, Savings)


def test_a_start_tells_term_by_term_what_it_holds(store):
    run(store, carrier_fit(range(37), n=60), COLD)

    report = store.start_for(carrier_fit(range(12), n=30))

    lines = report.summary().replace("\n      ", " ").splitlines()
    assert lines[0] == str(report)
    assert lines[1] == "  that fit: 60 rows, 10 evaluations, 45 Hessian formations (and 5 for later fits), 1.8 s"
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
