"""An exclusive flock on a file that stays, for a writer that takes it for every transaction."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import weakref
from collections.abc import Callable
from typing import Final

if sys.platform != "win32":
    import fcntl

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
    mode : int or None
        Permissions of a lock file that is made here, whatever the umask; None: by the umask.
    on_acquired : callable
        Called with the descriptor under the lock; what it raises releases the lock again.
    """

    def __init__(self, path: str, mode: int | None, on_acquired: Callable[[int], None]) -> None:
        self._path = path
        self._mode = mode
        self._on_acquired = on_acquired
        self._fd = -1

    def acquire(self, timeout: float) -> None:
        """Take the lock, or raise `FlockTimeout` after so many seconds, or `OSError`."""
        deadline, pause = 0.0, FIRST_PAUSE
        while not self._try():
            now = time.monotonic()
            deadline = deadline or now + timeout
            if now >= deadline:
                raise FlockTimeout(self._path)
            time.sleep(min(pause, deadline - now))
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
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            pass
        try:
            fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return os.open(self._path, flags)
        if self._mode is not None:
            with contextlib.suppress(OSError):
                os.fchmod(fd, self._mode)
        return fd

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
