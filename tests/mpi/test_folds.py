"""Leave one group out and independent mode on real ranks: the same answers at any number of ranks
and on any day.
"""

from __future__ import annotations

import math
from functools import cache

import pytest

import gamwarm
from tests.mpi import fold_bodies
from tests.mpi.fold_bodies import N_GROUPS

RANKS = [1, 2, 4, pytest.param(3, marks=pytest.mark.long)]


@pytest.fixture(scope="session")
def launch(mpiexec, tmp_path_factory):
    @cache
    def launched(n):
        folder = tmp_path_factory.mktemp("folds")
        return mpiexec(n, fold_bodies.everything, folder, timeout=100), folder

    return launched


@pytest.fixture
def job(launch):
    """Return what each rank answered of the campaigns."""
    return lambda n: [answer["campaigns"] for answer in launch(n)[0]]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    path = tmp_path_factory.mktemp("serial") / "fits.h5"
    report = fold_bodies.campaign(None, path)
    with gamwarm.open(path, "r") as store:
        return fold_bodies.content(report), sorted(store.entry_ids())


@pytest.mark.parametrize("n", RANKS)
def test_every_rank_has_the_report_of_one_process_and_the_file_its_entries(launch, job, serial, n):
    for answer in job(n):
        assert answer["first"] == [serial[0], ["transfer"] * N_GROUPS]
    with gamwarm.open(launch(n)[1] / "whole.h5", "r") as store:
        assert sorted(store.entry_ids()) == serial[1]
        assert store.verify().ok


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_ctrl_c_of_all_ranks_ends_a_campaign_on_all_of_them_and_it_resumes(mpiexec, tmp_path, n):
    for answer in mpiexec(n, fold_bodies.interrupted_campaigns, tmp_path, timeout=60):
        for where, told in answer.items():
            assert told["ended"] == [
                "KeyboardInterrupt",
                f"the fit on all rows and at least {n} of 7 folds are stored; run the same call again to go on",
            ], where
            assert told["then"] == ["exact"] * n + ["transfer"] * (7 - n)


@pytest.mark.parametrize("n", RANKS)
def test_the_job_run_again_is_exact_hits_from_the_same_parent(job, serial, n):
    for answer in job(n):
        assert answer["again"] == [serial[0], ["exact"] * N_GROUPS]


@pytest.mark.parametrize("n", RANKS)
def test_a_signal_to_one_rank_stops_all_after_the_round_and_the_job_continues_when_run_again(job, serial, n):
    for answer in job(n):
        content, sources = answer["stopped"]
        done = 2 * n - 1  # the fit under the signal stops too, between two outer iterations
        assert content["folds"] == serial[0]["folds"][: done + 1]
        assert content["remaining"] == [fold[0] for fold in serial[0]["folds"][done + 1 :]]
        assert sources == ["transfer"] * done
        resumed, began = answer["resumed"]
        # The stopped fit goes on from its checkpoint, so its last bits are its own.
        assert began == ["exact"] * (done + 1) + ["transfer"] * (N_GROUPS - done - 1)
        stopped = resumed["folds"].pop(done + 1)
        whole = serial[0] | {"folds": list(serial[0]["folds"])}
        expected = whole["folds"].pop(done + 1)
        assert resumed == whole
        assert stopped[:2] == expected[:2]
        assert stopped[2] == pytest.approx(expected[2], rel=1e-8)
        assert stopped[3]


@pytest.mark.parametrize("n", RANKS)
def test_all_ranks_have_folds_and_rank_0_alone_shows_progress(job, n):
    first, *others = job(n)
    assert first["ranks"] == list(range(n))
    rounds = range(math.ceil(N_GROUPS / n) + 1)
    assert first["shown"] == [[min(1 + n * k, N_GROUPS + 1), N_GROUPS + 1] for k in rounds]
    assert all(other["shown"] == [] for other in others)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return fold_bodies.measured_campaign(None, str(tmp_path_factory.mktemp("measured")))


@pytest.mark.parametrize("n", RANKS)
def test_scores_changes_audits_and_failures_are_those_of_one_process(launch, measured, n):
    first, again = measured
    assert first["failures"] == {
        "a, late": "ArithmeticError: before the look-up",
        "c, early": "ArithmeticError: after the keeping",
    }
    assert len(first["audits"]) + len(first["failures"]) >= 3
    assert first["sources"].count("transfer") == 4
    assert again["failures"] == {}
    assert sorted(again["sources"]) == ["exact"] * 5 + ["transfer"]
    assert len(again["audits"]) == 3
    assert again["pinned"] == first["pinned"] == []

    for answer in launch(n)[0]:
        assert answer["measured_campaign"] == measured


@pytest.mark.parametrize("n", RANKS)
def test_ranks_at_their_own_pace_see_their_own_fits_and_all_are_there_in_the_end(launch, n):
    answers = [answer["at_their_own_pace"] for answer in launch(n)[0]]
    counts = [3 * rank + 1 for rank in range(n)]
    for answer, count in zip(answers, counts, strict=True):
        assert answer["starts"] == [["transfer", answer["named"]]] * count
        # A flush at five entries: after three fits of two entries each.
        assert answer["pending"] == count % 3
        assert answer["seen"] == [True, True]
        assert answer["written"]
        assert answer["entries"] == 2 + 2 * sum(counts)
        assert answer["ids"] == answers[0]["ids"]
        assert answer["sound"]


@pytest.mark.parametrize("n", RANKS)
def test_a_rank_that_fails_at_its_own_pace_is_heard_at_the_end_of_the_block(launch, n):
    *others, culprit = [answer["at_their_own_pace"] for answer in launch(n)[0]]
    assert culprit["failed"] == ["ValueError", "a bad day", None]
    assert [(o["failed"][0], o["failed"][2]) for o in others] == [("CollectiveError", n - 1)] * (n - 1)
    assert all(answer["kept"] == [True] * n for answer in (*others, culprit))


@pytest.mark.parametrize("n", [2, 4, pytest.param(3, marks=pytest.mark.long)])
def test_workers_of_a_pool_share_the_file_without_a_communicator(launch, n):
    first, *others = [answer["workers_of_a_pool"] for answer in launch(n)[0]]
    tasks, again = first["first"], first["again"]
    assert {task[0] for task in tasks} <= {other["me"] for other in others}
    assert all(written for _, _, written, _ in (*tasks, *again))
    assert [task[1] for task in again] == ["exact"] * 8
    assert [task[3] for task in again] == [task[3] for task in tasks]
    for answer in (first, *others):
        assert {task[3] for task in tasks} <= set(answer["ids"])
        assert len(answer["ids"]) == 16
        assert answer["sound"]
