"""Every collective call: one rank fails before, in or after it, or rank 0's disk does, and no rank
waits for ever.
"""

from __future__ import annotations

from functools import cache

import pytest

import gamwarm
from tests.mpi import call_bodies
from tests.mpi.call_bodies import CALLS, LOCAL, WRITES, culprits, is_crowd
from tests.support.ranks import RankFailure
from tests.support.stores import exact_key_of

RANKS = [2, 4, pytest.param(3, marks=pytest.mark.long)]


@pytest.fixture(scope="session")
def launch(mpiexec, tmp_path_factory):
    """Run a body once per number of ranks; return what each rank answered."""

    @cache
    def launched(n, body):
        return mpiexec(n, body, tmp_path_factory.mktemp("calls"), timeout=100)

    return launched


@pytest.fixture
def answers(launch):
    def of(n, name, way):
        return [answer["answers"][name][way] for answer in launch(n, call_bodies.every_call)]

    return of


def test_the_table_has_every_public_call_of_a_store():
    public = {name for name in dir(gamwarm.WarmStartStore) if not name.startswith("_")}
    assert public - LOCAL <= {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", CALLS)
def test_an_exception_before_or_after_the_call_is_reported_to_all_others(answers, n, name):
    for culprit in culprits(n):
        for when in ("before", "after"):
            if when == "after" and (name == "close" or is_crowd(n)):
                continue
            told = answers(n, name, f"{when}, rank {culprit}")
            own = told.pop(culprit)
            assert (own["type"], own["text"]) == ("ValueError", "a bad day")
            for other in told:
                assert (other["type"], other["rank"]) == ("CollectiveError", culprit), (when, other)
                assert other["cause"] == "ValueError: a bad day"


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.wrong])
def test_a_wrong_argument_on_one_rank_is_a_collective_error_on_all(answers, n, name):
    for culprit in culprits(n):
        for rank, answer in enumerate(answers(n, name, f"wrong, rank {culprit}")):
            assert answer["type"] == "CollectiveError", (rank, culprit, answer)
            assert answer["rank"] == culprit
            assert any(word in answer["cause"] for word in ("Invalid", "Unkeyable")), answer


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.at_file])
def test_a_failing_disk_of_rank_0_raises_or_switches_off_everywhere_alike(answers, n, name):
    raised = answers(n, name, "disk, raise")
    assert {(a["type"], a["rank"]) for a in raised} == {("CollectiveError", 0)}
    assert all("the disk is gone" in a["cause"] for a in raised)

    if is_crowd(n):
        return
    off = answers(n, name, "disk, warn")
    assert {(a["type"], a["off"]) for a in off} == {(None, "the disk is gone")}
    assert [a["warnings"] for a in off] == [1] + [0] * (n - 1)


@pytest.mark.parametrize("n", RANKS)
def test_after_all_that_every_file_is_intact(launch, n):
    assert all(answer["sound"] for answer in launch(n, call_bodies.every_call))


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", WRITES)
def test_a_disk_without_room_follows_on_error_and_loses_nothing_acknowledged(launch, n, name):
    told = launch(n, call_bodies.a_full_disk)
    own = name == "own flush"  # every rank has its own disk there, and rank 0's alone is full
    for rank, answer in enumerate(told):
        raised = answer[f"{name}, raise"]
        assert (raised["type"], raised["rank"]) == ("CollectiveError", 0)
        assert "File too large" in raised["cause"] or "No space" in raised["cause"]
        warned = answer[f"{name}, warn"]
        assert warned["type"] is None
        if not own:
            assert warned["off"]
            assert warned["warnings"] == (rank == 0)
        if name != "merge":
            assert warned["made"]["written"] == (own and rank > 0)
            assert not warned["made"]["pending"]
        for each in (raised, warned):
            assert each["before"]
            assert each["sound"]
            assert each["goes on"]
            assert each["keys"] == (n if own else 1)


@pytest.mark.parametrize("how", ["abort", "exit"])
def test_a_rank_that_dies_leaves_a_intact_file_with_every_acknowledged_round(mpiexec, tmp_path, how):
    path, log = tmp_path / "fits.h5", tmp_path / "acknowledged"
    try:
        # The abort ends the job by itself. A rank that just goes is for mpiexec to notice, or for
        # the time limit.
        mpiexec(2, call_bodies.dying, path, log, how, timeout=20)
    except RankFailure:
        pass
    else:
        pytest.fail("the job ended as if nothing had happened")
    acknowledged = [int(line) for line in log.read_text().split("\n")[:-1]]
    assert acknowledged == list(range(5))
    with gamwarm.open(path, on_error="raise") as store:
        assert store.verify().ok
        keys = set(store.keys())
    for turn in acknowledged:
        assert {exact_key_of(1000 * turn + rank) for rank in range(2)} <= keys
