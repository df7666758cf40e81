"""The kinds of lock by which one process at a time writes a file, and which of them a file gets.

``flock`` is used where it excludes; elsewhere filelock's strict soft lock (hard-linked claims). The
choice is never downgraded silently: a directory where neither works is refused.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, get_args

if sys.platform != "win32":
    import fcntl

from filelock import SoftFileLockProtocolError, StrictSoftFileLock, Timeout

from gamwarm.errors import InvalidInput, StoreError, StoreReadOnly, StoreUnavailable
from gamwarm.storage.coherence import Safety
from gamwarm.storage.directory_probe import DirectoryProbe, probe, recall
from gamwarm.storage.vfs import create_auxiliary, explain, open_auxiliary, share_if_ours
from gamwarm.storage.writer_lock import (
    LOCK_CHOICES,
    LockChoice,
    LockKind,
    OtherHost,
    OtherLock,
    WriterLock,
    lock_path,
    read_start,
)

try:  # Not public, hence guarded: without it the claim of a dead process must be removed by hand.
    from filelock._identity import owner_is_stale
except ImportError:  # pragma: no cover
    owner_is_stale = None  # type: ignore[assignment]

__all__ = ["KINDS", "LOCK_CHOICES", "FlockLock", "LockChoice", "SoftLock", "WriterLock", "choose_lock", "lock_path"]

RECLAIM_SECONDS: Final = 0.25
"""How long a soft lock is waited for before its claims are searched for dead owners."""
RECLAIM_EVERY: Final = 10.0
log = logging.getLogger("gamwarm")

HOLDER_BYTES: Final = 160
HOLDER_PREFIX: Final = b"pid "
_HOST_OF_HOLDER: Final = re.compile(rb"pid \d+ on (.+) since ")
UNSET_MODE: Final = -1
"""filelock's value for "by the umask"."""
_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})


