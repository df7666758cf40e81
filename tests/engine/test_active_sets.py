"""Active sets through the file: kept, read by others, restored, and never more than a start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm.engine import Convex, Factor, Gaussian, Intercept, Monotone, Poisson, RandomEffect, Smooth, bind, fit
from gamwarm.records import ConstrainedWarmStart
from tests.support import models

ROOT = Path(__file__).parents[2]
FAMILIES = {"gaussian": Gaussian("gaussian"), "poisson": Poisson("poisson")}


def bound(family="poisson", k=12):
    terms = [Intercept(), Monotone("x", k=k), RandomEffect("group")]
    return bind(models.columns(240), terms, FAMILIES[family])


def without(model, group):
    return model.case(model.source.columns["group"] != group)


def answer(done):
    assert done.converged, done.reason
    return done.result


def start_of(result, **changes):
    start = ConstrainedWarmStart(result.rho, result.block_beta, active_sets=result.active_sets)
    return replace(start, **changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exact_hit_begins_on_its_face_and_stays_bit_for_bit(tmp_path, family):
    case = bound(family).case()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        first = answer(fit(case, store=store, options=models.TIGHT))
        again = fit(case, store=store, options=models.TIGHT)

    assert again.start.source == "exact"
    assert (again.cost.evaluations, again.cost.outer_iterations) == (1, 0)
    assert again.cost.hessian_formations <= 1
    result = answer(again)
    assert result.active_sets == first.active_sets
    assert again.active["mean:increasing(x)"] == first.active_sets[1] != ()
    assert result.objective == first.objective
    for mine, stored in zip(result.block_beta, first.block_beta, strict=True):
        assert np.array_equal(mine, stored)


def test_active_rows_are_seen_with_plain_h5py_and_hold_in_the_stored_coefficients(tmp_path):
    case = bound().case()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        done = fit(case, store=store)
        key = done.start.key

    sets = answer(done).active_sets
    with gamwarm.open(tmp_path / "fits.h5", "r") as store:
        record = store.get_record(key)
    assert record.active_sets == sets
    with h5py.File(tmp_path / "fits.h5") as file:
        entry = file["block_records"][key].attrs
        assert entry["active"].tolist() == list(sets[1])
        assert json.loads(entry["meta"])["active"] == [None, len(sets[1]), None]
    # Row i is about raw coefficients i and i + 1.
    raw = case.bound.terms[1].lift @ record.block_beta[1]
    rise = np.diff(raw)
    held = np.isin(np.arange(rise.size), sets[1])
    assert np.abs(rise[held]).max() <= 1e-12 * np.abs(raw).max()
    assert rise[~held].min() > 1e-9 * np.abs(raw).max()


WRONG = {
    "none": (None, None, None),
    "every row": (None, tuple(range(11)), None),
    "rows that there are not": (None, (3, 4000), (0, 1)),
    "of a block without constraints": ((0,), None, (2, 5)),
}


@pytest.mark.parametrize("sets", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_active_set_changes_where_a_fit_begins_and_not_where_it_ends(family, sets):
    case = bound(family).case()
    first = answer(fit(case, options=models.TIGHT))

    offered = start_of(first, active_sets=sets)
    same = answer(fit(case, options=models.TIGHT, start=offered))
    moved = answer(fit(case, options=models.TIGHT, start=replace(offered, rho=first.rho - 1.0)))

    for result in (same, moved):
        assert result.active_sets == first.active_sets
        assert result.objective == pytest.approx(first.objective, rel=1e-10)
    assert np.array_equal(same.block_beta[1], first.block_beta[1])


def test_active_sets_of_another_number_of_blocks_are_refused_by_name():
    case = bound().case()
    start = start_of(answer(fit(case)), active_sets=[None])

    with pytest.raises(gamwarm.InvalidInput, match=r"the start has 1 active sets; this fit has 3 blocks"):
        fit(case, start=start)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fold_begins_on_its_parents_face_and_may_end_on_another(tmp_path, family):
    model, faces, led = bound(family, k=25), set(), 0
    with gamwarm.open(tmp_path / "fits.h5") as store:
        parent = fit(model.case(), store=store, options=models.TIGHT, group_seeds="group")
        for group in sorted(set(models.columns(240)["group"])):
            case = without(model, group)
            warm = fit(case, store=store, options=models.TIGHT, leave_out=group)
            cold = answer(fit(case, options=models.TIGHT))

            assert warm.start.source == "transfer"
            led += warm.guard.continued_from == "start"
            result = answer(warm)
            assert result.objective == pytest.approx(cold.objective, abs=1e-8)
            assert result.active_sets == cold.active_sets
            faces.add(result.active_sets[1])
    assert led >= 10
    assert faces - {answer(parent).active_sets[1]}, "no fold has another face than its parent"


def test_a_smooth_and_a_monotone_term_or_two_directions_share_nothing(tmp_path):
    data = models.columns(240)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        keys = set()
        for term in (Smooth("x", k=12), Monotone("x", k=12), Monotone("x", k=12, direction="decreasing")):
            problem = bind(data, [Intercept(), term], Poisson("poisson")).case().problem()
            keys.add((problem.key, problem.descriptor.key))
            assert store.start_for(problem).source == "cold"
    assert len(keys) == 3


def test_the_key_covers_the_constraints_alone():
    case = bound().case()
    plain, problem = case.problem(), case.problem()
    family = plain.family
    for changed in ({}, {"mean:increasing(x)": 2.0 * family.constraints["mean:increasing(x)"]}):
        other = gamwarm.engine.CaseFamily(
            family.family, family.y, family.w, family.offset, family.predictor_of, constraints=changed
        )
        assert (
            gamwarm.FitProblem(other, problem.specs, engine="e").key
            != gamwarm.FitProblem(family, problem.specs, engine="e").key
        )


KILLED = """
import os, signal, sys
import gamwarm, gamwarm.store.fit
from gamwarm.engine import fit
from tests.engine.test_active_sets import bound
from tests.support import models

