"""Merging: the union of entry ids, whatever the order and however often; the source is only
read.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm import NewerFormat, NotAStore, StoreNotFound
from gamwarm.entries import EntryEditor, EntryStore, clock
from gamwarm.maintenance import merge, verify
from tests.support.crash_simulator import Fast, disk
from tests.support.stores import artifact_of, exact_key_of, record_of
from tests.support.thread_ranks import on_ranks


def shard(path, *things, pins=()):
    with gamwarm.open(path, on_error="raise") as store:
        for thing in things:
            (store.put_record if isinstance(thing, gamwarm.BlockRecord) else store.put_artifact)(thing)
        for pin in pins:
            store.pin(pin)
        return store.entry_ids()


def created_of(path, key):
    with gamwarm.open(path, "r") as store:
        return store.get_record(exact_key_of(key)).created


def test_a_merge_takes_over_every_entry_with_its_time(path, tmp_path):
    ours = shard(path, record_of(1), artifact_of())
    theirs = shard(tmp_path / "b.h5", record_of(2), artifact_of(width=2), artifact_of())
    before = created_of(tmp_path / "b.h5", 2)

    with gamwarm.open(path, on_error="raise") as store:
        report = store.merge(tmp_path / "b.h5")

        assert set(report.added) == theirs - ours
        assert report.seen == 3
        assert report.superseded == 0
        assert report.problems == ()
        assert store.entry_ids() == ours | theirs
        assert store.verify().verdict == "sound"
        assert store.put_record(record_of(3)).written
    assert created_of(path, 2) == before
    assert created_of(path, 3) > before


def test_a_second_merge_adds_nothing_and_commits_nothing(path, tmp_path):
    shard(path, record_of(1))
    shard(tmp_path / "b.h5", record_of(2), artifact_of())
    with gamwarm.open(path, on_error="raise") as store:
        store.merge(tmp_path / "b.h5")
        generation = store.generation
        assert store.merge(tmp_path / "b.h5").added == ()
        assert store.generation == generation


def test_a_file_merged_with_itself_stays_unchanged(path, tmp_path):
    ids = shard(path, record_of(1))
    (tmp_path / "link.h5").symlink_to(path)
    with gamwarm.open(path, on_error="raise") as store:
        generation = store.generation
        assert store.merge(tmp_path / "link.h5").reason == "it is this file"
        assert store.entry_ids() == ids
        assert store.generation == generation


def test_the_source_is_not_changed_and_may_be_open_for_writing(path, tmp_path):
    other = tmp_path / "b.h5"
    shard(other, record_of(2))
    before = other.read_bytes()
    with gamwarm.open(path, on_error="raise") as store:
        store.merge(other)
        assert other.read_bytes() == before
        with gamwarm.open(other, on_error="raise") as writer:
            late = writer.put_record(record_of(4)).entry_id
            assert store.merge(other).added == (late,)


def test_retention_holds_a_merge_too(path, tmp_path):
    shard(path, record_of(1, 1.0), record_of(2, 1.0, kind="checkpoint", converged=False))
    newer = shard(tmp_path / "b.h5", record_of(1, 2.0), record_of(2, 0.5, kind="checkpoint", converged=False))
    with gamwarm.open(path, on_error="raise") as store:
        report = store.merge(tmp_path / "b.h5")
        assert store.entry_ids() == newer
        assert set(report.added) == newer
    with gamwarm.open(tmp_path / "b.h5", on_error="raise") as store:
        report = store.merge(path)
        assert report.added == ()


def test_pins_are_written_once_however_many_come_along(path, tmp_path, monkeypatch):
    records = [record_of(number) for number in range(20)]
    ids = shard(tmp_path / "b.h5", *records, pins=[])
    with gamwarm.open(tmp_path / "b.h5") as other:
        for entry_id in ids:
            other.pin(entry_id)
    written = []
    original = EntryEditor.set_pins
    monkeypatch.setattr(EntryEditor, "set_pins", lambda *args: (written.append(args), original(*args))[1])
    with closing(EntryStore(path)) as entries:
        merge(entries, tmp_path / "b.h5")

        assert len(written) == 1
        assert entries.read(EntryEditor.all_pins) == ids


def test_a_pin_comes_along(path, tmp_path):
    ids = shard(tmp_path / "b.h5", record_of(2))
    shard(tmp_path / "b.h5", pins=ids)
    with gamwarm.open(path, on_error="raise") as store:
        store.merge(tmp_path / "b.h5")
        store.evict(size_budget=0)
        assert store.entry_ids() == ids


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_what_is_no_store_or_newer_or_missing_is_refused_and_this_store_continues(path, tmp_path, on_error):
    (tmp_path / "text").write_text("no store")
    with h5py.File(tmp_path / "plain.h5", "w") as h5:
        h5["x"] = 1
    shard(tmp_path / "newer.h5", record_of(2))
    with h5py.File(tmp_path / "newer.h5", "r+") as h5:
        h5.attrs["format_version"] = 99
    shard(path, record_of(1))
    with gamwarm.open(path, on_error=on_error) as store:
        for name, error in [
            ("text", NotAStore),
            ("plain.h5", NotAStore),
            ("newer.h5", NewerFormat),
            ("no", StoreNotFound),
        ]:
            with pytest.raises(error):
                store.merge(tmp_path / name)
        assert store.disabled_reason is None
        assert len(store) == 1
        assert store.put_record(record_of(3)).written


def test_damaged_entries_of_the_source_are_skipped_and_listed(path, tmp_path):
    ids = shard(tmp_path / "b.h5", record_of(1), record_of(2))
    with h5py.File(tmp_path / "b.h5", "r+") as h5:
        h5["block_records"][exact_key_of(1)].attrs["rho"] = [7.0, 7.0]
    with gamwarm.open(path, on_error="raise") as store:
        report = store.merge(tmp_path / "b.h5")
        assert [problem.place for problem in report.problems] == [f"/block_records/{exact_key_of(1)}"]
        assert set(report.added) < ids
        assert store.verify().ok


def test_ranks_merge_together_and_are_all_refused_alike(path, tmp_path):
    theirs = shard(tmp_path / "b.h5", record_of(2))
    (tmp_path / "text").write_text("no store")

    def body(comm):
        with gamwarm.open(path, comm=comm) as store:
            report = store.merge(tmp_path / "b.h5")
            with pytest.raises(NotAStore):
                store.merge(tmp_path / "text")
            return report, store.entry_ids()

    answers = on_ranks(3, body)
    assert answers == 3 * [answers[0]]
    assert answers[0][1] == theirs


STEP = st.tuples(
    st.sampled_from(["final", "checkpoint", "artifact"]),
    st.integers(1, 2),  # key
    st.sampled_from([1.0, 1.0 + 4e-13, 1.0 + 8e-13, 2.0]),  # within, and not within, the tolerance of a tie
    st.integers(1, 6),  # time
)


def put(store, step, monkeypatch):
    kind, key, value, time = step
    monkeypatch.setattr(clock, "now", lambda: time)
    if kind == "artifact":
        store.put_artifact(artifact_of(value=value, width=key))
    else:
        store.put_record(record_of(key, value, kind=kind, converged=kind == "final"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shards=st.lists(st.lists(STEP, max_size=4), min_size=2, max_size=3), keep_last=st.integers(1, 2))
def test_any_order_of_merges_gives_the_same_entries(shards, keep_last):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch, disk(Fast()):
        where = Path(folder)
        names = []
        for number, steps in enumerate(shards):
            names.append(where / f"shard{number}.h5")
            store = EntryStore(names[-1], keep_last=keep_last)
            with store.transaction():
                for step in steps:
                    put(store, step, monkeypatch)
            store.close()
        contents = []
        orders = [names, names[::-1], names[1:] + names[:1], [*names, *names]]
        for number, order in enumerate(orders):
            merged = EntryStore(where / f"merged{number}.h5", keep_last=keep_last)
            for name in order:
                merge(merged, name)
            contents.append(merged.entry_ids())
            assert verify(merged).verdict == "sound"
            merged.close()
        assert all(content == contents[0] for content in contents)


@pytest.mark.parametrize("kind", ["final", "checkpoint"])
def test_of_entries_of_one_time_the_larger_entry_id_stays_whatever_the_order(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(clock, "now", lambda: 1_700_000_000_000_000)
    for value in range(6):  # equal objectives, other coefficients, so other ids
        shard(tmp_path / f"{value}.h5", record_of(1, 1.0, block_beta=[[float(value), 2.0, 3.0], [4.0, 5.0]], kind=kind))
    ids = [shard(tmp_path / f"{value}.h5") for value in range(6)]
    for order in (range(6), reversed(range(6))):
        into = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with gamwarm.open(into, on_error="raise") as store:
            for value in order:
                store.merge(tmp_path / f"{value}.h5")
            assert store.entry_ids() == max(ids, key=max)


@pytest.mark.parametrize("thing", [record_of(1), artifact_of()], ids=["record", "artifact"])
def test_of_one_content_in_two_files_the_later_time_stays_whatever_the_order(tmp_path, monkeypatch, thing):
    times = 1_700_000_000_000_000, 1_800_000_000_000_000
    for time in times:
        monkeypatch.setattr(clock, "now", lambda time=time: time)
        shard(tmp_path / f"{time}.h5", thing)
    for number, order in enumerate((times, times[::-1])):
        with gamwarm.open(tmp_path / f"into{number}.h5", on_error="raise") as store:
            for time in order:
                store.merge(tmp_path / f"{time}.h5")
            there = store.get_record(thing.key) if hasattr(thing, "key") else store.get_artifact(thing.descriptor.key)
            assert there.created == max(times)
