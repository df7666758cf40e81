"""Pins, eviction, size budgets and how many finals a key keeps."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import closing, contextmanager
from datetime import timedelta

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gamwarm
from gamwarm import InvalidInput, InvalidType, Lineage, StoreReadOnly
from gamwarm.entries import EntryStore, Wanted, clock, list_entries, stored_values
from gamwarm.entries.eviction import EvictionCandidate, choose_evictions
from gamwarm.entries.layout import FileView
from gamwarm.maintenance import evict, verify
from tests.support.stores import artifact_of, exact_key_of, record_of
from tests.support.thread_ranks import on_ranks


@pytest.fixture
def store(path):
    with gamwarm.open(path, on_error="raise") as opened:
        yield opened


def live_bytes(path):
    with h5py.File(path) as h5:
        return int(h5.attrs["live_bytes"])


def fill(store, count=6):
    """Put records of ascending age numbers, the oldest first; return their entry ids in that
    order.
    """
    return [store.put_record(record_of(key)).entry_id for key in range(count)]


def size_of_one(store):
    return store.evict(dry_run=True).bytes_before // len(store)


def test_eviction_takes_the_oldest_first_until_the_rest_fits(store):
    ids = fill(store)
    one = size_of_one(store)

    report = store.evict(size_budget=3 * one + one // 2)

    assert report.entry_ids == tuple(ids[:3])
    assert store.entry_ids() == set(ids[3:])
    assert report.bytes_after == report.bytes_before - sum(e.nbytes for e in report.evicted)
    assert report.bytes_after <= 3 * one + one // 2
    assert report.evicted[0].place == f"/block_records/{exact_key_of(0)}"
    assert store.get_record(exact_key_of(0)) is None


def test_a_dry_run_says_the_same_and_changes_nothing(store):
    fill(store)
    generation = store.generation

    said = store.evict(size_budget=0, dry_run=True)

    assert said.dry_run
    assert len(store) == 6
    assert store.generation == generation
    assert store.evict(size_budget=0).evicted == said.evicted


def test_totals_and_index_are_right_after_eviction(store, path):
    fill(store)
    for value in (1.0, 2.0):
        store.put_artifact(artifact_of(value=value))
    store.put_artifact(artifact_of(width=2))

    report = store.evict(size_budget=0)

    assert len(report.evicted) == 9
    assert len(store) == 0
    assert store.verify().verdict == "sound"
    store.close()
    assert live_bytes(path) == report.bytes_after == 0
    with h5py.File(path) as h5:
        assert list(h5["fit_artifacts"].attrs) == ["README"]
        assert len(h5["fit_artifacts"]) == 0


def test_the_index_of_many_strict_keys_is_right_after_every_eviction(store, path):
    with store.transaction():
        for width in range(1, 301):
            store.put_artifact(artifact_of(width=width))
    structural = artifact_of().structural_key
    whole = live_bytes(path)

    for share in (0.99, 0.9, 0.6, 0.1, 0):
        store.evict(size_budget=round(share * whole))
        assert store.verify().verdict == "sound"
        widest = store._file.find_parent(Wanted("0" * 64, structural, 10**6))
        left = list_entries(store._file)[0]
        assert (None if widest is None else widest.entry_id) == max(
            ((summary.reduced_width, summary.entry_id) for summary in left), default=(0, None)
        )[1]

    with h5py.File(path) as h5:
        assert list(h5["fit_artifacts"].attrs) == ["README"]


def test_an_evicted_artifact_leaves_its_siblings_findable_by_structure(store):
    store.put_artifact(artifact_of(width=2))
    kept = store.put_artifact(artifact_of(width=3)).entry_id
    store.pin(kept)

    store.evict(size_budget=0)

    assert store.entry_ids() == {kept}
    assert store.verify().verdict == "sound"


def test_a_pin_survives_eviction_until_it_is_taken_off(store):
    ids = fill(store, 3)
    artifact = store.put_artifact(artifact_of()).entry_id
    assert store.pin(ids[1])
    assert store.pin(artifact)

    store.evict(size_budget=0)
    assert store.entry_ids() == {ids[1], artifact}

    store.pin(ids[1], False)
    store.evict(size_budget=0)
    assert store.entry_ids() == {artifact}


def test_a_pin_stays_when_the_entries_of_its_key_are_rewritten_and_does_not_change_content(path):
    with gamwarm.open(path, keep_last=3, on_error="raise") as store:
        first = store.put_record(record_of(value=1.0)).entry_id
        store.pin(first)
        before = store.entry_ids()
        second = store.put_record(record_of(value=2.0)).entry_id
        assert before == {first}
        store.evict(size_budget=0)
        assert store.entry_ids() == {first}
        assert store.get_record(exact_key_of(1)).objective == 1.0
        assert second not in store.entry_ids()


def test_pinning_what_is_not_there_says_so(store):
    assert store.pin("0" * 32) is False
    with pytest.raises(gamwarm.InvalidKey):
        store.pin("nonsense")


def test_the_parent_of_an_unfinished_fit_stays_and_that_of_a_finished_one_goes(store):
    parent = store.put_artifact(artifact_of(value=1.0)).entry_id
    other = store.put_artifact(artifact_of(value=2.0)).entry_id
    store.put_record(record_of(1, kind="checkpoint", converged=False, lineage=Lineage("transfer", parent, (), None)))
    store.put_record(record_of(2, lineage=Lineage("transfer", other, (), None)))

    store.evict(size_budget=0)

    assert store.entry_ids() == {parent}


def test_what_is_too_old_goes_whatever_the_size(path, monkeypatch):
    time = [1_000_000_000_000_000]
    monkeypatch.setattr(clock, "now", lambda: time[0])
    with gamwarm.open(path, on_error="raise") as store:
        old = store.put_record(record_of(1)).entry_id
        time[0] += 3_600_000_000
        store.put_record(record_of(2))

        assert store.evict(max_age=timedelta(hours=2)).evicted == ()
        assert store.evict(max_age=1800.0).entry_ids == (old,)


def test_a_commit_that_passes_the_budget_evicts_the_oldest(path):
    with gamwarm.open(path) as store:
        fill(store, 2)
        budget = 4 * size_of_one(store)
    with gamwarm.open(path, size_budget=budget, on_error="raise") as store:
        ids = [store.put_record(record_of(key)).entry_id for key in range(2, 10)]
        assert store.entry_ids() == set(ids[-4:])
        assert store.verify().verdict == "sound"
        generation = store.generation
        store.get_record(exact_key_of(9))
        assert store.generation == generation
    assert live_bytes(path) <= budget


def test_a_commit_never_evicts_what_it_files_itself(path):
    with gamwarm.open(path, size_budget=0, on_error="raise") as store:
        with store.transaction():
            outcomes = [store.put_record(record_of(key)) for key in range(3)]
        assert all(outcome.written for outcome in outcomes)
        assert store.entry_ids() == {outcome.entry_id for outcome in outcomes}
        last = store.put_record(record_of(9))
        assert store.entry_ids() == {last.entry_id}


def test_a_key_keeps_as_many_finals_as_asked_for(path):
    with gamwarm.open(path, keep_last=2, on_error="raise") as store:
        ids = [store.put_record(record_of(value=float(v))).entry_id for v in range(4)]
        assert store.entry_ids() == set(ids[-2:])
    with gamwarm.open(path, on_error="raise") as store:
        last = store.put_record(record_of(value=9.0)).entry_id
        assert store.entry_ids() == {last}


def test_wrong_arguments_are_refused_by_name(store, path):
    with pytest.raises(InvalidInput, match="size_budget"):
        store.evict(size_budget=-1)
    with pytest.raises(InvalidType, match="max_age"):
        store.evict(max_age="yesterday")
    with pytest.raises(InvalidType, match="size_budget"):
        gamwarm.open(path, size_budget="1G")
    with pytest.raises(InvalidInput, match="keep_last"):
        gamwarm.open(path, keep_last=0)


def test_a_store_for_reading_evicts_and_pins_nothing(path, caplog):
    with gamwarm.open(path) as store:
        ids = fill(store, 2)
    with gamwarm.open(path, "r") as store, caplog.at_level(logging.WARNING):
        assert store.evict(size_budget=0).reason == "the store is open for reading only"
        assert store.pin(ids[0]) is False
        assert store.evict(size_budget=0, dry_run=True).entry_ids == tuple(ids)
        assert len(store) == 2
    with gamwarm.open(path, "r", on_error="raise") as store, pytest.raises(StoreReadOnly):
        store.evict(size_budget=0)


def test_damage_is_not_evicted_and_hurts_no_other(path):
    with gamwarm.open(path) as store:
        ids = fill(store, 3)
    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(0)].attrs["rho"] = [7.0, 7.0]
    with gamwarm.open(path, on_error="raise") as store:
        report = store.evict(size_budget=0)
        assert set(report.entry_ids) == set(ids[1:])
        assert [p.place for p in store.verify().problems] == [f"/block_records/{exact_key_of(0)}"]


def test_ranks_evict_pin_and_compact_together_and_hear_the_same(path):
    def body(comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store:
            ids = [store.put_record(record_of(key)).entry_id for key in range(4)]
            pinned = store.pin(ids[0])
            report = store.evict(size_budget=0)
            compacted = store.compact()
            return pinned, report, compacted, store.entry_ids()

    answers = on_ranks(3, body)

    assert answers == 3 * [answers[0]]
    assert len(answers[0][3]) == 1


def test_an_entry_store_by_itself_stays_within_its_budget(path):
    store = EntryStore(path, size_budget=1)
    for key in range(3):
        store.put_record(record_of(key))
    assert len(store) == 1
    store.close()


def test_of_entries_of_one_time_the_smaller_entry_id_goes_first():
    weighed = [EvictionCandidate("block_records", each, each, 7, 10, None) for each in ("b", "c", "a")]
    gone = choose_evictions(weighed, size_budget=10, before=None, keep=())
    assert [entry.entry_id for entry in gone] == ["a", "b"]


# -- what it reads ---------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """How many entries have been read, and how many values through HDF5's own objects."""
    counted = Counter()

    def counting(owner, name):
        original = getattr(owner, name)

        def count(*args, **options):
            counted[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, count)

    counting(FileView, "_read")
    counting(stored_values, "read_vector")
    return counted


