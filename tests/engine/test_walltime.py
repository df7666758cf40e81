"""A job whose end is near: the search ends between two outer iterations, is stored, and continues
in the next run.
"""

from __future__ import annotations

import signal

import numpy as np
import pytest

import gamwarm
from gamwarm import engine, folds
from tests.support.models import columns, model

CASE = model("gaussian").case()
MOST_RUNS = 40


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


def fit_in_a_job_that_ends(path, **how):
    """Fit while the batch system has signalled already: what one outer iteration gives is kept."""
    with gamwarm.open(path, on_error="raise") as store, store.walltime():
        signal.raise_signal(signal.SIGUSR1)
        return engine.fit(CASE, store=store, **how)


def test_a_signal_ends_the_search_after_the_iteration_under_way_and_keeps_a_checkpoint(path):
    stopped = fit_in_a_job_that_ends(path)

    assert not stopped.result.converged
    assert "end of the job" in stopped.reason
    assert stopped.kept.stopped
    assert stopped.kept.record.written
    assert stopped.cost.outer_iterations == 1
    with gamwarm.open(path, "r") as store:
        assert store.get_record(store.keys()[0]).kind == "checkpoint"


def test_without_checkpoints_the_search_stops_all_the_same(path):
    assert fit_in_a_job_that_ends(path, checkpoint=False).kept.stopped


def test_a_fit_that_is_stopped_again_and_again_arrives_where_an_undisturbed_one_does(path):
    undisturbed = engine.fit(CASE)
    sources = []
    for _ in range(MOST_RUNS):
        fit = fit_in_a_job_that_ends(path, cold_start="zero")
        sources.append(fit.start.source)
        if fit.result.converged:
            break

    assert fit.result.converged
    assert not fit.kept.stopped
    assert len(sources) > 2, "the case is too easy to show anything"
    assert sources == ["cold"] + ["exact"] * (len(sources) - 1), (
        "every run goes on from the checkpoint of the one before"
    )
    np.testing.assert_allclose(fit.result.rho, undisturbed.result.rho, atol=1e-3)
    assert fit.result.objective == pytest.approx(undisturbed.result.objective, rel=1e-9)


def test_no_search_is_cut_short_whose_user_did_not_ask_for_it(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    with gamwarm.open(path) as store:
        assert store.should_stop(), "who asks is told"
        assert engine.fit(CASE, store=store).result.converged


def test_an_independent_store_hears_the_signals_of_the_store_it_came_from(path):
    with gamwarm.open(path) as store, store.walltime(), store.independent() as own:
        signal.raise_signal(signal.SIGTERM)
        assert engine.fit(CASE, store=own).kept.stopped


def campaign(path, data, *, signalled):
    bound = model("gaussian", data)

    def fit(fold, **how):
        if signalled and fold is not None and fold.group is not None:
            signal.raise_signal(signal.SIGUSR1)
        return engine.fit(bound.case(fold.rows), **how)

    with gamwarm.open(path) as store, store.walltime():
        return folds.leave_one_out(store, data["kind"], fit, progress=False)


def test_a_campaign_counts_a_fold_that_was_stopped_among_those_that_remain(path):
    data = columns()
    stopped = campaign(path, data, signalled=True)
    assert stopped.stopped
    assert len(stopped.folds) == 0
    assert len(stopped.remaining) == 3

    again = campaign(path, data, signalled=False)
    assert not again.stopped
    assert again.folds[0].reason == "a checkpoint of this fit"
    assert all(fold.converged for fold in again.folds)


def test_a_campaign_whose_parent_was_stopped_fits_no_fold_without_it(path):
    data = columns()
    bound = model("gaussian", data)
    fitted = []

    def fit(fold, **how):
        fitted.append(fold.group)
        signal.raise_signal(signal.SIGUSR1)
        return engine.fit(bound.case(fold.rows), **how)

    with gamwarm.open(path) as store, store.walltime():
        report = folds.leave_one_out(store, data["kind"], fit, progress=False)

    assert fitted == [None]
    assert report.parent.stopped
    assert len(report.remaining) == 3
