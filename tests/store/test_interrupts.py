"""Ctrl-C at any moment of any public call: the store stays usable, the lock free, and every outcome
true.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import gamwarm
from gamwarm import interrupts
from gamwarm.archive import export_archive
from tests.support import interrupt_kit as kit
from tests.support.interrupt_storm import storm
from tests.support.stores import exact_key_of, plain_fit, record_of, result_of

pytestmark = pytest.mark.timeout(300)

HERE = Path(__file__).resolve().parents[2]
EVERYDAY = 4
"""Lines of each call that are tried every day."""
SOON = 5.0
"""What "within 0.2 seconds" is on a machine that does other things."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return kit.base_file(tmp_path_factory.mktemp("interrupts"))


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as opened:
        yield opened


def chosen_lines(name, base, rng, every_one):
    """Return line numbers of a call: some at random; or the first and the last time of every
    line.
    """
    lines = kit.lines_of(name, base)
    if not every_one:
        return rng.sample(range(1, len(lines) + 1), min(EVERYDAY, len(lines)))
    first = {line: n for n, line in reversed(list(enumerate(lines, 1)))}
    last = {line: n for n, line in enumerate(lines, 1)}
    return sorted({*first.values(), *last.values()})


def try_lines(name, base, seed, every_one):
    rng = random.Random(seed)
    wrong = []
    for n in chosen_lines(name, base, rng, every_one):
        number = rng.choice(list(kit.SIGNALS))
        burst = (n, n + 1, n + rng.randrange(2, 200)) if rng.random() < 0.3 else (n,)
        wrong += [f"{number.name} at {burst}: {text}" for text in kit.strike_at(name, base, burst, number)]
    assert wrong == [], f"seed {seed}"


@pytest.mark.parametrize("name", list(kit.CALLS))
def test_a_signal_at_some_lines_of_every_call_leaves_all_as_it_should_be(name, base):
    try_lines(name, base, random.randrange(10**6), every_one=False)


@pytest.mark.long
@pytest.mark.parametrize("name", list(kit.CALLS))
def test_a_signal_at_every_line_of_every_call_leaves_all_as_it_should_be(name, base):
    try_lines(name, base, random.randrange(10**6), every_one=True)


@pytest.mark.parametrize(
    "cls", [gamwarm.WarmStartStore, gamwarm.IndependentStore, gamwarm.FrozenView, gamwarm.FitInProgress]
)
def test_every_public_call_is_tried(cls):
    tried = kit.HARMLESS.union(*(covered for _, covered in kit.CALLS.values()))
    missing = {name for name in dir(cls) if not name.startswith("_")} - tried

    assert missing == set(), f"say in interrupt_kit.CALLS how to call these of {cls.__name__}"


def test_without_critical_sections_the_kit_finds_something():
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.interrupt_kit", "put_record", "--every", "7", "--unshielded"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert done.returncode == 1, done.stderr
    assert "put_record, " in done.stdout


def test_a_short_storm_on_a_writer_next_to_another_process_loses_nothing(tmp_path):
    counts = storm(tmp_path / "fits.h5", random.randrange(10**6), strikes=60, seconds=20)

    assert counts["interrupts that struck a call"] >= 20, counts
    assert counts["acknowledged by the writer"] > 0, counts


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_interrupts_on_a_writer_next_to_another_process_lose_nothing(tmp_path):
    counts = storm(tmp_path / "fits.h5", random.randrange(10**6), strikes=10_000, seconds=1500)

    assert counts["interrupts that struck a call"] >= 10_000, f"too slow a machine for so many in that time: {counts}"
    print(dict(counts))


# -- user code -------------------------------------------------------------------------------------


def test_an_interrupt_in_the_users_block_takes_the_transaction_back_and_says_so(store):
    told = []

    def block():
        with store.transaction():
            told.append(store.put_record(record_of(1)))
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        block()

    assert (told[0].written, told[0].pending) == (False, False)
    assert told[0].reason == "the transaction was rolled back by KeyboardInterrupt"
    assert store.put_record(record_of(2)).written
    assert store.get_record(exact_key_of(1)) is None


