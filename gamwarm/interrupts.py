"""Where a signal may strike: nowhere inside a critical section but at the points that say so.

CPython runs a signal's handler in the main thread between two instructions, and what the handler
raises (`KeyboardInterrupt`, a time-out, `SystemExit`) comes out of the code there: an ``__enter__``
that has just taken a lock, a callback of HDF5 that may not raise. So every call that changes shared
state is a critical section: while one runs, the handlers of this process are replaced by one that
records signals, which are delivered

* when the outermost section ends;
* in `wait`, `deliver` and `Lock`, which every wait and every long loop goes through, at least every
  `PATIENCE` seconds;
* at once inside `allowed`, which surrounds every call of the user's code.

A blocked signal mask would not do: the kernel gives the signal to another thread, and CPython still
runs the handler in this one. Threads other than the main one are never interrupted, and a section
costs them one comparison.

Inside a section a delivered exception travels as an `Interrupt`, which nothing but clean-up
catches, so that the `TimeoutError` of a handler is never taken for an error of the disk. Where the
section ends it is itself again.

docs/design.md, "Interrupts", has the argument.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import wraps
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, ParamSpec, Protocol, TypeVar

__all__ = [
    "PATIENCE",
    "AbandonedBlock",
    "Body",
    "Interrupt",
    "Lock",
    "allowed",
    "cause",
    "critical",
    "deliver",
    "quiet",
    "wait",
]

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE: Final = 0.05
"""Seconds between two checks for recorded signals during a wait."""
SOON: Final = 0.001
NEAR_FRAMES: Final = 4
NOT_MAIN: Final = -1
STACK: Final = 120
"""Nested calls that a section has room for; the deepest public call needs 40."""

# The C functions: `signal`'s wrappers make an enum of every number, at twenty times the cost.
_signal: Final[Any] = importlib.import_module("_signal")
_handler_of: Final[Callable[[int], Any]] = _signal.getsignal
_set_handler: Final[Callable[[int, Any], Any]] = _signal.signal
_get_ident = _thread.get_ident

# Not the faults: the instruction that raised one would be repeated for ever behind a handler that
# takes notes.
_FAULTS: Final = {"SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"}
_SIGNALS: Final = sorted(int(number) for number in signal.valid_signals() if getattr(number, "name", "") not in _FAULTS)


class Interrupt(BaseException):
    """An exception of a signal handler on its way out of a critical section.

    Attributes
    ----------
    error : BaseException
        What the handler raised.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}".removesuffix(": ")

    def unwrapped(self) -> BaseException:
        """Return the handler's exception, with its traceback and the marks set on it here."""
        for name, value in vars(self).items():
            if name != "error":
                setattr(self.error, name, value)
        return self.error.with_traceback(self.__traceback__)


def cause(error: BaseException) -> BaseException:
    """Return what was raised, also for an exception that is leaving a section."""
    return error.error if isinstance(error, Interrupt) else error


class _Note:
    """Stands in the place of a handler: has its signal noted in a section, passed on outside.

    One per handler: what saves and restores handlers in a `Body` puts the right one back.
    """

    __slots__ = ("_shield", "handler")

    def __init__(self, shield: _Shield, handler: Callable[[int, FrameType | None], object]) -> None:
        self._shield, self.handler = shield, handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        shield = self._shield
        if shield.notes[number] is not self:  # put back by somebody who saved it
            shield.notes[number], shield.seen = self, []
        if shield.depth:
            shield.noted[number] = None
            return
        if _is_gap(frame):
            shield.post(number, frame)
            return
        window = shield.window
        shield.noted[number] = None
        if window is not None:
            # What the handler raises is to travel through the section as if it were closed.
            shield.depth = window.depth
            shield.deliver_noted(frame)
            shield.depth = 0
            return
        shield.deliver_and_restore(frame)


