"""Work assigned to ranks in rounds of one item each; after a round all know its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gamwarm.errors import CollectiveError
from gamwarm.interrupts import allowed, critical
from gamwarm.parallel import Communicator, agree, already_agreed, broadcast_failure

__all__ = ["in_rounds"]

T = TypeVar("T")
W = TypeVar("W")
Shown = Callable[[int, int], object]


@critical
def in_rounds(
    comm: Communicator,
    work: Sequence[W],
    do: Callable[[W | None], T | None],
    *,
    shown: Shown | None = None,
    should_stop: Callable[[], bool] | None = None,
    done: list[T] | None = None,
    operation: str = "round of folds",
) -> list[T]:
    """Call ``do`` on one item of ``work`` per rank and round, else on None. Collective.

    Parameters
    ----------
    comm : Communicator
        That of the store if ``do`` calls the store: so a rank that fails is heard wherever the
        others are.
    work : sequence
        The same on every rank; in this order.
    do : callable
        May make collective calls: every rank is called in every round. Returns what can travel.
    shown : callable, optional
        Called on rank 0 after each round with the number of items done and their number.
    should_stop : callable, optional
        Collective; asked between rounds.
    done : list, optional
        Gets the results, so that those of whole rounds are left if an exception ends this call.

    Returns
    -------
    list
        What ``do`` returned, in the order of ``work``, on every rank; shorter than ``work`` if it
        was stopped.

    Raises
    ------
    CollectiveError
        On every rank but those whose own exception it was; a note names the item.
    """
    done = [] if done is None else done
    try:
        for first in range(0, len(work), comm.size):
            if first and should_stop is not None:
                with allowed():
                    stop = should_stop()
                if stop:
                    break
            done += _round(comm, work, do, first, operation)
            if shown is not None and comm.rank == 0:
                with allowed():
                    shown(len(done), len(work))
    except BaseException as caught:  # of an interrupt, or of ``shown``, the other ranks do not know
        broadcast_failure(comm, operation, caught)
        raise
    return done


def _round(
    comm: Communicator, work: Sequence[W], do: Callable[[W | None], T | None], first: int, operation: str
) -> list[T]:
    """Call ``do`` on this rank's item of a round; return the results of all."""
    mine = first + comm.rank
    item = work[mine] if mine < len(work) else None
    result, error = None, None
    try:
        with allowed():
            result = do(item)
    except Exception as caught:  # the other ranks wait for this round's results
        if already_agreed(caught):
            _note(caught, work, first, comm.rank)
            raise
        error = caught
    try:
        results = agree(comm, operation, result, error)
    except Exception as caught:
        _note(caught, work, first, comm.rank)
        raise
    return [results[rank] for rank in range(min(comm.size, len(work) - first))]  # type: ignore[misc]


def _note(error: BaseException, work: Sequence[Any], first: int, rank: int) -> None:
    """Say which item the rank that failed was at."""
    culprit = error.rank if isinstance(error, CollectiveError) else rank
    at = first + culprit
    if culprit >= 0 and at < len(work):
        error.add_note(f"rank {culprit} was at {work[at]!r}")
