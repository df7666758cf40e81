"""What is not ours, not there or not a key: a typed error with the culprit and the next step; the
file untouched.
"""

from __future__ import annotations

import copy
import os
import pickle
import shutil

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import (
    BlockRecord,
    CollectiveError,
    GamwarmError,
    InvalidInput,
    InvalidKey,
    InvalidType,
    NewerFormat,
    NotAStore,
    StoreNotFound,
)
from tests.mpi.bodies import ROUNDS
from tests.support.stores import exact_key_of, leftovers, record_of


def state(path):
    status = path.stat()
    return path.read_bytes(), status.st_mtime_ns, status.st_size, sorted(p.name for p in path.parent.iterdir())


def refuse(path, error, match, **options):
    """Open must raise ``error`` in both modes and leave everything as it was."""
    before = state(path)
    for mode in ("a", "r"):
        with pytest.raises(error, match=match) as raised:
            gamwarm.open(path, mode, **options)
        assert str(path) in str(raised.value), "the message does not name the file"
        assert isinstance(raised.value, GamwarmError)
    assert state(path) == before


@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize("content", [b"x", b"a,b\n1,2\n" * 1000, bytes(4096), b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_not_hdf5_is_refused_and_unchanged(path, content, on_error):
    path.write_bytes(content)

    refuse(path, NotAStore, "HDF5", on_error=on_error)


@pytest.mark.parametrize("userblock", [0, 512, 4096])
def test_an_hdf5_file_of_others_is_refused_and_unchanged(path, userblock):
    with h5py.File(path, "w", userblock_size=userblock) as h5:
        h5["block_records"] = np.arange(10)

    refuse(path, NotAStore, "HDF5")


def test_a_file_of_a_newer_entry_format_is_refused_and_unchanged(path):
    gamwarm.open(path).close()
    with h5py.File(path, "r+") as h5:
        h5.attrs.modify("format_version", np.int64(99))

    refuse(path, NewerFormat, "upgrade gamwarm")


def test_a_file_without_our_groups_is_refused_and_unchanged(path):
    gamwarm.open(path).close()
    with h5py.File(path, "r+") as h5:
        del h5["fit_artifacts"]

    refuse(path, NotAStore, "without gamwarm's groups")


def test_a_directory_is_refused_as_a_path(tmp_path):
    for mode in ("a", "r"):
        with pytest.raises(NotAStore, match="a directory; give the path of a file"):
            gamwarm.open(tmp_path, mode)

    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_not_made_in_mode_r(path):
    with pytest.raises(StoreNotFound, match="mode='a' creates") as raised:
        gamwarm.open(path, "r")

    assert isinstance(raised.value, FileNotFoundError)
    assert list(path.parent.iterdir()) == []


def test_a_missing_directory_is_a_missing_file_whatever_on_error(path):
    place = path.parent / "not" / "there.h5"
    for options in ({}, {"on_error": "raise"}, {"mode": "r"}):
        with pytest.raises(FileNotFoundError, match="no directory" if not options.get("mode") else "no such") as caught:
            gamwarm.open(place, **options)
        assert isinstance(caught.value, StoreNotFound)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "w"}, "mode is 'w'; use one of 'r', 'a'"),
        ({"lock": "none"}, "lock is 'none'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ],
)
def test_an_unknown_choice_is_refused_with_those_that_exist(path, options, message):
    with pytest.raises(InvalidInput, match=message):
        gamwarm.open(path, **options)

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("each", [np.ones(2), 1, "yes", None], ids=repr)
@pytest.mark.parametrize("call", ROUNDS.values(), ids=ROUNDS)
def test_an_each_that_is_no_bool_is_refused_by_name(path, call, each):
    with gamwarm.open(path) as store, pytest.raises(InvalidType, match=r"each is \w+; expected bool"):
        call(store, each)


@pytest.mark.parametrize("wrong", [None, 3, b"fits.h5"])
def test_a_path_of_another_type_is_refused_by_name(wrong):
    with pytest.raises(InvalidType, match="path is"):
        gamwarm.open(wrong)


def test_a_communicator_of_another_type_is_refused_by_name(path):
    with pytest.raises(InvalidType, match="comm is str; give an mpi4py communicator, or None"):
        gamwarm.open(path, comm="world")


def test_an_engine_of_another_type_is_refused_by_name(path):
    with pytest.raises(InvalidType, match="engine"):
        gamwarm.open(path, engine=3)
    for version in (2, 0, b"1"):
        with pytest.raises(InvalidType, match="engine_version"):
            gamwarm.open(path, engine_version=version)


@pytest.mark.parametrize("key", ["", "cf-", "cf-" + "A" * 64, "0" * 64, "cf-" + "0" * 63, "../x", 5, None, b"cf-"])
def test_a_malformed_exact_key_is_refused_and_nothing_is_written(path, key):
    gamwarm.open(path).close()
    before = state(path)[0]
    with gamwarm.open(path) as store:
        with pytest.raises(InvalidKey, match="not an exact key; expected 'cf-' and 64"):
            store.get_record(key)
        with pytest.raises(InvalidKey, match="not an exact key"):
            store.put_record(BlockRecord(key, 1, ["x"], [0], [], [[]]))

    assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["", "cf-" + "0" * 64, "z" * 64, 5, None])
def test_a_malformed_descriptor_key_is_refused(path, key):
    with gamwarm.open(path) as store, pytest.raises(InvalidKey, match="not a descriptor key; expected 64"):
        store.get_artifact(key)


def test_a_well_formed_key_that_is_not_there_is_a_miss(path):
    with gamwarm.open(path) as store:
        assert store.get_record(exact_key_of(5)) is None
        assert store.get_artifact("5" * 64) is None


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_an_empty_file_is_not_ours_and_stays_empty(path, on_error):
    path.touch()

    refuse(path, NotAStore, "an empty file", on_error=on_error)


def test_an_open_store_is_not_sent_to_another_process_and_says_what_is(path):
    with gamwarm.open(path) as store:
        for thing, send in (
            (store, pickle.dumps),
            (store, copy.copy),
            (store, copy.deepcopy),
            (store.frozen(), pickle.dumps),
        ):
            with pytest.raises(InvalidType, match="send its path, and open the file there"):
                send(thing)


def test_a_store_under_another_name_is_the_same_store(path, tmp_path):
    with gamwarm.open(path) as store:
        store.put_record(record_of())
    moved = tmp_path / "andere Fits – 2.h5"
    shutil.move(path, moved)
    link = tmp_path / "link.h5"
    link.symlink_to(moved)

    with gamwarm.open(link) as store:
        assert store.keys() == [exact_key_of(1)]
        assert store.put_record(record_of(2)).written
    assert link.is_symlink()
    assert leftovers(moved) == {"fits.h5.lock", "link.h5"}


def test_every_error_travels_between_processes(path):
    import pickle

    path.write_bytes(b"not ours")
    with pytest.raises(NotAStore) as raised:
        gamwarm.open(path)
    for error in (raised.value, CollectiveError("m", rank=2, cause="c"), InvalidKey("k")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (str(again), again.details, again.code) == (str(error), error.details, error.code)


def test_a_path_is_taken_as_string_or_path_object(path):
    gamwarm.open(str(path)).close()
    with gamwarm.WarmStartStore.open(path, "r") as store:
        assert os.fspath(store.path) == str(path)
