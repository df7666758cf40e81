"""A Slurm cluster of one node in a temporary folder: real daemons on loopback, several pretended
CPUs, no cgroups.

A test asks for the `slurm` fixture, which is a `SlurmCluster`::

    def test_a_job_ends_well(slurm):
        job = slurm.submit(slurm.script("hello", "srun hostname"))
        assert slurm.wait(job)[0].exit_code == 0

Needs Debian's ``slurm-wlm`` and ``munge``, or the like. Only processes that it started itself are
ended: its daemons by their id, what they started by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.ranks import ROOT

__all__ = ["Job", "SlurmCluster", "missing_program"]

MARK = "GAMWARM_TEST_SLURM"
UNPRIVILEGED = "nobody"
CPUS = 16
START_SECONDS = 30.0
# cred_expire is also how long a job that was put back waits before it starts again (and at least
# 5).
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
CONFIGURATION = """\
ClusterName=gamwarm
FirstJobId={first_job}
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=8
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1,sched_min_interval=100000
MpiDefault=none
ReturnToService=2
KillWait=10
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Job:
    """One job, or one task of an array, as Slurm tells of it; ``number`` is what its commands
    take.
    """

    number: str
    task: str
    state: str
    exit_code: int
    restarts: int


def missing_program() -> str | None:
    """Return a program that is needed and not there, or None."""
    return next((name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if _find(name) is None), None)


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin")


def _first_job() -> int:
    """A number that no cluster of an earlier run is likely to have given.

    MPICH names its shared memory after job and step, so what a killed rank left is met by the next
    job of that number.
    """
    return secrets.randbelow(60_000_000) + 1_000


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class SlurmCluster:
    """A running cluster; `stop` it.

    Attributes
    ----------
    folder : Path
        Where jobs are submitted and leave their logs.
    environment : dict of str to str
        Of the commands of Slurm, and so of the jobs.
    """

    def __init__(self) -> None:
        # A socket's name may have 107 characters, fewer than the folders that pytest makes.
        self._daemons_folder = Path(tempfile.mkdtemp(prefix="gamwarm-slurm-"))
        self._daemons_folder.chmod(0o755)
        self.folder = self._daemons_folder / "jobs"
        self.folder.mkdir()
        self._user = self._job_user()
        self.hand_over(self.folder)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._mark = uuid.uuid4().hex
        left_out = ("SLURM_", "SBATCH_", "PBS_", "GAMWARM_", "PMI_", "PMIX_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)} | {
            MARK: self._mark,
            "SLURM_CONF": str(self._daemons_folder / "slurm.conf"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.folder),
            "GAMWARM_PYTHON": sys.executable,
            "GAMWARM_PROGRAM": str(ROOT / "scripts" / "slurm" / "campaign.py"),
        }
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _job_user() -> str | None:
        """Return whom jobs should run as: nobody where root starts them and nobody can run this
        Python; None: us.
        """
        if os.getuid() != 0:
            return None
        try:
            account = pwd.getpwnam(UNPRIVILEGED)
        except KeyError:
            return None
        if not _may_enter(Path(sys.executable).resolve()):
            return None
        tried = subprocess.run(
            [sys.executable, "-c", "import gamwarm"],
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            env={"PYTHONPATH": str(ROOT)},
            cwd="/",
            capture_output=True,
            check=False,
        )
        return UNPRIVILEGED if tried.returncode == 0 else None

    def _start(self) -> None:
        folder = self._daemons_folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                user=getpass.getuser(), ports=_free_ports(2), folder=folder, cpus=CPUS, first_job=_first_job()
            )
        )
        munge = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "munged.log", "seed-file": "munge.seed"}
        munge["pid-file"] = "munged.pid"
        places = [f"--{name}={folder}/{place}" for name, place in munge.items()]
        self._daemon("munged", "--foreground", "--force", *places)
        self._until(lambda: (folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-i", "-c")
        self._daemon("slurmd", "-D", "-N", "localhost")
        self._until(lambda: "idle" in self._said("sinfo", "-h", "-o", "%t"), "slurmctld and slurmd")

    def _daemon(self, name: str, *arguments: str) -> None:
        program = _find(name)
        assert program is not None
        with (self._daemons_folder / f"{name}.out").open("wb") as out:
            self._processes.append(
                subprocess.Popen(
                    [program, *arguments],
                    env=self.environment,
                    cwd=self._daemons_folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{p.name}: {p.read_text()[-2000:]}" for p in self._daemons_folder.glob("*.out"))
                raise RuntimeError(f"{what} did not start (ended: {ended})\n{logs}")
            time.sleep(0.1)

    # -- commands ----------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm and return what it says."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def _said(self, *command: str) -> str:
        return self.run(*command, check=False)

    def script(self, name: str, *lines: str) -> str:
        """Write a batch script into the folder; return its path."""
        path = self.folder / f"{name}.sbatch"
        path.write_text("\n".join(["#!/usr/bin/env bash", f"#SBATCH --output={name}-%j.log", *lines, ""]))
        return str(path)

    def submit(self, script: str, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
        """Submit a script (of scripts/slurm, or a path) and return the number of the job."""
        path = script if "/" in script else str(ROOT / "scripts" / "slurm" / script)
        as_user = () if self._user is None else (f"--uid={self._user}",)
        before = self.environment
        self.environment = before | variables
        try:
            said = self.run("sbatch", "--parsable", *as_user, *options, path, *arguments)
        finally:
            self.environment = before
        return said.strip()

    def jobs(self, *numbers: str) -> list[Job]:
        """Return how jobs, and all tasks of arrays, are."""
        found = []
        for number in numbers:
            for line in self.run("scontrol", "show", "job", "-o", number).splitlines():
                fields: Mapping[str, str] = dict(re.findall(r"(\w+)=(\S*)", line))
                code, _, by_signal = fields["ExitCode"].partition(":")
                task = fields.get("ArrayTaskId", "")
                found.append(
                    Job(
                        f"{fields['ArrayJobId']}_{task}" if task else fields["JobId"],
                        task,
                        fields["JobState"],
                        int(code) or 128 * bool(int(by_signal)) + int(by_signal),
                        int(fields["Restarts"]),
                    )
                )
        return found

    def wait(self, *numbers: str, seconds: float = 60.0) -> list[Job]:
        """Wait until jobs have ended for good; return how."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = self.jobs(*numbers)
            if all(job.state in ENDED for job in jobs):
                return jobs
            if time.monotonic() > deadline:
                raise AssertionError(f"not ended within {seconds:g} s: {jobs}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        """Return what the jobs have printed."""
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def hand_over(self, folder: Path) -> None:
        """Let jobs write in a folder."""
        if self._user is not None:
            shutil.chown(folder, self._user)

    def cancel_all(self) -> None:
        """End every job."""
        self.run("scancel", f"--user={self._user or getpass.getuser()}", check=False)
        deadline = time.monotonic() + 15.0
        while self._said("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)

    # -- the end -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End jobs, daemons and whatever they have left; remove the folder."""
        if len(self._processes) == 3:
            with contextlib.suppress(Exception):
                self.cancel_all()
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        mark = f"{MARK}={self._mark}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)
        shutil.rmtree(self._daemons_folder, ignore_errors=True)


def _may_enter(program: Path) -> bool:
    """Whether everybody may come to a program: a closed home on the way keeps others out."""
    return all(folder.stat().st_mode & 0o001 for folder in program.parents)
