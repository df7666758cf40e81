"""Look-ups that repeat: each returns the current contents, and no caller can corrupt it for those
who come later.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import closing
from dataclasses import replace

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import BlockRecord, Curvature, InnerMode
from gamwarm.encoding.codec import decode
from gamwarm.encoding.record_kind import encode_record
from gamwarm.entries import ARTIFACTS, EntryStore, stored_values
from gamwarm.entries import store as entry_store
from gamwarm.entries.decoded_cache import DecodedCache
from tests.support.stores import artifact_of, exact_key_of, record_of

KEY = exact_key_of(1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


@pytest.fixture
def store(path):
    with gamwarm.open(path, engine="e", engine_version="1", on_error="raise") as opened:
        opened.put_record(record_of(1, 1.0))
        assert opened.get_record(KEY).objective == 1.0
        yield opened


def test_an_own_put_is_seen_by_the_next_get(store):
    store.put_record(record_of(1, 2.0))

    assert store.get_record(KEY).objective == 2.0


def test_a_put_by_another_handle_is_seen_by_the_next_get(store, path):
    with gamwarm.open(path, engine="e", engine_version="1") as other:
        other.put_record(record_of(1, 3.0))

        assert store.get_record(KEY).objective == 3.0
    assert store.get_record(KEY).objective == 3.0


def test_inside_a_transaction_what_was_put_in_it_is_found_and_after_a_rollback_it_is_gone(store):
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.put_record(record_of(1, 4.0))
        assert store.get_record(KEY).objective == 4.0
        1 / 0  # noqa: B018

    assert store.get_record(KEY).objective == 1.0


def test_another_file_under_the_same_name_and_generation_is_another_file(store, path, tmp_path):
    with gamwarm.open(tmp_path / "other.h5", engine="e", engine_version="1") as other:
        other.put_record(record_of(1, 5.0))
        assert other.generation == store.generation
    os.replace(tmp_path / "other.h5", path)

    assert store.get_record(KEY).objective == 5.0


def test_a_restored_backup_of_the_same_file_is_seen(store, path, tmp_path):
    with gamwarm.open(path, mode="r") as reader:
        shutil.copy(path, tmp_path / "backup")
        store.put_record(record_of(1, 6.0))
        assert reader.get_record(KEY).objective == 6.0
        os.replace(tmp_path / "backup", path)

        assert reader.get_record(KEY).objective == 1.0


def test_an_edit_with_plain_h5py_is_seen(path):
    with gamwarm.open(path) as store:
        store.put_record(record_of(1, 1.0))
    with gamwarm.open(path, mode="r") as store:
        assert store.get_record(KEY) is not None
        with h5py.File(path, "r+") as h5:
            del h5["block_records"][KEY]

        assert store.get_record(KEY) is None


def test_a_parent_that_was_read_before_is_found_where_it_was_and_only_there(path):
    with closing(EntryStore(path)) as entries:
        first, second = (entries.put_artifact(artifact_of(value=value)).entry_id for value in (1.0, 2.0))
    with closing(EntryStore(path, mode="r")) as entries:
        assert entries.find_artifact(first) is not None
        with h5py.File(path, "r+") as h5:
            del h5.attrs["recent"]  # the index does not say where entries are

        assert entries.find_artifact(first).artifact.summary.outer_objective == 1.0
        assert entries.find_artifact(second) is None
        with h5py.File(path, "r+") as h5:
            group = h5["fit_artifacts"][artifact_of().descriptor.key]
            group.move(first, "0" * 32)

        assert entries.find_artifact(first) is None


def test_a_parent_that_was_read_before_is_not_recognised_through_a_link_from_another_place(path):
    key, elsewhere = artifact_of().descriptor.key, "f" * 64
    with closing(EntryStore(path)) as entries:
        entry_id = entries.put_artifact(artifact_of()).entry_id
    damaged = []
    with closing(EntryStore(path, mode="r")) as entries:
        assert entries.find_artifact(entry_id) is not None
        with h5py.File(path, "r+") as h5:
            h5[f"fit_artifacts/{elsewhere}/{entry_id}"] = h5[f"fit_artifacts/{key}/{entry_id}"]
        found = entries.read(lambda view: entries._artifact_in(view, f"{elsewhere}/{entry_id}", damaged))

    assert found is None
    assert [where for where, _ in damaged] == [f"{elsewhere}/{entry_id}"]


def test_texts_of_many_lengths_leave_few_objects_of_hdf5_open(path):
    with gamwarm.open(path, engine="e", engine_version="1") as store, store.transaction():
        for number in range(140):
            store.put_record(record_of(number, attributes={"note": "x" * number}))

    assert stored_values._string_type.cache_info().currsize <= 128


def test_a_closed_store_serves_nothing(path):
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
        assert store.get_record(KEY) is not None

    with pytest.raises(gamwarm.StoreClosed):
        store.get_record(KEY)


FULL = record_of(
    1,
    inner=InnerMode(1.0, 2.0, 3, True, [0.5, 0.5], [0.25, 0.25], 1e-6, [0.0, 1.0]),
    curvature=Curvature([0.0, 0.1], np.eye(2), [1.0, 2.0], [True, False]),
    attributes={"note": "kept"},
)


def arrays_of(record):
    inner, curvature = record.inner, record.curvature
    yield from (record.rho, *record.block_beta, inner.block_logdet_h, inner.block_logdet_s, inner.log_lambdas)
    yield from (curvature.gradient, curvature.hessian, curvature.edf, curvature.plateau)


def test_no_array_that_was_handed_out_can_be_made_writeable(store):
    store.put_record(FULL)

    for record in (store.get_record(KEY), store.get_record(KEY)):
        for array in arrays_of(record):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True


def test_what_a_caller_does_to_its_record_is_its_own_affair(store):
    store.put_record(FULL)
    for _ in range(2):
        mine = store.get_record(KEY)
        mine.attributes["note"] = "changed"
        object.__setattr__(mine, "objective", -1.0)

        assert store.get_record(KEY).attributes == {"note": "kept"}
        assert store.get_record(KEY).objective == FULL.objective


def test_a_forked_child_finds_what_was_there_and_what_came_later(store):
    read_end, write_end = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = store.get_record(KEY).objective
            os.read(go_read, 1)
            os.write(write_end, f"{before} {store.get_record(KEY).objective}".encode())
        finally:
            os._exit(0)
    store.put_record(record_of(1, 7.0))
    os.write(go_write, b"g")
    os.waitpid(child, 0)

    before, after = os.read(read_end, 100).split()
    assert float(before) in {1.0, 7.0}
    assert float(after) == 7.0
    for end in (read_end, write_end, go_read, go_write):
        os.close(end)


def test_threads_never_see_a_value_go_back(store):
    failures, done = [], threading.Event()

    def watch():
        last = 0.0
        while not done.is_set():
            value = store.get_record(KEY).objective
            if value < last:
                failures.append((last, value))
            last = value

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for step in range(2, 40):
        store.put_record(record_of(1, float(step)))
        if store.get_record(KEY).objective != step:
            failures.append(step)
    done.set()
    for watcher in watchers:
        watcher.join()

    assert failures == []


def test_producers_ask_for_different_records_of_one_key(path):
    with gamwarm.open(path, engine="e", engine_version="1") as store:
        store.put_record(record_of(1, 1.0))
        mine = store.get_record(KEY)
        store._file.find_record(KEY, replace(mine.producer, engine_version="2"))

        assert store.get_record(KEY) == mine


def test_the_cache_forgets_what_was_not_asked_for_longest_and_keeps_within_its_limit():
    cache = DecodedCache(limit=30)
    for key in "abc":
        cache.keep(key, key.upper(), 10)
    assert cache.get("a") == "A"
    cache.keep("d", "D", 10)

    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    cache.keep("e", "E", 31)
    assert not any(cache.get(key) for key in "abcde"), "what is larger than the limit is not kept"


def test_a_decoded_record_has_all_that_its_constructor_would_have_set():
    record = replace(FULL, created=5)
    decoded = decode(encode_record(replace(record, producer=gamwarm.Producer("e"))))

    assert set(vars(decoded)) == set(BlockRecord.__dataclass_fields__)
    built = BlockRecord(**vars(decoded))
    assert built == decoded
    assert {name: type(value) for name, value in vars(built).items()} == {
        name: type(value) for name, value in vars(decoded).items()
    }


# -- artifacts -------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """The entries that are decoded from now on."""
    seen = []
    monkeypatch.setattr(entry_store, "decode", lambda entry: seen.append(entry.entry_id) or decode(entry))
    return seen


def test_a_parent_is_decoded_once_however_often_it_is_asked_for_and_whatever_is_committed_between(store, decoded):
    entry_id = store.put_artifact(artifact_of()).entry_id
    for step in range(4):
        found = store._file.find_artifact(entry_id).artifact
        store.put_record(record_of(2, float(step)))

    assert found == replace(artifact_of(), producer=found.producer)
    assert decoded.count(entry_id) == 1


def test_a_parent_that_was_removed_is_not_found_again(store):
    entry_id = store.put_artifact(artifact_of()).entry_id
    assert store._file.find_artifact(entry_id) is not None
    with store._file.editing() as editor:
        editor.remove([(ARTIFACTS, f"{artifact_of().descriptor.key}/{entry_id}", entry_id)], {})

    assert store._file.find_artifact(entry_id) is None


def test_a_parent_that_came_back_with_another_time_is_read_again(store, path, tmp_path):
    """Time and labels are no content: the entry id stays, the seal does not."""
    early = store.put_artifact(artifact_of(attributes={"note": "early"}))
    found = store._file.find_artifact(early.entry_id).artifact
    with gamwarm.open(tmp_path / "other.h5", engine="e", engine_version="1") as other:
        late = other.put_artifact(artifact_of(attributes={"note": "late"}))
    assert late.entry_id == early.entry_id
    store.merge(tmp_path / "other.h5")
    again = store._file.find_artifact(early.entry_id).artifact

    assert again.created > found.created
    assert again.attributes == {"note": "late"}


def test_no_one_can_spoil_a_parent_for_those_who_come_later(store):
    entry_id = store.put_artifact(artifact_of(attributes={"a": 1}, nuisance={})).entry_id
    first = store._file.find_artifact(entry_id).artifact
    first.attributes["a"] = 2
    first.nuisance["theta"] = 1.0
    for term in first.terms:
        for array in (term.raw_beta, term.rho_for_term):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)

    assert store._file.find_artifact(entry_id).artifact == replace(
        artifact_of(attributes={"a": 1}), producer=first.producer
    )