class FlockLock(WriterLock):
    """An exclusive ``flock`` on the lock file, which also names its last holder.

    Not filelock's: a contended attempt of that costs eleven requests on the directory, of this one
    a single ``flock``.
    """

    kind = "flock"
    other = "soft"
    broken = "flock does not exclude"
    claims_host = True

    def __init__(self, path: Path, timeout: float, *, shared: bool, single_host: bool = False) -> None:
        super().__init__(path, timeout, shared=shared, single_host=single_host)
        self._fd = -1
        self._is_held = False
        self._shared_out = False

    @staticmethod
    def works(found: DirectoryProbe) -> bool:
        return found.flock

    @property
    def is_held(self) -> bool:
        return self._is_held

    def holder(self) -> str:
        try:
            return read_start(self.path, HOLDER_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _try(self, waited: float) -> bool:
        if self._fd < 0:
            _open_flocks.add(self)
            self._fd = self._open()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        try:
            ours, there = os.fstat(self._fd), os.stat(self.path)
            same = (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        except FileNotFoundError:
            same = False
        if not same:  # Somebody removed the file: a new process would lock another one.
            self._free()
            return False
        self._sign(alone=ours.st_nlink == 1)
        self._is_held = True
        return True

    def _open(self) -> int:
        try:
            return self._open_there()
        except FileNotFoundError:
            self._look_at_file()
            try:
                return create_auxiliary(self.path, self._like)
            except StoreError as error:
                if not isinstance(error.__cause__, FileExistsError):
                    raise
                return self._open_there()  # another process was first

    def _open_there(self) -> int:
        try:
            return open_auxiliary(self.path, os.O_RDWR)
        except StoreReadOnly:
            # Its maker's umask may have been stricter than the store is; reading suffices.
            return open_auxiliary(self.path, os.O_RDONLY)

    def _sign(self, *, alone: bool) -> None:
        found = os.pread(self._fd, HOLDER_BYTES, 0)
        if _is_soft_mark(found):
            raise OtherLock("it bears the mark of the soft lock")
        claimed = _HOST_OF_HOLDER.match(found)
        if self.single_host and claimed is not None and claimed[1].decode(errors="replace") != _host():
            raise OtherHost(claimed[1].decode(errors="replace"))
        if not alone:
            return  # its other name may belong to someone else
        if not self._shared_out:
            self._look_at_file()
            if self._like is not None:
                share_if_ours(self._fd, self._like)
                self._shared_out = True
        line = _signature(os.getpid(), int(time.time()))
        if found != line:
            # The name is for people; without space for it the lock still holds.
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, line, 0)

    def tidy(self) -> None:
        """Take back this host's claim; the lock file stays."""
        if self.single_host:
            with contextlib.suppress(OSError), self.held(0.0):
                os.ftruncate(self._fd, 0)

    def _touch(self) -> None:
        os.utime(self._fd)

    def _last_touched(self) -> int:
        return os.fstat(self._fd).st_mtime_ns

    def _free(self) -> None:
        fd, self._fd, self._is_held = self._fd, -1, False
        if fd >= 0:
            _open_flocks.discard(self)
            # Not by closing alone: a child forked without our hook would keep the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _forget_in_child(self) -> None:
        """Close a forked child's copy: the lock belongs to the parent, and must end with it."""
        fd, self._fd, self._is_held = self._fd, -1, False
        if fd >= 0:
            os.close(fd)


class SoftLock(WriterLock):
    """filelock's strict soft lock: claims by hard links, where ``flock`` does not exclude."""

    kind = "soft"
    other = "flock"
    broken = "hard links do not work"
    claims_host = False

    def __init__(self, path: Path, timeout: float, *, shared: bool = True, single_host: bool = False) -> None:
        super().__init__(path, timeout, shared=True)  # an attempt is some eighty calls, wherever the directory is
        self._lock: StrictSoftFileLock | None = None
        self._search_at = RECLAIM_SECONDS
        self._claims = Path(f"{os.path.realpath(self.path)}.filelock", "claims")
        self._directories = self._claims.parent, self._claims

    @staticmethod
    def works(found: DirectoryProbe) -> bool:
        return found.hard_links

    @property
    def is_held(self) -> bool:
        return self._lock is not None and self._lock.is_locked

    def holder(self) -> str:
        with contextlib.suppress(OSError):
            claims = sorted(self._made().claims, key=lambda claim: claim.state != "held")
            return f"pid {claims[0].pid} on {claims[0].hostname}" if claims else ""
        return ""

    def tidy(self) -> None:
        """Remove the empty claim directories; a directory in use does not let itself be removed."""
        with contextlib.suppress(OSError):
            os.rmdir(self._claims)
            os.rmdir(self._claims.parent)

    def _made(self) -> StrictSoftFileLock:
        if self._lock is None:
            self._look_at_file()
            self._lock = StrictSoftFileLock(self.path, mode=UNSET_MODE if self._like is None else self._mode)
        return self._lock

    @property
    def _mode(self) -> int:
        assert self._like is not None
        return self._like.st_mode & 0o666 | 0o600

    def _share_claims(self, *, claimed: bool = False) -> None:
        """Let everyone who may write the store claim its lock; remove a killed writer's remains.

        filelock makes its directories by the umask and sticky; ours are corrected before and after
        every claim.
        """
        like = self._like
        if like is None:
            return
        with contextlib.suppress(OSError):
            for place in self._directories:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(place, 0o700)
                _share_if_ours(place, like, self._mode | (self._mode & 0o444) >> 2)
            if claimed:
                for path in (self.path, *self._claims.iterdir()):
                    _share_if_ours(path, like, self._mode)

    def _try(self, waited: float) -> bool:
        if waited == 0.0:
            self._search_at = RECLAIM_SECONDS
        elif self._is_claimed():  # One look, where an attempt takes some eighty calls.
            if waited < self._search_at:
                return False
            self._search_at = waited + RECLAIM_EVERY
            if not self._break_dead_claims():
                return False
        with contextlib.suppress(FileNotFoundError):
            if read_start(self.path, len(HOLDER_PREFIX)) == HOLDER_PREFIX:
                raise OtherLock("it bears the name of a flock's holder")
        lock = self._made()
        self._share_claims()
        try:
            with _first_error():
                lock.acquire(blocking=False)
        except Timeout:
            return False
        except FileNotFoundError:
            if self.path.parent.exists():  # Another process tidied the claim directory away between two of our steps,
                return False
            raise
        except SoftFileLockProtocolError as exc:
            if isinstance(exc.__cause__, FileNotFoundError) or self._has_hidden_claims() or self._break_dead_claims():
                return False
            if isinstance(exc.__cause__, OSError):
                raise exc.__cause__ from exc
            raise OtherLock(str(exc)) from exc
        self._share_claims(claimed=True)
        return True

    def _is_claimed(self) -> bool:
        return any(name.endswith(".claim") for name in self._names())

    def _has_hidden_claims(self) -> bool:
        """Whether FUSE keeps a removed claim under another name, until nobody has it open."""
        return any(name.startswith(".fuse_hidden") for name in self._names())

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._claims)
        except OSError:
            return []

    def _break_dead_claims(self) -> bool:
        """Remove claims whose owner, on this host, is dead; names are unique, none live is hit."""
        broken = False
        if owner_is_stale is not None:
            lock = self._made()
            is_stale = cache(owner_is_stale)  # a holder has two claims, and its answer takes some twenty calls
            with contextlib.suppress(OSError), _first_error():
                for claim in lock.claims:
                    if is_stale(claim.pid, claim.hostname, claim.start):
                        with contextlib.suppress(FileNotFoundError):
                            lock.force_break(claim.name)
                            broken = True
        return broken

    def _touch(self) -> None:
        os.utime(self.path)

    def _last_touched(self) -> int:
        return os.stat(self.path).st_mtime_ns

    def _free(self) -> None:
        if self._lock is None:
            return
        try:
            with _first_error():
                self._lock.release(force=True)  # once more, where the last release failed
        except OSError as exc:
            # What was done under the lock is valid whatever happens to the claim.
            log.warning(
                "%s: the writer lock could not be released (%s); others wait until it is, or until this process ends",
                self._file,
                exc,
            )

    @property
    def _by_hand(self) -> str:
        return f"; if it no longer exists (another node that died), remove {self.path.name}.filelock"


