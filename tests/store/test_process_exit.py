"""The buffer of an independent store is written at every regular end of a process: pools,
programs, collection.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec

import pytest

import gamwarm
from benchmarks import pools
from gamwarm.entries import buffered
from gamwarm.storage import container
from tests.support.ranks import ROOT
from tests.support.stores import leftovers, record_of

EVERY_DAY = {"concurrent.futures, fork", "multiprocessing.Pool, forkserver"}
REGULAR = [name for name in pools.POOLS if "terminated" not in name]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in EVERY_DAY else pytest.mark.long, id=n) for n in REGULAR]
)
def test_every_fit_of_a_pool_that_has_ended_is_in_the_file(tmp_path, name, request):
    if name == "mpi4py.futures":
        request.getfixturevalue("mpiexec")
    elif find_spec(pools.NEEDS.get(name, "gamwarm")) is None:
        pytest.skip(f"{pools.NEEDS[name]} is not installed")
    path = tmp_path / "fits.h5"

    pools.run_program(name, "a store per worker", path, 10)

    assert pools.fits_in(path) == 10
    assert leftovers(path) == set()


@pytest.mark.long
def test_a_pool_that_is_terminated_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "fits.h5"

    pools.run_program("multiprocessing.Pool, terminated", "a store per task", path, 10)

    assert pools.fits_in(path) == 10


PROGRAM = """
import gc, sys, multiprocessing
import gamwarm
from tests.support.stores import record_of
path, how = sys.argv[1:]
gamwarm.open(path).close()

def put(key):
    return own.put_record(record_of(key)).pending

def work(keys):
    assert all(map(put, keys))
"""

# Each ends with what keys 1 to 4 are pending in one way or another.
ENDINGS = {
    "a store opened before the fork": """
own = gamwarm.open(path).independent()
put(1)
worker = multiprocessing.get_context("fork").Process(target=work, args=([2, 3, 4],))
worker.start()
worker.join()
""",
    "a store opened in the worker": """
def work_there():
    global own
    own = gamwarm.open(path).independent()
    work([1, 2, 3, 4])
worker = multiprocessing.get_context("fork").Process(target=work_there)
worker.start()
worker.join()
""",
    "a worker that raises": """
def work_there():
    global own
    own = gamwarm.open(path).independent()
    work([1, 2, 3, 4])
    sys.stderr = None
    raise ValueError("a bad day")
worker = multiprocessing.get_context("fork").Process(target=work_there)
worker.start()
worker.join()
""",
    "the end of a program with two stores open": """
own = gamwarm.open(path).independent()
work([1, 2])
first, own = own, gamwarm.open(path).independent()
work([3, 4])
""",
    "sys.exit in the middle": """
own = gamwarm.open(path).independent()
work([1, 2, 3, 4])
sys.exit(0)
""",
    "a store dropped": """
own = gamwarm.open(path).independent()
work([1, 2, 3, 4])
del own
""",
    "a store dropped inside a transaction of another": """
own = gamwarm.open(path).independent()
work([1, 2, 3])
with gamwarm.open(path) as other, other.transaction():
    other.put_record(record_of(4))
    del own
    gc.collect()
""",
    "a store in a cycle": """
own = gamwarm.open(path).independent()
work([1, 2, 3, 4])
own.itself = own
del own
gc.collect()
""",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_what_waits_is_filed_at(tmp_path, how):
    path = tmp_path / "fits.h5"
    said = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PROGRAM + ENDINGS[how], str(path), how],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )

    assert said.stderr == ""
    assert pools.fits_in(path) == 4
    assert leftovers(path) == set()


AT_IMPORT = """
import os
import gamwarm
from tests.support.stores import record_of
own = gamwarm.open(os.environ["FITS"]).independent()
if os.getpid() != int(os.environ.setdefault("MAIN", str(os.getpid()))):
    own.put_record(record_of(1))
def work(key):
    own.put_record(record_of(key))
"""
MAIN = """
import multiprocessing, sys
import at_import
if __name__ == "__main__":
    worker = multiprocessing.get_context(sys.argv[1]).Process(target=at_import.work, args=(2,))
    worker.start()
    worker.join()
