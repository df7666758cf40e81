"""An entry is encoded once on its way to the file, in every mode, and what is encoded reaches HDF5
without a copy.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import Producer
from gamwarm.entries import KINDS, stored_values
from gamwarm.store.keep import prepare
from tests.support.stores import artifact_of, plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks


@pytest.fixture
def encoded(monkeypatch):
    """What was encoded since, as encoded entries, on all ranks."""
    entries = []

    def counting(genuine):
        def encode(entry):
            entries.append(genuine(entry))
            return entries[-1]

        return encode

    for section, kind in KINDS.items():
        monkeypatch.setitem(KINDS, section, replace(kind, encode=counting(kind.encode)))
    return entries


@pytest.fixture
def written(monkeypatch):
    """The vectors that HDF5 was given since."""
    vectors = []
    genuine = stored_values.write_vector

    def write(gid, name, array):
        vectors.append(array)
        genuine(gid, name, array)

    monkeypatch.setattr(stored_values, "write_vector", write)
    return vectors


def keep_one(store):
    assert store.keep(plain_fit(), result_of(plain_fit())).record.reason == ""


def keep_in_transaction(store):
    with store.transaction():
        keep_one(store)
        store.put_record(record_of(2))


def keep_by_itself(store):
    with store.independent() as own:
        keep_one(own)
        own.put_record(record_of(2))
        own.flush()


def put_each(store):
    store.put_record(record_of(1))
    store.put_artifact(artifact_of())


MODES = {"serial": (keep_one, 2), "transaction": (keep_in_transaction, 3), "independent": (keep_by_itself, 3)}
MODES["puts"] = (put_each, 2)


@pytest.mark.parametrize("mode", MODES)
def test_one_process_encodes_an_entry_once(path, mode, encoded, written):
    act, entries = MODES[mode]
    with gamwarm.open(path, on_error="raise") as store:
        act(store)
        assert len(store) == entries

    assert len(encoded) == entries
    made = [array for entry in encoded for array in entry.arrays.values()]
    assert len(written) == len(made)
    assert all(any(np.shares_memory(there, here) for here in made) for there in written)


@pytest.mark.parametrize("mode", ["serial", "transaction", "puts"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_rank_encodes_an_entry_once_and_what_rank_0_encoded_is_filed(path, size, mode, encoded, written):
    act, entries = MODES[mode]

    def body(comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store:
            act(store)
            return len(store)

    assert on_ranks(size, body) == [entries] * size
    assert len(encoded) == entries * size
    made = [array for entry in encoded for array in entry.arrays.values()]
    assert all(any(np.shares_memory(there, here) for here in made) for there in written)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_fit_of_each_rank_is_encoded_on_that_rank_alone(path, size, encoded):
    def body(comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store:
            mine = plain_fit(comm.rank)
            store.keep(mine, result_of(mine), each=True)
            return store.put_record(record_of(1 + comm.rank), each=True).written

    assert on_ranks(size, body) == [True] * size
    assert len(encoded) == 3 * size


def test_the_same_answer_again_is_encoded_once_more_and_not_written(store, encoded, written):
    keep_one(store)
    del encoded[:], written[:]

    assert "unchanged" in store.keep(plain_fit(), result_of(plain_fit())).record.reason
    assert len(encoded) == 2
    assert written == []


def test_a_long_vector_is_copied_twice_from_the_result_to_what_is_filed():
    width = 1 << 17
    block = gamwarm.ParameterBlockSpec("mean", np.zeros((2, width)))
    family = gamwarm.NamedFamily("tests.plain", "y:1")
    problem = gamwarm.FitProblem(family, [block], gamwarm.BlockwiseFitOptions(), engine="tests", engine_version="1")
    result = gamwarm.FitResult(rho=[], block_beta=[np.arange(float(width))], objective=1.0, converged=False)
    nbytes = 8 * width

    tracemalloc.start()
    try:
        filing = prepare(problem, problem.key, result, None, Producer("e"))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert filing.record.arrays["beta"].nbytes == nbytes
    assert held < 1.5 * nbytes, "what is filed holds one copy"
    assert peak < 2.5 * nbytes, "and one more was made on the way"
