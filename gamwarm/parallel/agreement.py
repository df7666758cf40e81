"""Agreement on status: the first thing in every collective call, so that no rank waits for one that has failed."""

from __future__ import annotations

from typing import TypeVar

from gamwarm.errors import CollectiveError, UnkeyableFit
from gamwarm.parallel.communicator import Communicator

__all__ = ["agree", "already_agreed", "mark_agreed"]

T = TypeVar("T")


def mark_agreed(error: BaseException) -> None:
    """Remember on the exception itself that all ranks know of it: an outer ``with`` must not tell them again."""
    error._gamwarm_agreed = True  # type: ignore[attr-defined]


def already_agreed(error: BaseException | None) -> bool:
    """Whether all ranks know of ``error`` (or there is none)."""
    return error is None or getattr(error, "_gamwarm_agreed", False)


def agree(comm: Communicator, operation: str, payload: T, error: BaseException | None = None) -> list[T]:
    """Exchange (operation, status, payload) with every rank; return the payloads by rank.

    Raises
    ------
    CollectiveError
        On every rank, if any rank failed (``details["failed"]``) or is in another operation. Serial communicators
        raise ``error`` itself.
    UnkeyableFit
        The rank's own, if *every* rank found its fit unkeyable: that is an answer, not a failure.
    """
    if comm.is_serial:
        if error is not None:
            raise error
        return [payload]
    cause = None if error is None else f"{type(error).__name__}: {error}"
    unkeyable = isinstance(error, UnkeyableFit)
    reports = comm.allgather((operation, cause, unkeyable, payload if error is None else None))
    failed = [rank for rank, report in enumerate(reports) if report[1] is not None]
    if failed:
        if isinstance(error, UnkeyableFit) and all(report[2] for report in reports):
            mark_agreed(error)
            raise error
        first = failed[0]
        raise _collective(operation, first, str(reports[first][1]), failed=True) from error
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


def _collective(operation: str, rank: int, cause: str, *, failed: bool) -> CollectiveError:
    message = f"rank {rank} failed, seen in collective {operation!r}: {cause}"
    error = CollectiveError(message, rank=rank, cause=cause, operation=operation, failed=failed)
    mark_agreed(error)
    return error
