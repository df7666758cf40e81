"""An exclusive flock on a file that stays, for a writer that takes it for every transaction."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

from gamwarm.errors import StoreError, StoreReadOnly
from gamwarm.interrupts import wait
from gamwarm.storage._disk import make_beside, open_beside, share_if_ours

__all__ = ["Flock", "FlockTimeout"]

FIRST_PAUSE: Final = 0.0002
LONGEST_PAUSE: Final = 0.002
"""A waiter that sleeps longer than a transaction takes is starved by a neighbour in a loop."""
_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})

_held: weakref.WeakSet[Flock] = weakref.WeakSet()


class FlockTimeout(Exception):
    """Somebody else held the lock for all of the time allowed."""


class Flock:
    """Not reentrant; its owner serialises threads.

    Parameters
    ----------
    path : str
        The lock file; made if it is missing, and never removed.
    like : os.stat_result or None
        Of the store, whose permissions the lock file is to have, whatever the umask; None: by the umask.
    on_acquired : callable
        Called with the descriptor under the lock; what it raises releases the lock again.
    """

    def __init__(self, path: Path, like: os.stat_result | None, on_acquired: Callable[[int], None]) -> None:
        self._path = path
        self._like = like
        self._on_acquired = on_acquired
        self._fd = -1

    def acquire(self, timeout: float) -> None:
        """Take the lock, or raise `FlockTimeout` after so many seconds, or `OSError`."""
        deadline, pause = 0.0, FIRST_PAUSE
        while not self._try():
            now = time.monotonic()
            deadline = deadline or now + timeout
            if now >= deadline:
                raise FlockTimeout(str(self._path))
            wait(min(pause, deadline - now))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _try(self) -> bool:
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                ours, there = os.fstat(fd), os.stat(self._path)
                same = (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
            except FileNotFoundError:
                same = False
            if same:
                self._on_acquired(fd)
                if self._like is not None and ours.st_nlink == 1:
                    share_if_ours(fd, self._like)
                    self._like = None
                self._fd, fd = fd, -1
                _held.add(self)
            return same  # else somebody removed the file: a newcomer would lock another one
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def _open(self) -> int:
        try:
            return self._open_there()
        except FileNotFoundError:
            try:
                return make_beside(self._path, self._like)
            except StoreError as error:
                if not isinstance(error.__cause__, FileExistsError):
                    raise
                return self._open_there()  # another process was first

    def _open_there(self) -> int:
        try:
            return open_beside(self._path, os.O_RDWR)
        except StoreReadOnly:
            # Its maker's umask may have been stricter than the store is by now; a lock needs no more than this.
            return open_beside(self._path, os.O_RDONLY)

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _held.discard(self)
            # Not by closing alone: a process forked meanwhile without our hook would go on holding the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _let_go_in_child(self) -> None:
        """Close a forked child's copy: the lock belongs to the parent, and must end with it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock._let_go_in_child()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
