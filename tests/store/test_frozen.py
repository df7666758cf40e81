"""A frozen campaign: parents are those of one moment, so neither the order of folds nor what is
merged in matters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import CollectiveError
from tests.support.stores import artifact_of, carrier_fit, plain_fit, result_of
from tests.support.thread_ranks import on_ranks

FOLDS = [carrier_fit([level for level in range(37) if level not in (out, out + 1)], seed=10 + out) for out in range(5)]


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        full = carrier_fit()
        opened.keep(full, result_of(full))
        yield opened


def seen(report):
    start = None if report.start is None else (report.start.rho.tolist(), [b.tolist() for b in report.start.block_beta])
    return report.source, report.parent, start


def run_folds(path, order, comm=None, *, frozen=True, parent=None):
    """Fit all folds in ``order``, each by itself or (with ranks) one per rank; return their starts
    by fold.
    """
    starts = {}
    with gamwarm.open(path, comm=comm) as store:
        full = carrier_fit()
        store.keep(full, result_of(full))
        view = store.frozen() if frozen else store
        size, rank = (1, 0) if comm is None else (comm.size, comm.rank)
        for at in range(0, len(order), size):
            mine = order[at + rank] if at + rank < len(order) else None
            fold = None if mine is None else FOLDS[mine]
            with view.fit(fold, parent, each=True) as fit:
                if fold is not None:
                    starts[mine] = seen(fit.start)
                fit.keep(None if fold is None else result_of(fold, 1.0 + mine))
    return starts


def on_real_ranks(comm, folder, order):
    return sorted(run_folds(f"{folder}/fits.h5", order, comm).items())


def test_without_a_frozen_view_a_fold_takes_the_fold_before_it_as_its_parent(tmp_path):
    one = run_folds(tmp_path / "a.h5", [0, 1, 2, 3, 4], frozen=False)
    other = run_folds(tmp_path / "b.h5", [4, 3, 2, 1, 0], frozen=False)

    assert one != other


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_every_order_of_folds_has_the_same_starts(tmp_path, order):
    wanted = run_folds(tmp_path / "a.h5", [0, 1, 2, 3, 4])

    assert run_folds(tmp_path / "b.h5", order) == wanted
    assert {source for source, _, _ in wanted.values()} == {"transfer"}
    assert len({parent for _, parent, _ in wanted.values()}) == 1


def test_every_number_of_real_ranks_has_the_same_starts(tmp_path, mpiexec):
    wanted = run_folds(tmp_path / "serial.h5", [0, 1, 2, 3, 4])
    for ranks, order in ((2, [0, 1, 2, 3, 4]), (3, [3, 1, 4, 0, 2])):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        answers = mpiexec(ranks, on_real_ranks, folder, order)
        starts = {number: start for answer in answers for number, start in answer}
        assert starts == {n: [str(s), p, [x[0], x[1]]] for n, (s, p, x) in wanted.items()}


def test_all_ranks_of_one_fit_take_the_parent_that_rank_0_froze(tmp_path):
    full, fold = carrier_fit(), FOLDS[0]

    def body(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store:
            kept = store.keep(full, result_of(full)).artifact.entry_id
            view = store.frozen()
            store.keep(FOLDS[1], result_of(FOLDS[1]))
            store.keep(fold, result_of(fold))
            return view.start_for(FOLDS[2]).parent == kept, store.start_for(FOLDS[2]).parent == kept, len(view)

    assert on_ranks(3, body) == [(True, False, 6)] * 3


def test_an_exact_look_up_stays_live(store):
    view = store.frozen()
    assert view.start_for(FOLDS[0]).source == "transfer"

    store.keep(FOLDS[0], result_of(FOLDS[0], 2.0))

    assert view.start_for(FOLDS[0]).source == "exact"


def test_what_is_merged_in_with_an_older_time_is_no_parent(store, tmp_path):
    """A time stamp would let it in: only the set of entries will do."""
    view = store.frozen()
    wanted = view.start_for(FOLDS[0]).parent
    larger = carrier_fit(n=900)
    store.put_artifact(replace(artifact_like(store, larger), created=1))

    assert store.start_for(FOLDS[0]).parent != wanted
    assert view.start_for(FOLDS[0]).parent == wanted


def artifact_like(store, problem):
    from gamwarm.transfer import capture_artifact

    artifact, reason = capture_artifact(problem, problem.key, result_of(problem))
    assert artifact is not None, reason
    return artifact


def test_a_later_time_that_a_merge_brings_does_not_change_the_choice(tmp_path):
    """Among equals the newest is taken: that of the frozen moment, not that of a copy made
    later.
    """
    folds = [FOLDS[1], FOLDS[2]]
    with gamwarm.open(tmp_path / "fits.h5") as store:
        ids = [store.keep(fold, result_of(fold)).artifact.entry_id for fold in folds]
        view = store.frozen()
        assert view.start_for(FOLDS[0]).parent == ids[1]
        with gamwarm.open(tmp_path / "other.h5") as other:
            other.keep(folds[0], result_of(folds[0]))
        store.merge(tmp_path / "other.h5")
        assert store.start_for(FOLDS[0]).parent == ids[0]
        assert view.start_for(FOLDS[0]).parent == ids[1]


def test_the_parents_of_a_campaign_under_way_are_not_evicted(store):
    view = store.frozen()
    wanted = view.start_for(FOLDS[0])
    store.keep(FOLDS[1], result_of(FOLDS[1]))

    store.evict(size_budget=0)

    assert seen(view.start_for(FOLDS[0])) == seen(wanted)
    del view
    store.evict(size_budget=0)
    assert len(store) == 0


def test_a_view_of_an_empty_store_offers_no_parent(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        view = store.frozen()
        store.keep(carrier_fit(), result_of(carrier_fit()))
        assert view.start_for(FOLDS[0]).source == "cold"
        assert store.start_for(FOLDS[0]).source == "transfer"
        later = store.frozen()
        assert later.start_for(FOLDS[0]).source == "transfer"


def test_a_parent_named_by_the_caller_is_taken_wherever_it_is_from(store):
    view = store.frozen()
    late = store.keep(FOLDS[1], result_of(FOLDS[1])).artifact.entry_id

    assert view.start_for(FOLDS[0], parent=late).parent == late
    with view.fit(FOLDS[0], parent=late) as fit:
        assert fit.start.parent == late


def test_a_view_keeps_checkpoints_and_answers_everything_else_as_the_store_does(store):
    with store.frozen() as view:
        with view.transaction(), view.fit(FOLDS[0]) as fit:
            kept = fit.keep(result_of(FOLDS[0]))
            assert fit.checkpoint(result_of(FOLDS[0], converged=False)).reason.startswith("not due")
        assert kept.record.written
        assert view.keep(FOLDS[1], result_of(FOLDS[1])).artifact.written
        assert view.put_artifact(artifact_of()).written
        assert (view.keys(), len(view), view.generation) == (store.keys(), len(store), store.generation)
        assert view.path == store.path
        assert view.frozen() is view
        assert view
        assert view.explain(FOLDS[0]).hit
    assert store.get_record(FOLDS[0].key) is not None  # leaving the view does not close the store


def test_a_view_of_a_closed_store_says_so(store):
    view = store.frozen()
    store.close()

    with pytest.raises(gamwarm.StoreClosed):
        view.start_for(FOLDS[0])
    with pytest.raises(gamwarm.StoreClosed):
        store.frozen()


def test_a_view_of_a_store_that_is_off_starts_cold(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with gamwarm.open(blocked / "fits.h5") as store:
        report = store.frozen().start_for(plain_fit())

    assert report.source == "cold"
    assert "off" in report.reason


def test_a_rank_that_fails_inside_a_view_tells_the_others(tmp_path):
    def body(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store, store.frozen() as view:
            if comm.rank == 1:
                raise ZeroDivisionError
            view.start_for(plain_fit())

    def outcome(comm):
        try:
            body(comm)
        except (CollectiveError, ZeroDivisionError) as error:
            return type(error).__name__

    assert on_ranks(2, outcome) == ["CollectiveError", "ZeroDivisionError"]


def test_the_start_of_a_frozen_fold_is_finite_and_of_its_own_width(store):
    start = store.frozen().start_for(FOLDS[3]).start

    assert [len(b) for b in start.block_beta] == list(FOLDS[3].block_dims)
    assert all(np.isfinite(b).all() for b in start.block_beta)
