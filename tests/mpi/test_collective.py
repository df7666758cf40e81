"""One fit on all ranks, one fit per rank: the same answers at any number of ranks, and rank 0 alone
at the file.
"""

from __future__ import annotations

import math
from functools import cache

import pytest

from tests.mpi import bodies
from tests.support.stores import carrier_fit, exact_key_of

RANKS = [1, 2, 4, pytest.param(3, marks=pytest.mark.long)]


@pytest.fixture(scope="session")
def job(mpiexec, tmp_path_factory):
    """Run all bodies once per number of ranks; return what each rank answered to one of them."""

    @cache
    def launch(n):
        return mpiexec(n, bodies.everything, tmp_path_factory.mktemp("ranks"), timeout=90)

    def answers(n, body):
        return [answer[body.__name__] for answer in launch(n)]

    return answers


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    return bodies.campaign(None, tmp_path_factory.mktemp("serial") / "campaign.h5")


def alike(answers):
    assert all(a == answers[0] for a in answers), answers
    return answers[0]


@pytest.mark.parametrize("n", RANKS)
def test_one_fit_on_all_ranks_has_one_start_and_one_outcome(job, n):
    answer = alike(job(n, bodies.one_fit_on_all_ranks))

    assert [answer[name]["source"] for name in ("cold", "transfer", "exact", "named")] == [
        "cold",
        "transfer",
        "exact",
        "transfer",
    ]
    record, artifact = answer["kept"]
    assert record["written"]
    assert artifact["written"]
    assert answer["exact"]["entry"] == record["entry_id"]
    assert answer["transfer"]["parent"] == answer["named"]["parent"] == artifact["entry_id"]
    assert answer["file"][0] == 2
    assert answer["file"][3] == sorted([record["entry_id"], artifact["entry_id"]])
    assert answer["file"][4]
    assert answer["got"] == [2.0, carrier_fit(range(37)).key]
    assert all(put["written"] for put in answer["put"])


@pytest.mark.parametrize("n", RANKS)
def test_the_key_does_not_depend_on_the_number_of_ranks_and_each_hashes_its_share(job, n):
    answers = job(n, bodies.shares_of_a_design)

    assert all(a["key"] == a["serial"] for a in answers)
    assert sum(a["leaves"] for a in answers) == 4, "a design was hashed more than once between start and keep"
    assert max(a["leaves"] for a in answers) <= math.ceil(4 / n)


@pytest.mark.parametrize("n", RANKS)
def test_starts_parents_and_entry_ids_of_a_campaign_are_those_of_a_serial_one(job, serial, n):
    answers = job(n, bodies.one_fit_per_rank)

    for answer in answers:
        assert answer["ids"] == serial["ids"]
        assert answer["sound"]
    starts = {f: s for a in answers for f, s in a["starts"].items() if f != "idle"}
    assert starts == {str(f): s for f, s in serial["starts"].items()}
    outcomes = {f: o for a in answers for f, o in a["outcomes"].items() if f != "idle"}
    assert outcomes == {str(f): o for f, o in serial["outcomes"].items()}


@pytest.mark.parametrize("n", RANKS)
def test_a_round_of_all_ranks_is_one_transaction(job, n):
    for answer in job(n, bodies.one_fit_per_rank):
        assert answer["generations"] == [1] * math.ceil(bodies.FOLDS / n)


@pytest.mark.parametrize("n", [2, 4])
def test_a_rank_without_work_in_a_round_hangs_no_one_and_gets_an_empty_answer(job, n):
    idle = [a for a in job(n, bodies.one_fit_per_rank) if "idle" in a["starts"]]

    assert len(idle) == -bodies.FOLDS % n
    for answer in idle:
        assert answer["starts"]["idle"]["source"] == "cold"
        assert not answer["outcomes"]["idle"][0]["written"]


@pytest.mark.parametrize("n", RANKS)
def test_a_campaign_run_again_hits_every_fold_exactly(job, n):
    sources = {f: s for a in job(n, bodies.one_fit_per_rank) for f, s in a["again"].items() if f != "null"}

    assert sources == {str(f): "exact" for f in range(bodies.FOLDS)}


@pytest.mark.parametrize("n", RANKS)
def test_uneven_batches_are_one_transaction_a_round(job, n):
    answers = job(n, bodies.a_batch_of_records)

    assert {a["commits"] for a in answers} == {n}
    keys = sorted(exact_key_of(100 * r + t) for r in range(n) for t in range(r + 1))
    for rank, answer in enumerate(answers):
        assert [r["written"] for r in answer["rounds"]] == [t <= rank for t in range(n)]
        assert answer["keys"] == keys


@pytest.mark.parametrize("n", RANKS)
def test_ranks_above_0_never_open_the_file(job, n):
    first, *others = job(n, bodies.who_opens_the_file)

    assert first["opens"] > 0
    assert "fits.h5" in first["during"]
    assert [(o["opens"], o["during"]) for o in others] == [(0, [])] * (n - 1)
    assert first["after"] == []


@pytest.mark.parametrize("n", RANKS)
def test_a_transaction_of_all_ranks_is_pending_everywhere_and_then_written_everywhere(job, n):
    for answer in job(n, bodies.a_collective_transaction):
        assert answer["pending"] == [True, True]
        assert answer["seen"]
        assert all(o["written"] and not o["pending"] for o in answer["after"])
        assert answer["commits"] == 1
        assert answer["entries"] == n + 1


@pytest.mark.parametrize("n", RANKS)
def test_ranks_whose_clocks_disagree_checkpoint_together(job, n):
    answer = alike(job(n, bodies.collective_checkpoints))

    assert answer == {"written": [False, True, False, True], "objective": 2.0}


@pytest.mark.parametrize("n", RANKS)
def test_without_a_communicator_ranks_are_independent_processes(job, n):
    for answer in job(n, bodies.without_a_communicator):
        assert all(o["written"] for o in answer["mine"])
        assert answer["entries"] == 5 * n + 2
        assert answer["sound"]


@pytest.mark.parametrize("n", RANKS)
def test_a_fit_that_cannot_be_named_is_cold_on_all_ranks_with_one_warning(job, n):
    answers = job(n, bodies.unkeyable_on_all_ranks)

    for answer in answers:
        assert answer["each"] == ["cold", 0]
        for name in ("opt-out", "torn"):
            source, key, reason, written = answer[name]
            assert (source, key, written) == ("cold", None, False)
            assert reason
    # One for the fit of all ranks, on rank 0; and one per rank for its own fit.
    assert [len(a["warnings"]) for a in answers] == [2] + [1] * (n - 1)
    assert all("the tape is torn" in w for a in answers for w in a["warnings"])
