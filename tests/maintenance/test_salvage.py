"""Salvage: intact entries reach a new file, the rest is listed; a crash or a hang costs one
entry.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import StoreDamaged, StoreError, StoreNotFound
from gamwarm.encoding.codec import seal_of
from gamwarm.maintenance import salvage
from tests.support.stores import artifact_of, exact_key_of, record_of

KEYS = 6


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "fits.h5"
    with gamwarm.open(where, keep_last=2) as store:
        for key in range(KEYS):
            store.put_record(record_of(key))
        store.put_record(record_of(0, 9.0))
        store.put_artifact(artifact_of())
    return where


def ids_of(path):
    with gamwarm.open(path, "r") as store:
        assert store.verify().ok
        return store.entry_ids()


def address_of(path, name):
    with h5py.File(path, "r") as h5:
        return h5py.h5o.get_info(h5[name].id).addr + 512


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_a_intact_file_is_copied_intact_with_its_times(path, tmp_path):
    with gamwarm.open(path, "r") as store:
        ids, created = store.entry_ids(), store.get_record(exact_key_of(3)).created
        report = store.salvage(tmp_path / "new.h5")
    assert set(report.copied) == ids == ids_of(tmp_path / "new.h5")
    assert report.problems == ()
    with gamwarm.open(tmp_path / "new.h5", "r") as store:
        assert store.get_record(exact_key_of(3)).created == created


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_store_that_is_off_for_the_damage_of_its_file_salvages_it(path, tmp_path, mode):
    ids = ids_of(path)
    with h5py.File(path, "r") as h5:
        root = h5py.h5o.get_info(h5.id).addr + 512
    flip(path, root + 8)
    before = path.read_bytes()

    with gamwarm.open(path, mode) as store:
        assert store.disabled_reason is not None
        report = store.salvage(tmp_path / "new.h5")
    assert set(report.copied) == ids == ids_of(tmp_path / "new.h5")
    assert path.read_bytes() == before


def test_damaged_entries_are_listed_and_the_others_copied(path, tmp_path):
    ids = ids_of(path)
    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(1)].attrs["rho"] = [7.0, 7.0]
    flip(path, address_of(path, f"block_records/{exact_key_of(2)}") + 40)
    before = path.read_bytes()

    report = gamwarm.salvage(path, tmp_path / "new.h5")

    assert {problem.place for problem in report.problems} == {
        f"/block_records/{exact_key_of(1)}",
        f"/block_records/{exact_key_of(2)}",
    }
    assert ids_of(tmp_path / "new.h5") == set(report.copied) < ids
    assert len(report.copied) == len(ids) - 2
    assert path.read_bytes() == before


def test_a_file_cut_short_by_a_killed_writer_without_its_journal_gives_its_entries(path, tmp_path):
    ids = ids_of(path)
    data = bytearray(path.read_bytes())
    data[12] += 1  # odd sequence: being applied
    data[60] ^= 0xFF
    data[512:520] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged):
        gamwarm.open(path, on_error="raise")

    report = gamwarm.salvage(path, tmp_path / "new.h5")

    assert set(report.copied) == ids
    assert ids_of(tmp_path / "new.h5") == ids


@pytest.mark.parametrize("part", [0.95, 0.5])
def test_a_truncated_file_gives_what_can_still_be_named_and_says_what_cannot(path, tmp_path, part):
    ids = ids_of(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])

    report = gamwarm.salvage(path, tmp_path / "new.h5")

    assert set(report.copied) <= ids
    assert report.problems or set(report.copied) == ids
    assert ids_of(tmp_path / "new.h5") == set(report.copied)


def test_a_file_that_hdf5_cannot_open_at_all_gives_an_empty_store_and_says_why(path, tmp_path):
    data = bytearray(path.read_bytes())
    data[520:600] = bytes(80)
    path.write_bytes(data)

    report = gamwarm.salvage(path, tmp_path / "new.h5")

    assert report.copied == ()
    assert [problem.place for problem in report.problems] == ["/"]
    assert "HDF5 cannot read the file" in report.problems[0].reason


@pytest.mark.parametrize("section", ["block_records", "fit_artifacts"])
def test_entries_whose_list_of_names_is_lost_are_found_by_their_own_marks(path, tmp_path, section):
    ids = ids_of(path)
    flip(path, address_of(path, section) + 6)  # a time, or a size: no name, but under the checksum

    report = gamwarm.salvage(path, tmp_path / "new.h5")

    assert f"/{section}" in [problem.place for problem in report.problems]
    assert set(report.copied) >= ids
    assert ids_of(tmp_path / "new.h5") == set(report.copied)


HOOK = """
import os, signal, time
from gamwarm.entries import layout
read = layout.FileView.read
def hurt(self, section, path):
    if path.startswith({key!r}):
        {act}
    return read(self, section, path)
layout.FileView.read = hurt
"""


@pytest.mark.parametrize(
    ("act", "words"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", "ended the process"), ("time.sleep(60)", "made no progress for 6 s")],
)
def test_an_entry_that_crashes_or_hangs_hdf5_costs_only_itself(path, tmp_path, monkeypatch, act, words):
    ids = ids_of(path)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK.format(key=exact_key_of(3), act=act))
    monkeypatch.syspath_prepend(str(hooks))

    report = gamwarm.salvage(path, tmp_path / "new.h5", time_limit=6.0)

    assert [problem.place for problem in report.problems] == [f"/block_records/{exact_key_of(3)}"]
    assert words in report.problems[0].reason
    assert len(report.copied) == len(ids) - 1


def test_salvage_makes_only_new_files_and_says_what_is_missing(path, tmp_path):
    (tmp_path / "there.h5").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        gamwarm.salvage(path, tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "mine"
    with pytest.raises(StoreNotFound):
        gamwarm.salvage(tmp_path / "none.h5", tmp_path / "new.h5")
    with gamwarm.open(path) as store:
        with pytest.raises(StoreError, match="exists already"):
            store.salvage(tmp_path / "there.h5")
        assert store.disabled_reason is None


@pytest.mark.parametrize("what", ["a number", "a time", "a place"])
def test_what_the_reading_process_sends_is_checked_again(path, tmp_path, monkeypatch, what):
    """It runs HDF5 on damage, so its memory is not to be trusted."""
    real, spoiled = salvage._ChildReader._entry, []

    def entry(frame, payload):
        if frame["section"] == "block_records" and not spoiled:
            spoiled.append(frame["entry"])
            texts = frame["parts"][0][2]
            if what == "a number":  # with a seal to match: the content digest alone tells
                payload = payload[:-1] + bytes([payload[-1] ^ 1])
                start, vectors = texts, {}
                for name, dtype, count in frame["parts"][1:]:
                    vectors[name] = np.frombuffer(payload[start : start + count], dtype=dtype)
                    start += count
                frame = {**frame, "seal": seal_of(frame["section"], frame["key"], payload[:texts], vectors)}
            elif what == "a time":  # no part of the content: the seal alone tells
                start = payload.index(b'"created":') + len(b'"created":') + 5
                payload = payload[:start] + bytes([payload[start] ^ 1]) + payload[start + 1 :]
            else:
                frame = {**frame, "key": exact_key_of(77)}
        return real(frame, payload)

    monkeypatch.setattr(salvage._ChildReader, "_entry", staticmethod(entry))
    ids = ids_of(path)
    report = gamwarm.salvage(path, tmp_path / "new.h5")
    assert [problem.place for problem in report.problems] == spoiled
    assert set(report.copied) == ids_of(tmp_path / "new.h5") < ids
    assert len(report.copied) == len(ids) - 1
