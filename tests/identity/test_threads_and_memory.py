"""Naming a large design uses the cores that are free, survives a fork, and needs little memory
beside the design.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gamwarm import matrix_digest
from gamwarm.identity import leaves
from gamwarm.parallel import SERIAL, communicator, cores_each
from tests.support.oracle import plain_digest
from tests.support.problems import Rows, wave

FORMS = {
    "row-major": lambda m: m,
    "column-major": np.asfortranarray,
    "float32": lambda m: m.astype(np.float32),
    "lazy": Rows,
    "negative zeros": lambda m: np.where(np.arange(m.shape[1]) % 2 == 0, -0.0, m),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_librarys_threads_never_change_a_bit(form, monkeypatch):
    matrix = wave(3 * 4096 + 11, 100, 1).astype(np.float32).astype(np.float64)
    expected = plain_digest(np.where(np.arange(100) % 2 == 0, 0.0, matrix) if form == "negative zeros" else matrix)

    digests = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(communicator, "cores_each", lambda *_, cores=cores: cores)
        digests.append(matrix_digest(FORMS[form](matrix)))

    assert digests == [expected] * 3


def test_threads_are_started_for_much_work_only_and_never_more_than_the_free_cores(monkeypatch):
    asked = []
    real = leaves.blake3
    monkeypatch.setattr(leaves, "blake3", lambda *a, **k: asked.append(k.get("max_threads", 1)) or real(*a, **k))
    monkeypatch.setattr(communicator, "cores_each", lambda *_: 3)

    matrix_digest(wave(100, 10, 1))
    matrix_digest(wave(2 * 4096, 100, 1))

    assert asked == [1, 3]


@pytest.mark.parametrize(
    ("mine", "on_node", "siblings", "each"),
    [
        ({0, 1}, [{0, 1}], "", 2),
        ({0, 1}, [{0, 1}, {0, 1}], "", 1),
        (set(range(16)), [set(range(16))] * 4, "4", 4),
        ({4, 5, 6, 7}, [{0, 1, 2, 3}, {4, 5, 6, 7}], "2", 4),  # bound to cores of their own
        ({0}, [{0}, {1}], "2", 1),
        (set(range(8)), [set(range(8))], "8", 1),  # a communicator of one of eight ranks
        ({0, 1}, [{0, 1}] * 5, "", 1),
        (set(range(4)), [set(range(4))], "nonsense", 4),
    ],
)
def test_a_rank_gets_the_cores_that_its_node_leaves_it(mine, on_node, siblings, each, monkeypatch):
    for name in communicator._SIBLINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPI_LOCALNRANKS", siblings)

    assert cores_each(mine, on_node) == each


def test_without_a_communicator_a_process_may_use_what_its_affinity_allows():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert SERIAL.cores() == 1
    finally:
        os.sched_setaffinity(0, cores)


FORK = """
import os, sys
import numpy as np
from gamwarm import matrix_digest
from gamwarm.parallel import communicator
communicator.cores_each = lambda *_: 2
matrix = np.arange(3e6).reshape(-1, 100)
before = matrix_digest(matrix)
child = os.fork()
if child == 0:
    os._exit(0 if matrix_digest(matrix) == before else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_can_continue_hashing_with_threads():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60, cwd=Path(__file__).parents[2])


MEMORY = """
import json, resource, sys
import numpy as np
from scipy import sparse
from gamwarm import DistributedRows, matrix_digest

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Counted:
    shape = (200_000, 100)
    def row_chunk(self, start, stop):
        return np.full((stop - start, 100), float(start))

def design(form):
    rows = np.ones((200_000, 100), dtype=np.float32 if form == "float32" else np.float64)
    if form == "column-major":
        return np.asfortranarray(rows)
    if form == "negative zeros":
        rows[:, 3] = -0.0
    if form == "sparse":
        return sparse.random(400_000, 200, 0.05, "csr", random_state=1)
    if form == "distributed":
        return DistributedRows(rows, None)
    return Counted() if form == "lazy" else rows

matrix_digest(np.ones((50_000, 100)))  # imports, threads, allocator
matrix_digest(sparse.eye_array(5000, format="csr"))
m = design(sys.argv[1])
# What making the design took counts to the peak, so it is taken by ballast as large as that and more.
before = peak()
now = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
ballast = np.ones(max(0, before - now) // 8)
before = peak()
matrix_digest(m)
print(json.dumps(peak() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "form", ["row-major", "column-major", "float32", "negative zeros", "sparse", "lazy", "distributed"]
)
def test_the_peak_of_memory_next_to_a_design_is_below_32_mib(form):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, form],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )

    assert json.loads(done.stdout) < 32 * 1024 * 1024
