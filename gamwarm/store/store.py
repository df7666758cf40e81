"""The store: one file, its look-ups, its transactions, serial or collective.

In a collective store rank 0 alone touches the file. Every collective call is one agreement (operation, status, payload
of every rank) and one answer; docs/parallel.md has the table.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from gamwarm.checks import file_path
from gamwarm.display import NotebookTable
from gamwarm.entries import EntryStore, Held, PutOutcome
from gamwarm.errors import (
    CollectiveError,
    GamwarmError,
    InvalidType,
    StoreError,
    UnkeyableFit,
)
from gamwarm.identity import FitProblem
from gamwarm.interrupts import critical
from gamwarm.parallel import SERIAL, Communicator, as_communicator
from gamwarm.records import FitResult, Producer, StartSource
from gamwarm.storage import LOCK_CHOICES, LockChoice
from gamwarm.store.arguments import check_choice, check_held_together, require, this_problem
from gamwarm.store.collective import OPEN, Ranks
from gamwarm.store.contents import Contents
from gamwarm.store.explain import Explanation, explain_fit
from gamwarm.store.fit import FitInProgress
from gamwarm.store.frozen import FrozenView
from gamwarm.store.keep import Filing, KeepOutcome, file_fit, prepare
from gamwarm.store.lookup import (
    Answer,
    NamedRecords,
    Parent,
    Request,
    answer,
    cold_unkeyable,
    describe,
    start_from,
)
from gamwarm.store.maintenance import Upkeep, budget_error, keep_last_error
from gamwarm.store.savings import Session
from gamwarm.store.transactions import Writes
from gamwarm.transfer import StartReport
from gamwarm.walltime import Walltime

if TYPE_CHECKING:
    from gamwarm.store.independent import IndependentStore

__all__ = ["WarmStartStore", "open_store"]

log = logging.getLogger("gamwarm")


class WarmStartStore(NotebookTable, Contents, Upkeep):
    """What fits have learned, in one HDF5 file. Make it with `gamwarm.open`; close it, or use it in a ``with``.

    Attributes
    ----------
    path : pathlib.Path
    mode : str

    Notes
    -----
    A serial store may be used from several threads; they take turns, and a transaction belongs to its thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: Literal["r", "a"],
        comm: Any,
        lock: LockChoice,
        engine: str | None,
        engine_version: str | None,
        on_error: Literal["warn", "raise"],
        size_budget: int | None,
        keep_last: int,
    ) -> None:
        comm = as_communicator(comm).duplicate()
        comm.cores()  # remembered: finding out is collective and begins with no agreement
        error: GamwarmError | None = None
        try:
            check_choice("mode", mode, ("r", "a"))
            check_choice("lock", lock, LOCK_CHOICES)
            check_choice("on_error", on_error, ("warn", "raise"))
            place = file_path(path)
            for wrong in (budget_error(size_budget), keep_last_error(keep_last)):
                if wrong is not None:
                    raise wrong
            self._foreign = None if engine is None else Producer(engine, engine_version or "")
        except GamwarmError as caught:  # every rank must reach the agreement below
            error, place, self._foreign = caught, Path(), None
        self.path = place
        self.mode = mode
        self._on_error = on_error
        self._producer = self._foreign or Producer()
        self._walltime = Walltime()
        self._may_end_fits = False
        self._options: dict[str, Any] = {
            "mode": mode,
            "lock": lock,
            "engine": engine,
            "engine_version": engine_version,
            "on_error": on_error,
            "size_budget": size_budget,
            "keep_last": keep_last,
        }
        self._ranks = self._make_ranks(comm)
        self._writes = self._make_writes()
        self._session = Session()
        self._named = NamedRecords()

        def open_file() -> None:
            self._writes.file = self._open_entries(
                mode=mode,
                lock=lock,
                producer=self._producer,
                keep_last=keep_last,
                size_budget=size_budget,
            )

        try:
            self._ranks.agree_equal(OPEN, {"path": str(self.path), **self._options}, error)
            self._ranks.at_root(OPEN, open_file, None)
        except BaseException:
            comm.free()
            raise

    @classmethod
    @critical
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Literal["r", "a"] = "a",
        comm: Any = None,
        lock: LockChoice = "auto",
        engine: str | None = None,
        engine_version: str | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        size_budget: int | None = None,
        keep_last: int = 1,
    ) -> Self:
        """Open the store at ``path``. Collective over ``comm``.

        Parameters
        ----------
        path : path
            Always explicit; there is no default location. ``~`` is expanded. An existing file is never truncated.
        mode : {"a", "r"}
            ``"a"`` reads and writes and makes a missing file; ``"r"`` reads.
        comm : mpi4py communicator, optional
            Rank 0 touches the file for all. None: this process by itself, also under mpirun.
        lock : {"auto", "flock", "soft"}
            How writers exclude each other; ``"auto"`` probes the directory.
        engine, engine_version : str, optional
            Stamp records that come without a producer, and rank the finals of other builds as checkpoints in look-ups.
        on_error : {"warn", "raise"}
            What a failing disk does: one logged warning and a store that is off for this run, or an exception.
        size_budget : int, optional
            Live payload bytes: a commit that passes it evicts the oldest entries first (see `evict`), but never
            what it has filed itself.
        keep_last : int
            Finals that one exact key keeps, the newest first.

        Raises
        ------
        StoreNotFound
            Mode ``"r"`` and no file; or no directory.
        NotAStore, NewerFormat, OlderFormat
            The file is not ours, or of a newer format; it was not changed.
        StoreError
            Anything else about the file, if ``on_error="raise"``.
        CollectiveError
            With ``comm``: the same, raised on every rank.
        """
        return cls(path, mode, comm, lock, engine, engine_version, on_error, size_budget, keep_last)

    # What `independent` makes otherwise.
    def _make_ranks(self, comm: Communicator) -> Ranks:
        return Ranks(comm, self.path, self.mode, self._on_error)

    def _make_writes(self) -> Writes:
        return Writes(self._ranks)

    def _open_entries(self, **options: Any) -> EntryStore:
        return EntryStore(self.path, **options)

    @property
    def comm(self) -> Communicator:
        """The store's own communicator (a stand-in of one rank if none was given). Local."""
        return self._ranks.comm

    @property
    def disabled_reason(self) -> str | None:
        """Why the store is off for this run (unwritable directory, full disk, lock time-out); fits go on cold."""
        return self._ranks.disabled_reason

    @property
    def _file(self) -> EntryStore:
        return self._writes.at_file()

    # -- transactions ------------------------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[None]:
        """Make all puts inside one atomic, durable write. Collective. Inner transactions join the outer one.

        Outcomes of the puts inside are pending until the block ends; an exception in the block undoes them all.
        """
        return self._writes.transaction()

    # -- starts ------------------------------------------------------------------------------------------------

    def fit(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        attributes: Mapping[str, str | int | float] | None = None,
        *,
        each: bool = False,
    ) -> FitInProgress:
        """Begin a fit: ``with store.fit(problem) as fit:`` has ``start``, ``checkpoint``, ``should_stop``, ``keep``.

        Parameters
        ----------
        problem : FitProblem or None
            None (with ``each=True``): this rank has nothing to do in this round.
        parent : str or KeepOutcome, optional
            The fit to start from instead of the store's choice: what keeping it returned, or the entry id of its
            artifact or record. One that is not there is one warning and a cold start.
        leave_out : optional
            The group that this fit leaves out (its label): where the parent has group seeds, they move the start.
        attributes : mapping of str to strings and numbers, optional
            Labels of your own, kept with record and artifact: a fold's group, a job.
        each : bool
            False: all ranks of the store's communicator fit this one problem. True: one fit per rank.
        """
        return FitInProgress(self, problem, parent, leave_out, attributes, each=each)

    @critical
    def start_for(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        *,
        each: bool = False,
    ) -> StartReport:
        """Look one fit up. Collective. Returns where it should begin; see `fit` for the parameters."""
        return self._start(problem, parent, leave_out, each, None)

    @critical
    def _start(
        self, problem: FitProblem | None, parent: Parent, leave_out: Any, each: bool, parents: Held | None
    ) -> StartReport:
        self._ranks.check_open()
        if self.disabled_reason is not None:
            return StartReport(StartSource.COLD, reason=f"the store is off: {self.disabled_reason}")
        look = self._start_each if each else self._start_together
        return look(problem, parent, leave_out, lambda request: self._answer(request, parents))

    def _answer(self, request: Request, parents: Held | None) -> Answer:
        found = answer(self._file, request, parents, self._named)
        if found.lost_parent:
            self._session.say_once(
                f"parent {request.parent}", f"{self.path}: {found.lost_parent}; such fits start cold"
            )
        return found

    def _described(
        self, problem: FitProblem | None, parent: Parent, leave_out: Any, *, each: bool = False
    ) -> tuple[Request | None, UnkeyableFit | None, BaseException | None]:
        """Return the request of a fit, or why it has no name, or what every rank must be told of."""
        try:
            fit = this_problem(problem)
            check_held_together(fit, self._ranks.comm, each=each)
            return describe(fit, fit.key if each else self._shared_key(fit), parent, leave_out), None, None
        except UnkeyableFit as caught:
            return None, caught, None
        except BaseException as caught:  # every rank must reach the agreement that follows
            if isinstance(caught, CollectiveError) and not each:
                raise
            return None, None, caught

    def _start_together(
        self, problem: FitProblem | None, parent: Parent, leave_out: Any, look: Callable[[Request], Answer]
    ) -> StartReport:
        request, unkeyable, error = self._described(problem, parent, leave_out)
        self._ranks.agree_equal("start_for", request, error)
        if unkeyable is not None:
            return self._unkeyable(unkeyable, warn=self._ranks.is_root)
        assert problem is not None
        assert request is not None
        wanted = request
        found = self._ranks.at_root("start_for", lambda: look(wanted), Answer(reason="the store is off"))
        return self._report(problem, wanted.key, found, leave_out, self._ranks.comm)

    def _shared_key(self, problem: FitProblem) -> str:
        """Return the exact key of a problem that all ranks hold, each hashing its share; hashed once per problem."""
        known = "key" in vars(problem)
        if all(self._ranks.agree("name the fit", known)):
            return problem.key
        return problem.shared_key(self._ranks.comm)

    def _start_each(
        self, problem: FitProblem | None, parent: Parent, leave_out: Any, look: Callable[[Request], Answer]
    ) -> StartReport:
        request, unkeyable, error = None, None, None
        if problem is not None:
            request, unkeyable, error = self._described(problem, parent, leave_out, each=True)
        self._ranks.agree("start_for", None, error)
        off = Answer(reason="the store is off")

        def look_all(requests: list[Request | None]) -> list[Answer]:
            return [Answer() if request is None else look(request) for request in requests]

        found = self._ranks.serve_each("start_for", request, look_all, off, self._ranks.at_root)
        if problem is None:
            return StartReport(StartSource.COLD, reason="nothing to do on this rank")
        if unkeyable is not None:
            return self._unkeyable(unkeyable, warn=True)
        assert request is not None
        return self._report(problem, request.key, found, leave_out)

    @critical
    def frozen(self) -> FrozenView:
        """Return a view whose parents are those in the file by now, whatever is committed meanwhile. Collective."""
        self._ranks.agree("frozen", None)
        parents: list[Held] = []
        self._ranks.at_root("frozen", lambda: parents.append(self._file.hold_artifacts()), None)
        return FrozenView(self, parents[0] if parents else Held({}))

    @critical
    def independent(self, flush_seconds: float = 30.0, flush_entries: int = 64) -> IndependentStore:
        """Open the file for this rank by itself: ``with store.independent() as own:``. Collective at both ends.

        Between the ends every rank reads and keeps at its own pace and no call of ``own`` is collective. Its puts are
        pending: they wait in memory and are written together, in one transaction under the file's lock, when a flush
        is due, by ``own.flush()`` and at the end.

        Parameters
        ----------
        flush_seconds : float
            When the last write is so long ago, what waits is written in the next call (of whatever kind; there is no
            thread).
        flush_entries : int
            So many waiting entries are written at once.

        See Also
        --------
        IndependentStore : what differs from this store.
        """
        from gamwarm.store.independent import open_independent  # noqa: PLC0415 - it is a kind of this class

        return open_independent(self, flush_seconds, flush_entries)

    @critical
    def explain(self, problem: FitProblem) -> Explanation:
        """Say whether the file holds this fit and, if not, what differs from the nearest fit that it holds.

        Collective: all ranks pass the same problem. On a miss every record of the file is read.
        """
        return explain_fit(self, problem)

    @staticmethod
    def _unkeyable(error: UnkeyableFit, *, warn: bool) -> StartReport:
        if warn and error.details.get("why") != "opt-out":
            log.warning("%s", error)
        return cold_unkeyable(error)

    def _report(
        self, problem: FitProblem, key: str, found: Answer, leave_out: Any, comm: Communicator = SERIAL
    ) -> StartReport:
        if self.disabled_reason is not None:
            return StartReport(StartSource.COLD, None, key, reason=f"the store is off: {self.disabled_reason}")
        report = start_from(problem, key, found, leave_out, comm)
        if comm.rank == 0:  # one fit is one line, on however many ranks
            level = logging.DEBUG if report.source == StartSource.COLD else logging.INFO
            log.log(level, "%s… %s", key[:15], report)
            if report.terms and log.isEnabledFor(logging.DEBUG):
                log.debug("%s… %s", key[:15], report.summary())
        return report

    # -- keeping -----------------------------------------------------------------------------------------------

    @critical
    def keep(
        self,
        problem: FitProblem | None,
        result: FitResult | None,
        start: StartReport | None = None,
        *,
        each: bool = False,
    ) -> KeepOutcome:
        """File a result: converged, a final record and an artifact; else a checkpoint. Collective.

        Parameters
        ----------
        problem : FitProblem or None
        result : FitResult or None
            None (with ``each=True``): this rank has nothing to keep in this round.
        start : StartReport, optional
            What the fit started from, for the lineage.
        each : bool
            False: all ranks keep this one fit (entry ids are compared). True: one fit per rank, all in one transaction.
        """
        self._ranks.check_open()
        if self.disabled_reason is not None:
            return self._kept(None, "")
        filing, reason, error = None, "", None
        content: object = None
        try:
            if each and (problem is None or result is None):
                reason = "nothing to keep on this rank"
            else:
                fit = this_problem(problem)
                check_held_together(fit, self._ranks.comm, each=each)
                require("result", result, FitResult)
                require("start", start, (StartReport, type(None)))
                assert result is not None
                if start is not None and start.key is None:
                    reason = start.reason
                else:
                    key = fit.key if each else self._shared_key(fit)
                    filing = prepare(fit, key, result, start)
                    content = key, *(self._content_id(e) for e in (filing.record, filing.artifact) if e is not None)
        except UnkeyableFit as caught:
            reason = str(caught)
        except CollectiveError:
            raise
        except BaseException as caught:  # every rank must reach the agreement below
            error = caught
        outcome: KeepOutcome | None = None
        if each:
            self._ranks.agree("keep", None, error)
            outcome = self._ranks.serve_each("keep", filing, self._file_all, None, self._writes.run)
        else:
            self._ranks.agree_equal("keep", content, error)
            if filing is not None:
                filed = filing
                outcome = self._writes.run("keep", lambda: file_fit(self._file, filed, self._session), None)
        return self._kept(outcome, reason)

    def _file_all(self, filings: list[Filing | None]) -> list[KeepOutcome | None]:
        return [None if filing is None else file_fit(self._file, filing, self._session) for filing in filings]

    def _kept(self, outcome: KeepOutcome | None, reason: str) -> KeepOutcome:
        if outcome is None:
            why = reason or self._writes.reason_not_written()
            return KeepOutcome(PutOutcome(reason=why), PutOutcome(reason=why))
        self._writes.track(outcome.record)
        self._writes.track(outcome.artifact)
        return outcome

    def _checkpoint(self, problem: FitProblem | None, result: FitResult, start: StartReport) -> PutOutcome:
        """File where a search stands, as a checkpoint even if ``result`` claims to have converged."""
        return self.keep(problem, replace(result, converged=False), start).record

    # -- time --------------------------------------------------------------------------------------------------

    def walltime(self, margin: float = 60.0, deadline: float | datetime | None = None) -> Walltime:
        """Listen to the batch system inside ``with store.walltime():``; see `gamwarm.Walltime`. Main thread. Local."""
        self._walltime = Walltime(margin, deadline, self._ranks.comm)
        self._may_end_fits = True
        return self._walltime

    def _end_is_near(self) -> bool:
        """Whether a fit under way should end on this rank: never unless `walltime` was called. Local."""
        return self._may_end_fits and self._walltime.is_due()

    @critical
    def should_stop(self) -> bool:
        """Whether it is time to keep what there is and end: a signal came to any rank, or its time is up. Collective.

        Without `walltime` only the clock counts, with a margin of a minute.
        """
        return any(self._ranks.agree("should_stop", self._walltime.is_due()))

    def time_left(self) -> float:
        """Return the seconds to the end of the job (`gamwarm.Walltime`); infinite where nobody told. Local."""
        return self._walltime.time_left()

    # -- end ---------------------------------------------------------------------------------------------------

    @critical
    def close(self) -> None:
        """Close the file; nothing but the file (and its lock) remains. Collective, idempotent."""
        with self._writes.lock:
            if self._ranks.closed:
                return
            error = None
            if self._writes.in_transaction:
                error = StoreError(f"{self.path}: close() inside transaction(); leave the block first")
            try:
                self._ranks.agree("close", None, error)
            except BaseException:
                if error is None:
                    self._release()
                raise
            self._release()

    def _release(self, *, quiet: bool = False) -> None:
        self._ranks.closed = True
        try:
            if self._writes.file is not None:
                self._writes.file.close()
        except GamwarmError as error:
            if self._on_error == "raise" and not quiet:
                raise
            log.warning("%s: %s", self.path, error)
        finally:
            self._ranks.comm.free()

    def __reduce__(self) -> NoReturn:
        raise InvalidType(
            f"{self.path}: an open store cannot be pickled or copied; send its path, and open the file where it arrives"
        )

    def __enter__(self) -> Self:
        self._ranks.check_open()
        return self

    @critical
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._leave(error)

    def _leave(self, error: BaseException) -> None:
        """End the ``with`` that ``error`` comes out of; whatever else fails, that is the one to report."""
        self._ranks.tell("close", error)
        if not self._ranks.closed:
            self._release(quiet=True)

    def _facts(self) -> list[tuple[str, str]]:
        facts = [("path", str(self.path)), ("mode", self.mode), ("off", self.disabled_reason or "")]
        if self._ranks.closed:
            return [*facts, ("state", "closed")]
        if not self._ranks.comm.is_serial:  # counting would be a collective call, and one rank alone may show itself
            return [*facts, ("rank", f"{self._ranks.comm.rank} of {self._ranks.comm.size}")]
        if self.disabled_reason is None:
            facts += [("entries", f"{len(self):,}"), ("transactions", f"{self.generation:,}")]
        return facts

    def __repr__(self) -> str:
        off = f"off: {self.disabled_reason}" if self.disabled_reason else self.mode
        state = "closed" if self._ranks.closed else off
        if self._session.refused:
            state += f", {self._session.refused} converged fits not kept"
        return f"{type(self).__name__}({str(self.path)!r}, {state})"


open_store = WarmStartStore.open
