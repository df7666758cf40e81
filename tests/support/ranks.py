"""Run a function on real MPI ranks and return the results.

A test asks for the `mpiexec` fixture, which is a `RankRunner`::

    def total_of_ranks(comm, first):                 # module level; arguments and answer are JSON
        return comm.allreduce(first + comm.rank)

    def test_every_rank_gets_the_same_total(mpiexec):
        assert mpiexec(2, total_of_ranks, 10) == [21, 21]

Each run is a process tree of its own. When the time is over, every process of it is killed and the
failure shows what they printed and where each rank stood.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["RankFailure", "RankRunner", "find_mpiexec", "plain"]

ROOT = Path(__file__).resolve().parents[2]
RANK_MAIN = Path(__file__).with_name("rank_main.py")

JOB_VARIABLE = "GAMWARM_TEST_JOB"
"""Marks every process of one run: ranks may leave mpiexec's process group and session, but not
their environment.
"""

LEFT_BY_AN_OUTER_JOB = ("PMI_", "PMIX_NAMESPACE", "PMIX_RANK", "PMIX_SERVER", "HYDI_", "OMPI_COMM_WORLD_")


class RankFailure(AssertionError):
    """A rank raised, the job ended badly, or the time was over. The message holds all that is
    known.
    """


def find_mpiexec() -> str | None:
    """Return the mpiexec to test with: the one scripts/test chose, else the environment's own, else
    the PATH's.
    """
    beside = str(Path(sys.executable).with_name("mpiexec"))
    for candidate in (os.environ.get("GAMWARM_MPIEXEC"), beside, "mpiexec"):
        if candidate and (found := shutil.which(candidate)):
            return found
    return None


def plain(value: Any) -> Any:
    """Return a JSON form of ``value``: paths as strings, NumPy arrays and scalars as lists and
    numbers.
    """
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot travel between a test and its ranks; use JSON values")


def target_name(target: str | Callable[..., Any]) -> str:
    """Return ``module:function`` for a module-level function, or the string as it is."""
    if isinstance(target, str):
        return target
    if "." in target.__qualname__:
        raise ValueError(f"{target.__qualname__} is not at module level, so a rank cannot import it")
    return f"{target.__module__}:{target.__qualname__}"


class RankRunner:
    """Callable that starts ``mpiexec -n N`` on a function; see the module's head for an example."""

    def __init__(self, mpiexec: str) -> None:
        self.mpiexec = mpiexec

    def __call__(
        self,
        n: int,
        target: str | Callable[..., Any],
        *args: Any,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Call ``target(comm, *args)`` on ``n`` ranks and return each rank's answer, by rank.

        ``comm`` is COMM_WORLD. A tuple comes back as a list. An exception on any rank ends the job
        (``python -m mpi4py``) and raises `RankFailure` here, with that rank's traceback.
        """
        with tempfile.TemporaryDirectory(prefix="gamwarm-ranks-") as folder:
            place = Path(folder)
            call = {"target": target_name(target), "args": list(args), "dump_after": max(timeout - 3.0, timeout / 2)}
            (place / "call.json").write_text(json.dumps(call, default=plain))
            command = [self.mpiexec, "-n", str(n), sys.executable, "-m", "mpi4py", str(RANK_MAIN), str(place)]
            code, output = run_job(command, place / "output", timeout, env)
            errors = [path.read_text() for path in sorted(place.glob("rank-*.error"))]
            answers = [place / f"rank-{rank}.json" for rank in range(n)]
            if code == 0 and not errors and all(path.is_file() for path in answers):
                return [json.loads(path.read_text()) for path in answers]
            ended = f"still ran after {timeout:g} s and was killed" if code is None else f"ended with exit code {code}"
            silent = [rank for rank, path in enumerate(answers) if not path.is_file()]
            raise RankFailure(
                "\n".join(
                    [
                        f"{call['target']} on {n} ranks {ended}; no answer from ranks {silent}",
                        *errors,
                        "--- all that was printed ---",
                        output,
                    ]
                )
            )


def run_job(
    command: list[str], output: Path, timeout: float, env: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Run ``command`` as a tree of its own; return its exit code (None: killed after ``timeout``)
    and output.
    """
    job = uuid.uuid4().hex
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_BY_AN_OUTER_JOB)}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    environment.update(env or {})
    environment[JOB_VARIABLE] = job
    code: int | None = None
    # A file and not a pipe: an orphan that kept a pipe open would keep us waiting for its end.
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout)
        finally:
            kill_job(process, job)
    return code, output.read_text(errors="replace")


def kill_job(process: subprocess.Popen[bytes], job: str) -> None:
    """Kill what is left of a job: its group, and whatever carries its mark."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10.0
    while (left := marked_processes(job)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked_processes(job: str) -> list[int]:
    """Return the living processes that carry the job's mark (Linux; nothing elsewhere)."""
    mark = f"{JOB_VARIABLE}={job}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found