def test_a_transaction_whose_block_no_one_can_end_ends_itself(store):
    block = store.transaction()
    block.__enter__()
    outcome = store.put_record(record_of(1))
    del block

    assert not outcome.pending
    assert "left without its exit" in outcome.reason
    with open(f"{store.path}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert store.put_record(record_of(2)).written


def test_an_interrupt_during_the_commit_is_raised_once_all_is_on_disk(store, monkeypatch):
    pair = store._writes.file.container._writer.pair
    told = []
    commit = pair.commit

    def struck(*arguments):
        signal.raise_signal(signal.SIGINT)
        commit(*arguments)

    monkeypatch.setattr(pair, "commit", struck)

    def block():
        with store.transaction():
            told.extend(store.put_record(record_of(n)) for n in range(50))

    with pytest.raises(KeyboardInterrupt):
        block()
    monkeypatch.undo()
    assert all(outcome.written for outcome in told)
    assert len(store) == 50


def test_a_progress_function_is_interrupted_where_it_stands(store):
    store.put_record(record_of(1))
    seen = []

    def progress(done, total):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            seen.append(done)
            raise

    with pytest.raises(KeyboardInterrupt):
        store.verify(progress)
    assert seen == [0]
    assert store.verify().ok


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_a_time_limit_inside_the_users_design_is_no_unreadable_design(store, error):
    class Slow:
        shape = (30, 4)

        def row_chunk(self, start, stop):
            signal.raise_signal(signal.SIGUSR1)
            return np.zeros((stop - start, 4))

    def handler(*_):
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(error):
            store.start_for(plain_fit(design=Slow()))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_store_can_be_used_by_the_handler_of_a_signal(store):
    """A handler that keeps something before the end comes when the call under way has ended."""
    kept = []
    before = signal.signal(signal.SIGUSR1, lambda *_: kept.append(store.put_record(record_of(2))))
    try:
        with gamwarm.open(store.path) as other:
            other.verify(lambda *_: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert kept
    assert kept[0].written


# -- waits -----------------------------------------------------------------------------------------


def interrupted(call, after=0.2):
    """Return how long a call went on after a Ctrl-C."""
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.monotonic() - sent[0]
    finally:
        timer.join()


def test_waiting_for_the_writer_lock_is_interrupted_at_once(store):
    with open(f"{store.path}.lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert interrupted(lambda: store.put_record(record_of(1))) < SOON
    assert store.put_record(record_of(1)).written


def test_waiting_for_another_threads_transaction_is_interrupted_at_once(store):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with store.transaction():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    try:
        assert interrupted(lambda: store.put_record(record_of(1))) < SOON
        assert interrupted(lambda: store.get_record(exact_key_of(1))) < SOON
    finally:
        leave.set()
        thread.join()
    assert store.put_record(record_of(1)).written


def test_hashing_a_large_design_is_interrupted_at_once(store):
    design = np.broadcast_to(np.ones((1, 400)), (3_000_000, 400))  # ten gigabytes of nothing
    problem = plain_fit(design=design[:, :4], n=3_000_000)
    assert interrupted(lambda: store.start_for(problem), after=0.05) < SOON


def test_salvage_is_interrupted_while_its_child_works(store, tmp_path):
    store.put_record(record_of(1))
    begun = time.monotonic()
    assert interrupted(lambda: store.salvage(tmp_path / "saved.h5"), after=0.1) < SOON
    assert time.monotonic() - begun < 30
    assert store.verify().ok


@pytest.mark.parametrize("name", ["verify", "compact", "merge", "export", "savings", "explain"])
def test_long_work_is_interrupted_between_two_portions(name, store, tmp_path, monkeypatch):
    """Not after it: what is left to do is not done."""
    monkeypatch.setattr("gamwarm.entries.scan.BATCH_SIZE", 1)
    source = tmp_path / "source.h5"
    with gamwarm.open(source) as other:
        for number in range(10, 20):
            other.put_record(record_of(number))
    for number in range(5):
        store.put_record(record_of(number))
    store.keep(plain_fit(1), result_of(plain_fit(1)))
    calls = {
        "verify": store.verify,
        "compact": store.compact,
        "merge": lambda: store.merge(source),
        "export": lambda: export_archive(store.path, tmp_path / "a.h5", title="t", creators="A", license="CC0-1.0"),
        "savings": store.savings,
        "explain": lambda: store.explain(plain_fit(2)),
    }
    delivered = []
    deliver = interrupts._shield.deliver

    def struck():
        delivered.append(True)
        if len(delivered) == 2:
            signal.raise_signal(signal.SIGINT)
        assert len(delivered) <= 2, "it went on"
        deliver()

    monkeypatch.setattr(interrupts._shield, "deliver", struck)
    with pytest.raises(KeyboardInterrupt):
        calls[name]()
    monkeypatch.undo()
    assert len(delivered) == 2
    assert not (tmp_path / "a.h5").exists()
    assert store.get_record(exact_key_of(10)) is None
    assert store.verify().ok
    assert {path.name for path in tmp_path.iterdir()} <= {
        "fits.h5",
        "fits.h5.lock",
        "fits.h5-journal",
        "source.h5",
        "source.h5.lock",
    }


# -- exceptions that no section holds back ---------------------------------------------------------


def test_exceptions_that_another_thread_sets_lose_nothing_that_was_acknowledged(tmp_path):
    """`PyThreadState_SetAsyncExc` is no signal (debuggers and some time limits use it) and cannot
    be held back.

    CPython raises it in callbacks of HDF5 too, and HDF5 may end the process by that; no promise is
    made about calls that it hits, only about what was acknowledged, and the file.
    """
    path = tmp_path / "fits.h5"
    command = [sys.executable, "-m", "tests.support.interrupt_storm", str(path), "async", str(random.randrange(10**6))]
    child = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=100)
    assert child.returncode in (0, -signal.SIGSEGV), child.stderr

    acknowledged = {line for line in child.stdout.splitlines() if len(line) == 32}
    if child.returncode == 0:
        assert "usable" in child.stdout
    with gamwarm.open(path, on_error="raise") as store:
        assert store.put_record(record_of(1)).written
        assert acknowledged <= store.entry_ids()
        assert store.verify().ok
