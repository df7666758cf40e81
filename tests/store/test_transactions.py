"""Puts inside a transaction: pending, then on disk together or not at all; look-ups see one's
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import gamwarm
from gamwarm import StoreClosed, StoreError
from tests.support.stores import artifact_of, exact_key_of, leftovers, plain_fit, record_of, result_of


def test_a_put_outside_a_transaction_is_on_disk_when_it_returns(store, path):
    outcome = store.put_record(record_of())

    assert outcome.written
    assert not outcome.pending
    with gamwarm.open(path, "r") as other:
        assert other.get_record(exact_key_of(1)).objective == 1.0


def test_a_put_inside_a_transaction_is_pending_until_the_block_ends(store):
    with store.transaction():
        record = store.put_record(record_of())
        artifact = store.put_artifact(artifact_of())
        kept = store.keep(plain_fit(), result_of(plain_fit()))
        outcomes = [record, artifact, kept.record, kept.artifact]
        assert all(o.pending and not o.written for o in outcomes)

    assert all(o.written and not o.pending and o.reason == "" for o in outcomes)


def test_a_transaction_is_one_commit_however_many_puts(store):
    before = store.generation
    with store.transaction():
        for key in range(20):
            store.put_record(record_of(key))

    assert store.generation == before + 1
    assert len(store) == 20


def test_look_ups_inside_see_what_is_pending(store):
    problem = plain_fit()
    with store.transaction():
        store.keep(problem, result_of(problem))
        assert store.get_record(problem.key) is not None
        assert store.start_for(problem).source == "exact"
        assert store.start_for(plain_fit(seed=2)).source == "transfer"
        assert len(store) == 2
        assert store.keys() == [problem.key]
        assert store.verify().ok


def test_other_stores_do_not_see_what_is_pending(store, path):
    store.put_record(record_of(1))
    with gamwarm.open(path, "r") as other, store.transaction():
        store.put_record(record_of(2))
        assert other.get_record(exact_key_of(2)) is None
        assert other.get_record(exact_key_of(1)) is not None


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), StoreError("mine")])
def test_an_exception_in_the_block_undoes_all_puts_and_continues_its_way(path, error):
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
    before = path.read_bytes()

    with gamwarm.open(path) as store:
        with pytest.raises(type(error)) as raised, store.transaction():
            outcome = store.put_record(record_of(2))
            replaced = store.put_record(record_of(1, 7.0))
            raise error
        assert raised.value is error
        for undone in (outcome, replaced):
            assert not undone.written
            assert not undone.pending
            assert "rolled back" in undone.reason
        assert store.get_record(exact_key_of(2)) is None
        assert store.get_record(exact_key_of(1)).objective == 1.0

    assert path.read_bytes() == before
    assert leftovers(path) == set()


def test_a_store_continues_after_a_rollback(store):
    with pytest.raises(ValueError, match="no"), store.transaction():
        store.put_record(record_of(1))
        raise ValueError("no")

    assert store.put_record(record_of(2)).written
    assert store.keys() == [exact_key_of(2)]
    assert store.verify().ok


def test_an_inner_transaction_joins_the_outer_one(store):
    before = store.generation
    with store.transaction():
        with store.transaction():
            inner = store.put_record(record_of(1))
        assert inner.pending
        outer = store.put_record(record_of(2))

    assert inner.written
    assert outer.written
    assert store.generation == before + 1


def test_an_exception_after_an_inner_transaction_undoes_it_too(store):
    with pytest.raises(ValueError, match="no"), store.transaction():
        with store.transaction():
            inner = store.put_record(record_of(1))
        raise ValueError("no")

    assert not inner.written
    assert len(store) == 0


def test_a_put_repeated_inside_a_transaction_is_as_pending_as_the_first(store):
    problem = plain_fit()
    with pytest.raises(ValueError, match="no"), store.transaction():
        first = store.put_record(record_of())
        again = store.put_record(record_of())
        artifacts = [store.put_artifact(artifact_of()), store.put_artifact(artifact_of())]
        kept = [store.keep(problem, result_of(problem)), store.keep(problem, result_of(problem))]
        outcomes = [first, again, *artifacts, *(k.record for k in kept), *(k.artifact for k in kept)]
        assert all(o.pending and not o.written for o in outcomes)
        raise ValueError("no")

    assert not any(o.pending or o.written for o in outcomes), "an undone put was acknowledged"


def test_what_is_on_disk_already_is_written_even_inside_a_transaction(store):
    first = store.put_record(record_of())
    with store.transaction():
        again = store.put_record(record_of())
        assert again.written

    assert again.entry_id == first.entry_id


def test_a_refused_put_inside_a_transaction_leaves_the_others_alone(store):
    with store.transaction():
        refused = store.put_record(record_of(1, rho=[np.nan, 0.0]))
        good = store.put_record(record_of(2))

    assert not refused.written
    assert good.written
    assert store.keys() == [exact_key_of(2)]


def test_an_empty_transaction_changes_nothing(store):
    before = store.generation
    with store.transaction():
        pass

    assert store.generation == before


def test_a_fit_may_begin_and_end_inside_a_transaction(store):
    problem = plain_fit()
    with store.transaction(), store.fit(problem) as fit:
        assert fit.start.source == "cold"
        outcome = fit.keep(result_of(problem))
        assert outcome.record.pending

    assert outcome.record.written


def test_closing_inside_a_transaction_is_refused_and_the_transaction_commits(store):
    with store.transaction():
        outcome = store.put_record(record_of())
        with pytest.raises(StoreError, match="inside transaction"):
            store.close()

    assert outcome.written


def test_a_transaction_of_a_thread_is_neither_joined_nor_seen_by_another(store):
    inside, go_on = threading.Event(), threading.Event()
    seen: list[object] = []

    def long_transaction():
        with pytest.raises(ValueError, match="no"), store.transaction():
            store.put_record(record_of(1))
            inside.set()
            go_on.wait(10)
            raise ValueError("no")

    def other():
        seen.append(store.get_record(exact_key_of(1)))
        seen.append(store.put_record(record_of(2)))

    first, second = threading.Thread(target=long_transaction), threading.Thread(target=other)
    first.start()
    assert inside.wait(10)
    second.start()
    second.join(0.1)
    go_on.set()
    first.join(20)
    second.join(20)

    assert seen[0] is None, "a pending entry of another thread was seen"
    assert seen[1].written, "a put of this thread was undone with the transaction of another"
    assert store.keys() == [exact_key_of(2)]


def test_serial_use_never_imports_mpi4py(path, request):
    program = "import sys, gamwarm; gamwarm.open(sys.argv[1]).close(); sys.exit('mpi4py' in sys.modules)"
    subprocess.run([sys.executable, "-c", program, path], cwd=request.config.rootpath, timeout=60, check=True)


def test_threads_lose_nothing(store):
    failures: list[BaseException] = []

    def work(first):
        try:
            for key in range(first, first + 15):
                if key % 5 == 0:
                    with store.transaction():
                        store.put_record(record_of(key))
                        store.put_record(record_of(1000 + key))
                else:
                    assert store.put_record(record_of(key)).written
                assert store.get_record(exact_key_of(key)).objective == 1.0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(100 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert len(store) == 4 * (15 + 3)
    assert store.verify().ok


def test_two_stores_on_one_path_in_one_process_see_each_others_commits(path):
    with gamwarm.open(path) as one, gamwarm.open(path) as two:
        assert one.put_record(record_of(1)).written
        assert two.get_record(exact_key_of(1)) is not None
        assert two.put_record(record_of(2)).written
        assert one.put_record(record_of(3)).written
        assert one.keys() == two.keys() == [exact_key_of(k) for k in (1, 2, 3)]
        assert one.generation == two.generation
    assert leftovers(path) == set()


WRITER = """
import sys, gamwarm
sys.path.insert(0, sys.argv[3])
from tests.support.stores import record_of
with gamwarm.open(sys.argv[1]) as store:
    for key in range(int(sys.argv[2]), int(sys.argv[2]) + 12):
        assert store.put_record(record_of(key)).written
