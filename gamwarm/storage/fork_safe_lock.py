"""A lock by which threads take turns, and which a forked child gets anew."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

from gamwarm.interrupts import Lock

__all__ = ["Turn"]


class Turn(Lock):
    """A reentrant lock. In a forked child another thread's turn is over: that thread does not exist there.

    Parameters
    ----------
    forget : bound method
        Called in a forked child when that happens, to drop what belonged to the turn. Held weakly.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        super().__init__()
        self._forget = weakref.WeakMethod(forget)
        _turns.add(self)

    def _begin_anew(self) -> None:
        if self.lock.acquire(blocking=False):  # free, or held by the very thread that forked and will leave its block
            self.lock.release()
            return
        self.lock = threading.RLock()
        forget = self._forget()
        if forget is not None:
            forget()


_turns: Final[weakref.WeakSet[Turn]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for turn in list(_turns):
        turn._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