def fit_key_of(number):
    """Return an exact key that differs from others in its first digits, as digests do."""
    return "cf-" + f"{number:064x}"[::-1]


@contextmanager
def filled(path, count, **options):
    with closing(EntryStore(path, **options)) as entries:
        with entries.transaction():
            for number in range(count):
                key = fit_key_of(number)
                entries.put_artifact(artifact_of(value=float(number), n_rows=99 if number == 0 else 9, fit_key=key))
                entries.put_record(record_of(number))
        yield entries


def test_eviction_reads_each_entry_once_and_those_that_go_once_more(path, reads):
    with filled(path, 60) as entries:
        budget = evict(entries, dry_run=True).bytes_before * 3 // 4
        entries.pin(evict(entries, max_age=0, dry_run=True).evicted[0].entry_id)  # the first in every table
        reads.clear()
        gone = len(evict(entries, size_budget=budget).evicted)

        assert 20 < gone < 60
        assert reads["_read"] == 120 + gone
        assert reads["read_vector"] <= 2  # lists of widths: entries are read from their headers
        assert verify(entries).verdict == "sound"


def test_where_a_full_list_loses_one_the_next_moves_up(path, reads):
    with filled(path, 60) as entries:
        budget = evict(entries, dry_run=True).bytes_before - 1
        reads.clear()
        gone = len(evict(entries, size_budget=budget).evicted)

        assert gone == 1
        assert reads["_read"] == 120 + gone + 59
        assert verify(entries).verdict == "sound"