class _Shield:
    """The state of the main thread.

    Invariant: whatever instruction a signal comes at, `depth` alone decides whether it is noted.
    The handlers in place are second to it: a `_Note` passes a signal on if it is left in place
    outside of a section.

    Attributes
    ----------
    thread : int or None
        The thread whose handlers are replaced; None where Python runs no handlers (a
        sub-interpreter).
    depth : int
        Sections entered; 0 outside, and inside `allowed`.
    bodies : int
        `Body` blocks under way: notes stay in place, so that their ends are not struck.
    finalizers : int
        Sections out of which nothing can be raised; nothing is delivered in them.
    window : allowed or None
        The innermost call of user code inside a section.
    """

    def __init__(self) -> None:
        self.thread: int | None = threading.main_thread().ident
        self.depth = 0
        self.bodies = 0
        self.finalizers = 0
        self.window: allowed | None = None
        self.noted: dict[int, None] = {}
        self.notes: dict[int, _Note] = {}
        self.seen: list[Any] = []
        self._taken: list[int] = []

    def enter(self) -> int:
        """Begin a section; return what `leave` wants."""
        if _get_ident() != self.thread:
            return NOT_MAIN
        before = self.depth
        if not before:
            self.arm()
        self.depth = before + 1
        return before

    def leave(self, before: int) -> None:
        """End a section; deliver recorded signals if it was the outermost."""
        if before < 0:
            return
        self.depth = before
        if not before:
            self.deliver_and_restore(sys._getframe(1))

    def leave_later(self, before: int) -> None:
        """End a section; its signals come after the caller, which no exception may leave."""
        if before < 0:
            return
        self.depth = before
        if not before:
            if self.noted:
                noted, self.noted = self.noted, {}
                for number in noted:
                    self.post(number, None)
            elif not self.bodies:
                self._restore()

    def arm(self) -> None:
        """Put a `_Note` in the place of every handler that was written in Python."""
        seen = list(map(_handler_of, _SIGNALS))
        if seen != self.seen:
            there = [(number, handler) for number, handler in zip(_SIGNALS, seen, strict=True) if callable(handler)]
            self.notes |= {n: each if isinstance(each, _Note) else _Note(self, each) for n, each in there}
            self.seen, self._taken = seen, [number for number, _ in there]
        try:
            for number in self._taken:
                _set_handler(number, self.notes[number])
        except ValueError:  # not the main thread of the main interpreter after all: no handler runs here
            self.thread = None

    def _restore(self) -> None:
        for number in self._taken:
            note = _handler_of(number)
            if isinstance(note, _Note):
                _set_handler(number, note.handler)

    def deliver_and_restore(self, frame: FrameType | None) -> None:
        # In this order: a handler of the user's own in place already would strike while one is
        # taken off the notes.
        try:
            self.deliver_noted(frame)
        finally:
            if not self.bodies:
                self._restore()

    def post(self, number: int, frame: FrameType | None) -> None:
        """Let a signal come again, from another thread: only after the caller has ended."""
        assert self.thread is not None
        try:
            _thread.start_new_thread(_kill, (self.thread, number))
        except RuntimeError:  # no more threads: better here than never
            self.notes[number].handler(number, frame)

    def deliver_noted(self, frame: FrameType | None) -> None:
        if not self.noted:
            return
        before = self.depth
        self.depth = before + 1  # a signal that struck here would leave another one behind for some later call
        number = min(self.noted, default=None)
        if number is not None:
            del self.noted[number]
        self.depth = before
        if number is None:  # one that came just before has delivered both
            return
        try:
            self.notes[number].handler(number, frame)
        except BaseException as error:
            with contextlib.suppress(Exception):
                error._gamwarm_struck = True  # type: ignore[attr-defined]
            raise
        finally:
            self.deliver_noted(frame)  # one handler that raises does not keep a signal from the next

    def deliver(self) -> None:
        """Deliver recorded signals inside a section."""
        if self.noted and self.depth and not self.finalizers and _get_ident() == self.thread:
            try:
                self.deliver_noted(sys._getframe(1))
            except Interrupt:
                raise
            except BaseException as error:
                raise Interrupt(error) from None

    def forget_parent(self) -> None:
        """In a forked child: the section, if any, is of a thread that does not exist here."""
        if self.thread is not None and _get_ident() != self.thread:
            self.thread = _get_ident()
            self.depth = self.bodies = self.finalizers = 0
            self.window = None
            self.noted = {}
            self._restore()


def _kill(thread: int, number: int) -> None:
    # Not at once: the other thread may be about to sleep, and would not wake.
    time.sleep(SOON)
    signal.pthread_kill(thread, number)


_shield: Final = _Shield()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shield.forget_parent)


class _Finalizer:
    """A section out of which nothing can be raised."""

    def __enter__(self) -> None:
        try:
            self._before = _shield.enter()
        except BaseException:  # struck on the way in: there is no caller to notify, but much to do
            self._before = _shield.enter()
        self._checked, _stack.checked = _stack.checked, True  # it has no other moment, with stack enough or not
        _shield.finalizers += self._before >= 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shield.finalizers -= self._before >= 0
        _stack.checked = self._checked
        _shield.leave_later(self._before)


class _Stack(threading.local):
    """Whether this thread is in a section already, so that there is stack enough."""

    checked = False


_stack: Final = _Stack()


