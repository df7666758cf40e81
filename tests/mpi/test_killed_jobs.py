"""SIGKILL of a whole MPI job at a random time: the file opens, verifies, and holds every
acknowledged round.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import gamwarm
from tests.mpi import fold_bodies
from tests.support.ranks import JOB_VARIABLE, kill_job, marked_processes
from tests.support.stores import exact_key_of

RANKS = 2
PUTS = "tests.mpi.bodies:work_until_killed"
FOLDS = "tests.mpi.fold_bodies:campaign_until_killed"
PROGRAM = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
from mpi4py import MPI
module, name = sys.argv[2].split(":")
getattr(importlib.import_module(module), name)(MPI.COMM_WORLD, *sys.argv[3:])
"""


def run_and_kill(mpiexec, root, body, path, log, lines, delay, victim="mpiexec"):
    """Start ``body(comm, path, log)``, wait for ``lines`` of log and ``delay`` seconds, and kill.
    False: it ended.
    """
    mark = f"kill-{path.parent.name}-{time.monotonic_ns()}"
    job = subprocess.Popen(
        [mpiexec.mpiexec, "-n", str(RANKS), sys.executable, "-c", PROGRAM, root, body, str(path), str(log)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {JOB_VARIABLE: mark, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 40
        while lines and not (log.exists() and log.read_text().count("\n") >= lines):
            if job.poll() is not None:
                break
            assert time.monotonic() < deadline, "the job never acknowledged anything"
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(delay)
        if job.poll() is not None:
            assert job.returncode == 0, "the job failed by itself"
            return False
        if victim == "rank":
            # Some process of the job that is not mpiexec: a rank, or what started it.
            others = [pid for pid in marked_processes(mark) if pid != job.pid]
            for pid in others[-1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(2.0)
        job.send_signal(signal.SIGKILL)
        return True
    finally:
        kill_job(job, mark)


def kill_and_look(mpiexec, root, folder, seed, times):
    path, log = folder / "fits.h5", folder / "acknowledged"
    pick = random.Random(seed)
    for _ in range(times):
        log.unlink(missing_ok=True)
        assert run_and_kill(mpiexec, root, PUTS, path, log, 3, pick.uniform(0.0, 0.4))
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
def test_a_killed_job_leaves_a_intact_file_with_every_acknowledged_round(mpiexec, tmp_path, request):
    kill_and_look(mpiexec, str(request.config.rootpath), tmp_path, 20261123, 2)


@pytest.mark.long
def test_fifty_killed_jobs_leave_a_intact_file(mpiexec, tmp_path, request):
    kill_and_look(mpiexec, str(request.config.rootpath), tmp_path, 7, 50)


# -- a campaign of folds ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the campaign gives when nobody kills it, and its entries."""
    path = tmp_path_factory.mktemp("undisturbed") / "fits.h5"
    report = fold_bodies.campaign(None, path)
    with gamwarm.open(path, "r") as store:
        return fold_bodies.content(report), store.entry_ids()


def kill_campaigns(mpiexec, root, folder, undisturbed, seed, times):
    """Kill a campaign again and again; what was acknowledged must be there, and nothing else
    must.
    """
    expected, entries = undisturbed
    ids = [set(fold[-2:]) for fold in expected["folds"]]  # record and artifact: the parent's, then each fold's
    pick = random.Random(seed)
    path, log = folder / "fits-0.h5", folder / "acknowledged"
    known, kills = 0, 0
    for attempt in range(4 * times):
        if kills == times:
            break
        log.unlink(missing_ok=True)
        # Some are killed before they have opened the file, some in their first rounds, some in the
        # last.
        lines, delay = pick.choice([(0, 1.2), (1, 0.1), (2, 0.1), (6, 0.05), (9, 0.05)])
        victim = pick.choice(["mpiexec", "rank"])
        kills += run_and_kill(mpiexec, root, FOLDS, path, log, lines, pick.uniform(0.0, delay), victim)
        told = [int(line) for line in log.read_text().split("\n")[:-1]] if log.exists() else []
        known = max([known, *told])
        if path.exists():
            with gamwarm.open(path, "r") as store:
                assert store.verify().ok
                there = store.entry_ids()
            assert there <= entries
            for number, pair in enumerate(ids[:known]):
                assert pair <= there, f"fit {number} of {known} acknowledged ones was lost"
            for pair in ids:
                assert pair <= there or not pair & there, "record and artifact of a fit are written together"
        else:
            assert known == 0
        if known == len(ids):  # it reached its end: on with another
            path, known = folder / f"fits-{attempt + 1}.h5", 0
    assert kills == times
    before = known
    report = fold_bodies.campaign(None, path)
    assert fold_bodies.content(report) == expected
    sources = fold_bodies.sources(report)
    assert sources[: max(before - 1, 0)] == ["exact"] * max(before - 1, 0)
    assert fold_bodies.sources(fold_bodies.campaign(None, path)) == ["exact"] * fold_bodies.N_GROUPS


@pytest.mark.timeout(110)
def test_a_campaign_that_is_killed_keeps_its_folds_and_continues_from_them(mpiexec, tmp_path, request, undisturbed):
    kill_campaigns(mpiexec, str(request.config.rootpath), tmp_path, undisturbed, 20261124, 3)


@pytest.mark.long
def test_fifty_kills_of_campaigns_lose_no_fold(mpiexec, tmp_path, request, undisturbed):
    kill_campaigns(mpiexec, str(request.config.rootpath), tmp_path, undisturbed, 11, 50)
