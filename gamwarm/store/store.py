"""The store: one file, its look-ups, its transactions, serial or collective.

In a collective store rank 0 alone touches the file. Every collective call is one agreement
(operation, status, payload of every rank) and one answer; docs/parallel.md has the table.
"""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self
from weakref import finalize

from gamwarm.checks import as_finite_float, as_int, file_path
from gamwarm.display import NotebookTable
from gamwarm.entries import BufferedEntries, EntryStore, ParentSnapshot, PutOutcome, leave
from gamwarm.errors import (
    CollectiveError,
    GamwarmError,
    InvalidInput,
    InvalidType,
    StoreError,
    UnkeyableFit,
)
from gamwarm.identity import FitProblem
from gamwarm.interrupts import critical
from gamwarm.parallel import Communicator, as_communicator
from gamwarm.records import FitResult, Producer
from gamwarm.storage import LockChoice
from gamwarm.store.arguments import Options, check_each, check_rows_and_ranks, require, this_problem
from gamwarm.store.collective import OPEN, Ranks
from gamwarm.store.contents import Contents
from gamwarm.store.explain import Explanation, Subject, explain_request
from gamwarm.store.fit import FitStore
from gamwarm.store.frozen import FrozenView
from gamwarm.store.independent import OwnRanks, OwnWrites
from gamwarm.store.keep import Filing, KeepOutcome, file_fit, prepare
from gamwarm.store.maintenance import Upkeep
from gamwarm.store.savings import Session
from gamwarm.store.starts import Starts
from gamwarm.store.transactions import Writes
from gamwarm.transfer import StartReport
from gamwarm.walltime import Walltime

__all__ = ["IndependentStore", "WarmStartStore", "open_store"]

log = logging.getLogger("gamwarm")

OPENING = "independent"
ENDING = "end of independent mode"


