"""The helper that runs tests on real ranks must bring answers back in order, and must never hide a
failure or hang.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.ranks import RankFailure, RankRunner, plain, run_job, target_name


def rank_and_sum(comm, start, values):
    return {"rank": comm.rank, "size": comm.size, "sum": np.float64(comm.allreduce(start)), "values": values}


def raise_on_rank(comm, culprit):
    if comm.rank == culprit:
        raise ValueError(f"rank {comm.rank} had a bad day")
    comm.barrier()


def wait_for_rank_0_for_ever(comm, folder):
    Path(folder, str(comm.rank)).touch()
    if comm.rank == 0:
        time.sleep(600)
    comm.barrier()


def answer_with_an_object(comm):
    return object()


@pytest.mark.parametrize("n", [1, 2])
def test_answers_come_back_by_rank(mpiexec: RankRunner, n):
    answers = mpiexec(n, rank_and_sum, 2.5, np.arange(3))

    assert answers == [{"rank": r, "size": n, "sum": 2.5 * n, "values": [0, 1, 2]} for r in range(n)]


def test_a_target_can_be_named_by_a_string(mpiexec: RankRunner):
    assert mpiexec(1, "tests.mpi.test_rank_runner:rank_and_sum", 1.0, None)[0]["sum"] == 1.0


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_rank_that_raises_ends_the_others_and_shows_its_traceback(mpiexec: RankRunner, culprit):
    started = time.monotonic()

    with pytest.raises(RankFailure, match=f"rank {culprit} had a bad day") as failure:
        mpiexec(2, raise_on_rank, culprit, timeout=50)

    assert "in raise_on_rank" in str(failure.value)
    assert f"--- rank {culprit} raised ---" in str(failure.value)
    assert time.monotonic() - started < 45, "the job waited for its time-out"


def test_a_deadlock_is_killed_intact_and_shows_where_each_rank_stood(mpiexec: RankRunner, tmp_path):
    mark = f"GAMWARM_TEST_MARK={tmp_path}"

    with pytest.raises(RankFailure, match="still ran after 6 s and was killed") as failure:
        mpiexec(2, wait_for_rank_0_for_ever, tmp_path, timeout=6, env=dict([mark.split("=")]))

    assert "no answer from ranks [0, 1]" in str(failure.value)
    assert str(failure.value).count("in wait_for_rank_0_for_ever") == 2
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0", "1"]
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if mark in read(path)], "a process lives on"


LEAVE_A_SLEEPER = """
import subprocess, sys
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with open(sys.argv[1], "w") as file:
    file.write(str(sleeper.pid))
"""


def test_a_process_that_left_the_session_is_killed_too(tmp_path):
    code, output = run_job(
        [sys.executable, "-c", LEAVE_A_SLEEPER, str(tmp_path / "pid")], tmp_path / "output", timeout=30
    )

    assert (code, output) == (0, "")
    status = read(Path("/proc", (tmp_path / "pid").read_text(), "status"))
    assert status == "" or "State:\tZ" in status


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_an_answer_that_is_not_json_is_refused_on_the_rank(mpiexec: RankRunner):
    with pytest.raises(RankFailure, match="object cannot travel"):
        mpiexec(1, answer_with_an_object)


def test_a_function_inside_another_is_refused_before_anything_starts():
    with pytest.raises(ValueError, match="not at module level"):
        target_name(lambda comm: None)


def test_paths_and_arrays_travel_as_plain_values():
    assert plain(Path("a")) == "a"
    assert plain(np.float64(2.0)) == 2.0
