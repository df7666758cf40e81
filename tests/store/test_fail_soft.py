"""A fit is never failed by its cache: one warning, the store is off, the fit continues; or
``on_error="raise"``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import inspect
import logging
import os
import subprocess
import sys
import threading

import pytest
from h5py._objects import phil

import gamwarm
from gamwarm import (
    LockTimeout,
    NotAStore,
    StoreDamaged,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)
from gamwarm.encoding import codec, texts
from gamwarm.entries import RECORDS, DamagedEntry, EntryStore, stored_values
from gamwarm.storage import vfs
from tests.support.stores import artifact_of, exact_key_of, leftovers, plain_fit, record_of, result_of


@pytest.fixture
def filled(path):
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
    return path


def fail(monkeypatch, call, number=errno.EIO, after=0):
    """Let a call of the disk fail from its ``after``-th use on."""
    real, uses = getattr(vfs.DISK, call), [0]

    def failing(*args):
        uses[0] += 1
        if uses[0] > after:
            raise OSError(number, os.strerror(number))
        return real(*args)

    monkeypatch.setattr(vfs.DISK, call, failing)


def short_lock(monkeypatch):
    monkeypatch.setattr("gamwarm.store.store.EntryStore", functools.partial(EntryStore, lock_timeout=0.2))


def hold_lock(path):
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def use_all_of(store):
    """Do with a store what an engine does; nothing of it may raise while the store is off."""
    problem = plain_fit()
    with store.fit(problem) as fit:
        assert fit.start.source == "cold"
        outcome = fit.keep(result_of(problem))
    with store.transaction():
        put = store.put_record(record_of(9))
    assert (store.get_record(exact_key_of(9)), store.get_artifact("0" * 64)) == (None, None)
    assert store.keys() == []
    assert len(store) == 0
    assert store.entry_ids() == set()
    return [outcome.record, outcome.artifact, put]


def test_a_full_disk_costs_one_warning_and_the_fit_continues(filled, monkeypatch, caplog):
    before = filled.read_bytes()
    with gamwarm.open(filled) as store:
        fail(monkeypatch, "fallocate", errno.ENOSPC)
        fail(monkeypatch, "fdatasync", errno.ENOSPC)
        put = store.put_record(record_of(2))
        outcomes = use_all_of(store)
        monkeypatch.undo()

    assert not put.written
    assert not any(o.written or o.pending for o in outcomes)
    assert len(warnings_of(caplog)) == 1
    assert "No space left" in warnings_of(caplog)[0]
    assert all("No space left" in o.reason for o in [put, *outcomes])
    assert filled.read_bytes() == before
    assert leftovers(filled) == set()


def test_the_reason_why_a_store_is_off_is_reported_and_shown(filled, monkeypatch):
    with gamwarm.open(filled) as store:
        assert store.disabled_reason is None
        fail(monkeypatch, "fdatasync")
        store.put_record(record_of(2))
        monkeypatch.undo()

        assert "Input/output error" in store.disabled_reason
        assert str(filled) in store.disabled_reason
        assert "off" in repr(store)
        start = store.start_for(plain_fit())
        assert (start.source, start.start) == ("cold", None)
        assert "Input/output error" in start.reason


def test_a_store_that_is_off_does_not_verify(filled, monkeypatch):
    with gamwarm.open(filled) as store:
        fail(monkeypatch, "fdatasync")
        store.put_record(record_of(2))
        monkeypatch.undo()

        report = store.verify()

    assert not report.ok
    assert "off" in str(report.problems[0])


@pytest.mark.parametrize("call", ["fdatasync", "pwrite", "fallocate"])
def test_on_error_raise_raises_the_typed_error_and_the_store_stays_usable(filled, monkeypatch, call):
    with gamwarm.open(filled, on_error="raise") as store:
        fail(monkeypatch, call, errno.ENOSPC)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.put_record(record_of(2))
        monkeypatch.undo()

        assert store.disabled_reason is None
        assert store.get_record(exact_key_of(2)) is None
        assert store.put_record(record_of(3)).written
        assert store.verify().ok


def test_a_transaction_that_cannot_commit_settles_its_outcomes_with_the_reason(filled, monkeypatch):
    with gamwarm.open(filled) as store:
        with store.transaction():
            outcome = store.put_record(record_of(2))
            fail(monkeypatch, "fdatasync")
        monkeypatch.undo()

        assert not outcome.written
        assert not outcome.pending
        assert "Input/output error" in outcome.reason
        assert store.disabled_reason is not None


def test_a_transaction_that_cannot_commit_raises_if_asked_to(filled, monkeypatch):
    with gamwarm.open(filled, on_error="raise") as store:
        with pytest.raises(StoreUnavailable), store.transaction():
            outcome = store.put_record(record_of(2))
            fail(monkeypatch, "fdatasync")
        monkeypatch.undo()

        assert not outcome.written
        assert not outcome.pending
        assert store.keys() == [exact_key_of(1)]


def test_a_put_that_fails_inside_a_transaction_undoes_what_came_before_it(filled, monkeypatch):
    with gamwarm.open(filled) as store, store.transaction():
        first = store.put_record(record_of(2))
        monkeypatch.setattr(EntryStore, "put_encoded", lambda *_: (_ for _ in ()).throw(StoreUnavailable("gone")))
        second = store.put_record(record_of(3))
        monkeypatch.undo()

    assert not first.written
    assert not second.written
    assert not first.pending
    with gamwarm.open(filled, "r") as again:
        assert again.keys() == [exact_key_of(1)]


def test_a_disk_that_cannot_be_read_is_not_called_damage_and_serves_nothing(filled, monkeypatch, caplog):
    with gamwarm.open(filled) as store:
        for call in ("pread", "readinto"):
            fail(monkeypatch, call)
        found = store.get_record(exact_key_of(1))
        monkeypatch.undo()

    assert found is None
    assert len(warnings_of(caplog)) == 1
    assert "Input/output error" in warnings_of(caplog)[0]


# -- locks -----------------------------------------------------------------------------------------


def test_a_lock_that_is_not_let_go_costs_one_warning_and_the_fit_continues(filled, monkeypatch, caplog):
    short_lock(monkeypatch)
    with gamwarm.open(filled) as store:
        lock = hold_lock(filled)
        outcomes = use_all_of(store)
        os.close(lock)

    assert not any(o.written for o in outcomes)
    assert len(warnings_of(caplog)) == 1
    assert "waited 0.2 s for the writer lock" in warnings_of(caplog)[0]


def test_a_lock_that_is_not_let_go_raises_a_time_out_that_names_the_holder_if_known(filled, monkeypatch):
    short_lock(monkeypatch)
    with gamwarm.open(filled, on_error="raise") as store:
        assert store.put_record(record_of(2)).written
        lock = hold_lock(filled)
        with pytest.raises(LockTimeout, match=f"held by pid {os.getpid()} on"):
            store.put_record(record_of(3))
        with pytest.raises(TimeoutError), store.transaction():
            pass
        os.close(lock)
        assert store.put_record(record_of(3)).written


def test_a_held_lock_does_not_keep_readers_out(filled, monkeypatch):
    lock = hold_lock(filled)
    with gamwarm.open(filled, "r") as store:
        assert store.get_record(exact_key_of(1)) is not None
    os.close(lock)


def test_another_store_of_this_process_inside_a_transaction_is_waited_for_and_not_for_ever(filled, monkeypatch, caplog):
    short_lock(monkeypatch)
    with gamwarm.open(filled) as one, gamwarm.open(filled) as two:
        with one.transaction():
            inside = one.put_record(record_of(2))
            outside = two.put_record(record_of(3))
        assert inside.written
        assert not outside.written
        assert two.disabled_reason is not None
        assert one.disabled_reason is None


# -- places that cannot be written -----------------------------------------------------------------


def unwritable(monkeypatch):
    """Make directories refuse us; root ignores permission bits, so the question is answered
    instead.
    """
    monkeypatch.setattr(os, "access", lambda *_, **__: False)


def test_a_directory_without_permission_costs_one_warning_and_fits_continue_cold(path, monkeypatch, caplog):
    unwritable(monkeypatch)
    with gamwarm.open(path) as store:
        assert "no permission to write" in store.disabled_reason
        outcomes = use_all_of(store)

    assert not any(o.written for o in outcomes)
    assert len(warnings_of(caplog)) == 1
    assert list(path.parent.iterdir()) == []


def test_a_directory_without_permission_raises_a_permission_error_if_asked_to(path, monkeypatch):
    unwritable(monkeypatch)
    with pytest.raises(StoreReadOnly, match="mode='r'") as raised:
        gamwarm.open(path, on_error="raise")

    assert isinstance(raised.value, PermissionError)


def test_mode_r_keeps_nothing_warns_once_and_serves_reads(filled, caplog):
    before = filled.read_bytes()
    problem = plain_fit()
    with gamwarm.open(filled, "r") as store:
        assert store.get_record(exact_key_of(1)) is not None
        with store.fit(problem) as fit:
            kept = fit.keep(result_of(problem))
        put = store.put_record(record_of(2))
        with store.transaction():
            inside = store.put_record(record_of(3))
        assert store.get_record(exact_key_of(1)) is not None
        assert store.disabled_reason is None

    for outcome in (kept.record, kept.artifact, put, inside):
        assert not outcome.written
        assert not outcome.pending
        assert "reading" in outcome.reason
    assert len(warnings_of(caplog)) == 1
    assert filled.read_bytes() == before
    assert leftovers(filled) == set()


def test_mode_r_raises_on_writes_if_asked_to(filled):
    with gamwarm.open(filled, "r", on_error="raise") as store:
        with pytest.raises(StoreReadOnly, match="mode 'a'"):
            store.put_record(record_of(2))
        with pytest.raises(StoreReadOnly), store.transaction():
            pass
        assert store.get_record(exact_key_of(1)) is not None


def test_a_file_removed_while_it_was_open_does_not_fail_the_fit(filled, caplog):
    with gamwarm.open(filled) as store:
        filled.unlink()
        outcomes = use_all_of(store)

    assert not any(o.written for o in outcomes)
    assert len(warnings_of(caplog)) == 1
    assert "removed while it was open" in warnings_of(caplog)[0]


def test_a_file_replaced_by_another_while_it_was_open_does_not_fail_the_fit(filled, caplog):
    with gamwarm.open(filled) as store:
        filled.unlink()
        filled.write_bytes(b"somebody else's notes\n" * 200)
        store.get_record(exact_key_of(1))
        assert store.disabled_reason is not None

    assert filled.read_bytes() == b"somebody else's notes\n" * 200


@pytest.mark.parametrize("budget", [None, 10_000])
def test_a_file_overwritten_while_it_was_open_does_not_fail_the_fit(filled, caplog, budget):
    with gamwarm.open(filled, size_budget=budget) as store:
        assert store.put_record(record_of(2)).written
        with open(filled, "r+b") as file:
            file.seek(4096)
            file.write(bytes(os.path.getsize(filled) - 4096))

        outcome = store.put_record(record_of(3))

        assert not outcome.written
        assert "cannot read the file's own structure" in outcome.reason
        assert len(warnings_of(caplog)) == 1


def test_errors_of_the_store_are_also_the_built_in_that_fits():
    for error, kind in (
        (StoreNotFound, FileNotFoundError),
        (StoreReadOnly, PermissionError),
        (LockTimeout, TimeoutError),
        (NotAStore, OSError),
        (StoreDamaged, OSError),
    ):
        assert issubclass(error, kind)
        assert issubclass(error, StoreError)


# -- memory and stack ------------------------------------------------------------------------------


def starve(monkeypatch, error, name="parse_text", after=0, where=texts):
    """Let this process have no room for what a function does: the text of every entry, or something
    else.
    """
    real, uses = getattr(where, name), [0]

    def starving(*args, **kwargs):
        uses[0] += 1
        if uses[0] > after:
            raise error("no room")
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, starving)


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
@pytest.mark.parametrize("call", ["put", "verify", "evict", "compact", "merge", "entry_ids", "savings"])
def test_what_this_process_lacks_is_no_damage_and_costs_no_entry(filled, tmp_path, monkeypatch, call, error):
    with gamwarm.open(tmp_path / "other.h5") as other:
        other.put_record(record_of(1, 5.0))
    calls = {
        "put": lambda store: store.put_record(record_of(1, 3.0)),
        "verify": lambda store: store.verify(),
        "evict": lambda store: store.evict(size_budget=0),
        "compact": lambda store: store.compact(),
        "merge": lambda store: store.merge(tmp_path / "other.h5"),
        "entry_ids": lambda store: store.entry_ids(),
        "savings": lambda store: store.savings(),
    }
    with gamwarm.open(filled, on_error="raise") as store:
        there = store.entry_ids()
        starve(monkeypatch, error)
        with pytest.raises(RecursionError if error is RecursionError else StoreUnavailable, match="no room"):
            calls[call](store)
        monkeypatch.undo()
        assert store.entry_ids() == there
        assert store.put_record(record_of(2)).written
        assert store.verify().ok


@pytest.mark.parametrize("name", ["open_group", "open_object", "names_in", "is_hard"])
def test_a_key_that_was_not_looked_into_for_want_of_stack_is_not_irreplaceable(filled, monkeypatch, caplog, name):
    with gamwarm.open(filled, on_error="raise") as store:
        store.put_artifact(artifact_of())
        for put in (lambda: store.put_record(record_of(1, 3.0)), lambda: store.put_artifact(artifact_of(value=2.0))):
            for after in range(12):
                starve(monkeypatch, RecursionError, name, after, where=stored_values)
                with contextlib.suppress(RecursionError):
                    assert "cannot be replaced" not in put().reason
                monkeypatch.undo()
        assert store.verify().ok
    assert warnings_of(caplog) == []


def test_entries_of_a_key_that_could_not_be_listed_for_want_of_stack_stay(filled, monkeypatch):
    with gamwarm.open(filled, on_error="raise", keep_last=5) as store:
        for value in (2.0, 3.0):
            store.put_record(record_of(1, value))
        there = store.entry_ids()
        for after in range(4):
            starve(monkeypatch, RecursionError, "names_in", after, where=stored_values)
            with contextlib.suppress(RecursionError):
                store.put_record(record_of(1, 4.0))
            monkeypatch.undo()
        assert there <= store.entry_ids()


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_what_is_lacking_below_hdf5_is_no_damage_either(filled, monkeypatch, error):
    """It is met in a callback, and HDF5 says something else."""
    calls = (
        lambda store: store.get_record(exact_key_of(2)),
        lambda store: store.put_record(record_of(3)),
        lambda store: store.compact(),
        lambda store: gamwarm.open(store.path, on_error="raise").close(),
    )
    for call in calls:
        for name in ("pread", "readinto"):
            for after in range(6):
                with gamwarm.open(filled, on_error="raise") as store:
                    starve(monkeypatch, error, name, after, where=vfs.DISK)
                    with contextlib.suppress(RecursionError, StoreUnavailable):
                        call(store)
                    monkeypatch.undo()
                    assert store.verify().ok


FAILING_OPENS = """
import errno, sys
import gamwarm
from gamwarm.storage import vfs

