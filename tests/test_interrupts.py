"""Critical sections: a signal waits for their end, or is delivered where that is allowed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import os
import signal
import sys
import threading
import time

import pytest

from gamwarm import interrupts
from gamwarm.interrupts import Body, Interrupt, allowed, critical, deliver, quiet, wait

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def _handlers_are_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM), before, strict=True):
        there = signal.getsignal(number)
        signal.signal(number, handler)
        assert there == handler


@pytest.fixture
def handler():
    """Install a handler for a signal until the test ends."""
    installed = {}

    def install(number, act):
        installed.setdefault(number, signal.signal(number, act))

    yield install
    for number, before in installed.items():
        signal.signal(number, before)


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_a_signal_strikes_when_the_outermost_section_ends():
    done = []

    @critical
    def inner():
        ctrl_c()
        done.append("inner")

    @critical
    def outer():
        inner()
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == ["inner", "outer"]


def test_the_handlers_are_in_place_again_after_a_section(handler):
    def mine(number, frame):
        pass

    handler(signal.SIGUSR1, mine)
    critical(lambda: None)()

    assert signal.getsignal(signal.SIGUSR1) is mine
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGRTMIN])
def test_any_handler_that_raises_is_held_back(handler, number):
    def late(number, frame):
        raise TimeoutError("late")

    handler(number, late)
    done = []

    @critical
    def section():
        signal.raise_signal(number)
        done.append(True)

    with pytest.raises(TimeoutError, match="late"):
        section()
    assert done


def test_each_signal_is_delivered_even_if_the_one_before_raises(handler):
    came = []
    handler(signal.SIGTERM, lambda *_: came.append("term"))

    @critical
    def section():
        ctrl_c()
        ctrl_c()
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        section()
    assert came == ["term"]


def test_a_wait_is_interrupted_at_once_and_unwinds_inside_the_section():
    undone = []

    @critical
    def section():
        try:
            wait(20)
        except BaseException as error:
            undone.append(type(error))
            ctrl_c()  # another one, while the first is on its way
            undone.append("whole")
            raise

    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        section()
    assert undone == [Interrupt, "whole"]
    assert time.monotonic() - begun < 5


def test_what_is_delivered_is_no_exception_that_others_handle(handler):
    def late(number, frame):
        raise TimeoutError("late")

    handler(signal.SIGALRM, late)

    @critical
    def section():
        signal.raise_signal(signal.SIGALRM)
        try:
            deliver()
        except (OSError, ValueError):
            return "taken for an error of the disk"
        return "not delivered"

    with pytest.raises(TimeoutError, match="late"):
        section()


def test_user_code_in_a_section_is_interrupted_as_anywhere():
    seen = []

    @critical
    def section():
        try:
            with allowed():
                try:
                    ctrl_c()
                except KeyboardInterrupt:
                    seen.append("user")
                    raise
        except Interrupt:
            seen.append("section")
            ctrl_c()
            seen.append("whole")
            raise

    with pytest.raises(KeyboardInterrupt):
        section()
    assert seen == ["user", "section", "whole"]


def test_a_section_that_user_code_enters_inside_a_section_is_one():
    seen = []

    @critical
    def inner():
        ctrl_c()
        seen.append("inner whole")

    @critical
    def outer():
        with allowed():
            try:
                inner()
            except KeyboardInterrupt:
                seen.append("user")
        ctrl_c()
        seen.append("outer whole")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert seen == ["inner whole", "user", "outer whole"]


def test_a_lock_that_another_thread_holds_is_waited_for_interruptibly():
    lock, held, stop = interrupts.Lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            stop.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)

    @critical
    def section():
        with lock:
            pass

    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            section()
    finally:
        stop.set()
        thread.join()


class Resource:
    """Work that tells what was begun and ended."""

    def __init__(self, told):
        self.told = told

    def begin(self):
        self.told.append("begin")

    def end(self, error):
        self.told.append(f"end {type(error).__name__}")


class AtLine:
    """SIGINT at the n-th line event (or opcode) of gamwarm/interrupts.py and of the function that
    is traced.
    """

    def __init__(self, n, *, opcodes, of):
        self.n, self.opcodes, self.code, self.count = n, opcodes, of.__code__, 0

    def __call__(self, frame, event, arg):
        if frame.f_code is not self.code and frame.f_code.co_filename != interrupts.__file__:
            return None
        frame.f_trace_opcodes = self.opcodes
        return self.local

    def local(self, frame, event, arg):
        if event == ("opcode" if self.opcodes else "line"):
            self.count += 1
            if self.count == self.n:
                sys.settrace(None)
                ctrl_c()
        return self.local


@pytest.mark.parametrize("opcodes", [False, True], ids=["lines", "instructions"])
def test_a_block_that_began_ends_wherever_a_signal_strikes(opcodes):
    for n in range(1, 2000):
        told = []

        def block(told=told):
            with Body(Resource(told)):
                told.append("block")

        tracer, kept = AtLine(n, opcodes=opcodes, of=Resource.begin), None
        sys.settrace(tracer)
        try:
            block()
            if tracer.count >= n:
                time.sleep(5)  # struck where it had to be posted again
        except KeyboardInterrupt as error:
            kept = error  # the traceback lives on, as it does in a notebook
        finally:
            sys.settrace(None)
        assert told[:1] != ["begin"] or told[-1].startswith("end"), (n, told)
        assert interrupts._shield.depth == interrupts._shield.bodies == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler or not told, n
        critical(lambda: None)()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, n
        if tracer.count < n:
            break
        assert kept is not None, f"the signal at {n} was lost"
        del kept
    assert n > 20


@pytest.mark.parametrize("strikes", [False, True], ids=["quiet", "struck"])
def test_what_saves_and_restores_the_handler_in_a_block_puts_the_users_back(strikes):
    """As asyncio, notebooks, R and gamwarm's own command do; calls in between had made the other
    handler the one that came back, and every later Ctrl-C was lost.
    """
    other, told = [], []
    with Body(Resource(told)):
        saved = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda *_: other.append("struck"))
        critical(ctrl_c)()
        signal.signal(signal.SIGINT, saved)
        if strikes:
            with pytest.raises(KeyboardInterrupt):
                ctrl_c()
        critical(lambda: None)()

    assert other == ["struck"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        critical(ctrl_c)()


def test_a_block_whose_end_is_lost_ends_when_it_is_collected():
    told = []
    held = Body(Resource(told))
    held.__enter__()
    del held
    gc.collect()

    assert told == ["begin", "end AbandonedBlock"]
    critical(lambda: None)()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_exception_that_another_thread_sets_leaves_the_sections_as_they_were():
    """Such an exception cannot be held back; it may cost the call, not the process."""

    class FromElsewhereError(Exception):
        pass

    @critical
    def section():
        me = ctypes.c_ulong(threading.get_ident())
        ctypes.pythonapi.PyThreadState_SetAsyncExc(me, ctypes.py_object(FromElsewhereError))
        for _ in range(1000):
            pass

    with pytest.raises(FromElsewhereError):
        section()
    assert interrupts._shield.depth == 0


def test_other_threads_have_no_sections():
    seen = []
    thread = threading.Thread(target=critical(lambda: seen.append(interrupts._shield.depth)))
    thread.start()
    thread.join()

    assert seen == [0]


def test_a_child_forked_by_another_thread_during_a_section_hears_signals_again():
    def fork():
        pid = os.fork()
        if pid == 0:
            try:
                ctrl_c()
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(8)
        status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    status: list[int] = []

    @critical
    def section():
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()

    section()

    assert status == [7]


def test_handlers_that_are_not_pythons_are_left_alone(handler):
    handler(signal.SIGUSR1, signal.SIG_IGN)
    seen = []

    @critical
    def section():
        seen.append(signal.getsignal(signal.SIGUSR1))
        seen.append(signal.getsignal(signal.SIGTERM))

    section()

    assert seen == [signal.SIG_IGN, signal.SIG_DFL]


@pytest.mark.parametrize("raises", [True, False], ids=["a handler that raises", "a handler that takes notes"])
def test_a_second_signal_during_the_delivery_of_the_first_leaves_none_for_a_later_call(handler, raises):
    """At the line that takes the first off the notes it once left it there, to interrupt the next
    call of all.
    """
    heard = []

    def act(*_):
        heard.append(signal.SIGUSR1)
        if raises:
            raise TimeoutError

    handler(signal.SIGUSR1, act)
    methods = {interrupts._Shield.leave, interrupts._Shield.deliver_and_restore, interrupts._Shield.deliver_noted}
    codes = {method.__code__ for method in methods}

    @critical
    def struck():
        signal.raise_signal(signal.SIGUSR1)

    @critical
    def later():
        return "untouched"

    def strike_at(line):
        seen = 0

        def local(frame, event, arg):
            nonlocal seen
            if event == "line" and interrupts._shield.noted:
                seen += 1
                if seen == line:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGUSR1)
            return local

        sys.settrace(lambda frame, event, arg: local if frame.f_code in codes else None)
        try:
            struck()
        except TimeoutError:
            pass
        finally:
            sys.settrace(None)
        return seen >= line

    line = 0
    while strike_at(line := line + 1):
        assert later() == "untouched", line
        assert 1 <= len(heard) <= 2, line
        assert (interrupts._shield.depth, interrupts._shield.noted) == (0, {}), line
        assert signal.getsignal(signal.SIGUSR1) is act, line
        heard.clear()
    assert line > 5


# -- stack -----------------------------------------------------------------------------------------


def with_calls_left(left, call):
    def deep(levels):
        return call() if levels == 0 else deep(levels - 1)

    return deep(sys.getrecursionlimit() - len(inspect.stack(0)) - left)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another thread"])
def test_a_section_is_not_begun_with_too_little_stack_and_one_that_was_begun_has_it_to_its_end(elsewhere):
    begun, refused = [], []

    @critical
    def inner():
        begun[-1] += 1

    @critical
    def outer():
        begun.append(1)
        inner()

    def tries():
        for left in range(10, 400):
            try:
                with_calls_left(left, outer)
            except RecursionError:
                refused.append(left)

    if elsewhere:
        thread = threading.Thread(target=tries)
        thread.start()
        thread.join()
    else:
        tries()

    assert refused == list(range(10, refused[-1] + 1))
    assert interrupts.STACK <= refused[-1] < 2 * interrupts.STACK
    assert set(begun) == {2}


def test_a_block_that_was_begun_is_ended_however_little_stack_there_is():
    told = []

    class Work:
        def begin(self):
            told.append("begun")

        @critical
        def end(self, error):
            told.append("ended")

    def block():
        with Body(Work()):
            pass

    met = set()
    for left in range(60, 300):
        told.clear()
        with contextlib.suppress(RecursionError):
            with_calls_left(left, block)
        assert told in ([], ["begun", "ended"])
        assert left > interrupts.STACK or not told
        met.add(tuple(told))
    assert len(met) == 2


def test_a_finalizer_does_what_it_can_with_the_stack_that_there_is():
    told = []

    @quiet
    def finalizer():
        inner()

    @critical
    def inner():
        told.append(True)

    with_calls_left(interrupts.STACK - 20, finalizer)
    assert told == [True]
