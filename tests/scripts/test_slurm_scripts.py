"""scripts/slurm: the batch scripts as they stand, with stand-ins for srun and scontrol, and with
real signals.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gamwarm
from gamwarm.cli import main
from tests.support.ranks import find_mpiexec

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "slurm"
# What Slurm's own do, as far as the scripts go.
STAND_INS = {
    "srun": '#!/usr/bin/env bash\nwhile [[ ${1:-} == --* ]]; do shift; done\nexec "$@"\n',
    "squeue": "#!/usr/bin/env bash\nexit 1\n",
    "scontrol": '#!/usr/bin/env bash\necho "$@" >>"$SCONTROL_SAID"\nexit "${SCONTROL_CODE:-0}"\n',
}


class Cluster:
    """A folder with stand-ins on the PATH in which batch scripts run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = folder / "scontrol.log"
        stand_ins = folder / "bin"
        stand_ins.mkdir()
        for name, text in STAND_INS.items():
            (stand_ins / name).write_text(text)
            (stand_ins / name).chmod(0o755)
        left_out = ("SLURM_", "PBS_", "GAMWARM_")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        self.environment = clean | {
            "PATH": f"{stand_ins}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SCONTROL_SAID": str(self.said),
            "SLURM_SUBMIT_DIR": str(folder),
            "GAMWARM_PYTHON": sys.executable,
            "GAMWARM_PROGRAM": str(SCRIPTS / "campaign.py"),
        }

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        # Slurm runs a copy of the script, from a folder of its own.
        copy = self.folder / "spool" / "slurm_script"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((SCRIPTS / script).read_bytes())
        return subprocess.Popen(
            ["bash", str(copy), *arguments],
            cwd="/",
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, *arguments: str, **variables: str) -> tuple[int, str]:
        job = self.start(script, *arguments, **variables)
        out, _ = job.communicate(timeout=110)
        return job.returncode, out

    def requeued(self) -> list[str]:
        return self.said.read_text().split("\n")[:-1] if self.said.exists() else []


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def task(number: int, count: int, first: int = 0, last: int | None = None) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": str(900 + number),
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": str(number),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(first + count - 1 if last is None else last),
        "SLURM_ARRAY_TASK_COUNT": str(count),
    }


def folds_in(log: str) -> dict[str, str]:
    return dict(re.findall(r"^fold (\w+): (\w+) ", log, re.MULTILINE))


def finals(path: Path) -> int:
    with gamwarm.open(path, "r") as store:
        assert store.verify().ok
        return len(store.keys())


def test_the_tasks_of_an_array_fit_every_fold_once_from_one_parent(cluster):
    few = ("--subjects", "6")
    code, out = cluster.run("array.sbatch", "--parent-only", *few, **task(0, 1))
    assert (code, folds_in(out)) == (0, {})

    logs = []
    for number in (0, 1):
        code, out = cluster.run("array.sbatch", *few, **task(number, 2))
        assert code == 0, out
        assert out.splitlines()[-1] == f"done: share {number} of 2, 3 folds; {3 + 3 * number} of 6 folds are in fits.h5"
        assert "all rows: exact" in out
        logs.append(folds_in(out))

    assert sorted([*logs[0], *logs[1]]) == [str(fold) for fold in range(6)]
    assert {source for log in logs for source in log.values()} == {"transfer"}
    assert finals(cluster.folder / "fits.h5") == 1 + 6
    assert cluster.requeued() == []


def test_a_task_whose_time_is_up_goes_back_into_the_queue_and_then_ends_what_it_began(cluster):
    soon = str(int(time.time()) + 5)  # less than the margin

    code, out = cluster.run("array.sbatch", "--subjects", "4", **task(0, 1), SLURM_JOB_END_TIME=soon)
    assert code == 0
    assert "stopped in the fit of all rows" in out
    assert "done" not in out
    assert cluster.requeued() == ["requeue 77_0"]

    code, out = cluster.run("array.sbatch", "--subjects", "4", **task(0, 1), SLURM_RESTART_COUNT="1")
    assert code == 0
    assert "all rows: exact (a checkpoint of this fit)" in out
    assert len(folds_in(out)) == 4
    assert cluster.requeued() == ["requeue 77_0"]


