"""scripts/slurm on a real Slurm (`tests.support.slurm`): arrays with gaps, signals, requeues, time
limits, MPI.

What is promised: every fold is in the file once, a fit that was stopped goes on from its
checkpoint, every exit code is as documented.
"""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
import time

import pytest

import gamwarm
from tests.support.ranks import ROOT
from tests.support.slurm import Job, SlurmCluster, missing_program

pytestmark = pytest.mark.slurm

CHAOS_SECONDS = 420.0
SUBJECTS = 24
SHARES = 16
# Whole arrays are the easy case: these have gaps.
ARRAYS = ("1,4,6", "0-10:5", "2,3,7-9", "11-15%3")


@pytest.fixture(scope="module")
def cluster():
    missing = missing_program()
    if missing is not None:
        pytest.skip(f"no Slurm: {missing} is missing (apt-get install slurm-wlm munge)")
    running = SlurmCluster()
    yield running
    running.stop()


@pytest.fixture
def slurm(cluster, request):
    """The cluster, with a folder of this test's own to submit from."""
    top = cluster.folder
    cluster.folder = top / hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    cluster.folder.mkdir()
    cluster.hand_over(cluster.folder)
    yield cluster
    cluster.cancel_all()
    cluster.folder = top


def slowed(slurm: SlurmCluster, seconds: float) -> str:
    """Return a program that is campaign.py with evaluations of so many seconds."""
    program = slurm.folder / "slowed.py"
    program.write_text(
        "import runpy, time\n"
        "from gamwarm.engine.laml import Laml\n"
        "real = Laml.evaluate\n"
        "def evaluate(*args, **options):\n"
        f"    time.sleep({seconds})\n"
        "    return real(*args, **options)\n"
        "Laml.evaluate = evaluate\n"
        f"runpy.run_path({str(ROOT / 'scripts' / 'slurm' / 'campaign.py')!r}, run_name='__main__')\n"
    )
    return str(program)


def printed(slurm: SlurmCluster, pattern: str, what: str, seconds: float = 30.0) -> None:
    """Wait until a job has printed something."""
    deadline = time.monotonic() + seconds
    while not re.search(pattern, slurm.logs(), re.MULTILINE):
        assert time.monotonic() < deadline, f"{what} did not come\n{slurm.logs()}"
        time.sleep(0.05)


def finals(slurm: SlurmCluster) -> int:
    with gamwarm.open(slurm.folder / "fits.h5", "r", on_error="raise") as store:
        assert store.verify().ok
        records = [store.get_record(key) for key in sorted(store.keys())]
        return sum(record is not None and record.kind == "final" for record in records)


def check_that_stopped_fits_went_on(logs: str) -> int:
    """Check each log: a fit that was stopped is next found by its checkpoint (or its answer);
    return how many were.
    """
    stopped = 0
    for log in re.split(r"^== ", logs, flags=re.MULTILINE):
        assert "Traceback" not in log, log
        lines = log.splitlines()
        for number, line in enumerate(lines):
            if found := re.match(r"fold (\w+) is stopped, its checkpoint kept", line):
                again = [later for later in lines[number:] if later.startswith(f"fold {found[1]}: ")]
                assert not again or again[0].startswith(f"fold {found[1]}: exact"), log
                stopped += 1
        assert not re.search(r"^fold \w+: cold", log, re.MULTILINE), log
    assert len(re.findall(r"^all rows: cold", logs, re.MULTILINE)) <= 1, logs
    return stopped


def parent(slurm: SlurmCluster, *few: str) -> None:
    first = slurm.submit("array.sbatch", "--parent-only", *few, options=("--array=0",))
    assert [job.exit_code for job in slurm.wait(first)] == [0], slurm.logs()


