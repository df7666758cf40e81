"""One call on all ranks: agreement before, one answer after, failures by ``on_error``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gamwarm.display import error_line
from gamwarm.errors import (
    CollectiveError,
    NewerFormat,
    NotAStore,
    OlderFormat,
    StoreClosed,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
)
from gamwarm.identity import FitProblem
from gamwarm.interrupts import cause
from gamwarm.parallel import Communicator, agree, broadcast_failure, mark_agreed
from gamwarm.storage import explain, out_of_memory
from gamwarm.walltime import Walltime

__all__ = ["Ranks"]

log = logging.getLogger("gamwarm")
T = TypeVar("T")

OPEN = "open"
# What the caller asked for is wrong, not the disk: raised whatever `on_error` says. Later the same
# errors mean that the file was removed or replaced, and that must not fail a fit.
_WRONG_FILE = (NotAStore, NewerFormat, OlderFormat, StoreNotFound)


class Ranks:
    """The ranks of one store and their common view of it. Rank 0 alone acts on the file.

    Attributes
    ----------
    comm : Communicator
        The store's own.
    disabled_reason : str or None
        Equal on all ranks.
    closed : bool
    walltime : Walltime
        When the job ends.
    """

    def __init__(self, comm: Communicator, path: Path, mode: str, on_error: str) -> None:
        self.comm = comm
        self.path = path
        self.mode = mode
        self.on_error = on_error
        self.disabled_reason: str | None = None
        self.closed = False
        self.walltime = Walltime()
        self._said_read_only = False

    @property
    def is_root(self) -> bool:
        return self.comm.rank == 0

    def check_open(self) -> None:
        if self.closed:
            raise StoreClosed(f"{self.path}: the store is closed; open it again with gamwarm.open(path)")

    def is_ending(self) -> bool:
        """Whether the job is about to end, as this rank sees it."""
        return self.walltime.is_due()

    def time_left(self) -> float:
        """Return the seconds to the end of the job, as this rank sees it."""
        return self.walltime.time_left()

    # -- before ------------------------------------------------------------------------------------

    def agree(self, operation: str, payload: T, error: BaseException | None = None) -> list[T]:
        """Exchange status and payload; `CollectiveError` everywhere if a rank has an ``error``."""
        self.check_open()
        return agree(self.comm, operation, payload, error)

    def agree_equal(self, operation: str, value: object, error: BaseException | None = None) -> None:
        """`agree`, and refuse different values on different ranks."""
        values = self.agree(operation, value, error)
        for rank, other in enumerate(values):
            if other != values[0]:
                different = CollectiveError(
                    f"{operation}: rank {rank} passed {_difference(other, values[0])}",
                    rank=rank,
                    cause="ranks pass different arguments",
                )
                mark_agreed(different)
                raise different

    def agree_round(self, operation: str, error: BaseException | None) -> None:
        """`agree` before `serve_each`; raise everywhere if a rank passes no ``each=True``."""
        self.agree(f"{operation}, each=True", None, error)

    def key_of(self, problem: FitProblem) -> str:
        """Return the exact key of a problem all ranks hold, each hashing a share, once."""
        if all(self.agree("name the fit", "key" in vars(problem))):
            return problem.key
        return problem.shared_key(self.comm)

    def broadcast_failure(self, operation: str, error: BaseException) -> None:
        """See `gamwarm.parallel.broadcast_failure`; nothing after `closed`."""
        if not self.closed:
            broadcast_failure(self.comm, operation, error)

    # -- acting ------------------------------------------------------------------------------------

    def at_root(self, operation: str, act: Callable[[], T], fallback: T, *, even_off: bool = False) -> T:
        """Run ``act`` on rank 0, its value for every rank; ``fallback`` if failed or off.

        ``even_off``: run it even then, because it does not need the file to be open.
        """
        error: BaseException | None = None
        value = fallback
        if self.is_root and (even_off or self.disabled_reason is None):
            try:
                value = act()
            except MemoryError as caught:  # a fit continues without the file
                error = explain(out_of_memory(caught), self.path, f"finish {operation!r}")
            except BaseException as caught:  # the other ranks wait for this answer
                error = caught
        if not self.comm.is_serial:
            told, value = self.comm.bcast((_portable(operation, error), value))
            error = told if error is None else error
        if error is None:
            return value
        self._fail(operation, error)
        return fallback

    def serve_each(
        self, operation: str, item: Any, act: Callable[[list[Any]], list[Any]], fallback: Any, run: Callable[..., Any]
    ) -> Any:
        """Gather an item per rank, let rank 0 ``act`` on all through ``run``, scatter answers."""
        items = self.comm.gather(item)
        answers: list[Any] = []

        def act_on_all() -> None:
            assert items is not None
            answers.extend(act(items))

        run(operation, act_on_all, None)
        if self.is_root and not answers:
            answers = [fallback] * self.comm.size
        return self.comm.scatter(answers if self.is_root else None)

    def _fail(self, operation: str, error: BaseException) -> None:
        """Follow ``on_error``: raise, or log one warning and switch the store off for this run."""
        wrong_file = operation == OPEN and isinstance(error, _WRONG_FILE)
        if isinstance(error, StoreError) and self.on_error == "warn" and not wrong_file:
            self._warn(error)
            return
        if self.comm.is_serial:
            raise error
        if not isinstance(error, Exception):  # KeyboardInterrupt and the like are not wrapped
            mark_agreed(error)
            raise error
        if isinstance(error, CollectiveError):
            mark_agreed(error)
            raise error
        raise _collective(operation, error) from error

    def _warn(self, error: StoreError) -> None:
        if isinstance(error, StoreReadOnly) and self.mode == "r":
            if self.is_root and not self._said_read_only:
                log.warning("%s", error)
            self._said_read_only = True
        elif self.disabled_reason is None:
            self.disabled_reason = str(error)
            if self.is_root:
                log.warning(
                    "%s: warm starts are disabled for this run; fits continue without the store (%s)%s",
                    self.path,
                    error,
                    self._loss(),
                )

    def _loss(self) -> str:
        """What is lost by it, as the end of a sentence."""
        return ""


def _difference(value: object, first: object) -> str:
    """Describe how a rank's arguments differ from rank 0's, and the next step."""
    if isinstance(value, dict) and isinstance(first, dict):
        names = [name for name in first if value[name] != first[name]]
        theirs, ours = (", ".join(f"{name}={of[name]!r}" for name in names) for of in (value, first))
        return f"{theirs} where rank 0 passed {ours}; pass the same on every rank"
    return "different arguments from rank 0; pass the same on every rank, or each=True for one fit per rank"


def _portable(operation: str, error: BaseException | None) -> BaseException | None:
    """Return the report of ``error`` for other ranks; foreign exceptions may not pickle."""
    return error if error is None or isinstance(error, StoreError) else _collective(operation, error)


def _collective(operation: str, error: BaseException) -> CollectiveError:
    why = error_line(cause(error))
    collective = CollectiveError(f"rank 0 failed in {operation!r}: {why}", rank=0, cause=why, operation=operation)
    mark_agreed(collective)
    return collective
