"""Reading one committed state during writes: attempt, check for changes, attempt again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

import h5py

from gamwarm.errors import GamwarmError, StoreDamaged, StoreError, StoreNotFound, StoreUnavailable
from gamwarm.interrupts import wait
from gamwarm.storage import vfs
from gamwarm.storage.header import UUID_BYTES, TornHeader, parse
from gamwarm.storage.reader import Reader, RetryRead, Snapshot, Unsettled
from gamwarm.storage.vfs import explain
from gamwarm.storage.writer import Writer, unreadable

__all__ = ["Attempts", "Check"]

T = TypeVar("T")
Check = Callable[[h5py.File], None]

READ_ATTEMPTS: Final = 12
HALFWAY_ATTEMPTS: Final = 4
"""Checks of a half-applied file (about 4 ms) after which the journal is asked."""
FIRST_PAUSE: Final = 0.0005


class Attempts:
    """The part of a container that reads; under its lock."""

    def __init__(self, path: Path, mode: str, lock_timeout: float, check: Check | None) -> None:
        self.path = path
        self.mode = mode
        self.uuid = bytes(UUID_BYTES)
        self._lock_timeout = lock_timeout
        self._check = check
        self._writer = Writer(path)
        self._reader = Reader(path)
        self._vetted = b""
        self._seen: Snapshot | None = None
        self._doubted: Snapshot | None = None
        self._last_look = False
        self._pid = os.getpid()

    @property
    def opened_here(self) -> bool:
        """Whether this process opened it; a forked child may only read."""
        return os.getpid() == self._pid

    def _turn(self, begin: Callable[[], T], patience: float | None = None) -> AbstractContextManager[T]:
        raise NotImplementedError

    @property
    def may_retry(self) -> bool:
        """Whether `fn` should raise `RetryRead` at what looks damaged: a cache may be to blame."""
        return self._reader.shared and not self._last_look and self._seen != self._doubted

    def _read_patiently(self, fn: Callable[[h5py.File], T]) -> T:
        """Where another host may have written, reopen for a while before calling it damaged.

        Once in each state of the file: real damage remains. Where the state changes
        meanwhile, a writer is at work, and file and journal were seen at different moments.
        """
        limit = time.monotonic() + self._lock_timeout
        deadline, doubtful = 0.0, None
        self._last_look = False
        while True:
            try:
                return self._read_optimistically(fn)
            except (RetryRead, StoreDamaged):
                if not self.may_retry:
                    raise
            now = time.monotonic()
            if self._seen != doubtful:
                deadline, doubtful = now + vfs.CACHE_PATIENCE, self._seen
            if now >= min(deadline, limit):
                self._last_look, self._doubted = True, self._seen
            self._reader.close()
            wait(vfs.CACHE_PAUSE)

    def _read_optimistically(self, fn: Callable[[h5py.File], T]) -> T:
        found = self._read_after_own_commit(fn)
        if found is not None:
            return found[0]
        halfway = 0
        for attempt in range(READ_ATTEMPTS):
            try:
                return self._attempt(fn, self._reader.handle)
            except Unsettled as unsettled:
                halfway += not unsettled.moved
                if halfway == HALFWAY_ATTEMPTS:
                    break
                wait(FIRST_PAUSE * 2 ** min(attempt, 4))
        if self.mode == "a":
            try:
                with self._turn(self._writer.load, patience=0.0):
                    return self._attempt(fn, self._reader.handle)
            except Unsettled:
                pass  # somebody writes without the lock; the remaining option is to go without it
            except StoreError as exc:
                if isinstance(exc, StoreDamaged):
                    raise
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                return self._attempt(fn, self._reader.handle_over_journal)
            except Unsettled:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"{self.path}: no consistent read within {self._lock_timeout:g} s, because writers kept "
                        "changing the file. Read fewer entries at once, or stop the writers.",
                        path=str(self.path),
                    ) from None
                wait(FIRST_PAUSE)

    def _read_after_own_commit(self, fn: Callable[[h5py.File], T]) -> tuple[T] | None:
        """Read through the handle of our own last commit, which saves opening the file again.

        None where the file is in another state, or anything at all went wrong: the handle is then
        closed, so that nothing is written through it, and `fn` has to be called again.
        """
        if self._writer.h5 is None or not self.opened_here or self._reader.copies:
            return None
        before = self._seen = self._guard(self._reader.look)
        h5 = self._writer.committed(before)
        if h5 is None:
            return None
        self._reader.drop()
        found: tuple[T] | None = None
        try:
            self._check_first_open(before.block, h5)
            result = fn(h5)
            if self._reader.still_current(before) and self._writer.latched is None:
                found = (result,)
        except Exception:
            return None
        finally:
            if found is None:
                self._writer.drop()
        return found

    def _attempt(self, fn: Callable[[h5py.File], T], handle: Callable[..., h5py.File]) -> T:
        """One read between two checks of the file; `Unsettled` if they differ."""
        reader = self._reader
        before = self._seen = self._guard(reader.look)
        opened = False
        try:
            h5 = handle(before)
            opened = True
            self._check_first_open(before.block, h5)
            result = fn(h5)
        except Unsettled:
            raise
        except Exception as exc:
            if self._guard(reader.look) != before:
                reader.drop()
                raise Unsettled(moved=True) from exc
            latched = vfs.not_of_the_file(reader.latched)
            if latched is not None:
                reader.drop()
            elif opened or isinstance(exc, GamwarmError):
                raise
            raise unreadable(self.path, "read it", latched, exc) from exc
        try:
            if reader.still_current(before):
                return result
        except OSError as exc:
            raise explain(exc, self.path, "read it") from exc
        reader.drop()
        raise Unsettled(moved=True)

    def _check_first_open(self, block: bytes, h5: h5py.File) -> None:
        """Pass a file met under this name for the first time through the upper layer's check."""
        if block == self._vetted:
            return
        try:
            uuid = parse(block, str(self.path)).uuid
        except TornHeader as torn:
            uuid = torn.uuid
        if uuid != self.uuid or not self._vetted:
            if self._check is not None:
                self._check(h5)
            self.uuid = uuid
        self._vetted = block

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except GamwarmError:
            raise
        except FileNotFoundError as exc:
            raise StoreNotFound(
                f"{self.path}: the file was removed while it was open. Restore it, or open the path again to start "
                "a new file.",
                path=str(self.path),
            ) from exc
        except OSError as exc:
            raise explain(exc, self.path, "read it") from exc