def test_tasks_of_arrays_with_gaps_fit_every_fold_once(slurm):
    few = ("--subjects", "6")
    parent(slurm, *few)
    for tasks in ("1,3", "0-2:2%1"):
        array = slurm.submit("array.sbatch", *few, options=(f"--array={tasks}",), GAMWARM_SHARES="4")
        jobs = slurm.wait(array)
        assert {(job.state, job.exit_code) for job in jobs} == {("COMPLETED", 0)}, slurm.logs()

    assert finals(slurm) == 1 + 6
    folds = re.findall(r"^fold (\w+): transfer", slurm.logs(), re.MULTILINE)
    assert sorted(folds) == [str(fold) for fold in range(6)]
    assert "6 of 6 folds are in fits.h5" in slurm.logs()


def test_an_array_with_gaps_that_does_not_say_its_shares_is_refused(slurm):
    (job,) = slurm.wait(slurm.submit("array.sbatch", options=("--array=5",)))

    assert (job.state, job.exit_code) == ("FAILED", 2)
    assert "GAMWARM_SHARES=16" in slurm.logs()


def test_a_task_that_is_signalled_inside_a_fit_is_requeued_and_continues_from_its_checkpoint(slurm):
    few = ("--subjects", "4")
    parent(slurm, *few)
    array = slurm.submit("array.sbatch", *few, options=("--array=0",), GAMWARM_PROGRAM=slowed(slurm, 0.15))
    printed(slurm, r"^fold \w+: ", "a fold")
    slurm.run("scancel", "--batch", "--signal=USR1", array)
    (job,) = slurm.wait(array)

    assert (job.state, job.exit_code, job.restarts) == ("COMPLETED", 0, 1), slurm.logs()
    assert check_that_stopped_fits_went_on(slurm.logs()) == 1
    assert finals(slurm) == 1 + 4


def vendor() -> str:
    asked = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.get_vendor()[0])"
    return subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("launcher", ["srun --mpi=pmi2", pytest.param("srun --mpi=pmix", marks=pytest.mark.long)])
def test_ranks_started_by_srun_hear_the_signal_and_continue_when_requeued(slurm, mpiexec, launcher):
    size = "from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2"
    (tried,) = slurm.wait(
        slurm.submit(slurm.script("a-try", "#SBATCH --ntasks=2", f"{launcher} {sys.executable} -c '{size}'"))
    )
    if tried.exit_code:
        assert (launcher, vendor()) != ("srun --mpi=pmi2", "MPICH"), slurm.logs()
        pytest.skip(f"{vendor()} and {launcher} do not work together here")
    mpi = {"GAMWARM_MPIEXEC": launcher, "GAMWARM_PROGRAM": slowed(slurm, 0.08)}
    job = slurm.submit("mpirun.sbatch", "--subjects", "6", options=("--ntasks=2",), **mpi)
    printed(slurm, r"^3 of 7 fits", "a round")
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    (ended,) = slurm.wait(job)

    assert (ended.state, ended.exit_code, ended.restarts) == ("COMPLETED", 0, 1), slurm.logs()
    assert re.search(r"^stopped: \d of 6 folds", slurm.logs(), re.MULTILINE)
    assert slurm.logs().splitlines()[-1] == "done: 6 of 6 folds are in fits.h5"
    assert finals(slurm) == 1 + 6


@pytest.mark.long
def test_a_cancelled_task_has_kept_its_fits_and_stays_cancelled(slurm):
    few = ("--subjects", "4")
    parent(slurm, *few)
    array = slurm.submit("array.sbatch", *few, options=("--array=0",), GAMWARM_PROGRAM=slowed(slurm, 0.15))
    printed(slurm, r"^fold \w+: ", "a fold")
    slurm.run("scancel", array)
    (job,) = slurm.wait(array)

    assert (job.state, job.restarts) == ("CANCELLED", 0)
    assert finals(slurm) >= 2
    assert "done" not in slurm.logs()