def test_a_budget_costs_a_put_as_much_however_many_there_were(path, reads):
    with filled(path, 150) as entries:
        budget = evict(entries, dry_run=True).bytes_before
    read = []
    with closing(EntryStore(path, size_budget=budget)) as entries:
        for first in (1000, 1150):
            reads.clear()
            for number in range(first, first + 150):
                entries.put_artifact(artifact_of(value=float(number), n_rows=9, fit_key=fit_key_of(number)))
            read.append(reads["_read"])

        assert max(read) <= 40 * 150, read
        assert verify(entries).verdict == "sound"


@given(
    st.lists(
        st.tuples(
            st.sampled_from("xyz"), st.integers(1, 3), st.sampled_from([4, 5]), st.integers(0, 2), st.integers(0, 6)
        ),
        min_size=1,
        max_size=24,
    ),
    st.lists(st.integers(0, 23), max_size=3),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3),
)
def test_after_any_evictions_the_index_is_that_of_the_rest(tmp_path_factory, made, pinned, shares):
    with closing(EntryStore(tmp_path_factory.mktemp("evict") / "fits.h5")) as entries:
        ids = []
        with entries.transaction():
            for value, (name, width, raw, n_rows, fit) in enumerate(made):
                options = {"width": width, "raw_width": raw, "n_rows": n_rows}
                artifact = artifact_of(f"s({name})", float(value), fit_key=fit_key_of(fit), **options)
                ids.append(entries.put_artifact(artifact).entry_id)
        for number in pinned:
            entries.pin(ids[number % len(ids)])
        for share in shares:
            evict(entries, size_budget=round(share * evict(entries, dry_run=True).bytes_before))

            assert verify(entries).verdict == "sound"
            assert entries.read(left_out_of_fits) == []


def left_out_of_fits(view):
    """Return the fits whose newest artifact the index does not say."""
    newest = {}
    for section, path in view.all_paths():
        said = view.read(section, path).summary()
        newest[said.fit_key] = max(newest.get(said.fit_key, (0, "")), (said.created, said.entry_id))
    wrong = [key for key, found in newest.items() if view.index.newest_of_fit(key) != found]
    every = map(fit_key_of, range(7))
    return wrong + [key for key in every if key not in newest and view.index.newest_of_fit(key) is not None]