"""


@pytest.mark.parametrize(
    ("method", "kept"), [("fork", 1), ("forkserver", 2), pytest.param("spawn", 2, marks=pytest.mark.long)]
)
def test_a_store_opened_by_importing_a_module_is_filed_in_workers(tmp_path, method, kept):
    """A worker that imports registers its goodbye before it begins, and then forgets what was
    registered.
    """
    (tmp_path / "at_import.py").write_text(AT_IMPORT)
    (tmp_path / "main.py").write_text(MAIN)
    path = tmp_path / "fits.h5"
    where = os.pathsep.join([str(ROOT), str(tmp_path)])
    subprocess.run(
        [sys.executable, "main.py", method],
        check=True,
        timeout=60,
        cwd=tmp_path,
        env=os.environ | {"FITS": str(path), "PYTHONPATH": where},
    )

    assert pools.fits_in(path) == kept


def test_a_store_that_is_dropped_is_filed_at_once(path):
    own = gamwarm.open(path).independent()
    outcome = own.put_record(record_of(1))
    del own
    gc.collect()

    assert outcome.written
    assert pools.fits_in(path) == 1


def test_a_store_that_is_dropped_while_this_thread_holds_a_file_is_filed_by_the_next_put(path):
    own = gamwarm.open(path).independent()
    outcome = own.put_record(record_of(1))
    with gamwarm.open(path) as other:
        with other.transaction():
            del own
            gc.collect()
            assert outcome.pending
        with other.independent() as next_one:
            next_one.put_record(record_of(2))
            assert outcome.written


def fail(*_):
    raise gamwarm.StoreUnavailable("no space left")


def test_what_a_dropped_store_cannot_file_is_a_resource_warning_with_a_count(path, monkeypatch):
    own = gamwarm.open(path).independent()
    outcomes = [own.put_record(record_of(key)) for key in range(3)]
    monkeypatch.setattr(buffered.BufferedEntries, "flush", fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del own
        gc.collect()

    (warning,) = caught
    assert warning.category is ResourceWarning
    assert "3 entries" in str(warning.message)
    assert "no space left" in str(warning.message)
    assert all(outcome.pending is False and outcome.written is False for outcome in outcomes)


def test_what_cannot_be_filed_at_the_end_is_one_warning_with_a_count(path, tmp_path, monkeypatch, caplog):
    stores = [gamwarm.open(name).independent() for name in (path, tmp_path / "other.h5")]
    outcomes = [own.put_record(record_of(key)) for own in stores for key in range(3)]
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "gamwarm"):
        patch.setattr(container.Container, "write", fail)
        buffered._file_all()

    (line,) = caplog.records
    assert "6 pending entries" in line.getMessage()
    assert "no space left" in outcomes[0].reason
    assert not any(outcome.pending or outcome.written for outcome in outcomes)
    for own in stores:
        own.close()


def test_a_thread_that_never_ends_its_call_does_not_hang_the_end_of_the_process(path, monkeypatch, caplog):
    monkeypatch.setattr(container, "EXIT_PATIENCE", 0.05)
    own = gamwarm.open(path).independent()
    own.put_record(record_of(1))
    held, over = threading.Event(), threading.Event()

    def hold():
        with own._file.call_lock:
            held.set()
            over.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    try:
        with caplog.at_level(logging.WARNING, "gamwarm"):
            buffered._file_all()
    finally:
        over.set()
        thread.join()
    (line,) = caplog.records
    assert "1 pending entries" in line.getMessage()
    own.close()
    assert pools.fits_in(path) == 1


def test_an_end_next_to_a_writer_says_nothing_alarming(path, caplog):
    """The journal of a process that ends while another one writes goes into the file with the other
    one's.
    """
    with gamwarm.open(path) as other:
        leaving = gamwarm.open(path)
        leaving.put_record(record_of(1))
        with other.transaction(), caplog.at_level(logging.WARNING, "gamwarm"):
            other.put_record(record_of(2))
            leaving._file.container._close(0.0)
    assert caplog.records == []
    assert pools.fits_in(path) == 2
    assert leftovers(path) == set()


def test_a_flush_that_fails_says_how_many_entries_are_lost(path, monkeypatch, caplog):
    with gamwarm.open(path) as store, store.independent() as own:
        outcomes = [own.put_record(record_of(key)) for key in range(3)]
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "gamwarm"):
            patch.setattr(container.Container, "write", fail)
            own.flush()
    (line,) = caplog.records
    assert "3 entries that waited are lost" in line.getMessage()
    assert not any(outcome.pending for outcome in outcomes)
    assert os.path.exists(path)
