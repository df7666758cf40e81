"""A lock by which threads take turns, and which a forked child gets anew."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Final

__all__ = ["Turn"]


class Turn:
    """A reentrant lock. In a forked child another thread's turn is over: that thread does not exist there.

    Parameters
    ----------
    forget : bound method
        Called in a forked child when that happens, to drop what belonged to the turn. Held weakly.

    Attributes
    ----------
    lock : RLock
        Entered by the turn; for a caller in a hurry.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self._forget = weakref.WeakMethod(forget)
        _turns.add(self)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()

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
