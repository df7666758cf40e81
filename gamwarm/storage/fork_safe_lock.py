"""A reentrant lock that a forked child can take even if another thread held it at the fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

from gamwarm.interrupts import Lock

__all__ = ["ForkSafeLock"]


class ForkSafeLock(Lock):
    """A reentrant lock, replaced in a forked child if another thread held it.

    Parameters
    ----------
    discard : bound method
        Called in a forked child when the lock is replaced, to drop the other thread's unfinished
        work. Held weakly.
    """

    def __init__(self, discard: Callable[[], None]) -> None:
        super().__init__()
        self._discard = weakref.WeakMethod(discard)
        _locks.add(self)

    def _after_fork(self) -> None:
        if self.lock.acquire(blocking=False):  # free, or held by the thread that forked, which will release it
            self.lock.release()
            return
        self.lock = threading.RLock()
        discard = self._discard()
        if discard is not None:
            discard()


_locks: Final[weakref.WeakSet[ForkSafeLock]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_locks):
        lock._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
