"""Compaction: the same entries in less space, other handles go on, and a failure leaves the file as
it was.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import h5py
import pytest

import gamwarm
from gamwarm import StoreError, StoreUnavailable
from gamwarm.storage import vfs
from tests.support.stores import artifact_of, exact_key_of, leftovers, record_of


def wide(key, value=1.0):
    return record_of(key, value, block_names=["x"], block_dims=[2000], block_beta=[[value] * 2000])


def churn(path, rounds=3, keys=30):
    with gamwarm.open(path, keep_last=2, on_error="raise") as store:
        for value in range(rounds):
            for key in range(keys):
                store.put_record(wide(key, float(value)))
        store.put_artifact(artifact_of())
        store.put_artifact(artifact_of(width=2))
        store.pin(store.put_record(record_of(99)).entry_id)
        store.evict(size_budget=20 * 16_500)


def uuid_of(path):
    return path.read_bytes()[20:36]


def seals(path):
    found = {}

    def see(name, item):
        if "seal" in item.attrs:
            found[name] = bytes(item.attrs["seal"]), bytes(item.attrs["meta"])

    with h5py.File(path) as h5:
        h5.visititems(see)
    return found


def test_compaction_gives_space_back_and_changes_no_entry(path):
    churn(path)
    before, uuid, old = seals(path), uuid_of(path), path.stat()
    with gamwarm.open(path, on_error="raise") as store:
        ids, generation = store.entry_ids(), store.generation
        report = store.compact()

        assert report.bytes_before == old.st_size
        assert report.bytes_after == path.stat().st_size
        assert report.bytes_freed > 0.4 * report.bytes_before
        assert report.entries == len(ids)
        assert report.lost == ()
        assert store.entry_ids() == ids
        assert store.generation == generation + 1
        assert store.verify().verdict == "sound"
        assert store.evict(size_budget=0, dry_run=True).bytes_after > 0  # the pin went with its entry
        assert store.put_record(record_of(5)).written
    assert uuid_of(path) == uuid
    assert path.stat().st_mode == old.st_mode
    assert leftovers(path) == set()
    after = seals(path)
    assert {name: after[name] for name in before if exact_key_of(5) not in name} == {
        name: value for name, value in before.items() if exact_key_of(5) not in name
    }


def test_compacting_twice_gives_nothing_more_back_and_the_same_layout(path):
    churn(path)
    with gamwarm.open(path, on_error="raise") as store:
        store.compact()
        again = store.compact()
        assert again.bytes_freed == 0


def test_other_open_stores_continue_with_the_new_file(path):
    churn(path)
    with gamwarm.open(path, "r") as reader, gamwarm.open(path, on_error="raise") as other:
        ids = reader.entry_ids()
        other.put_record(record_of(200))
        with gamwarm.open(path, on_error="raise") as store:
            store.compact()
        assert reader.get_record(exact_key_of(200)) is not None
        assert other.put_record(record_of(201)).written
        assert len(reader.entry_ids()) == len(ids) + 2
        assert other.entry_ids() == reader.entry_ids()


def test_another_process_that_has_the_file_open_continues_with_the_new_one(path):
    churn(path)
    program = """
import sys, gamwarm
from tests.support.stores import record_of, exact_key_of
with gamwarm.open(sys.argv[1], on_error="raise") as store:
    store.put_record(record_of(300))
    print("ready", flush=True)
    sys.stdin.readline()
    assert store.get_record(exact_key_of(300)) is not None
    store.put_record(record_of(301))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child, gamwarm.open(path, on_error="raise") as store:
        assert child.stdout.readline() == "ready\n"
        store.compact()
        child.communicate("go\n", timeout=30)
        assert child.returncode == 0
        assert store.get_record(exact_key_of(301)) is not None
        assert store.verify().verdict == "sound"
    assert leftovers(path) == set()


def test_debris_of_a_killed_compaction_does_no_harm_and_is_overwritten(path):
    churn(path)
    debris = path.with_name(path.name + "-new")
    debris.write_bytes(bytes(512) + b"\x89HDF\r\n\x1a\n" + b"half a file" * 100_000)
    with gamwarm.open(path, on_error="raise") as store:
        assert store.verify().ok
        store.compact()
        assert store.verify().ok
    assert leftovers(path) == set()


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "rename"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_debris(path, monkeypatch, call):
    churn(path)

    class Failing(vfs.Disk):
        def pwrite(self, fd, data, offset):
            if call == "pwrite" and offset > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().pwrite(fd, data, offset)

        def fdatasync(self, fd):
            if call == "fdatasync":
                raise OSError(errno.EIO, "Input/output error")

        def rename(self, source, target):
            raise OSError(errno.EIO, "Input/output error")

    with gamwarm.open(path, on_error="raise") as store:
        ids = store.entry_ids()
        monkeypatch.setattr(vfs, "DISK", Failing())
        with pytest.raises(StoreUnavailable):
            store.compact()
        monkeypatch.undo()
        assert store.entry_ids() == ids
        assert store.put_record(record_of(7)).written
        assert store.verify().verdict == "sound"
    assert leftovers(path) == set()


def test_damaged_values_are_carried_over_unchanged_and_unreadable_ones_are_listed(path):
    with gamwarm.open(path) as store:
        for key in range(4):
            store.put_record(record_of(key))
    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(0)].attrs["rho"] = [7.0, 7.0]
    with h5py.File(path, "r") as h5:
        header = h5py.h5o.get_info(h5["block_records"][exact_key_of(1)].id).addr + 512
    data = bytearray(path.read_bytes())
    assert data[header : header + 4] == b"OHDR"
    data[header + 40] ^= 0xFF
    path.write_bytes(data)

    with gamwarm.open(path, on_error="raise") as store:
        report = store.compact()

        assert [problem.place for problem in report.lost] == [f"/block_records/{exact_key_of(1)}"]
        assert [problem.place for problem in store.verify().problems] == [f"/block_records/{exact_key_of(0)}"]
        assert len(store) == 3
        assert store.put_record(record_of(1)).written  # its place can be written again
        assert store.put_record(record_of(0)).written
        assert store.verify().ok


def test_a_transaction_must_end_before_compaction(path):
    with gamwarm.open(path) as store, store.transaction():
        store.put_record(record_of(1))
        with pytest.raises(StoreError, match="leave the block first"):
            store.compact()
    with gamwarm.open(path) as store:
        assert len(store) == 1


def test_a_store_for_reading_compacts_nothing(path):
    churn(path)
    before = path.read_bytes()
    with gamwarm.open(path, "r") as store:
        assert store.compact().reason == "the store is open for reading only"
    assert path.read_bytes() == before