gamwarm.store.fit.CHECKPOINT_SECONDS = 0.0
inner = gamwarm.store.fit.FitInProgress.checkpoint
kept = []

def checkpoint(self, *args, **kwargs):
    outcome = inner(self, *args, **kwargs)
    kept.append(outcome.written)
    if sum(kept) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome

gamwarm.store.fit.FitInProgress.checkpoint = checkpoint
with gamwarm.open(sys.argv[1]) as store:
    fit(bound(sys.argv[2]).case(), store=store, options=models.TIGHT)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_that_was_killed_ends_on_the_same_face_when_it_is_resumed(tmp_path, family):
    path = tmp_path / "fits.h5"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), family],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    case = bound(family).case()
    with gamwarm.open(path) as store:
        offered = store.start_for(case.problem(models.TIGHT))
        resumed = fit(case, store=store, options=models.TIGHT)

    assert offered.is_checkpoint
    assert offered.start.active_sets[1]
    cold = answer(fit(case, options=models.TIGHT))
    result = answer(resumed)
    assert resumed.cost.outer_iterations < cold.iteration
    assert result.active_sets == cold.active_sets
    assert result.objective == pytest.approx(cold.objective, abs=1e-8)


def test_a_flat_stretch_does_not_cycle():
    # Constant data, for which every row of the inequalities is degenerate, and a step between two
    # long stretches for which most are.
    x = np.repeat(np.arange(20.0), 10)
    noise = np.tile([1.0, -1.0], x.size // 2)
    for curve in (np.zeros(x.size), np.where(x > 9.5, 1.0, 0.0)):
        for direction in ("increasing", "decreasing"):
            terms = [Intercept(), Monotone("x", direction=direction)]
            done = fit(bind({"x": x, "y": curve + noise}, terms, Gaussian("y")).case(), options=models.TIGHT)
            answer(done)
            assert done.cost.evaluations < 40


def test_a_record_of_a_fit_without_constraints_has_no_active_set(tmp_path):
    case = bind(models.columns(240), [Intercept(), Smooth("x", k=8)], Poisson("poisson")).case()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        done = fit(case, store=store)

    assert answer(done).active_sets is None
    assert done.active == {"mean:intercept": (), "mean:s(x)": ()}


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_a_constrained_curve_whose_level_a_fold_lacks_has_no_rows(tmp_path, family):
    data = models.columns(240)
    terms = [Intercept(), Factor("kind"), Monotone("x", k=8, by="kind"), Convex("z", k=6)]
    model = bind(data, terms, FAMILIES[family])
    with gamwarm.open(tmp_path / "fits.h5") as store:
        parent = fit(model.case(), store=store, group_seeds="kind")
        for kind in "abc":
            case = model.case(data["kind"] != kind)
            warm = fit(case, store=store, parent=parent.kept, leave_out=kind)

            result = answer(warm)
            assert warm.start.source == "transfer"
            assert result.objective == pytest.approx(answer(fit(case)).objective, rel=1e-6)
            assert warm.active[f"mean:increasing(x):kind={kind}"] == ()
            assert len(result.active_sets) == len(warm.names)
            for name, rows in warm.active.items():
                if rows:
                    term = case.bound.terms[warm.names.index(name)]
                    slack = term.constraint @ result.block_beta[warm.names.index(name)]
                    assert np.abs(slack[list(rows)]).max() <= 1e-12
            assert fit(case, store=store).cost.evaluations == 1
