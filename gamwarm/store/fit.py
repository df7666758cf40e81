"""A fit in progress, and the protocol of its store: the seam between engines and stores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from math import inf, isfinite
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar, cast

from gamwarm.entries import PutOutcome
from gamwarm.errors import InvalidInput, StoreClosed
from gamwarm.identity import FitProblem
from gamwarm.interrupts import critical
from gamwarm.parallel import Communicator, agree, broadcast_failure
from gamwarm.records import Cost, FitResult, check_attributes
from gamwarm.store.arguments import wrong_type
from gamwarm.store.keep import KeepOutcome
from gamwarm.transfer import StartReport, check_result

__all__ = ["FitInProgress", "FitStore"]

CHECKPOINT_SECONDS: Final = 2.0
T = TypeVar("T")


class FitStore(Protocol):
    """A store that a fit can use: all that `gamwarm.fit` and engines may ask of one.

    `WarmStartStore` (serial or collective), `IndependentStore` and `FrozenView` are such stores.
    Another kind has these calls too; if it derives from this class, it has `fit` by that. One that
    changes single calls of another store derives from `StoreWrapper`.
    """

    @property
    def comm(self) -> Communicator:
        """The ranks whose calls are one; `gamwarm.parallel.SERIAL` of a single process. Local."""
        ...

    @property
    def disabled_reason(self) -> str | None:
        """Why nothing is found and kept, equal on all ranks; None where the store works. Local."""
        ...

    def check_open(self) -> None:
        """Raise `StoreClosed` after `close`. Local."""
        ...

    def fit(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        attributes: Mapping[str, str | int | float] | None = None,
        *,
        each: bool = False,
    ) -> FitInProgress:
        """Begin a fit: ``with store.fit(problem) as fit:`` has ``start``, ``checkpoint``,
        ``should_stop``, ``keep``.

        Parameters
        ----------
        problem : FitProblem or None
            None (with ``each=True``): this rank has nothing to do in this round.
        parent : str or KeepOutcome, optional
            The fit to start from instead of the store's choice: what keeping it returned, or the
            entry id of its artifact or record. One that is not there is one warning and a cold
            start.
        leave_out : optional
            The group that this fit leaves out (its label): where the parent has group seeds, they
            move the start.
        attributes : mapping of str to strings and numbers, optional
            Labels of your own, kept with record and artifact: a fold's group, a job.
        each : bool
            False: all ranks of the store's communicator fit this one problem. True: one fit per
            rank.
        """
        return FitInProgress(self, problem, parent, leave_out, attributes, each=each)

    def start_for(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        *,
        each: bool = False,
    ) -> StartReport:
        """See `WarmStartStore.start_for`. Collective; never raises for a fit that is not there."""
        ...

    def keep(
        self,
        problem: FitProblem | None,
        result: FitResult | None,
        start: StartReport | None = None,
        *,
        each: bool = False,
    ) -> KeepOutcome:
        """See `WarmStartStore.keep`. Collective; an unconverged result is a checkpoint."""
        ...

    def should_stop_fits(self) -> bool:
        """Whether this rank's fits should stop early and store a checkpoint. Local."""
        ...


