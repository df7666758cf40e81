"""One gamwarm file as bytes: atomic, durable write transactions and consistent reads.

Where the guarantees come from is argued in docs/file-format.md; which module keeps them:

* `pager` orders the calls of commit, checkpoint, recovery and creation, `neighbours` has the files
  next to the store;
* `overlay` keeps HDF5's writes in memory until then, `writer` the handle over it;
* `reader` tells states of the file apart, `attempts` reads one of them;
* `locks` keeps writers apart;
* this module joins them, under one reentrant lock per container for everything that enters HDF5.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeVar

import h5py

from gamwarm.checks import file_path
from gamwarm.errors import (
    GamwarmError,
    InvalidInput,
    LockTimeout,
    NotAStore,
    StoreClosed,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from gamwarm.interrupts import Lock, critical, quiet, wait
from gamwarm.storage import pager, vfs
from gamwarm.storage.attempts import FIRST_PAUSE, Attempts, Check
from gamwarm.storage.directory_probe import may_be_shared
from gamwarm.storage.foreign import OpenElsewhere
from gamwarm.storage.header import UUID_BYTES, TornHeader, parse
from gamwarm.storage.locks import LockChoice, WriterLock, choose_lock
from gamwarm.storage.neighbours import journal_path
from gamwarm.storage.reader import Reader, Snapshot
from gamwarm.storage.replace import rewrite
from gamwarm.storage.vfs import explain
from gamwarm.storage.writer import Writer, new_image, unreadable

__all__ = ["Container"]

T = TypeVar("T")

_log = logging.getLogger("gamwarm")

LONGEST_PAUSE: Final = 0.25
QUIET_SECONDS: Final = 1.0
"""A longer wait for another program's handle is reported."""
CLOSE_PATIENCE: Final = 5.0
"""A neighbour that holds the lock for longer will clear the journal away when it closes."""
EXIT_PATIENCE: Final = 5.0

TIDY_PATIENCE: Final = 1.0
"""How long the end of a process waits for the writer lock to remove its journal."""

_alive: weakref.WeakSet[Container] = weakref.WeakSet()


