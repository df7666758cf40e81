"""A fit is never failed by its cache: one warning, the store is off, the fit goes on; or ``on_error="raise"``."""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os

import pytest

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
from gamwarm.entries import EntryStore
from gamwarm.storage import vfs
from tests.support.stores import exact_key_of, leftovers, plain_fit, record_of, result_of


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


def test_a_full_disk_costs_one_warning_and_the_fit_goes_on(filled, monkeypatch, caplog):
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


def test_the_reason_why_a_store_is_off_is_told_and_shown(filled, monkeypatch):
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
        monkeypatch.setattr(EntryStore, "put_record", lambda *_: (_ for _ in ()).throw(StoreUnavailable("gone")))
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


# -- locks -------------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_not_let_go_costs_one_warning_and_the_fit_goes_on(filled, monkeypatch, caplog):
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


# -- places that cannot be written -------------------------------------------------------------------------------------


def unwritable(monkeypatch):
    """Make directories refuse us; root ignores permission bits, so the question is answered instead."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)


def test_a_directory_without_permission_costs_one_warning_and_fits_go_on_cold(path, monkeypatch, caplog):
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