class WarmStartStore(NotebookTable, Contents, Upkeep, FitStore):
    """What fits have learned, in one HDF5 file. Make it with `gamwarm.open`; close it.

    Attributes
    ----------
    path : pathlib.Path
    mode : str

    Notes
    -----
    A serial store may be used from several threads; they take turns, and a transaction belongs to
    its thread.
    """

    def __init__(self, path: str | os.PathLike[str], comm: Any, options: Options) -> None:
        comm = as_communicator(comm).duplicate()
        comm.cores()  # remembered: finding out is collective and begins with no agreement
        error: GamwarmError | None = None
        self._foreign: Producer | None = None
        self.path = Path()
        try:
            self._foreign = options.checked_producer()
            self.path = file_path(path)
        except GamwarmError as caught:  # every rank must reach the agreement below
            error = caught
        self.mode: str = options.mode
        self._options = options
        self._producer = self._foreign or Producer()
        self._may_end_fits = False
        self._ranks = self._make_ranks(comm)
        self._writes = self._make_writes()
        self._session = Session()
        self._starts = Starts(self._ranks, self._writes, self._session)

        def open_file() -> None:
            self._writes.file = self._open_entries(
                mode=options.mode,
                lock=options.lock,
                producer=self._producer,
                keep_last=options.keep_last,
                size_budget=options.size_budget,
            )

        try:
            self._ranks.agree_equal(OPEN, {"path": str(self.path), **vars(options)}, error)
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
            Always explicit; there is no default location. ``~`` is expanded. An existing file is
            never truncated.
        mode : {"a", "r"}
            ``"a"`` reads and writes and makes a missing file; ``"r"`` reads.
        comm : mpi4py communicator, optional
            Rank 0 touches the file for all. None: this process alone, also under mpirun.
        lock : {"auto", "flock", "soft"}
            How writers exclude each other; ``"auto"`` probes the directory.
        engine, engine_version : str, optional
            Stamp records that come without a producer, and rank the finals of other builds as
            checkpoints in look-ups.
        on_error : {"warn", "raise"}
            What a failing disk does: one logged warning and a store that is off for this run, or an
            exception.
        size_budget : int, optional
            Live payload bytes: a commit that passes it evicts the oldest entries first (see
            `evict`), but never its own entries.
        keep_last : int
            Finals that one exact key keeps, the newest first.

        Raises
        ------
        StoreNotFound
            Mode ``"r"`` and no file; or no directory.
        NotAStore, NewerFormat, OlderFormat
            The file was not written by gamwarm, or has a newer format; it was not changed.
        StoreError
            Anything else about the file, if ``on_error="raise"``.
        CollectiveError
            With ``comm``: the same, raised on every rank.
        """
        return cls(path, comm, Options(mode, lock, engine, engine_version, on_error, size_budget, keep_last))

    # What `independent` makes otherwise.
    def _make_ranks(self, comm: Communicator) -> Ranks:
        return Ranks(comm, self.path, self.mode, self._options.on_error)

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
        """Why the store is off for this run (full disk, lock time-out …); fits continue cold."""
        return self._ranks.disabled_reason

    def check_open(self) -> None:
        """Raise `StoreClosed` after `close`. Local."""
        self._ranks.check_open()

    @property
    def _file(self) -> EntryStore:
        return self._writes.at_file()

    # -- transactions ------------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[None]:
        """Make all puts inside one atomic, durable write; inner ones join. Collective.

        Outcomes of the puts inside are pending until the block ends; an exception in the block
        undoes them all.
        """
        return self._writes.transaction()

    # -- starts ------------------------------------------------------------------------------------

    @critical
    def start_for(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        *,
        each: bool = False,
    ) -> StartReport:
        """Look one fit up: where should it begin? Collective. See `fit` for the parameters."""
        return self._starts.find(problem, parent, leave_out, each, None)

    @critical
    def frozen(self) -> FrozenView:
        """Return a view whose parents are those in the file by now. Collective."""
        self._ranks.agree("frozen", None)
        parents: list[ParentSnapshot] = []
        self._ranks.at_root("frozen", lambda: parents.append(self._file.snapshot_parents()), None)
        return FrozenView(self, self._starts, parents[0] if parents else ParentSnapshot(), self._reopen_frozen)

    def _reopen_frozen(self, parents: ParentSnapshot | None, flush_seconds: float, flush_entries: int) -> FrozenView:
        """Return a frozen view of a new independent store, with rank 0's parents."""
        own = self.independent(flush_seconds, flush_entries)
        held: ParentSnapshot = self.comm.bcast(parents)
        if own._writes.file is not None:
            own._writes.file.held.add(held)
        return FrozenView(own, own._starts, held, own._reopen_frozen, owns_store=True)

    @critical
    def independent(self, flush_seconds: float = 30.0, flush_entries: int = 64) -> IndependentStore:
        """Open the file for this rank alone, in a ``with``. Collective at both ends.

        Between the ends every rank reads and keeps at its own pace and no call of ``own`` is
        collective. Its puts are pending: they are buffered and written together, in one transaction
        under the file's lock, when a flush is due, by ``own.flush()`` and at the end.

        Parameters
        ----------
        flush_seconds : float
            When the last write is this long ago, the next call writes the buffer (any call; there
            is no thread).
        flush_entries : int
            So many waiting entries are written at once.

        See Also
        --------
        IndependentStore : what differs from this store.
        """
        ranks = self._ranks
        error: BaseException | None = None
        try:
            flush_seconds = as_finite_float(flush_seconds, "flush_seconds", minimum=0.0, infinite=True)
            flush_entries = as_int(flush_entries, "flush_entries", minimum=1)
            if self._writes.in_transaction:
                raise InvalidInput(f"{self.path}: independent() inside transaction(); leave the block first")
        except GamwarmError as caught:  # every rank must reach the agreement below
            error = caught
        ranks.agree_equal(OPENING, (flush_seconds, flush_entries), error)
        path = ranks.agree(OPENING, str(self.path.absolute()))[0]
        own: IndependentStore | None = None
        try:
            own = IndependentStore(self, path, flush_seconds, flush_entries)
        except BaseException as caught:
            error = caught
        try:
            ranks.agree(OPENING, None, error)
        except BaseException:
            if own is not None:
                own._release(quiet=True)
            raise
        assert own is not None
        return own

    @critical
    def explain(self, problem: FitProblem) -> Explanation:
        """Say whether the file holds this fit, or what differs from the nearest that it holds and
        what it would start from, term by term.

        Collective: all ranks pass the same problem. On a miss every record of the file is read.
        """
        ranks = self._ranks
        ranks.check_open()
        off = "the store is off"
        if self.disabled_reason is not None:
            return Explanation(False, reason=f"{off}: {self.disabled_reason}")
        request, unkeyable, error = self._starts.described(problem, None, None)
        fit = None if request is None else Subject.of(request, problem)
        ranks.agree_equal("explain", fit, error)
        if unkeyable is not None:
            return Explanation(False, reason=str(unkeyable))
        assert fit is not None
        key = fit.request.key
        return ranks.at_root(
            "explain", lambda: explain_request(self._file, fit, problem), Explanation(False, key, reason=off)
        )

    # -- keeping -----------------------------------------------------------------------------------

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
            False: all ranks keep this one fit (entry ids are compared). True: one fit per rank, all
            in one transaction.
        """
        self._ranks.check_open()
        if self.disabled_reason is not None:
            return self._kept(None, "")
        filing, reason = None, ""
        content: object = None
        error: BaseException | None
        each, error = check_each(each)
        try:
            if error is not None:
                raise error
            if each and (problem is None or result is None):
                reason = "nothing to keep on this rank"
            else:
                fit = this_problem(problem)
                check_rows_and_ranks(fit, self._ranks.comm, each=each)
                require("result", result, FitResult)
                require("start", start, (StartReport, type(None)))
                assert result is not None
                if start is not None and start.key is None:
                    reason = start.reason
                else:
                    key = fit.key if each else self._ranks.key_of(fit)
                    filing = prepare(fit, key, result, start, self._producer)
                    content = filing.content
        except UnkeyableFit as caught:
            reason = str(caught)
        except CollectiveError:
            raise
        except BaseException as caught:  # every rank must reach the agreement below
            error = caught
        outcome: KeepOutcome | None = None
        if each:
            self._ranks.agree_round("keep", error)
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

    # -- time --------------------------------------------------------------------------------------

    def walltime(self, margin: float = 60.0, deadline: float | datetime | None = None) -> Walltime:
        """Listen to the batch system inside ``with store.walltime():``. Main thread. Local."""
        self._ranks.walltime = Walltime(margin, deadline, self._ranks.comm)
        self._may_end_fits = True
        return self._ranks.walltime

    def should_stop_fits(self) -> bool:
        """Whether a fit should end on this rank: never unless `walltime` was called. Local."""
        return self._may_end_fits and self._ranks.walltime.is_due()

    @critical
    def should_stop(self) -> bool:
        """Whether to store results and stop: a signal on any rank, or time is up. Collective.

        Without `walltime` only the clock counts, with a margin of a minute.
        """
        return any(self._ranks.agree("should_stop", self._ranks.is_ending()))

    def time_left(self) -> float:
        """Return the seconds to the end of the job; infinite if unknown. Local."""
        return self._ranks.time_left()

    # -- end ---------------------------------------------------------------------------------------

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
            if self._options.on_error == "raise" and not quiet:
                raise
            log.warning("%s: %s", self.path, error)
        finally:
            self._ranks.comm.free()

    def __reduce__(self) -> NoReturn:
        raise InvalidType(
            f"{self.path}: an open store cannot be pickled or copied; send its path, and open the file there"
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
        """End the ``with`` that ``error`` leaves; whatever else fails, that is reported."""
        self._ranks.broadcast_failure("close", error)
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
            state += f", {self._session.refused} converged fits not stored"
        return f"{type(self).__name__}({str(self.path)!r}, {state})"


class IndependentStore(WarmStartStore):
    """The file, opened by one process for itself; made by `WarmStartStore.independent`.

    It has every call of a store, and none of them is collective. What differs:

    * ``fit``, ``keep``, ``put_record`` and ``put_artifact`` return *pending* outcomes. They are
      settled when the buffer is written: by `flush`, when a flush is due, or at the end. Only then
      is a put acknowledged; a kill before that loses only the buffer.
    * A flush is due in the next call when the last one was ``flush_seconds`` ago (a fit that took
      longer is written as soon as it is kept), when ``flush_entries`` entries are pending, and
      always once the batch system has signalled.
    * Without `close`, the buffer is written when the store is garbage collected or its process
      ends: a program, or a worker of a pool. What cannot be written then is one warning with a
      count.
    * Look-ups see the current file, including other processes' fits, and this store's own pending
      puts.
    * `transaction` and the maintenance calls (``pin``, ``evict``, ``merge``, ``compact``,
      ``verify``) write the buffer first.
    * Leaving the ``with`` (also by an exception) and `close` write the buffer. Where the store it
      came from has a communicator they are collective, so that what follows sees the puts of all
      ranks.

    A flush that fails follows ``on_error``. ``"warn"``: one warning, this rank's store is off for
    this run, and what waited is given up. ``"raise"``: the call that flushed raises, and pending
    entries wait for the next flush.

    A forked child has its own puts; what waited when it was forked belongs to its parent.
    """

    _ranks: OwnRanks
    _writes: OwnWrites

    def __init__(
        self, parent: WarmStartStore, path: str | os.PathLike[str], flush_seconds: float, flush_entries: int
    ) -> None:
        self._parent = parent
        self._pace: dict[str, Any] = {"flush_seconds": flush_seconds, "flush_entries": flush_entries}
        super().__init__(path, None, parent._options)

    def _make_ranks(self, comm: Communicator) -> Ranks:
        return OwnRanks(self.path, self.mode, self._options.on_error, self._parent._ranks, self._parent._writes)

    def _make_writes(self) -> Writes:
        return OwnWrites(self._ranks)

    def _open_entries(self, **options: Any) -> EntryStore:
        entries = BufferedEntries(self.path, **self._pace, **options)
        self._ranks.entries = entries
        # Held by the finalizer, so that it outlives this object by as long as filing takes.
        finalize(self, leave, entries).atexit = False
        return entries

    @property
    def pending(self) -> int:
        """Number of buffered entries."""
        return 0 if self._ranks.entries is None else self._ranks.entries.n_pending

    @critical
    def flush(self) -> int:
        """Write the buffer in one transaction, and settle its outcomes.

        Returns
        -------
        int
            Number of entries that are on disk by it.
        """
        self._ranks.check_open()
        self._refuse_inside_the_parents_transaction("flush()")
        with self._writes.lock:
            return self._ranks.at_root("flush", self._ranks.flush, 0)

    def independent(self, flush_seconds: float = 30.0, flush_entries: int = 64) -> IndependentStore:
        """Refuse: it is independent already."""
        raise InvalidInput(f"{self.path}: independent() of an independent store; use it directly")

    @critical
    def should_stop_fits(self) -> bool:
        """Whether a fit should end, as of the parent store; writes what is due. Local."""
        self._ranks.at_root("flush", lambda: None, None)  # a long fit must not delay a due flush
        return super().should_stop_fits() or self._parent.should_stop_fits()

    @critical
    def close(self) -> None:
        """Write the buffer, close the file. Collective if its parent store is. Idempotent."""
        with self._writes.lock:
            if self._ranks.closed:
                return
            if self._writes.in_transaction:
                super().close()  # says that it cannot
            self._refuse_inside_the_parents_transaction("close()")
            error: BaseException | None = None
            try:
                self.flush()
            except BaseException as caught:  # the ranks of the store it came from must reach the agreement below
                error = caught
            try:
                super().close()
            except BaseException as caught:
                error = error or caught
        parent = self._parent._ranks
        if not parent.closed:
            parent.agree(ENDING, None, error)
        if error is not None:
            raise error

    def _leave(self, error: BaseException) -> None:
        if not self._ranks.closed:
            try:
                self.flush()
            except GamwarmError as late:
                log.warning("%s: while leaving independent mode: %s", self.path, late)
            self._release(quiet=True)
        self._parent._ranks.broadcast_failure(ENDING, error)

    def _refuse_inside_the_parents_transaction(self, what: str) -> None:
        if self._parent._writes.in_transaction:
            raise InvalidInput(
                f"{self.path}: {what} of an independent store inside transaction() of the store it came from, which "
                "holds the file's lock; leave that block first"
            )


open_store = WarmStartStore.open
