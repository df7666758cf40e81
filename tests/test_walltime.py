"""The end of a batch job: a signal only sets a flag, the clock is asked, and all ranks stop
together.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import gamwarm
from gamwarm import InvalidInput, Walltime
from gamwarm.walltime import SIGNALS
from tests.support.ranks import ROOT
from tests.support.thread_ranks import on_ranks


@pytest.fixture(autouse=True)
def no_batch_system(monkeypatch):
    for name in ("SLURM_JOB_END_TIME", "PBS_WALLTIME"):
        monkeypatch.delenv(name, raising=False)


JOB = """
import sys, time
import gamwarm
with gamwarm.open(sys.argv[1]) as store, store.walltime():
    print("ready", flush=True)
    while not store.should_stop():
        time.sleep(0.01)
    print("kept", flush=True)
print("closed")
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_a_job_that_gets_a_signal_ends_by_itself_and_closes_its_file(tmp_path, number):
    job = [sys.executable, "-c", JOB, str(tmp_path / "fits.h5")]
    with subprocess.Popen(job, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)

    assert (process.returncode, output) == (0, "kept\nclosed\n")


@pytest.mark.parametrize(
    ("variables", "least", "most"),
    [
        ({"SLURM_JOB_END_TIME": "{in100}"}, 60, 100),
        ({"PBS_WALLTIME": "100"}, 60, 100),
        ({"PBS_WALLTIME": "01:00:00"}, 3560, 3600),
        ({"SLURM_JOB_END_TIME": "{in100}", "PBS_WALLTIME": "5000"}, 60, 100),
        ({"SLURM_JOB_END_TIME": "0"}, 0, 0),
    ],
)
def test_a_job_knows_its_end_from_the_batch_system(variables, least, most):
    values = {name: text.format(in100=int(time.time()) + 100) for name, text in variables.items()}
    code = "import time, gamwarm; time.sleep(0.1); print(gamwarm.Walltime().time_left())"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | values, cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert least <= float(answer.stdout) <= most


def test_without_a_batch_system_there_is_no_end():
    assert Walltime().time_left() == math.inf
    assert not Walltime().should_stop()


@pytest.mark.parametrize("text", ["soon", "nan", "-5", "1:x"])
def test_an_end_that_is_no_number_does_not_count_and_is_warned_of(monkeypatch, caplog, text):
    monkeypatch.setenv("SLURM_JOB_END_TIME", text)
    with caplog.at_level(logging.WARNING, "gamwarm"):
        assert Walltime().time_left() == math.inf
    assert "SLURM_JOB_END_TIME" in caplog.text


def test_the_earliest_of_deadline_and_batch_system_counts(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 1000))

    assert 400 < Walltime(deadline=time.time() + 500).time_left() <= 500
    assert 900 < Walltime(deadline=datetime.now(UTC) + timedelta(hours=1)).time_left() <= 1000


def test_the_margin_stops_a_job_before_its_end():
    end = time.time() + 100

    assert Walltime(margin=200, deadline=end).should_stop()
    assert not Walltime(margin=10, deadline=end).should_stop()
    assert Walltime(margin=0, deadline=1).time_left() == 0.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"deadline": datetime(2026, 1, 1)}, "no time zone"),
        ({"deadline": math.nan}, "deadline"),
        ({"margin": -1}, "margin"),
    ],
)
def test_a_deadline_that_is_none_is_refused(arguments, complaint):
    with pytest.raises(InvalidInput, match=complaint):
        Walltime(**arguments)


def test_a_handler_installed_before_is_called_too_and_is_back_afterwards():
    heard = []

    def mine(number, frame):
        heard.append(number)

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        with Walltime() as time_kit:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert time_kit.signal == signal.SIGUSR1
            assert time_kit.should_stop()
        assert heard == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert time_kit.should_stop()  # what was heard stays heard
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_default_action_is_suspended_inside_and_back_afterwards():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with Walltime() as time_kit:
        for number in SIGNALS:
            os.kill(os.getpid(), number)
            assert time_kit.signal == number
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_one_inside_another_tells_both_and_each_cleans_up_after_itself():
    before = signal.getsignal(signal.SIGTERM)
    with Walltime() as outer:
        with Walltime() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert (inner.signal, outer.signal) == (signal.SIGTERM, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_handler_that_somebody_put_on_top_meanwhile_is_left_alone():
    def later(number, frame):
        pass

    before = signal.getsignal(signal.SIGUSR2)
    try:
        with Walltime():
            signal.signal(signal.SIGUSR2, later)
        assert signal.getsignal(signal.SIGUSR2) is later
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_outside_the_main_thread_it_is_refused_in_text_and_the_clock_still_counts():
    caught = []

    def body():
        kit = Walltime(deadline=1)
        try:
            kit.__enter__()
        except InvalidInput as error:
            caught.append((str(error), kit.should_stop()))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()

    ((message, stops),) = caught
    assert "main thread" in message
    assert stops


def test_entering_twice_is_refused():
    with Walltime() as kit, pytest.raises(InvalidInput, match="already entered"):
        kit.__enter__()


def test_a_store_answers_for_its_walltime(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        assert store.time_left() == math.inf
        assert not store.should_stop()
        with store.walltime(margin=5, deadline=time.time() + 50):
            assert 0 < store.time_left() <= 50
            assert not store.should_stop()
            os.kill(os.getpid(), signal.SIGUSR2)
            assert store.should_stop()
            assert store.frozen().should_stop()
    with pytest.raises(gamwarm.StoreClosed):
        store.should_stop()


def test_one_rank_whose_time_is_up_stops_all():
    def body(comm):
        kit = Walltime(margin=10, deadline=time.time() + (5 if comm.rank == 2 else 500), comm=comm)
        return kit.is_due(), kit.should_stop()

    assert on_ranks(3, body) == [(False, True), (False, True), (True, True)]


def signalled_rank(comm, folder):
    rounds = 0
    with gamwarm.open(f"{folder}/fits.h5", comm=comm) as store, store.walltime() as kit:
        while not store.should_stop():
            rounds += 1
            if rounds == 3 and comm.rank == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
        return rounds, None if kit.signal is None else kit.signal.name


def test_a_signal_to_one_real_rank_stops_all_ranks_in_the_same_round(mpiexec, tmp_path):
    assert mpiexec(3, signalled_rank, tmp_path) == [[3, None], [3, "SIGUSR1"], [3, None]]