@pytest.mark.long
def test_a_task_that_reaches_its_time_limit_inside_a_fit_is_requeued_until_it_is_done(slurm):
    few = ("--subjects", "6", "--margin", "20")
    parent(slurm, *few)
    # Slurm looks at time limits every half minute; signals may come as much too early.
    options = ("--array=0", "--time=2", "--signal=B:USR1@40")
    array = slurm.submit("array.sbatch", *few, options=options, GAMWARM_PROGRAM=slowed(slurm, 3.0))
    (job,) = slurm.wait(array, seconds=600.0)

    assert (job.state, job.exit_code) == ("COMPLETED", 0), slurm.logs()
    assert job.restarts >= 1
    assert check_that_stopped_fits_went_on(slurm.logs()) >= 1
    assert finals(slurm) == 1 + 6


def disturb(slurm: SlurmCluster, jobs: list[Job], dice: random.Random) -> str:
    """Do something to a job that runs; return what."""
    running = [job for job in jobs if job.state == "RUNNING"]
    if not running:
        return ""
    job = dice.choice(running)
    what = dice.choice(["requeue", "requeue", "signal", "signal", "cancel"])
    command = {
        "requeue": ["scontrol", "requeue"],
        "signal": ["scancel", "--batch", "--signal=USR1"],
        "cancel": ["scancel"],
    }[what]
    slurm.run(*command, job.number, check=False)  # it may have ended meanwhile
    return what


@pytest.mark.long
@pytest.mark.timeout(CHAOS_SECONDS + 120)
def test_twenty_jobs_that_are_requeued_cancelled_and_timed_out_leave_every_fold_in_one_file(slurm, mpiexec):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    few = ("--subjects", str(SUBJECTS))
    parent(slurm, *few)
    environment = {"GAMWARM_SHARES": str(SHARES), "GAMWARM_PROGRAM": slowed(slurm, 0.4)}
    numbers = [
        slurm.submit("array.sbatch", *few, options=(f"--array={tasks}",), **environment) for tasks in ARRAYS[:-1]
    ]
    limited = ("--array=" + ARRAYS[-1], "--time=1", "--signal=B:USR1@30")
    numbers.append(slurm.submit("array.sbatch", *few, "--margin", "10", options=limited, **environment))
    for ranks in (2, 3, 4):
        mpi = environment | {"GAMWARM_MPIEXEC": "srun --mpi=pmi2"}
        numbers.append(slurm.submit("mpirun.sbatch", *few, options=(f"--ntasks={ranks}",), **mpi))

    done: dict[str, int] = {}
    deadline = time.monotonic() + CHAOS_SECONDS / 3
    while time.monotonic() < deadline:
        jobs = slurm.jobs(*numbers)
        if all(job.state in ("COMPLETED", "CANCELLED") for job in jobs):
            break
        if what := disturb(slurm, jobs, dice):
            done[what] = done.get(what, 0) + 1
        time.sleep(dice.uniform(0.3, 2.0))
    jobs = slurm.wait(*numbers, seconds=CHAOS_SECONDS / 2)
    cancelled = [job for job in jobs if job.state == "CANCELLED"]
    assert {(job.state, job.exit_code) for job in jobs if job not in cancelled} <= {("COMPLETED", 0)}, slurm.logs()

    again = sorted({job.task for job in cancelled if job.task})
    if again:
        last = slurm.submit("array.sbatch", *few, options=("--array=" + ",".join(again),), **environment)
        assert {(job.state, job.exit_code) for job in slurm.wait(last, seconds=100.0)} == {("COMPLETED", 0)}, (
            slurm.logs()
        )
    assert finals(slurm) == 1 + SUBJECTS, slurm.logs()
    stopped = check_that_stopped_fits_went_on(slurm.logs())
    restarts = sum(job.restarts for job in jobs)
    print(f"{1 + len(jobs) + len(again)} jobs, {done}, {restarts} restarts, {stopped} fits stopped and continued")
    assert len(jobs) + len(again) + 1 >= 20
    assert restarts > 0