class Container(Attempts):
    """One gamwarm file: transactions are atomic and durable, reads see one committed state.

    Use `open`. Methods may be called from several threads; they take turns. A container belongs to
    the process that opened it: in a forked child it can be read but not written.
    """

    def __init__(self, path: Path, mode: Literal["r", "a"], lock_timeout: float, check: Check | None) -> None:
        super().__init__(path, mode, lock_timeout, check)
        self._rlock = Lock()
        self._closed = False
        self._writing = False
        self._reading = 0
        self._created_syncs = 0
        self._generation = 0
        self._generation_block = b""
        self._lock: WriterLock | None = None
        self._finalizer: weakref.finalize | None = None  # type: ignore[type-arg]

    # -- opening -----------------------------------------------------------------------------------

    @classmethod
    @critical
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        mode: Literal["r", "a"] = "a",
        lock: LockChoice = "auto",
        lock_timeout: float = 60.0,
        create: Callable[[h5py.File], None] | None = None,
        check: Callable[[h5py.File], None] | None = None,
    ) -> Container:
        """Open a file, or create it (mode ``"a"``, missing or of length zero). Never truncates.

        Parameters
        ----------
        path : path
            Symbolic links are followed once, now.
        mode : {"a", "r"}
            ``"r"`` changes nothing on disk, ever, and needs no permission to write.
        lock : {"auto", "flock", "soft"}
            How writers are kept apart; ``"auto"`` tries what the directory supports.
        lock_timeout : float
            Seconds to wait for another writer.
        create : callable, optional
            Lays out a new file, as its first transaction: a kill leaves no file or a complete one.
        check : callable, optional
            Looks at an opened file and may raise; called with a handle to read from.

        Raises
        ------
        StoreNotFound, NotAStore, NewerFormat, OlderFormat, StoreReadOnly, StoreDamaged,
        LockTimeout, StoreUnavailable
            All are `StoreError`; the file is unchanged.
        """
        if mode not in ("r", "a"):
            raise InvalidInput(f"mode={mode!r}: expected 'r' (read only) or 'a' (read, write, create).")
        if sys.platform == "win32":
            raise StoreUnavailable(
                f"{path}: gamwarm files are not supported on Windows (no flock, no directory sync). Use Linux, WSL or "
                "macOS.",
                path=str(path),
            )
        place = file_path(path)
        with vfs.typed(place, "find it"):  # a working directory that was removed
            place = Path(os.path.realpath(place))
        self = cls(place, mode, lock_timeout, check)
        try:
            self._open(lock, create)
        except BaseException as exc:
            self._abandon()
            origin = vfs.not_of_the_file(exc)
            if isinstance(origin, OSError) and not isinstance(exc, GamwarmError):
                raise explain(origin, self.path, "open it") from exc
            raise
        self._finalizer = weakref.finalize(self, _drop, self._writer, self._reader)
        self._finalizer.atexit = False
        _alive.add(self)
        return self

    def _open(self, lock: LockChoice, create: Check | None) -> None:
        try:
            status = vfs.DISK.stat(self.path)
        except FileNotFoundError:
            if self.mode == "r":
                raise pager.missing(self.path) from None
            status = None
        if status is not None and not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise NotAStore(f"{self.path}: {what}; give the path of a file", path=str(self.path))
        self._reader.shared = may_be_shared(self.path.parent)
        if self.mode == "a":
            vfs.require_directory(self.path)
            if status is not None:
                self._refuse_foreign()
                # Ask for permission before making the lock: nothing is left next to others' files.
                vfs.DISK.close(vfs.DISK.open(self.path, os.O_RDWR))
            if not os.access(self.path.parent, os.W_OK | os.X_OK):
                raise StoreReadOnly(
                    f"{self.path}: no permission to write in {self.path.parent}, where the journal and the lock "
                    "must be created. Open it with mode='r', or give this account write permission to the directory.",
                    path=str(self.path),
                )
            self._lock = choose_lock(self.path, lock, self._lock_timeout)
            self._writer.pair.shared = self._reader.shared = self._lock.shared or self._reader.shared
            if status is None:
                self._create(create)
            self._lock.claim()
        self.read(_nothing)

    def _refuse_foreign(self) -> None:
        fd = vfs.DISK.open(self.path, os.O_RDONLY)
        try:
            with contextlib.suppress(TornHeader):
                parse(pager.leading_bytes(fd), str(self.path))
        finally:
            vfs.DISK.close(fd)

    def _create(self, create: Check | None) -> None:
        assert self._lock is not None
        with self._rlock, self._lock.held():
            if os.path.lexists(self.path):
                return  # another process was first
            pages, size = new_image(create)
            uuid = secrets.token_bytes(UUID_BYTES)
            self._created_syncs = pager.create(self.path, pages, size, uuid, shared=self._reader.shared)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Committed transactions in the file now, other processes' included (one small read)."""
        if self._closed:
            raise self._closed_error()
        block = self._reader.peek_header()
        if block is None or not self._understood(block):
            # Replaced, removed, or caught in the middle of a write.
            with self._rlock:
                self._ensure_open()
                if not self._writing:
                    self.read(_nothing)
                self._understood(self._guard(self._reader.look).block)
        return self._generation

    def _understood(self, block: bytes) -> bool:
        if block != self._generation_block:
            try:
                header = parse(block, str(self.path))
            except (TornHeader, StoreError):
                return False
            if header.uuid != self.uuid:
                return False
            self._generation, self._generation_block = header.generation, block
        return True

    @property
    def sync_count(self) -> int:
        """Calls of fsync and fdatasync so far."""
        return self._writer.pair.syncs + self._created_syncs

    @property
    def recovered(self) -> bool:
        """Whether this container had to replay a journal after a crash."""
        return self._writer.pair.recoveries > 0

    @critical
    def read(self, fn: Callable[[h5py.File], T]) -> T:
        """Call `fn` with a handle on one committed state and return what it returns.

        `fn` may be called more than once (a writer came between; what it returned or raised is then
        thrown away), so it must not change anything, and must not keep objects of the handle.
        Inside this thread's own `write`, `fn` gets the handle being written.

        Raises
        ------
        StoreDamaged
            HDF5 cannot open the file, or its last writer died and the journal is gone.
        StoreUnavailable, StoreClosed, LockTimeout
            As they say. What `fn` raises on an unchanged file is passed on unchanged.
        """
        with self._rlock:
            self._ensure_open()
            if self._writing:
                assert self._writer.h5 is not None
                return fn(self._writer.h5)
            self._reading += 1
            try:
                return self._read_optimistically(fn) if not self._reader.shared else self._read_patiently(fn)
            finally:
                self._reading -= 1

    @critical
    def look(self) -> Snapshot | None:
        """Changes whenever the file does; None in a transaction, and where only `read` tells."""
        with self._rlock:
            if self._closed or self._writing:
                return None
            try:
                return self._reader.look()
            except OSError:
                return None

    @critical
    def drop_handles(self) -> None:
        """Let the next read or write take everything from the file, nothing from memory."""
        with self._rlock:
            if not (self._writing or self._reading):
                self._writer.drop()
                self._reader.drop()

    # -- writing -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def write(self, patience: float | None = None) -> Iterator[h5py.File]:
        """One transaction: what is done to the yielded handle becomes durable together.

        Committed (and on disk) when the block ends; an exception in it takes everything back. Other
        writers wait. ``patience`` is how long this one waits for them (default: ``lock_timeout``).

        Raises
        ------
        StoreReadOnly, LockTimeout, StoreUnavailable, StoreDamaged, StoreClosed
            The transaction did not happen.
        """
        with self._rlock:
            self._ensure_writable()
            with self._turn(self._begin, patience, lock_patience=patience) as h5:
                self._writing = True
                try:
                    yield h5
                except BaseException as exc:
                    latched = vfs.not_of_the_file(self._writer.latched)
                    self._writer.drop()
                    if isinstance(exc, Exception) and latched is not None:
                        raise unreadable(self.path, "read it", latched) from exc
                    raise
                finally:
                    self._writing = False
                self.check_opened_here()
                self._writer.commit()

    @critical
    def rewrite(self, fill: Callable[[h5py.File, h5py.File], T]) -> tuple[T, int, int]:
        """Replace the file by what ``fill(old, new)`` copies to a new one.

        The generation grows by one; other handles and processes notice and continue with the new
        file. An exception leaves the file as it was. A kill leaves the old file or the new one,
        complete. Returns what ``fill`` returned, and the bytes of both files.
        """
        with self._rlock:
            self._ensure_writable()
            with self._turn(self._begin) as old:
                self._writing = True
                try:
                    return rewrite(self._writer.pair, lambda new: fill(old, new))
                except OSError as exc:
                    if isinstance(exc, GamwarmError) or exc.errno is None:
                        raise
                    raise explain(exc, self.path, "rewrite it") from exc
                finally:
                    self._writing = False
                    self._writer.drop()
                    self._reader.drop()

    def _begin(self) -> h5py.File:
        h5 = self._writer.begin()
        try:
            self._check_first_open(self._writer.pair.header.pack(), h5)
        except BaseException:
            self._writer.drop()
            raise
        return h5

    @contextlib.contextmanager
    def _turn(
        self, begin: Callable[[], T], patience: float | None = None, *, lock_patience: float | None = None
    ) -> Iterator[T]:
        """Hold the writer lock around what `begin` begins.

        While another program has the file open for writing with plain HDF5, no transaction can
        begin; the lock is free while we wait for that, for at most `patience` seconds (default: as
        long as for the lock).
        """
        assert self._lock is not None
        allowed = self._lock_timeout if patience is None else patience
        started = time.monotonic()
        pause = FIRST_PAUSE
        warned = False
        while True:
            self._lock.acquire(lock_patience)
            try:
                try:
                    begun = self._guard(begin)
                except OpenElsewhere as exc:
                    elsewhere = exc
                else:
                    yield begun
                    return
            finally:
                try:
                    self._writer.pair.end_session()
                finally:
                    self._lock.release()
            waited = time.monotonic() - started
            if waited >= allowed:
                raise elsewhere.timeout(self.path, waited)
            if waited >= QUIET_SECONDS and not warned:
                _log.warning("%s: waiting for %s, which has it open for writing", self.path, elsewhere.holder)
                warned = True
            wait(min(pause, allowed - waited))
            pause = min(2 * pause, LONGEST_PAUSE)

    # -- closing -----------------------------------------------------------------------------------

    @critical
    def close(self) -> None:
        """Make the file stand alone (no journal) and close it. Idempotent.

        A failure here only leaves the journal next to the file; the next open takes it from there.
        """
        with self._rlock:
            if self._closed:
                return
            if self._writing:
                raise StoreError(f"{self.path}: close() inside a transaction. Leave the with block first.")
            self._close(self._lock_timeout)

    def _close(self, patience: float) -> None:
        self._closed = True
        try:
            if self._lock is not None and self.opened_here:
                self._finish(min(patience, CLOSE_PATIENCE))
                self._lock.tidy()
        finally:
            self._abandon()

    def _disarm(self) -> None:
        self._writer.disarm()

    def _finish(self, patience: float) -> None:
        """Leave nothing next to the file: our own journal, or remains of a dead process."""
        assert self._lock is not None
        if not self._writer.used and not os.path.lexists(journal_path(self.path)):
            return
        try:
            with self._lock.held(patience if self._writer.used else 0.0):
                try:
                    self._writer.finish()
                finally:
                    self._writer.pair.end_session()
        except (StoreError, OSError, OpenElsewhere) as exc:
            # Whoever holds the lock now takes the journal in with its own.
            harmless = isinstance(exc, LockTimeout) or not self._writer.used
            _log.log(
                logging.DEBUG if harmless else logging.WARNING,
                "%s: its journal stays next to it until the next close (%s)",
                self.path,
                exc,
            )

    def _abandon(self) -> None:
        self._closed = True
        self._reader.close()
        self._writer.close()
        if self._finalizer is not None:
            self._finalizer.detach()
        _alive.discard(self)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<gamwarm.Container {str(self.path)!r} mode={self.mode!r}{' closed' if self._closed else ''}>"

    # -- states that forbid ------------------------------------------------------------------------

    def _ensure_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _ensure_writable(self) -> None:
        self._ensure_open()
        if self.mode == "r":
            raise StoreReadOnly(
                f"{self.path}: opened with mode='r'. Open it with mode='a' to write.", path=str(self.path)
            )
        self.check_opened_here()
        if self._writing:
            raise StoreError(
                f"{self.path}: a transaction is open in this thread; transactions do not nest. "
                "Use the handle of the open one.",
                path=str(self.path),
            )
        if self._reading:
            raise StoreError(f"{self.path}: write() inside read(). Return from read() first.", path=str(self.path))

    def _closed_error(self) -> StoreClosed:
        return StoreClosed(f"{self.path}: closed. Open it again.", path=str(self.path))

    def check_opened_here(self) -> None:
        """Refuse to write in a process that was forked from the one that opened the file."""
        if not self.opened_here:
            raise StoreUnavailable(
                f"{self.path}: opened by process {self._pid}, which forked this one. Open it again here to write.",
                path=str(self.path),
            )