"""


@pytest.mark.timeout(60)
def test_two_processes_on_one_path_lose_nothing(path, request):
    root = str(request.config.rootpath)
    with gamwarm.open(path) as store:
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(k), root]) for k in (100, 200)]
        for key in range(12):
            assert store.put_record(record_of(key)).written
        assert [w.wait(50) for w in writers] == [0, 0]
        assert len(store) == 36
        assert store.verify().ok


CHILD_OF_A_FORK = """
import os, sys, threading, gamwarm
sys.path.insert(0, sys.argv[2])
from tests.support.stores import exact_key_of, record_of
with gamwarm.open(sys.argv[1]) as store:
    store.put_record(record_of(1))
    inside, go_on = threading.Event(), threading.Event()
    def hold():
        with store.transaction():
            store.put_record(record_of(2))
            inside.set()
            go_on.wait(20)
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(20)
    child = os.fork()
    if child == 0:
        seen = [store.get_record(exact_key_of(k)) is not None for k in (1, 2)]
        put = store.put_record(record_of(3))
        os._exit(0 if seen == [True, False] and not put.written and "forked" in put.reason else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    go_on.set()
    thread.join()
    assert store.keys() == [exact_key_of(1), exact_key_of(2)]
    assert store.verify().ok
sys.exit(code)
"""


@pytest.mark.timeout(60)
def test_a_child_forked_while_another_thread_writes_reads_on_and_cannot_write(path, request):
    done = subprocess.run(
        [sys.executable, "-c", CHILD_OF_A_FORK, path, str(request.config.rootpath)],
        timeout=50,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_child_forked_inside_a_transaction_is_told_that_its_put_is_not_written(path):
    with gamwarm.open(path) as store:
        with store.transaction():
            own = store.put_record(record_of(1))
            child = os.fork()
            if child == 0:
                put = store.put_record(record_of(2))
                os._exit(0 if not put.pending and not put.written and "forked" in put.reason else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert own.written
        assert store.keys() == [exact_key_of(1)]


def test_a_closed_store_says_so_and_closing_twice_is_nothing(path):
    store = gamwarm.open(path)
    store.close()
    store.close()

    assert "closed" in repr(store)
    problem = plain_fit()
    for call in (
        lambda: store.get_record(exact_key_of(1)),
        lambda: store.put_record(record_of()),
        lambda: store.put_artifact(artifact_of()),
        lambda: store.keys(),
        lambda: len(store),
        lambda: store.generation,
        lambda: store.verify(),
        lambda: store.start_for(problem),
        lambda: store.keep(problem, result_of(problem)),
        lambda: store.fit(problem).__enter__(),
        lambda: store.transaction().__enter__(),
        lambda: store.__enter__(),
    ):
        with pytest.raises(StoreClosed, match=r"open it again with gamwarm\.open"):
            call()


def test_an_exception_inside_with_store_closes_it_and_continues_its_way(path):
    with pytest.raises(KeyboardInterrupt), gamwarm.open(path) as store:
        assert store.put_record(record_of()).written
        raise KeyboardInterrupt

    assert leftovers(path) == set()
    with gamwarm.open(path, "r") as again:
        assert again.keys() == [exact_key_of(1)]


def test_an_exception_inside_with_fit_leaves_the_store_open(store):
    with pytest.raises(ZeroDivisionError), store.fit(plain_fit()):
        raise ZeroDivisionError

    assert store.keep(plain_fit(), result_of(plain_fit())).record.written
