"""The main job as a user runs it: real data, real ranks, through one file, twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import gamwarm
from gamwarm.demo.__main__ import _prepare, main
from gamwarm.parallel import SERIAL
from tests.support.ranks import find_mpiexec

ROWS = "20000"


def run_demo(folder, ranks, *arguments):
    command = [
        find_mpiexec(),
        "-n",
        str(ranks),
        sys.executable,
        "-m",
        "gamwarm.demo",
        "--rows",
        ROWS,
        "--folder",
        folder,
    ]
    return subprocess.run(
        [*map(str, command), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TTY_COMPATIBLE": "0"},  # Open MPI hands ranks a terminal of its own
        check=False,
    )


def content(folder):
    with gamwarm.open(folder / "flights.h5", mode="r") as store:
        assert store.verify().ok
        return store.keys(), store.entry_ids()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run_demo(folder, 2)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.mpi
@pytest.mark.timeout(300)
def test_two_ranks_fit_every_fold_warm_and_then_find_every_fold_again(finished):
    folder, said = finished
    means = next(line for line in said.splitlines() if "all folds" in line)
    ratio = float(re.search(r"([\d.]+)×", means).group(1))
    again = next(line for line in said.splitlines() if "second run" in line)
    _, _, starts, evaluations, iterations, hessians, *_ = (cell.strip() for cell in again.split("│"))

    assert ratio >= 2.5
    assert "16 transfer" in said
    assert (starts, evaluations, iterations, hessians) == ("16 exact", "16", "0", "16")
    assert "Same optimum in 16 of 16 folds" in said
    assert (folder / "flights.png").stat().st_size > 10_000
    assert len(content(folder)[1]) == 2 * 17


@pytest.mark.mpi
@pytest.mark.timeout(300)
def test_what_the_demo_says_of_plain_h5py_is_true(finished):
    _, said = finished
    code = said[said.index("    import h5py, json") : said.index("The plot:")]
    snippet = "\n".join(line.removeprefix("    ") for line in code.splitlines())

    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)

    assert "log lambda" in done.stdout
    assert "'mean:re(carrier)': 15" in done.stdout
    assert "import gamwarm" not in snippet


@pytest.mark.mpi
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [1, 4])
def test_the_number_of_ranks_changes_neither_keys_nor_entries(finished, tmp_path, ranks):
    done = run_demo(tmp_path, ranks)

    assert done.returncode == 0, done.stdout + done.stderr
    assert content(tmp_path) == content(finished[0])


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "12"], "give a number from"),
        (["--rows", "many"], "give an integer"),
        (["--folder", "/proc/nowhere"], "give another folder with --folder"),
    ],
)
def test_a_wrong_argument_is_one_line_and_an_exit_code(tmp_path, arguments, said):
    done = run_demo(tmp_path, 2, *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("gamwarm.demo") for line in done.stderr.splitlines()) == 1  # an MPI may add its own


def test_a_run_takes_a_new_name_and_leaves_what_is_there(tmp_path):
    mine, picture = tmp_path / "flights.h5", tmp_path / "flights-2.png"
    mine.write_bytes(b"my own flights")
    picture.write_bytes(b"my own picture")
    (tmp_path / "flights-3.h5").symlink_to(tmp_path / "nowhere")

    assert _prepare(tmp_path, SERIAL, resume=False) == tmp_path.resolve() / "flights-4.h5"
    assert mine.read_bytes() == b"my own flights"
    assert picture.read_bytes() == b"my own picture"


def test_resuming_takes_the_file_of_the_latest_run_and_without_one_a_new_one(tmp_path):
    assert _prepare(tmp_path / "empty", SERIAL, resume=True).name == "flights.h5"
    for name in ("flights.h5", "flights-2.h5", "flights-3.png"):
        (tmp_path / name).touch()

    assert _prepare(tmp_path, SERIAL, resume=True).name == "flights-2.h5"


def test_an_interrupt_ends_in_one_line(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gamwarm.demo.flights.load", interrupted)

    assert main(["--serial", "--folder", str(tmp_path)]) == 130
    assert capsys.readouterr().err.count("\n") == 1
