"""What scripts/_bootstrap asks of a machine before it calls an MPI good.

It once asked both ranks to print and counted lines: with PYTHONUNBUFFERED set, the two lines
arrived mixed in four of ten runs, and a good MPI was refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ranks import RankRunner

ROOT = Path(__file__).resolve().parents[2]


def ask(folder: Path, mpiexec: str, times: int) -> subprocess.CompletedProcess[str]:
    """Ask `mpi_works` about ``mpiexec``, for an environment in ``folder`` that runs this Python."""
    (folder / "bin").mkdir()
    (folder / ".gamwarm").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    loop = f'for i in $(seq {times}); do mpi_works "{folder}" "{mpiexec}" || exit 9; done'
    asked = f'. "{ROOT}/scripts/_bootstrap"; {loop}'
    return subprocess.run(
        ["bash", "-c", asked], capture_output=True, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )


def test_a_good_mpi_is_found_good_each_time_it_is_asked(mpiexec: RankRunner, tmp_path):
    asked = ask(tmp_path, mpiexec.mpiexec, times=8)

    assert asked.returncode == 0, (tmp_path / ".gamwarm" / "mpi.log").read_text()


@pytest.mark.parametrize("body", ["exit 3", 'shift 2; "$@" & "$@"; wait'], ids=["it fails", "ranks apart"])
def test_an_mpi_that_does_not_work_is_refused_and_the_log_says_what_was_heard(tmp_path, body):
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text(f"#!/bin/sh\n{body}\n")
    mpiexec.chmod(0o755)

    asked = ask(tmp_path, str(mpiexec), times=1)

    assert asked.returncode == 9
    log = (tmp_path / ".gamwarm" / "mpi.log").read_text()
    assert "exit code 3" in log or "heard: ranks 1" in log
