"""A store of one's own on a file that others use too: no call is collective, and puts go to the file together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from gamwarm.checks import real_number, whole_number
from gamwarm.entries import BufferedEntries, EntryStore, Held, PutOutcome, leave
from gamwarm.errors import GamwarmError, InvalidInput
from gamwarm.interrupts import critical
from gamwarm.parallel import Communicator
from gamwarm.store.collective import Ranks
from gamwarm.store.store import WarmStartStore
from gamwarm.store.transactions import Writes
from gamwarm.walltime import Walltime

if TYPE_CHECKING:
    from datetime import datetime
    from os import PathLike

__all__ = ["IndependentStore", "open_independent"]

log = logging.getLogger("gamwarm")
T = TypeVar("T")

OPENING = "independent"
ENDING = "end of independent mode"


class IndependentStore(WarmStartStore):
    """The file, opened by one process for itself; made by `WarmStartStore.independent`, used in a ``with``.

    It has every call of a store, and none of them is collective. What differs:

    * ``fit``, ``keep``, ``put_record`` and ``put_artifact`` return *pending* outcomes. They are settled when what waits
      is written: by `flush`, when a flush is due, or at the end. Only then is a put acknowledged; a kill before loses
      what waits, and nothing else.
    * A flush is due, in whatever call comes next, when the last one was ``flush_seconds`` ago (a fit that took longer
      is written as soon as it is kept), when ``flush_entries`` wait, and always once the batch system has signalled.
    * Without `close`, what waits is written when the store is garbage collected or its process ends: a program, or a
      worker of a pool. What cannot be written then is one warning with a count.
    * Look-ups see the file as it is now, other processes' fits included, and one's own waiting puts.
    * `transaction` and what looks after the file (``pin``, ``evict``, ``merge``, ``compact``, ``verify``) write what
      waits first.
    * Leaving the ``with`` (also by an exception) and `close` write what waits. Where the store it came from has a
      communicator they are collective, so that what follows sees the puts of all ranks.

    A flush that fails follows ``on_error``. ``"warn"``: one warning, this rank's store is off for this run, and what
    waited is given up. ``"raise"``: the call that flushed raises, and what waits goes on waiting for the next flush.

    A forked child has its own puts; what waited when it was forked belongs to its parent.
    """

    _ranks: _OwnRanks
    _writes: _OwnWrites

    def __init__(
        self, parent: WarmStartStore, path: str | PathLike[str], flush_seconds: float, flush_entries: int
    ) -> None:
        self._parent = parent
        self._pace: dict[str, Any] = {"flush_seconds": flush_seconds, "flush_entries": flush_entries}
        super().__init__(path, comm=None, **parent._options)

    def _make_ranks(self, comm: Communicator) -> Ranks:
        return _OwnRanks(comm, self.path, self.mode, self._on_error, self._parent)

    def _make_writes(self) -> Writes:
        return _OwnWrites(self._ranks)

    def _open_entries(self, **options: Any) -> EntryStore:
        entries = BufferedEntries(self.path, **self._pace, **options)
        self._ranks.entries = entries
        # Held by the finalizer, so that it outlives this object by as long as filing takes.
        finalize(self, leave, entries).atexit = False
        return entries

    def _hold(self, parents: Held) -> Held:
        """Keep the parents of a frozen campaign from this store's own evictions, as long as they live."""
        if self._ranks.entries is not None:
            self._ranks.entries.held.add(parents)
        return parents

    @property
    def pending(self) -> int:
        """Number of entries that wait to be written."""
        return 0 if self._ranks.entries is None else self._ranks.entries.n_waiting

    @critical
    def flush(self) -> int:
        """Write what waits, in one transaction, and settle its outcomes.

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
        raise InvalidInput(f"{self.path}: independent() of an independent store; use it as it is")

    def walltime(self, margin: float = 60.0, deadline: float | datetime | None = None) -> Walltime:
        """Listen to the batch system; see `WarmStartStore.walltime`. Local."""
        self._ranks.walltime = super().walltime(margin, deadline)
        return self._ranks.walltime

    @critical
    def should_stop(self) -> bool:
        """Whether it is time to end: a signal came to this process, or its time is up. Local."""
        self._ranks.check_open()
        return self._walltime.is_due() or self._parent._walltime.is_due()

    def _end_is_near(self) -> bool:
        self._ranks.at_root("flush", lambda: None, None)  # a long fit must not keep back what is due
        return super()._end_is_near() or self._parent._end_is_near()

    def time_left(self) -> float:
        """Return the seconds to the end of the job; infinite where nobody told. Local."""
        return min(self._walltime.time_left(), self._parent.time_left())

    @critical
    def close(self) -> None:
        """Write what waits and close the file. Collective if the store it came from has a communicator. Idempotent."""
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
        self._parent._ranks.tell(ENDING, error)

    def _refuse_inside_the_parents_transaction(self, what: str) -> None:
        if self._parent._writes.in_transaction:
            raise InvalidInput(
                f"{self.path}: {what} of an independent store inside transaction() of the store it came from, which "
                "holds the file's lock; leave that block first"
            )


class _OwnRanks(Ranks):
    """One process by itself, which writes what is due before each look at the file."""

    def __init__(self, comm: Communicator, path: Any, mode: str, on_error: str, parent: WarmStartStore) -> None:
        super().__init__(comm, path, mode, on_error)
        self.entries: BufferedEntries | None = None
        self.walltime: Walltime | None = None
        self.disabled_reason = parent.disabled_reason
        self._parent = parent

    @property
    def is_free(self) -> bool:
        return super().is_free and not self._is_due()

    def _is_due(self) -> bool:
        # The store it came from holds the file's lock for the whole of its own transaction.
        if self.entries is None or self._parent._writes.in_transaction:
            return False
        ending = self._parent._walltime.is_due() or (self.walltime is not None and self.walltime.is_due())
        return self.entries.is_due(urgent=ending)

    def _loss(self) -> str:
        n = 0 if self.entries is None else self.entries.n_waiting
        return f"; {n} entries that waited are lost" if n else ""

    def flush_if_due(self) -> None:
        if self._is_due():
            self.flush()

    def flush(self) -> int:
        return 0 if self.entries is None else self.entries.flush()

    def at_root(self, operation: str, act: Callable[[], T], fallback: T, *, even_off: bool = False) -> T:
        def act_when_nothing_is_due() -> T:
            self.flush_if_due()
            return act()

        value = super().at_root(operation, act_when_nothing_is_due, fallback, even_off=even_off)
        if self.disabled_reason is not None and self.entries is not None:
            self.entries.give_up(f"the store is off: {self.disabled_reason}")
        return value


class _OwnWrites(Writes):
    """Puts that wait, outside of transactions."""

    ranks: _OwnRanks

    def __init__(self, ranks: _OwnRanks) -> None:
        super().__init__(ranks)

    def run(self, operation: str, act: Callable[[], T], fallback: T) -> T:
        if self.in_transaction:
            return super().run(operation, act, fallback)

        def put() -> T:
            self.refuse_read_only()
            value = act()
            self.ranks.flush_if_due()
            return value

        with self.lock:
            return self.ranks.at_root(operation, put, fallback)

    def track(self, outcome: PutOutcome) -> None:
        if self.in_transaction:
            super().track(outcome)


def open_independent(store: WarmStartStore, flush_seconds: float, flush_entries: int) -> IndependentStore:
    """See `WarmStartStore.independent`."""
    ranks = store._ranks
    error: BaseException | None = None
    try:
        flush_seconds = real_number(flush_seconds, "flush_seconds", minimum=0.0, infinite=True)
        flush_entries = whole_number(flush_entries, "flush_entries", minimum=1)
        if store._writes.in_transaction:
            raise InvalidInput(f"{store.path}: independent() inside transaction(); leave the block first")
    except GamwarmError as caught:  # every rank must reach the agreement below
        error = caught
    ranks.agree_equal(OPENING, (flush_seconds, flush_entries), error)
    path = ranks.agree(OPENING, str(store.path.absolute()))[0]
    own: IndependentStore | None = None
    try:
        own = IndependentStore(store, path, flush_seconds, flush_entries)
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
