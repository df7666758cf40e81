"""SIGKILL of a whole MPI job at a random time: the file opens, verifies, and holds every acknowledged round."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

import gamwarm
from tests.support.ranks import JOB_VARIABLE, kill_job
from tests.support.stores import exact_key_of

RANKS = 2
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from mpi4py import MPI
from tests.mpi.bodies import work_until_killed
work_until_killed(MPI.COMM_WORLD, sys.argv[2], sys.argv[3])
"""


def run_and_kill(mpiexec, root, path, log, delay):
    mark = f"kill-{path.parent.name}-{time.monotonic_ns()}"
    job = subprocess.Popen(
        [mpiexec.mpiexec, "-n", str(RANKS), sys.executable, "-c", PROGRAM, root, str(path), str(log)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {JOB_VARIABLE: mark, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 40
        while not (log.exists() and log.read_text().count("\n") >= 3):
            assert job.poll() is None, "the job ended by itself"
            assert time.monotonic() < deadline, "the job never acknowledged anything"
            time.sleep(0.02)
        time.sleep(delay)
        job.send_signal(signal.SIGKILL)
    finally:
        kill_job(job, mark)


def kill_and_look(mpiexec, root, folder, seed, times):
    path, log = folder / "fits.h5", folder / "acknowledged"
    pick = random.Random(seed)
    for _ in range(times):
        log.unlink(missing_ok=True)
        run_and_kill(mpiexec, root, path, log, pick.uniform(0.0, 0.4))
        acknowledged = [int(line) for line in log.read_text().split("\n")[:-1]]
        assert acknowledged
        with gamwarm.open(path, "r") as store:
            assert store.verify().ok
        with gamwarm.open(path, on_error="raise") as store:
            report = store.verify()
            assert report.ok, report.problems
            keys = set(store.keys())
            for turn in acknowledged:
                assert {exact_key_of(1000 * turn + rank) for rank in range(RANKS)} <= keys, f"round {turn} was lost"
            rounds = {key: int(key[3:], 16) // 1000 for key in keys}
            for turn in set(rounds.values()):
                assert sum(t == turn for t in rounds.values()) == RANKS, f"round {turn} is there in part"


@pytest.mark.timeout(110)
def test_a_killed_job_leaves_a_whole_file_with_every_acknowledged_round(mpiexec, tmp_path, request):
    kill_and_look(mpiexec, str(request.config.rootpath), tmp_path, 20261123, 2)


@pytest.mark.long
def test_fifty_killed_jobs_leave_a_whole_file(mpiexec, tmp_path, request):
    kill_and_look(mpiexec, str(request.config.rootpath), tmp_path, 7, 50)