KINDS: Final[dict[LockKind, type[WriterLock]]] = {kind.kind: kind for kind in (FlockLock, SoftLock)}
"""In the order in which ``"auto"`` tries them."""
if set(KINDS) != set(get_args(LockKind)):
    raise TypeError(f"LockKind names {get_args(LockKind)}, the classes are {tuple(KINDS)}")


def choose_lock(path: Path, choice: LockChoice, timeout: float) -> WriterLock:
    """Make the lock of a file; what its directory supports is tried once per device and process.

    If the file uses the soft lock (its mark is in the lock file), so does ``"auto"``: the two locks
    do not exclude each other. Asking for one against the other's mark is refused when the lock is
    taken.

    Raises
    ------
    StoreUnavailable
        The lock asked for (or, for ``"auto"``, any lock) does not work there.
    """
    if choice not in LOCK_CHOICES:
        raise InvalidInput(f"lock={choice!r}: expected {' or '.join(map(repr, LOCK_CHOICES))}.")
    directory = path.parent
    try:
        device = os.stat(directory).st_dev
    except OSError as exc:
        raise explain(exc, directory, "inspect this directory") from exc
    found = _PROBES.get(device)
    if found is None:
        found = _PROBES[device] = probe(directory)
    noted = recall(directory)
    single_host = any(c is not None and c.safety is Safety.ONE_WRITER for c in (noted, found.coherence))
    if single_host:
        able = [name for name, lock in KINDS.items() if lock.claims_host and lock.works(found)]
        asked = able if choice == "auto" else [name for name in able if name == choice]
        if not asked:
            raise StoreUnavailable(
                f"{directory}: gamwarm doctor found that several hosts cannot write safely here, and "
                + (f"only lock={' and '.join(map(repr, ['auto', *able]))} can" if able else "no lock can")
                + " keep the file to one host. Put the file on another file system, or open it with mode='r'.",
                path=str(directory),
            )
        return KINDS[asked[0]](path, timeout, shared=True, single_host=True)
    if noted is not None:
        found = replace(found, shared=True, flock=found.flock and noted.flock, hard_links=noted.links)
        if not noted.flock and _mark(lock_path(path)).startswith(HOLDER_PREFIX):
            raise StoreUnavailable(
                f"{path}: it was last written under flock, and gamwarm doctor found since that flock does not "
                f"exclude other hosts here. When no process on any host uses the file, remove {lock_path(path).name}: "
                "then lock='auto' uses the soft lock.",
                path=str(path),
            )
    if choice != "auto":
        wanted = [KINDS[choice]]
    else:
        wanted = [SoftLock] if _is_soft_mark(_mark(lock_path(path))) else list(KINDS.values())
    for lock in wanted:
        if lock.works(found):
            return lock(path, timeout, shared=found.shared)
    lacking = " and ".join(lock.broken for lock in wanted)
    raise StoreUnavailable(
        f"{directory}: {lacking} on this file system ({found.file_system or 'unknown type'}), so it could not "
        "exclude a second writer. Put the file on another file system"
        + (", or open it with lock='auto'." if choice != "auto" else "."),
        path=str(directory),
    )


_PROBES: Final[dict[int, DirectoryProbe]] = {}


def _mark(path: Path) -> bytes:
    """Return what distinguishes the kinds of lock; nothing if there is no readable lock file."""
    try:
        return read_start(path, len(HOLDER_PREFIX))
    except OSError:
        return b""


def _is_soft_mark(start: bytes) -> bool:
    return bool(start) and not start.startswith(HOLDER_PREFIX)


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    """Return the first of the errors that filelock groups: it says what happened."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = next((each for each in error.exceptions if not isinstance(each, Exception)), error.exceptions[0])
        raise error from group


def _share_if_ours(path: Path, like: os.stat_result, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            share_if_ours(fd, like, mode)
        finally:
            os.close(fd)


@lru_cache(maxsize=1)
def _signature(pid: int, second: int) -> bytes:
    line = f"pid {pid} on {_host()} since {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(second))}"
    return line.encode()[: HOLDER_BYTES - 1].ljust(HOLDER_BYTES - 1) + b"\n"


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()


_open_flocks: Final[weakref.WeakSet[FlockLock]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_open_flocks):
        lock._forget_in_child()
    _open_flocks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
