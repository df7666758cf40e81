"""Serialized writes: one transaction for all ranks, and the outcomes of its puts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from gamwarm.entries import EntryStore, Pending, PutOutcome, rolled_back
from gamwarm.errors import StoreError, StoreReadOnly
from gamwarm.interrupts import AbandonedBlock, Body
from gamwarm.storage import ForkSafeLock
from gamwarm.store.collective import Ranks

__all__ = ["Writes"]

log = logging.getLogger("gamwarm")
T = TypeVar("T")


class _Transaction:
    """A transaction of all ranks; one inside another of its thread joins that.

    Rank 0's file settles its outcomes itself; ``pending`` are the copies that other ranks received.
    """

    def __init__(self, writes: Writes) -> None:
        self._writes, self._ranks = writes, writes.ranks
        self._root: ExitStack | None = None
        self.pending = Pending()

    def begin(self) -> None:
        writes, ranks = self._writes, self._ranks
        writes.lock.__enter__()
        try:
            if writes.open is None:
                ranks.agree("transaction", None)
                root = ExitStack()
                ranks.at_root("transaction", lambda: root.enter_context(writes.at_file().transaction()), None)
                self._root, writes.open = root, self
        except BaseException:
            writes.lock.__exit__(None, None, None)
            raise

    def end(self, error: BaseException | None) -> None:
        root, self._root = self._root, None
        try:
            if root is None:
                return
            self._writes.open = None
            if error is None:
                self._commit(root)
            else:
                self._undo(root, error)
                if not isinstance(
                    error, AbandonedBlock
                ):  # no time to call others; the enclosing ``with`` notifies them
                    self._ranks.broadcast_failure("transaction", error)
        finally:
            self._writes.lock.__exit__(None, None, None)

    def _commit(self, root: ExitStack) -> None:
        try:
            self._ranks.agree("transaction", None)
        except BaseException as error:
            self._undo(root, error)
            raise
        if self._ranks.disabled_reason is not None:  # a put inside the block has switched the store off
            self._undo(root, StoreError(f"{self._ranks.path}: {self._ranks.disabled_reason}"))
            return

        def finish() -> bool:
            root.close()
            return True

        done, why = False, self._writes.reason_not_written
        try:
            done = self._ranks.at_root("transaction", finish, False)
        finally:
            self.pending.settle(written=done, reason="" if done else f"the transaction failed; {why()}")

    def _undo(self, root: ExitStack, error: BaseException) -> None:
        try:
            root.__exit__(type(error), error, error.__traceback__)
        except BaseException as caught:  # the block's own exception is the one to report
            if caught is not error:
                log.warning("%s: while undoing a transaction: %s", self._ranks.path, caught)
        self.pending.settle(written=False, reason=self._ranks.disabled_reason or rolled_back(error))


class Writes:
    """The write side of one store.

    Attributes
    ----------
    file : EntryStore or None
        Set by who opens it, on rank 0 only.
    lock : ForkSafeLock
        Held for the full transaction: another thread must not join it.
    open : transaction or None
        The one that puts join.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.file: EntryStore | None = None
        self.lock = ForkSafeLock(self._forget_transaction)
        self.open: _Transaction | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether puts of this thread join a transaction."""
        return self.open is not None

    def _forget_transaction(self) -> None:
        self.open = None

    def transaction(self) -> Body:
        """See `WarmStartStore.transaction`."""
        return Body(_Transaction(self))

    def at_file(self) -> EntryStore:
        """Return the open file; on rank 0 only."""
        assert self.file is not None
        return self.file

    def run(self, operation: str, act: Callable[[], T], fallback: T) -> T:
        """Run a write on rank 0 in one transaction (the open one, if there is one)."""

        def write() -> T:
            self.refuse_read_only()
            with self.at_file().transaction():
                return act()

        with self.lock:
            return self.ranks.at_root(operation, write, fallback)

    def refuse_read_only(self) -> None:
        if self.ranks.mode == "r":
            raise StoreReadOnly(f"{self.ranks.path}: opened with mode 'r'; open it with mode 'a' to store fits")

    def track(self, outcome: PutOutcome) -> None:
        """Settle this rank's copy of an outcome, now or with the open transaction."""
        if self.ranks.comm.is_serial:
            return  # it is the file's own, which settles it
        if self.open is not None:
            self.open.pending.add(outcome)
        else:
            outcome.settle(written=True)

    def reason_not_written(self) -> str:
        """Return why a write has no outcome of its own."""
        if self.ranks.mode == "r":
            return "the store is open for reading only"
        off = self.ranks.disabled_reason
        return f"the store is off: {off}" if off else "nothing was written"
