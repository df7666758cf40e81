"""Agreement on status comes first in every collective call: no rank waits for a failed one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from gamwarm.display import error_line
from gamwarm.errors import CollectiveError, InvalidInput, UnkeyableFit
from gamwarm.interrupts import cause, critical
from gamwarm.parallel.communicator import Communicator, assign_by_cost

__all__ = ["agree", "already_agreed", "broadcast_failure", "mark_agreed", "run_distributed"]

T = TypeVar("T")


def mark_agreed(error: BaseException) -> None:
    """Mark an exception that all ranks know: an outer ``with`` must not broadcast it again."""
    error._gamwarm_agreed = True  # type: ignore[attr-defined]


def already_agreed(error: BaseException | None) -> bool:
    """Whether all ranks know of ``error`` (or there is none).

    So they do of an interrupt that struck while an error that they know was on its way out: Ctrl-C
    in a terminal reaches all ranks, and the first one to broadcast its own has freed the others.
    """
    while error is not None:
        if getattr(error, "_gamwarm_agreed", False):
            return True
        if isinstance(error, Exception):
            return False
        error = error.__context__
        if error is None:
            return False
    return True


@critical
def agree(comm: Communicator, operation: str, payload: T, error: BaseException | None = None) -> list[T]:
    """Exchange (operation, status, payload) with every rank; return the payloads by rank.

    Raises
    ------
    CollectiveError
        On every rank, if any rank failed (``details["failed"]``: in this very operation) or is in
        another operation. Serial communicators raise ``error`` itself.
    UnkeyableFit
        The rank's own, if *every* rank found its fit unkeyable: that is an answer, not a failure.
    """
    if comm.is_serial:
        if error is not None:
            raise error
        return [payload]
    said = None if error is None else error_line(cause(error))
    unkeyable = isinstance(error, UnkeyableFit)
    reports = comm.allgather((operation, said, unkeyable, payload if error is None else None))
    failed = [rank for rank, report in enumerate(reports) if report[1] is not None]
    if failed:
        if isinstance(error, UnkeyableFit) and all(report[2] for report in reports):
            mark_agreed(error)
            raise error
        if error is not None and not isinstance(error, Exception):  # an interrupt is not wrapped
            mark_agreed(error)
            raise error
        first = failed[0]
        # One that failed elsewhere has left: nothing more may be agreed on with it.
        raise _collective(operation, first, str(reports[first][1]), failed=reports[first][0] == operation) from error
    for rank, report in enumerate(reports):
        if report[0] != reports[0][0]:
            raise _collective(
                operation,
                rank,
                f"it is in {report[0]!r} while rank 0 is in {reports[0][0]!r}; "
                "every rank makes the same collective calls",
                failed=False,
            )
    return [report[3] for report in reports]  # type: ignore[misc]


@critical
def broadcast_failure(comm: Communicator, operation: str, error: BaseException) -> None:
    """Let other ranks know of an exception that leaves a ``with`` here; once per exception."""
    if comm.is_serial:
        return
    known = already_agreed(error)
    mark_agreed(error)  # also where its context says so, which leaving a section replaces
    if known:
        return
    try:
        agree(comm, operation, None, error)
    except (CollectiveError, InvalidInput):  # MPI may have ended meanwhile
        return


def run_distributed(
    comm: Communicator, operation: str, costs: Sequence[float], do: Callable[[int], T], same: object = None
) -> list[T]:
    """Do pieces of work, each on one rank, by cost, and return all that came of them on every rank.

    Parameters
    ----------
    comm : Communicator
    operation : str
        For messages.
    costs : sequence of float
        Equal on all ranks; at least one is above zero.
    do : callable
        Does the piece of the given number.
    same : object
        What the work is done on, or a digest of it: compared, since no rank does the work of
        another again.

    Raises
    ------
    CollectiveError
        On every rank: one rank's piece failed, or ``same`` differs.
    """
    if comm.size == 1:
        return [do(item) for item in range(len(costs))]
    dealt = assign_by_cost(costs, comm.size)
    error: BaseException | None = None
    done: dict[int, T] = {}
    try:
        done = {item: do(item) for item, rank in enumerate(dealt) if rank == comm.rank}
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    reports = agree(comm, operation, (same, done), error)
    for rank, (other, _) in enumerate(reports):
        if other != reports[0][0]:
            raise _collective(operation, rank, "it works on different data from rank 0", failed=False)
    return [reports[rank][1][item] for item, rank in enumerate(dealt)]


def _collective(operation: str, rank: int, why: str, *, failed: bool) -> CollectiveError:
    message = f"rank {rank} failed, detected in collective {operation!r}: {why}"
    error = CollectiveError(message, rank=rank, cause=why, operation=operation, failed=failed)
    mark_agreed(error)
    return error