def signalled_after_a_fold(cluster: Cluster, number: signal.Signals, **variables: str) -> tuple[int, str]:
    """Start a task with far more folds than are fitted meanwhile, and signal the batch shell after
    the first.
    """
    job = cluster.start("array.sbatch", "--subjects", "150", **task(0, 1), **variables)
    out = ""
    assert job.stdout is not None
    for line in job.stdout:
        out += line
        if line.startswith("fold "):
            job.send_signal(number)
            break
    rest, _ = job.communicate(timeout=110)
    return job.returncode, out + rest


def test_usr1_lets_the_fit_under_way_end_and_requeues(cluster):
    code, out = signalled_after_a_fold(cluster, signal.SIGUSR1)

    done = folds_in(out)
    assert code == 0, out
    assert re.search(r"^stopped: share 0 of 1 has \d+ of its 150 folds left; \d+ of 150 folds are", out, re.MULTILINE)
    assert "done" not in out
    assert cluster.requeued() == ["requeue 77_0"]
    # What was reported is in the file: leaving independent mode writes what waits, and a fit that
    # was stopped is kept.
    assert finals(cluster.folder / "fits.h5") == 1 + len(done)


@pytest.mark.long
def test_a_cancelled_task_keeps_its_fits_and_is_not_requeued(cluster):
    """SIGTERM is what scancel and preemption send: the first means it, after the second Slurm
    requeues by itself.
    """
    code, out = signalled_after_a_fold(cluster, signal.SIGTERM)

    assert code == 75, out
    assert cluster.requeued() == []
    assert finals(cluster.folder / "fits.h5") >= 1 + len(folds_in(out))


def test_a_signal_that_comes_before_the_program_listens_does_not_fail_the_job(cluster):
    """Python takes a second to import what it needs; a signal then ended it, and the job with
    it.
    """
    slow = cluster.folder / "slow.py"
    program = str(SCRIPTS / "campaign.py")
    slow.write_text(f"import runpy, time; time.sleep(2); runpy.run_path({program!r}, run_name='__main__')")
    job = cluster.start("array.sbatch", "--subjects", "150", **task(0, 1), GAMWARM_PROGRAM=str(slow))
    time.sleep(1.0)
    job.send_signal(signal.SIGUSR1)
    out, _ = job.communicate(timeout=110)

    assert job.returncode == 0, out
    assert "stopped" in out, "the signal is sent again until somebody listens"
    assert cluster.requeued() == ["requeue 77_0"]


@pytest.mark.parametrize(
    ("number", "variables"),
    [
        (4, task(4, 3, first=1, last=6)),
        (5, task(5, 1, first=5)),
        (2, task(2, 4, first=0, last=6)),
        (4, task(4, 1, first=4) | {"GAMWARM_SHARES": "4"}),
    ],
    ids=["1,4,6", "5", "0-7:2", "beyond the shares"],
)
def test_an_array_that_does_not_say_its_shares_is_refused(cluster, number, variables):
    code, out = cluster.run("array.sbatch", "--subjects", "4", **variables)

    assert code == 2
    assert "GAMWARM_SHARES=16" in out or "numbered from 0 to 3" in out
    assert not (cluster.folder / "fits.h5").exists()


def test_some_tasks_run_again_fit_the_shares_that_they_had(cluster):
    few = ("--subjects", "6")
    logs = {}
    for number in (0, 3, 1, 2):
        alone = task(number, 1, first=number) | {"GAMWARM_SHARES": "4"}
        code, out = cluster.run("array.sbatch", *few, **alone)
        assert code == 0, out
        logs[number] = folds_in(out)

    assert sorted(fold for log in logs.values() for fold in log) == [str(fold) for fold in range(6)]
    assert out.splitlines()[-1].endswith("6 of 6 folds are in fits.h5")


def test_a_setup_file_is_sourced_before_the_program_starts(cluster):
    (cluster.folder / "gamwarm.env").write_text(
        'unset NOBODY; echo "loaded $NOBODY"; export GAMWARM_FILE=elsewhere.h5\n'
    )

    code, out = cluster.run("array.sbatch", "--subjects", "3", "--parent-only", **task(0, 1))

    assert code == 0, out
    assert "loaded" in out
    assert finals(cluster.folder / "elsewhere.h5") == 1


