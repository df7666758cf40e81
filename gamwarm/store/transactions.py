"""Writes in turn: one transaction for all ranks, and what becomes of the outcomes of its puts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from gamwarm.entries import EntryStore, PutOutcome, rolled_back
from gamwarm.errors import StoreError, StoreReadOnly
from gamwarm.interrupts import AbandonedBlock, Body
from gamwarm.storage import ForkSafeLock
from gamwarm.store.collective import Ranks

__all__ = ["Writes"]

log = logging.getLogger("gamwarm")
T = TypeVar("T")


class _Transaction:
    """One transaction between its begin and its end; joins the one that its thread has open."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._root: ExitStack | None = None

    def begin(self) -> None:
        writes, ranks = self._writes, self._writes.ranks
        writes.lock.__enter__()
        try:
            if not writes.in_transaction:
                ranks.agree("transaction", None)
                root = ExitStack()
                ranks.at_root("transaction", lambda: root.enter_context(writes.at_file().transaction()), None)
                self._root, writes.in_transaction = root, True
        except BaseException:
            writes.lock.__exit__(None, None, None)
            raise

    def end(self, error: BaseException | None) -> None:
        writes, root, self._root = self._writes, self._root, None
        try:
            if root is None:
                return
            writes.in_transaction = False
            if error is None:
                writes.commit(root)
            else:
                writes.undo(root, error)
                if not isinstance(error, AbandonedBlock):  # no time to call others; the ``with`` around it tells them
                    writes.ranks.tell("transaction", error)
        finally:
            writes.lock.__exit__(None, None, None)


class Writes:
    """The write side of one store.

    Attributes
    ----------
    file : EntryStore or None
        Set by who opens it, on rank 0 only.
    lock : ForkSafeLock
        Held for the whole of a transaction: another thread must not join it.
    in_transaction : bool
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.file: EntryStore | None = None
        self.lock = ForkSafeLock(self._forget_transaction)
        self.in_transaction = False
        self._pending: list[PutOutcome] = []

    def transaction(self) -> Body:
        """See `WarmStartStore.transaction`."""
        return Body(_Transaction(self))

    def at_file(self) -> EntryStore:
        """Return the open file; on rank 0 only."""
        assert self.file is not None
        return self.file

    def commit(self, root: ExitStack) -> None:
        try:
            self.ranks.agree("transaction", None)
        except BaseException as error:
            self.undo(root, error)
            raise
        if self.ranks.disabled_reason is not None:  # a put inside the block has switched the store off
            self.undo(root, StoreError(f"{self.ranks.path}: {self.ranks.disabled_reason}"))
            return

        def finish() -> bool:
            root.close()
            return True

        done = False
        try:
            done = self.ranks.at_root("transaction", finish, False)
        finally:
            self._settle(written=done, reason="" if done else f"the transaction failed; {self.reason_not_written()}")

    def undo(self, root: ExitStack, error: BaseException) -> None:
        try:
            root.__exit__(type(error), error, error.__traceback__)
        except BaseException as caught:  # the block's own exception is the one to report
            if caught is not error:
                log.warning("%s: while undoing a transaction: %s", self.ranks.path, caught)
        self._settle(written=False, reason=self.ranks.disabled_reason or rolled_back(error))

    def _forget_transaction(self) -> None:
        self.in_transaction = False
        self._pending = []

    def _settle(self, *, written: bool, reason: str) -> None:
        for outcome in self._pending:
            outcome.settle(written=written, reason=reason)
        self._pending.clear()

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
            raise StoreReadOnly(f"{self.ranks.path}: opened with mode 'r'; open it with mode 'a' to keep fits")

    def track(self, outcome: PutOutcome) -> None:
        """Settle an outcome: at once outside a transaction, with the transaction inside one."""
        if not outcome.pending:
            return
        if self.in_transaction:
            self._pending.append(outcome)
        else:
            outcome.settle(written=True)

    def reason_not_written(self) -> str:
        """Return why a write has no outcome of its own."""
        if self.ranks.mode == "r":
            return "the store is open for reading only"
        off = self.ranks.disabled_reason
        return f"the store is off: {off}" if off else "nothing was written"