class FitInProgress:
    """One fit between its start and its answer; made by `WarmStartStore.fit`, used in a ``with``.

    Attributes
    ----------
    problem : FitProblem or None
    start : StartReport
        Set when the ``with`` is entered.
    """

    def __init__(
        self,
        store: FitStore,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None,
        leave_out: Any = None,
        attributes: Mapping[str, str | int | float] | None = None,
        *,
        each: bool,
    ) -> None:
        self.problem = problem
        self._store = store
        self._parent, self._leave_out = parent, leave_out
        self._attributes = check_attributes({} if attributes is None else attributes)
        self._each = each
        self._start: StartReport | None = None
        self._began = self._last_written = 0.0
        self._best: FitResult | None = None
        self._stopping = False

    @property
    def start(self) -> StartReport:
        """Where the fit begins."""
        if self._start is None:
            raise InvalidInput("the fit has not begun; use it in a with block: `with store.fit(problem) as fit:`")
        return self._start

    @critical
    def __enter__(self) -> Self:
        self._start = self._store.start_for(self.problem, self._parent, self._leave_out, each=self._each)
        self._began = self._last_written = time.monotonic()
        return self

    @critical
    def checkpoint(self, result: FitResult) -> PutOutcome:
        """Offer the current state of the search. Files nothing in the first 2 s, then at most every
        2 s, the best so far.

        Collective where all ranks fit one problem; with ``each=True`` nothing is written (a round
        files at its end).
        """
        if self.start.key is None:
            return PutOutcome(reason=self.start.reason)
        if self._each and not self._store.comm.is_serial:
            return PutOutcome(reason="checkpoints are written only if all ranks fit one problem, not with each=True")
        error: Exception | None = None
        offered = cast(object, result)
        if not isinstance(offered, FitResult):
            error = wrong_type("result", result, FitResult)
        else:
            error = self._misshapen(offered)
            if error is None and (self._best is None or _is_better(offered, self._best)):
                self._best = self._completed(offered)
        due = time.monotonic() - self._last_written >= CHECKPOINT_SECONDS
        if not self._agree("checkpoint", due, error)[0]:
            return PutOutcome(reason=f"not due: at most one checkpoint every {CHECKPOINT_SECONDS:g} s")
        self._last_written = time.monotonic()
        assert self._best is not None
        # A checkpoint even if the result claims to have converged.
        outcome = self._store.keep(self.problem, replace(self._best, converged=False), self.start).record
        if outcome.entry_id is None and not self._store.disabled_reason:  # refused by a gate: the next has a chance
            self._best = None
        return outcome

    @critical
    def should_stop(self) -> bool:
        """Whether the search should stop and keep a checkpoint; asked between iterations.

        True only after `WarmStartStore.walltime`: no search is cut short unless its user asked for
        that. Collective where all ranks fit one problem; with ``each=True`` a rank uses only its
        own signal and clock.
        """
        self._store.check_open()
        due = self._store.should_stop_fits()
        if not self._each:
            due = any(self._agree("should_stop", due))
        self._stopping |= due
        return due

    @critical
    def keep(self, result: FitResult | None) -> KeepOutcome:
        """File the result; see `WarmStartStore.keep`.

        It gets the fit's attributes (its own of the same name win) and, where its cost has none,
        the seconds since the ``with`` was entered.
        """
        done = self._completed(result) if isinstance(cast(object, result), FitResult) else result
        kept = self._store.keep(self.problem, done, self.start, each=self._each)
        kept.stopped = self._stopping and result is not None and not result.converged
        return kept

    def _completed(self, result: FitResult | None) -> FitResult:
        assert result is not None
        cost = result.cost or Cost()
        if not cost.seconds:
            cost = replace(cost, seconds=time.monotonic() - self._began)
        return replace(result, cost=cost, attributes={**self._attributes, **result.attributes})

    def _misshapen(self, result: FitResult) -> InvalidInput | None:
        if self.problem is None:
            return None
        try:
            check_result(self.problem, result)
        except InvalidInput as error:
            return error
        return None

    @critical
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._agree("end of fit", None)
            return
        try:
            self._store.check_open()
        except StoreClosed:
            return
        broadcast_failure(self._store.comm, "end of fit", error)

    def _agree(self, operation: str, payload: T, error: BaseException | None = None) -> list[T]:
        self._store.check_open()
        return agree(self._store.comm, operation, payload, error)


def _is_better(new: FitResult, old: FitResult) -> bool:
    """Whether ``new`` has the lower (or an equal) objective; not a number is the worst."""
    return _value(new) <= _value(old)


def _value(result: FitResult) -> float:
    return result.objective if result.objective is not None and isfinite(result.objective) else inf
