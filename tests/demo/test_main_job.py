"""The main job as a user runs it: real data, real ranks, through one file, twice."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

import gamwarm
from gamwarm import engine
from gamwarm.cli import main as command
from gamwarm.demo import __main__ as demo_main
from gamwarm.demo import flights
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

    assert ratio >= 2.5
    assert "16 transfer" in said
    assert again.split()[:-1] == ["second", "run", "16", "exact", "16", "0", "16"]
    assert "Saved (measured):" in said
    assert "--rows 20000 is the shortest" in said
    assert [line for line in said.splitlines() if len(line.rstrip()) > 80 and str(folder) not in line] == []
    assert "…" not in said
    assert "Same optimum in 16 of 16 folds" in said
    assert (folder / "flights.png").stat().st_size > 10_000
    assert len(content(folder)[1]) == 2 * 17


def test_the_commands_that_the_demo_names_can_be_pasted(small, tmp_path, capsys):
    folder = tmp_path / "a folder"
    assert small.run(folder) == 0
    said = capsys.readouterr().out

    commands = [shlex.split(line) for line in re.findall(r"^    (.* -m gamwarm .*)$", said, re.MULTILINE)]

    assert [words[3] for words in commands] == ["ls", "report"]
    assert [command(words[3:]) for words in commands] == [0, 0]
    assert (folder / "flights.html").exists()


@pytest.mark.mpi
@pytest.mark.timeout(300)
def test_what_the_demo_says_of_plain_h5py_is_true(finished):
    _, said = finished
    code = said[said.index("    import h5py, json") : said.index("The plot:")]
    snippet = "\n".join(line.removeprefix("    ") for line in code.splitlines())

    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)

    assert "log lambda" in done.stdout
    assert "'mean:re(carrier)': 15" in done.stdout
    assert "'group': 'UA'" in done.stdout
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


def test_resuming_takes_the_file_of_the_latest_run_and_without_one_a_new_one(tmp_path, capsys):
    assert _prepare(tmp_path / "empty", SERIAL, resume=True).name == "flights.h5"
    assert f"no run to resume in {tmp_path / 'empty'}; starting a new one" in capsys.readouterr().err
    for name in ("flights.h5", "flights-2.h5", "flights-3.png"):
        (tmp_path / name).touch()

    assert _prepare(tmp_path, SERIAL, resume=True).name == "flights-2.h5"

    (tmp_path / "flights-4-cold.json").touch()  # ended before its first fold was stored
    assert _prepare(tmp_path, SERIAL, resume=True).name == "flights-4.h5"
    assert not capsys.readouterr().err


# -- a small job of the same form: interrupts, and going on after them ----------------------------

CARRIERS = ("AA", "B6", "DL", "UA")
COLD, FITS = 3 * len(CARRIERS), 3 * len(CARRIERS) + 2 * (1 + len(CARRIERS))


@pytest.fixture
def small(monkeypatch):
    """Four carriers, two terms; returns what counts calls of the engine and interrupts one."""
    return make_small(monkeypatch)


def make_small(monkeypatch):
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 24, 400)
    columns = {"gain": np.sin(x / 4) + 0.5 * rng.normal(size=400), "hour": x, "carrier": rng.choice(CARRIERS, 400)}
    monkeypatch.setattr(flights, "load", lambda *_: columns)
    terms = [engine.Intercept(), engine.Smooth("hour", k=6), engine.Intercept(predictor="scale")]
    monkeypatch.setattr(flights, "TERMS", terms)
    monkeypatch.setattr("gamwarm.demo.report._draw", lambda path, *_: path.write_bytes(b""))
    return Interrupting(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        small = make_small(patched)
        assert small.run(folder) == 0
    assert len(small.calls) == FITS
    return folder


class Interrupting:
    """Calls the engine; sends this process a SIGINT in place of the call with a given number."""

    def __init__(self, monkeypatch):
        self.calls, self.at, self._fit = [], None, engine.fit
        monkeypatch.setattr(engine, "fit", self)

    def __call__(self, case, **how):
        if len(self.calls) == self.at:
            signal.raise_signal(signal.SIGINT)
        self.calls.append(how.get("cold_start", "warm"))
        return self._fit(case, **how)

    def run(self, folder, *arguments, interrupted_at=None):
        self.calls, self.at = [], interrupted_at
        return main(["--serial", "--folder", str(folder), *arguments])


def cold_results(folder):
    told = json.loads((folder / "flights-cold.json").read_text())
    for fit in told["fits"]:
        del fit["cost"]["seconds"]
    return sorted(told["fits"], key=lambda fit: (fit["group"], fit["start"]))


@pytest.mark.parametrize("at", [0, 5, COLD, COLD + 3, FITS - 1])
def test_a_run_that_was_interrupted_anywhere_resumes_to_the_same_end(small, whole, tmp_path, capsys, at):
    cut = tmp_path / "cut"
    capsys.readouterr()

    assert small.run(cut, interrupted_at=at) == 130
    assert capsys.readouterr().err.strip() == "gamwarm.demo: interrupted; --resume continues where it ended"
    assert small.run(cut, "--resume") == 0

    assert small.calls.count("warm") == FITS - COLD
    assert len(small.calls) == FITS - min(at, COLD), "cold fits are not repeated"
    assert cold_results(cut) == cold_results(whole)
    assert content(cut) == content(whole)
    said = capsys.readouterr().out
    assert "Same optimum in 4 of 4 folds" in said
    assert (f"{min(at, COLD)} cold fits are taken from flights-cold.json" in said) == (at > 0)


def test_folds_that_were_stored_already_are_shown_as_exact_and_not_as_a_gain(small, tmp_path, capsys):
    assert small.run(tmp_path, interrupted_at=COLD + 3) == 130
    assert small.run(tmp_path, "--resume") == 0
    lines = capsys.readouterr().out.splitlines()

    rows = [line for line in lines if line.split()[:1] and line.split()[0] in CARRIERS and "→" in line]
    assert [line.split()[7] == "exact" for line in rows] == [True, True, False, False]
    assert any("not in the means" in line for line in lines)
    assert "Parent on all rows: stored already, 1 Hessian formations" in "\n".join(lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_draws_ends_in_one_line_too(small, tmp_path, capsys, monkeypatch, number):
    monkeypatch.setattr("gamwarm.demo.report._draw", lambda *_: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)

    assert small.run(tmp_path) == 128 + number
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_that_mpiexec_and_the_terminal_send_for_one_key_end_the_demo_once(monkeypatch):
    now = 100.0
    monkeypatch.setattr(demo_main.time, "monotonic", lambda: now)
    signals = demo_main._Signals()

    with pytest.raises(KeyboardInterrupt):
        signals(signal.SIGINT, None)
    signals(signal.SIGTERM, None)
    assert signals.number == signal.SIGINT

    now += 2 * demo_main.ONE_KEY_SECONDS
    with pytest.raises(KeyboardInterrupt):
        signals(signal.SIGTERM, None)


def test_cold_results_of_other_data_or_of_a_cut_file_are_not_taken(small, tmp_path, capsys, monkeypatch):
    assert small.run(tmp_path) == 0
    columns = flights.load(None, 0)
    monkeypatch.setattr(flights, "load", lambda *_: columns | {"gain": columns["gain"] * 2})
    assert small.run(tmp_path, "--resume") == 0
    assert len(small.calls) == FITS

    path = tmp_path / "flights-cold.json"
    path.write_text(path.read_text()[:-40])
    assert small.run(tmp_path, "--resume") == 0
    assert len(small.calls) == FITS


def test_the_file_states_what_each_fold_took_cold_so_that_its_report_measures(small, tmp_path, capsys):
    assert small.run(tmp_path) == 0
    said = capsys.readouterr().out

    with gamwarm.open(tmp_path / "flights.h5", "r") as store:
        savings = store.savings()
    assert savings.basis == "measured"
    assert f"Saved (measured): {savings.total}" in said
    means = next(line for line in said.splitlines() if "all folds" in line).split()
    cold, warm = float(means[2]), float(means[4])
    assert savings.total.hessian_formations == pytest.approx((cold - warm) * len(CARRIERS), abs=0.05 * len(CARRIERS))


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "COLUMNS": "40"}, {"COLUMNS": "60"}])
def test_a_narrow_terminal_cuts_no_column_and_no_colour_is_none(small, tmp_path, capsys, monkeypatch, environment):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert small.run(tmp_path) == 0

    said = capsys.readouterr().out
    tables = said[said.index("Cold starts, mean per fold") :]
    assert "max fitted" in tables
    assert "…" not in tables
    assert ("\x1b[" in said) == ("FORCE_COLOR" in environment)


def test_a_serial_run_writes_nothing_but_what_it_names(small, tmp_path):
    assert small.run(tmp_path) == 0

    written = {path.name for path in tmp_path.iterdir()}
    assert written - {"flights.h5.lock"} == {"flights-cold.json", "flights.h5", "flights.png"}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", ["cold, 3 starts", "parent, then warm folds", "the same job again"])
def test_ctrl_c_ends_a_real_run_in_one_line(tmp_path, after):
    command = [sys.executable, "-m", "gamwarm.demo", "--serial", "--rows", ROWS, "--folder", tmp_path]
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as demo:
        while not demo.stdout.readline().startswith(after):
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert err.strip() == "gamwarm.demo: interrupted; --resume continues where it ended"
