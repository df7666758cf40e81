"""Verification: progress, three verdicts, and totals and index put right."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import gamwarm
from tests.support.stores import artifact_of, exact_key_of, record_of


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "fits.h5"
    with gamwarm.open(where) as store:
        for key in range(4):
            store.put_record(record_of(key))
        store.put_artifact(artifact_of())
    return where


def test_a_intact_file_is_sound(path):
    with gamwarm.open(path, "r") as store:
        report = store.verify()
    assert report.ok
    assert report.verdict == "sound"
    assert report.entries == 5
    assert report.repaired == ()


def test_progress_counts_up_to_the_number_of_entries(path):
    calls = []
    with gamwarm.open(path, "r") as store:
        assert store.verify(lambda done, total: calls.append((done, total))).ok
    assert calls == [(done, 5) for done in range(6)]


def test_progress_that_returns_false_ends_the_walk_and_the_report_says_so(path):
    with gamwarm.open(path, "r") as store:
        report = store.verify(lambda done, total: done < 2)
    assert not report.complete
    assert not report.ok
    assert report.entries == 2
    assert report.problems == ()


def test_a_damaged_entry_makes_the_file_damaged(path):
    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(1)].attrs["beta"] = np.zeros(5)
    with gamwarm.open(path) as store:
        report = store.verify()
        assert report.verdict == "damaged"
        assert [problem.place for problem in report.problems] == [f"/block_records/{exact_key_of(1)}"]


@pytest.mark.parametrize(
    "what",
    [
        *("n_entries", "live_bytes", "structural:", "widths:", "related:", "candidates"),
        *("id", "stale", "another key", "recent", "stale recent", "recent with another key"),
    ],
)
def test_wrong_totals_and_a_wrong_index_are_put_right_by_who_may_write(path, what):
    if "recent" not in what:
        with gamwarm.open(path) as store:
            store.compact()  # every entry is named by an attribute of its section
    with h5py.File(path, "r+") as h5:
        group = h5["fit_artifacts"]
        rows = h5.attrs.get("recent")
        ids = [name for name in group.attrs if len(name) == 32]
        if what.endswith(":"):
            del group.attrs[next(name for name in group.attrs if name.startswith(what))]
        elif what == "candidates":
            del next(iter(group.values())).attrs[what]
        elif what == "id":
            del group.attrs[ids[0]]
        elif what == "another key":
            group.attrs.create(ids[0], 64 * "0", dtype=h5py.string_dtype("utf-8", 64))
        elif what == "recent":
            h5.attrs["recent"] = np.roll(rows, 1)[:2]
        elif what == "stale recent":
            rows[-1] = b"0" * 32 + rows[0][32:]
            h5.attrs["recent"] = rows
        elif what == "recent with another key":
            rows[0] = rows[0].replace(exact_key_of(0).encode(), exact_key_of(9).encode())
            h5.attrs["recent"] = rows
        elif what == "stale":
            group.attrs.create(32 * "0", 64 * "0", dtype=h5py.string_dtype("utf-8", 64))
        else:
            h5.attrs.modify(what, np.int64(77))

    with gamwarm.open(path, "r") as store:
        assert store.verify().verdict == "damaged"
    with gamwarm.open(path) as store:
        report = store.verify()
        assert report.verdict == "repaired"
        assert report.ok
        assert len(report.repaired) == 1
        assert store.verify().verdict == "sound"
        assert len(store) == 5


def test_a_journal_that_had_to_be_replayed_makes_it_repaired(path):
    program = """
import os, sys, gamwarm
from gamwarm.storage import vfs
from tests.support.stores import record_of

class Dying(vfs.Disk):
    def ftruncate(self, fd, size):
        os._exit(9)
    def pwrite(self, fd, data, offset):
        if offset == 512 and any(bytes(data)):
            os._exit(9)
        super().pwrite(fd, data, offset)

store = gamwarm.open(sys.argv[1])
vfs.DISK = Dying()
store.put_record(record_of(50))
"""
    child = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert child.returncode == 9
    with gamwarm.open(path) as store:
        report = store.verify()
        assert report.verdict == "repaired"
        assert report.ok
        assert len(store) == 6
    with gamwarm.open(path) as store:
        assert store.verify().verdict == "sound"


def test_a_writer_that_commits_all_the_time_does_not_keep_verify_from_its_end(tmp_path):
    """Read as one piece, a file that changes during every read would never have been read."""
    where = tmp_path / "busy.h5"
    with gamwarm.open(where) as writer:
        with writer.transaction():
            for key in range(200):
                writer.put_record(record_of(key))
        commits = iter(range(1000, 2000))

        def commit_now_and_then(done, total):
            if done % 20 == 0:
                writer.put_record(record_of(next(commits)))

        with gamwarm.open(where, "r") as store:
            report = store.verify(commit_now_and_then)
        assert report.ok
        assert report.entries >= 200
        assert next(commits) >= 1010
        assert writer.verify().verdict == "sound"


def test_verify_reads_as_it_goes(tmp_path, monkeypatch):
    from gamwarm.entries.layout import FileView

    where = tmp_path / "fits.h5"
    with gamwarm.open(where) as store, store.transaction():
        for key in range(300):
            store.put_record(record_of(key))
    read = 0
    whole = FileView.read

    def counted(self, section, path):
        nonlocal read
        read += 1
        return whole(self, section, path)

    monkeypatch.setattr(FileView, "read", counted)
    with gamwarm.open(where, "r") as store:
        report = store.verify(lambda done, total: False)
    assert not report.complete
    assert read < 100
