"""One rank fails: the others raise CollectiveError naming rank and cause, none hangs, the
file is whole.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

import gamwarm
from tests.mpi import bodies
from tests.support.stores import exact_key_of

RANKS = [2, 4, pytest.param(3, marks=pytest.mark.long)]
BEFORE = [exact_key_of(1)]


@pytest.fixture(scope="session")
def job(mpiexec, tmp_path_factory):
    @cache
    def launch(n):
        return mpiexec(n, bodies.faults, tmp_path_factory.mktemp("faults"), timeout=90)

    def answers(n, body):
        return [answer[body.__name__] for answer in launch(n)]

    return answers


def whole(answers):
    for answer in answers:
        assert answer["sound"]
        assert answer["keys"] == BEFORE, "what was acknowledged is there, what was not is not"


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("body", bodies.RAISING, ids=lambda b: b.__name__)
def test_an_exception_on_one_rank_is_a_collective_error_on_the_others(job, n, body):
    *others, culprit = job(n, body)

    assert culprit["type"] == "ValueError"
    assert culprit["text"] == "a bad day"
    for other in others:
        assert other["type"] == "CollectiveError"
        assert other["rank"] == n - 1
        assert other["cause"] == "ValueError: a bad day"
    whole([*others, culprit])


@pytest.mark.parametrize("n", RANKS)
def test_a_transaction_one_rank_raises_in_is_undone_on_all_ranks(job, n):
    for answer in job(n, bodies.raising_inside_a_transaction):
        assert not answer["outcome"]["written"]
        assert not answer["outcome"]["pending"]
        assert "rolled back" in answer["outcome"]["reason"]


@pytest.mark.parametrize("n", RANKS)
def test_ranks_that_pass_another_each_stay_in_step(job, n):
    answers = job(n, bodies.another_each_on_one_rank)

    whole(answers)
    for rank, answer in enumerate(answers):
        told = answer["returned"]
        assert told.pop("at last")
        assert len(told) == 4 * len(bodies.ROUNDS)
        for what, error in told.items():
            assert error.get("type") == "CollectiveError", (rank, what, error)
            if "[" in what:
                assert "InvalidType: each is ndarray; expected bool" in error["cause"], (rank, what, error)


@pytest.mark.parametrize("n", RANKS)
def test_an_interrupt_of_rank_0_in_its_write_frees_the_ranks_that_wait(job, n):
    first, *others = job(n, bodies.interrupting_rank_0_inside_its_write)

    assert first["type"] == "KeyboardInterrupt"
    assert [(o["type"], o["rank"]) for o in others] == [("CollectiveError", 0)] * (n - 1)
    assert all("KeyboardInterrupt" in o["cause"] for o in others)
    whole([first, *others])


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize(
    "body",
    [bodies.interrupting_one_rank_inside_its_design, bodies.interrupting_one_rank_inside_a_collective_call],
    ids=lambda body: body.__name__,
)
def test_an_interrupt_of_one_rank_is_a_collective_error_on_the_others(job, n, body):
    *others, culprit = job(n, body)

    assert culprit["type"] == "KeyboardInterrupt"
    assert [(o["type"], o["rank"]) for o in others] == [("CollectiveError", n - 1)] * (n - 1)
    assert all("KeyboardInterrupt" in o["cause"] for o in others)
    whole([*others, culprit])


@pytest.mark.parametrize("n", RANKS)
def test_a_design_that_one_rank_alone_cannot_read_is_a_collective_error_on_all(job, n):
    answers = job(n, bodies.an_unreadable_design_on_one_rank)

    assert {(a["type"], a["rank"]) for a in answers} == {("CollectiveError", n - 1)}
    assert all("the tape is torn" in a["cause"] for a in answers)
    whole(answers)


@pytest.mark.parametrize("n", RANKS)
def test_different_arguments_on_ranks_are_refused_on_all_of_them_and_the_store_continues(job, n):
    for answer in job(n, bodies.different_problems):
        seen = answer["returned"]
        assert [s["type"] for s in seen] == ["CollectiveError"] * 4
        assert {s["rank"] for s in seen} == {1}
        assert all("pass the same" in s["text"] and "each=True" in s["text"] for s in seen)
        assert answer["keys"] == BEFORE


@pytest.mark.parametrize("n", RANKS)
def test_different_calls_on_ranks_are_refused_on_all_of_them(job, n):
    answers = job(n, bodies.different_calls)

    assert {a["type"] for a in answers} == {"CollectiveError"}
    assert all("'verify'" in a["text"] and "'keys'" in a["text"] for a in answers)
    whole(answers)


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize(
    "body",
    [bodies.a_bad_result_on_one_rank, bodies.bad_arguments_to_open_on_one_rank, bodies.a_bad_array_on_one_rank],
    ids=lambda b: b.__name__,
)
def test_a_bad_argument_of_one_rank_is_a_collective_error_on_all(job, n, body):
    answers = job(n, body)

    assert {a["type"] for a in answers} == {"CollectiveError"}
    assert {a["rank"] for a in answers} == {n - 1}
    assert all("Invalid" in a["cause"] for a in answers)


@pytest.mark.parametrize("n", RANKS)
def test_ranks_that_open_differently_are_reported_which_one_and_how(job, n):
    for answer in job(n, bodies.different_openings):
        for name, theirs, ours in (
            ("path", "one.h5'", "other.h5'"),
            ("mode", "'r'", "'a'"),
            ("engine", "'one'", "'other'"),
        ):
            refused = answer[name]
            assert (refused["type"], refused["rank"]) == ("CollectiveError", n - 1)
            assert re.search(
                f"rank {n - 1} passed {name}='?.*{theirs} where rank 0 passed {name}='?.*{ours}", refused["text"]
            )
        assert answer["made"] == []


@pytest.mark.parametrize("n", RANKS)
def test_a_communicator_that_cannot_be_used_is_a_typed_error(job, n):
    for answer in job(n, bodies.communicators_that_cannot_be_used):
        assert {name: said["type"] for name, said in answer.items()} == {
            "null": "InvalidInput",
            "freed": "InvalidInput",
            "between groups": "InvalidType",
        }


@pytest.mark.parametrize("n", [1, 2])
def test_stores_that_are_open_when_mpi_ends_say_so_and_end_no_process(mpiexec, tmp_path, n):
    for answers in mpiexec(n, bodies.after_the_end_of_mpi, tmp_path, timeout=60):
        assert [a["type"] for a in answers] == ["InvalidInput", "InvalidInput", "ValueError", "InvalidInput"]
        assert all("MPI has ended" in a["text"] for a in answers if a["type"] == "InvalidInput")
    with gamwarm.open(tmp_path / "open.h5", "r") as store:
        assert store.verify().ok
        assert len(store) == 2


@pytest.mark.parametrize("n", RANKS)
def test_a_file_that_is_not_ours_is_refused_on_all_ranks(job, n):
    for answer in job(n, bodies.a_file_that_is_not_ours):
        assert (answer["type"], answer["rank"]) == ("CollectiveError", 0)
        assert "NotAStore" in answer["cause"]
        assert "notes.txt" in answer["cause"]


@pytest.mark.parametrize("n", RANKS)
def test_a_full_disk_of_rank_0_switches_the_store_off_on_all_ranks_with_one_warning(job, n):
    answers = job(n, bodies.a_full_disk_under_warn)

    assert len({a["returned"]["off"] for a in answers}) == 1
    for answer in answers:
        assert "No space left" in answer["returned"]["off"]
        assert answer["returned"]["start"]["source"] == "cold"
        assert not any(o["written"] or o["pending"] for o in answer["returned"]["outcomes"])
    assert sum(len(a["returned"]["warnings"]) for a in answers) == 1
    whole(answers)


@pytest.mark.parametrize("n", RANKS)
def test_a_full_disk_at_the_end_of_a_transaction_settles_its_outcomes_on_all_ranks(job, n):
    answers = job(n, bodies.a_full_disk_in_a_transaction)

    for answer in answers:
        assert not answer["returned"]["outcome"]["written"]
        assert not answer["returned"]["outcome"]["pending"]
        assert "No space left" in answer["returned"]["outcome"]["reason"]
    whole(answers)


@pytest.mark.parametrize("n", RANKS)
def test_a_full_disk_of_rank_0_raises_on_all_ranks_if_asked_to(job, n):
    answers = job(n, bodies.a_full_disk_under_raise)

    for answer in answers:
        assert (answer["type"], answer["rank"]) == ("CollectiveError", 0)
        assert "No space left" in answer["cause"]
    whole(answers)
