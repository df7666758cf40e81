"""Agreement: one exchange, after which every rank has every payload or the same reason not to."""

from __future__ import annotations

import contextlib

import pytest

from gamwarm.errors import CollectiveError, InvalidInput, UnkeyableFit
from gamwarm.parallel import SERIAL, agree, already_agreed, broadcast_failure, mark_agreed
from tests.support.thread_ranks import on_ranks


@pytest.mark.parametrize("size", [1, 2, 5])
def test_payloads_reach_every_rank_in_rank_order_in_one_exchange(size):
    def run(comm):
        return agree(comm, "keep", comm.rank * 10), comm.exchanges

    assert on_ranks(size, run) == [([rank * 10 for rank in range(size)], 1)] * size


@pytest.mark.parametrize("failing", [{0}, {2}, {1, 2}, {0, 1, 2}])
def test_a_failure_anywhere_reaches_everyone_with_the_lowest_rank_and_its_cause(failing):
    def run(comm):
        agree(comm, "keep", None, InvalidInput(f"rank {comm.rank} is lost") if comm.rank in failing else None)

    outcomes = on_ranks(3, run)

    first = min(failing)
    assert [type(error) for error in outcomes] == [CollectiveError] * 3
    assert {error.rank for error in outcomes} == {first}
    assert {error.cause for error in outcomes} == {f"InvalidInput: rank {first} is lost"}
    assert {error.details["operation"] for error in outcomes} == {"keep"}
    assert all(error.details["failed"] and already_agreed(error) for error in outcomes)
    for rank, error in enumerate(outcomes):
        assert (error.__cause__ is not None) == (rank in failing)


def test_ranks_in_different_calls_all_hear_of_it():
    outcomes = on_ranks(3, lambda comm: agree(comm, "keep" if comm.rank == 1 else "start_for", None))

    assert [type(error) for error in outcomes] == [CollectiveError] * 3
    assert {error.rank for error in outcomes} == {1}
    assert all("'keep'" in str(error) and "'start_for'" in str(error) for error in outcomes)
    assert not any(error.details["failed"] for error in outcomes)


def test_a_fit_unkeyable_on_every_rank_is_an_answer_and_on_some_a_failure():
    def run(unkeyable):
        return lambda comm: agree(comm, "key", None, UnkeyableFit("opted out") if comm.rank in unkeyable else None)

    everywhere = on_ranks(2, run({0, 1}))
    assert [type(error) for error in everywhere] == [UnkeyableFit] * 2
    assert all(already_agreed(error) for error in everywhere)
    assert [type(error) for error in on_ranks(2, run({1}))] == [CollectiveError] * 2


def test_alone_an_error_is_raised_unchanged():
    error = InvalidInput("lost")

    assert agree(SERIAL, "keep", "x") == ["x"]
    with pytest.raises(InvalidInput) as caught:
        agree(SERIAL, "keep", "x", error)
    assert caught.value is error
    assert not already_agreed(error)


@pytest.mark.parametrize(("kind", "known"), [(KeyboardInterrupt, True), (SystemExit, True), (ValueError, False)])
def test_an_interrupt_that_struck_while_a_known_failure_was_on_its_way_is_known(kind, known):
    def raised():
        try:
            agree(SERIAL, "keep", None, failure)
        finally:
            raise kind

    failure = CollectiveError("rank 1 failed", rank=1, cause="a bad day")
    mark_agreed(failure)
    with pytest.raises(kind) as struck:
        raised()
    assert already_agreed(struck.value) == known
    assert not already_agreed(KeyboardInterrupt())


def test_an_interrupt_that_is_known_stays_so_when_its_context_is_replaced():
    def run(comm):
        failure, struck = CollectiveError("rank 1 failed", rank=1, cause="a bad day"), KeyboardInterrupt()
        mark_agreed(failure)
        struck.__context__ = failure
        broadcast_failure(comm, "round", struck)
        struck.__context__ = None
        broadcast_failure(comm, "close", struck)
        return comm.exchanges

    assert on_ranks(2, run) == [0, 0]


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1, 2}])
def test_what_is_not_an_exception_is_broadcast_once_and_leaves_no_rank_waiting(failing):
    def run(comm):
        if comm.rank not in failing:
            with pytest.raises(CollectiveError, match="KeyboardInterrupt"):
                agree(comm, "round", None)
            return comm.exchanges
        error = KeyboardInterrupt()
        with contextlib.suppress(KeyboardInterrupt):
            broadcast_failure(comm, "round", error)
        broadcast_failure(comm, "end", error)
        return comm.exchanges

    assert on_ranks(3, run) == [1, 1, 1]


def test_no_error_needs_no_agreement_and_a_marked_one_has_it():
    error = InvalidInput("lost")

    assert already_agreed(None)
    assert not already_agreed(error)
    mark_agreed(error)
    assert already_agreed(error)