def test_a_setup_file_that_is_missing_fails_the_job(cluster):
    code, out = cluster.run("array.sbatch", **task(0, 1), GAMWARM_SETUP="nowhere.env")

    assert code == 1
    assert "nowhere.env failed" in out


def test_a_task_is_requeued_no_more_often_than_told(cluster):
    code, _ = cluster.run(
        "array.sbatch", "--subjects", "3", **task(0, 1), SLURM_JOB_END_TIME="1", SLURM_RESTART_COUNT="20"
    )

    assert code == 75
    assert cluster.requeued() == []


@pytest.mark.long
def test_a_task_that_cannot_be_requeued_says_what_to_do(cluster):
    code, out = cluster.run("array.sbatch", "--subjects", "3", **task(0, 1), SLURM_JOB_END_TIME="1", SCONTROL_CODE="1")

    assert code == 75
    assert "submit it again" in out


@pytest.mark.long
def test_a_program_that_fails_is_not_requeued(cluster):
    (cluster.folder / "fits.h5").write_text("not a store")

    code, out = cluster.run("array.sbatch", "--subjects", "3", **task(0, 1))

    assert code == 1
    assert "not a gamwarm file" in out
    assert cluster.requeued() == []


def test_outside_an_array_the_script_says_how_to_submit_it(cluster):
    code, out = cluster.run("array.sbatch")

    assert code != 0
    assert "sbatch --array" in out


@pytest.mark.long
def test_shards_are_files_of_their_own_and_merge_into_one(cluster, capsys):
    few = ("--subjects", "4")
    cluster.run("array.sbatch", "--parent-only", *few, **task(0, 1))
    for number in range(2):
        code, out = cluster.run("array.sbatch", *few, **task(number, 2), GAMWARM_SHARDS="shards")
        assert code == 0, out
        assert set(folds_in(out).values()) == {"transfer"}
    shards = sorted((cluster.folder / "shards").glob("*.h5"))
    assert [shard.name for shard in shards] == ["shard-0.h5", "shard-1.h5"]
    assert finals(cluster.folder / "fits.h5") == 1

    assert main(["merge", str(cluster.folder / "fits.h5"), *map(str, shards)]) == 0
    assert finals(cluster.folder / "fits.h5") == 1 + 4


def test_an_mpi_job_whose_time_is_up_stops_on_all_ranks_and_continues_when_requeued(cluster, mpiexec):
    job = {"SLURM_JOB_ID": "88", "SLURM_NTASKS": "2", "GAMWARM_MPIEXEC": str(find_mpiexec())}
    code, out = cluster.run("mpirun.sbatch", "--subjects", "6", **job, SLURM_JOB_END_TIME="1")
    assert code == 0, out
    assert "stopped: 0 of 6 folds are in fits.h5" in out
    assert "done" not in out
    assert cluster.requeued() == ["requeue 88"]

    code, out = cluster.run("mpirun.sbatch", "--subjects", "6", **job, SLURM_RESTART_COUNT="1")

    assert code == 0, out
    assert "done: 6 of 6 folds are in fits.h5" in out
    assert finals(cluster.folder / "fits.h5") == 1 + 6
    assert cluster.requeued() == ["requeue 88"]


@pytest.mark.parametrize("script", ["array.sbatch", "mpirun.sbatch"])
def test_a_batch_script_asks_for_requeueing_and_a_signal_to_its_shell(script):
    text = (SCRIPTS / script).read_text()
    directives = re.findall(r"^#SBATCH (--\S+)", text, re.MULTILINE)

    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)
    assert text.startswith("#!")
    assert {"--requeue", "--signal=B:USR1@120", "--open-mode=append"} <= set(directives)
    margin = int(re.search(r"@(\d+)", text)[1])
    program = (SCRIPTS / "campaign.py").read_text()
    assert float(re.search(r'"--margin".*default=([\d.]+)', program)[1]) < margin
