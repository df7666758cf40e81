"""Checkpoints of a fit in progress: nothing in the first 2 s, then at most every 2 s, the best so
far.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import gamwarm
from gamwarm import InvalidType
from tests.support.ranks import ROOT
from tests.support.stores import plain_fit, result_of


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    # The fit's own clock only: locks and retries of the file go on by the real one.
    monkeypatch.setattr("gamwarm.store.fit.time", type("time", (), {"monotonic": clock}))
    return clock


def at(problem, value, **changes):
    return result_of(problem, value, **({"converged": False} | changes))


def test_nothing_is_written_in_the_first_two_seconds(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        for seconds in (0.0, 0.5, 1.0, 0.499):
            clock.now += seconds
            outcome = fit.checkpoint(at(problem, 5.0))
            assert not outcome.written
            assert "every 2 s" in outcome.reason
    assert len(store) == 0


def test_after_two_seconds_the_best_so_far_is_written(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        fit.checkpoint(at(problem, 5.0))
        fit.checkpoint(at(problem, 3.0))
        clock.now += 2.0
        outcome = fit.checkpoint(at(problem, 4.0))
        assert outcome.written

    record = store.get_record(problem.key)
    assert (record.kind, record.objective) == ("checkpoint", 3.0)


def test_checkpoints_are_written_at_most_every_two_seconds(store, clock):
    problem = plain_fit()
    written = 0
    with store.fit(problem) as fit:
        for step in range(41):
            written += fit.checkpoint(at(problem, 100.0 - step)).written
            clock.now += 0.25

    assert written == 5


def test_a_worse_stretch_never_replaces_the_best(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        for objective in (2.0, 9.0, 8.0, 7.0):
            clock.now += 3.0
            fit.checkpoint(at(problem, objective))

    assert store.get_record(problem.key).objective == 2.0


@pytest.mark.parametrize("nothing", [None, np.nan, np.inf])
def test_an_objective_that_is_not_a_number_never_hides_one_that_is(store, clock, nothing):
    problem = plain_fit()
    with store.fit(problem) as fit:
        fit.checkpoint(at(problem, 1.0, objective=nothing))
        clock.now += 3.0
        assert fit.checkpoint(at(problem, 5.0)).written
        clock.now += 3.0
        fit.checkpoint(at(problem, 1.0, objective=nothing))

    assert store.get_record(problem.key).objective == 5.0


def test_a_checkpoint_stays_a_checkpoint_even_if_its_result_claims_to_have_converged(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        clock.now += 3.0
        assert fit.checkpoint(at(problem, 1.0, converged=True)).written

    assert store.get_record(problem.key).kind == "checkpoint"
    assert store.get_artifact(problem.descriptor.key) is None


def test_a_checkpoint_carries_what_the_fit_started_from(store, clock):
    parent = plain_fit(seed=2)
    kept = store.keep(parent, result_of(parent))
    problem = plain_fit()
    with store.fit(problem) as fit:
        clock.now += 3.0
        fit.checkpoint(at(problem, 1.0))

    assert store.get_record(problem.key).lineage.entry == kept.artifact.entry_id


def test_the_fit_resumes_at_its_checkpoint_and_its_final_answer_outranks_it(store, clock):
    problem = plain_fit()
    with pytest.raises(KeyboardInterrupt), store.fit(problem) as fit:
        clock.now += 3.0
        fit.checkpoint(at(problem, 1.0))
        raise KeyboardInterrupt

    with store.fit(plain_fit()) as fit:
        assert fit.start.source == "exact"
        assert fit.start.start.objective == 1.0
        fit.keep(result_of(problem, 1.25))

    assert store.get_record(problem.key).objective == 1.25


def test_a_checkpoint_that_a_gate_refuses_says_why_and_the_fit_continues(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        clock.now += 3.0
        outcome = fit.checkpoint(at(problem, 1.0, rho=[9.9], curvature=None))
        assert not outcome.written
        assert "saturated" in outcome.reason


def test_a_checkpoint_inside_a_transaction_is_pending(store, clock):
    problem = plain_fit()
    with store.transaction(), store.fit(problem) as fit:
        clock.now += 3.0
        outcome = fit.checkpoint(at(problem, 1.0))
        assert outcome.pending

    assert outcome.written


def test_a_checkpoint_of_an_unkeyable_fit_says_why(store, clock):
    problem = plain_fit(fingerprint=None)
    with store.fit(problem) as fit:
        clock.now += 3.0
        assert "opted out" in fit.checkpoint(at(problem, 1.0)).reason


def test_what_is_not_a_result_is_refused_by_name(store, clock):
    with store.fit(plain_fit()) as fit, pytest.raises(InvalidType, match="result is dict; expected FitResult"):
        fit.checkpoint({})


def test_a_best_that_a_gate_refuses_does_not_stand_in_the_way_of_what_can_be_kept(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        clock.now += 3.0
        fit.checkpoint(at(problem, 1.0, rho=[9.9], curvature=None))
        clock.now += 3.0
        assert fit.checkpoint(at(problem, 2.0)).written

    assert store.get_record(problem.key).objective == 2.0


def test_a_better_checkpoint_in_the_file_stays_and_so_does_the_best_of_this_run(store, clock):
    problem = plain_fit()
    with store.fit(problem) as fit:
        clock.now += 3.0
        fit.checkpoint(at(problem, 1.0))
    with store.fit(problem) as fit:
        clock.now += 3.0
        assert "better checkpoint" in fit.checkpoint(at(problem, 3.0)).reason
        clock.now += 3.0
        assert "better checkpoint" in fit.checkpoint(at(problem, 4.0)).reason
        clock.now += 3.0
        assert fit.checkpoint(at(problem, 0.5)).written

    assert store.get_record(problem.key).objective == 0.5


SEARCH = """
import sys, time
import gamwarm
from tests.support.stores import plain_fit, result_of
problem = plain_fit()
with gamwarm.open(sys.argv[1]) as store, store.fit(problem) as fit:
    began, step = time.monotonic(), 0
    while True:
        step += 1
        # Best at step 3, worse ever after.
        objective = {1: 9.0, 2: 8.0, 3: 2.5}.get(step, 3.0 + step)
        if fit.checkpoint(result_of(problem, objective, converged=False)).written:
            print(time.monotonic() - began, flush=True)
        time.sleep(0.02)
"""


def test_a_fit_that_is_killed_without_warning_resumes_at_the_best_it_had_acknowledged(tmp_path):
    path = tmp_path / "fits.h5"
    command = [sys.executable, "-c", SEARCH, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as job:
        seconds = float(job.stdout.readline())
        time.sleep(0.1)
        os.kill(job.pid, signal.SIGKILL)
    assert 2.0 <= seconds < 10.0

    with gamwarm.open(path, on_error="raise") as store:
        with store.fit(plain_fit()) as fit:
            assert fit.start.source == "exact"
            assert fit.start.reason == "a checkpoint of this fit"
            assert fit.start.start.objective == 2.5
            assert fit.start.start.block_beta[0].tolist() == [2.5, 5.0, 7.5, 10.0]
        assert store.get_record(plain_fit().key).kind == "checkpoint"
        assert store.explain(plain_fit()).hit
        assert store.verify().ok