def failing(*_):
    raise error

readinto, vfs.DISK.readinto = vfs.DISK.readinto, failing
for error in (OSError(errno.EIO, "no"), MemoryError("no"), RecursionError("no")):
    try:
        gamwarm.open(sys.argv[1], on_error="raise")
    except (gamwarm.StoreUnavailable, RecursionError):
        print("typed")
"""


def test_a_process_whose_disk_failed_while_hdf5_opened_a_file_ends_in_order(filled):
    """What HDF5 still has of the file when the process ends calls Python, which is no longer
    there.
    """
    done = subprocess.run(
        [sys.executable, "-c", FAILING_OPENS, filled], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.stdout, done.returncode) == ("typed\n" * 3, 0), done.stderr


def test_a_store_that_there_is_no_memory_to_make_is_typed_and_leaves_nothing(path, monkeypatch):
    monkeypatch.setattr("gamwarm.storage.container.new_image", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(StoreUnavailable, match="Cannot allocate memory"):
        EntryStore(path)
    assert not path.exists()
    assert leftovers(path) == set()


def test_too_little_memory_costs_one_warning_and_the_fit_continues(filled, monkeypatch, caplog):
    with gamwarm.open(filled) as store:
        starve(monkeypatch, MemoryError)
        outcome = store.put_record(record_of(1, 3.0))
        report = store.start_for(plain_fit(1))
        monkeypatch.undo()

    assert not outcome.written
    assert report.source == "cold"
    assert len(warnings_of(caplog)) == 1
    assert "free some memory" in warnings_of(caplog)[0]
    assert "salvage" not in warnings_of(caplog)[0]


@pytest.mark.parametrize(("kind", "each"), [("record", False), ("record", True), ("artifact", False)])
def test_too_little_memory_to_encode_an_entry_is_said_and_the_store_stays_on(filled, monkeypatch, kind, each):
    with gamwarm.open(filled, on_error="raise") as store:
        starve(monkeypatch, MemoryError, "stamped", where=codec)
        put = store.put_artifact(artifact_of()) if kind == "artifact" else store.put_record(record_of(2), each=each)
        kept = store.keep(plain_fit(1), result_of(plain_fit(1)))
        monkeypatch.undo()
        said = "too little memory is left to encode it"
        assert (put.written, put.reason) == (False, said)
        assert said in (kept.record.reason, kept.artifact.reason)
        assert store.put_record(record_of(2)).written


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_change_that_ends_halfway_takes_its_transaction_with_it(filled, monkeypatch, error):
    """Also where the block goes on: the old record was removed, and the new one is not whole."""
    with gamwarm.open(filled, on_error="raise") as store:
        starve(monkeypatch, error, "write_vector", after=1, where=stored_values)
        with pytest.raises(StoreUnavailable, match="ended halfway"), store.transaction():
            with pytest.raises((StoreUnavailable, RecursionError)):
                store.put_record(record_of(1, 3.0))
            monkeypatch.undo()
            with pytest.raises(StoreUnavailable, match="ended halfway"):
                store.put_record(record_of(2))
        assert store.get_record(exact_key_of(1)).objective == 1.0
        assert store.put_record(record_of(2)).written
        assert store.verify().ok


def test_calls_near_the_end_of_the_stack_call_no_file_damaged_and_leave_no_lock_to_wait_for(filled):
    """Neither gamwarm's nor h5py's, which other threads would wait for without an end."""

    def deep(levels, call):
        return call() if levels == 0 else deep(levels - 1, call)

    free = []

    def look():
        free.append(phil.acquire(blocking=False))
        if free[-1]:
            phil.release()

    def transaction(store):
        with store.transaction():
            store.put_record(record_of(3))

    here = len(inspect.stack(0))
    with gamwarm.open(filled, on_error="raise") as store:
        calls = (
            lambda: store.put_record(record_of(4)),
            store.verify,
            store.entry_ids,
            lambda: store.get_record(exact_key_of(2)),
            lambda: transaction(store),
        )
        for number, left in enumerate(range(8, 150, 2)):
            for call in calls:
                with contextlib.suppress(RecursionError):
                    deep(sys.getrecursionlimit() - here - left, call)
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            assert free[-1], f"{left} calls were left"
            assert store.put_record(record_of(200 + number)).written
        assert store.verify().ok


def test_a_text_is_not_called_too_deep_for_a_stack_that_was_used_up_before():
    text = b'{"a":' + b"[" * 6 + b"]" * 6 + b"}"

    def parse(levels):
        return texts.parse_text(RECORDS, text) if levels == 0 else parse(levels - 1)

    with pytest.raises(DamagedEntry, match="has no field"):
        parse(0)
    met = set()
    for left in range(2, 40):
        try:
            parse(sys.getrecursionlimit() - len(inspect.stack(0)) - left)
        except (DamagedEntry, RecursionError) as error:
            met.add("field" if "field" in str(error) else type(error).__name__)
    assert met == {"field", "RecursionError"}
    with pytest.raises(DamagedEntry, match="too deeply"):
        texts.parse_text(RECORDS, b"[" * 50_000)