def _nothing(_: h5py.File) -> None:
    return None


@quiet
def _drop(writer: Writer, reader: Reader) -> None:
    """A container was collected without being closed: the journal keeps what was acknowledged."""
    reader.close()
    writer.close()


def in_use_here() -> bool:
    """Whether this thread is in a call of any container: a finalizer must not begin one."""
    return any(container._rlock.lock._is_owned() for container in list(_alive))  # type: ignore[attr-defined]


@critical
def clean_up_all() -> None:
    """Leave no journal next to the files that this process has open. They stay open."""
    for container in list(_alive):
        if container.opened_here and container._lock is not None and container._rlock.lock.acquire(blocking=False):
            try:
                if not (container._writing or container._reading):
                    with contextlib.suppress(Exception):
                        container._finish(TIDY_PATIENCE)
            finally:
                container._rlock.lock.release()


@critical
def _at_exit() -> None:
    """Close what is open and keep threads out of HDF5: the locks are taken for good."""
    for container in list(_alive):
        if container._rlock.lock.acquire(timeout=EXIT_PATIENCE):
            with contextlib.suppress(Exception):
                container._close(TIDY_PATIENCE)
        else:
            container._disarm()


def _after_fork_in_child() -> None:
    for container in list(_alive):
        # The thread that held it does not exist here.
        container._rlock = Lock()
        container._reading, container._writing = 0, False
        container._disarm()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