def _check_stack() -> None:
    """Raise a `RecursionError` here, before anything is acquired, rather than in a section.

    Running out of stack in the call of an ``__exit__`` leaves a lock taken, also the one that h5py
    has for all threads.
    """
    try:
        sys._getframe(sys.getrecursionlimit() // 4)  # each may count for several, as C functions are counted too
    except ValueError:
        return
    _nest(STACK)


def _nest(calls: int) -> None:
    if calls:
        _nest(calls - 1)


def critical(function: Callable[P, R]) -> Callable[P, R]:
    """Make every call of a function a critical section; sections nest.

    Raises
    ------
    RecursionError
        Too little stack is left for one; nothing was done.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        outermost = not _stack.checked
        if outermost:
            _check_stack()
        before = _shield.enter()
        try:
            if outermost:
                _stack.checked = True
            return function(*args, **kwargs)
        except Interrupt as interrupt:
            if before:
                raise
            raise interrupt.unwrapped() from None
        finally:
            if outermost:
                _stack.checked = False
            _shield.leave(before)

    return call


def quiet(function: Callable[P, R]) -> Callable[P, R]:
    """`critical` for finalizers, whose exceptions are lost: signals are delivered later."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _Finalizer():
            return function(*args, **kwargs)

    return call


def deliver() -> None:
    """Let a signal noted in this section strike here. Nothing outside, or without one.

    The state must be as good as before any call that may raise.

    Raises
    ------
    Interrupt
    """
    _shield.deliver()


def wait(seconds: float) -> None:
    """Sleep; in a section, a signal strikes within `PATIENCE`."""
    if not _shield.depth or _get_ident() != _shield.thread:
        time.sleep(seconds)
        return
    deadline = time.monotonic() + seconds
    while True:
        deliver()
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, PATIENCE))


class allowed:  # noqa: N801 - a word in a with statement
    """``with allowed():`` around a call of the user's code: signals strike in it at once.

    What a handler raised there propagates as an `Interrupt`, unless the user's code has caught it.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._outer: allowed | None = None

    def __enter__(self) -> None:
        if _shield.depth and _get_ident() == _shield.thread:
            _shield.deliver()
            self._outer = _shield.window
            self.depth = _shield.depth
            _shield.window = self
            _shield.depth = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.depth:
            _shield.depth = self.depth
            _shield.window = self._outer
            _shield.arm()  # the user's code may have set a handler
            if getattr(error, "_gamwarm_struck", False) and error is not None:
                raise Interrupt(error) from None


class Lock:
    """A reentrant lock; a signal strikes while it is waited for.

    Attributes
    ----------
    lock : RLock
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __enter__(self) -> None:
        if self.lock.acquire(blocking=False):
            return
        if _get_ident() != _shield.thread:
            self.lock.acquire()
            return
        while not self.lock.acquire(timeout=PATIENCE):
            deliver()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()


class Work(Protocol):
    """What a `Body` holds while the user's block runs."""

    def begin(self) -> None:
        """Take it; what this raises must leave nothing taken."""

    def end(self, error: BaseException | None) -> None:
        """Give it back. ``error`` is what the block raised; it propagates unless this raises."""


class Body:
    """``with Body(work):`` begins and ends ``work`` in critical sections, but not the block.

    No signal strikes between `begin` and the block, or between the block and `end`. A block that is
    left without its ``__exit__`` (a debugger, an exception set by another thread) ends when this
    object is collected.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lost: weakref.finalize[..., Body] | None = None
        self._shielded = False

    def __enter__(self) -> None:
        if not _stack.checked:
            _check_stack()
        before = _shield.enter()
        try:
            self._work.begin()
            try:
                _shield.deliver()
            except BaseException as error:
                self._work.end(error)
                raise
            self._shielded = before >= 0
            _shield.bodies += self._shielded
            self._lost = weakref.finalize(self, _abandon, self._work, self._shielded, os.getpid(), _get_ident())
            self._lost.atexit = False
        except Interrupt as interrupt:
            if before:
                raise
            raise interrupt.unwrapped() from None
        finally:
            if self._lost is not None:
                _shield.leave_later(before)
            else:
                _shield.leave(before)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = _shield.enter()
        checked, _stack.checked = _stack.checked, True  # as at the beginning of the block
        try:
            assert self._lost is not None
            self._lost.detach()
            self._lost = None
            _shield.bodies -= self._shielded
            self._work.end(error)
        except Interrupt as interrupt:
            if before:
                raise
            raise interrupt.unwrapped() from None
        finally:
            _stack.checked = checked
            _shield.leave(before)


class AbandonedBlock(BaseException):
    """What a block ends with whose end was lost."""


def _abandon(work: Work, shielded: bool, process: int, thread: int) -> None:
    if (process, thread) != (os.getpid(), _get_ident()):
        return
    with _Finalizer():
        _shield.bodies -= shielded
        work.end(AbandonedBlock("its block was left without its exit"))


_GAPS: Final[frozenset[CodeType]] = frozenset(
    method.__code__
    for method in (
        _Shield.enter,
        _Shield.arm,
        Body.__enter__,
        Body.__exit__,
        _Finalizer.__enter__,
        _Finalizer.__exit__,
        allowed.__enter__,
        allowed.__exit__,
    )
)
"""Code in which no signal may strike even outside of sections: what it begins would never end."""


def _is_gap(frame: FrameType | None) -> bool:
    for _ in range(NEAR_FRAMES):
        if frame is None:
            return False
        if frame.f_code in _GAPS:
            return True
        frame = frame.f_back
    return False
