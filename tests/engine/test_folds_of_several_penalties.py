"""Folds of models with several, tied and fixed penalties: seeds, subtraction, order."""

from __future__ import annotations

import numpy as np
import pytest

import gamwarm
from gamwarm.engine import RandomEffect, fit
from gamwarm.engine.arrays import Counters
from gamwarm.engine.seeds import _gradient_changes, group_changes
from tests.support.models import PENALTIES, TIGHT, USUAL, columns, several

DATA = columns(240, groups=6)
GROUPS = sorted(set(DATA["group"]))


def at_optimum(name, column):
    case = several(name, "poisson", DATA, RandomEffect("group")).case()
    done = fit(case, options=TIGHT)
    laml = case.objective(Counters())
    at = laml.evaluate(np.array(done.result.rho), np.concatenate(done.result.block_beta), 1e-10, 500)
    return laml, at, *case.grouped(column)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_change_of_the_outer_gradient_is_its_derivative_with_respect_to_a_groups_weight(name):
    laml, at, index, labels, _ = at_optimum(name, "group")
    laml.hessian(at)

    change = _gradient_changes(laml, at, laml.tables(at.etas, (1, 2)), index, len(labels))

    weights, h = laml.w, 1e-4
    moved = []
    for sign in (1.0, -1.0):
        laml.w = weights * (1.0 - sign * h * (index == 2))
        moved.append(laml.evaluate(at.rho, at.theta, 1e-10, 500).gradient)
    np.testing.assert_allclose(change[2], (moved[0] - moved[1]) / (2 * h), atol=2e-6)


@pytest.mark.parametrize(("name", "column"), [("surface", "group"), ("interaction", "group"), ("tied", "kind")])
def test_seeds_come_nearer_to_the_fold_than_the_parent_is(name, column):
    laml, at, index, labels, gone = at_optimum(name, column)
    changes = group_changes(laml, at, index, len(labels), gone)
    live = at.edf > 1.0
    far = near = 0.0
    for g, label in enumerate(labels):
        bound = several(name, "poisson", DATA, RandomEffect("group"))
        fold = fit(bound.case(DATA[column] != label), options=TIGHT)
        far += np.abs(fold.result.rho - at.rho)[live].sum()
        near += np.abs(fold.result.rho - at.rho - changes.rho[g])[live].sum()
        assert fold.converged, fold.reason

    assert near < 0.7 * far, (near, far)


@pytest.mark.parametrize(("column", "vanishing"), [("kind", [0, 1, 2]), ("group", [-1, -1, -1])])
def test_a_curve_vanishes_with_the_group_that_alone_has_its_level(column, vanishing):
    case = several("by", "poisson", DATA, RandomEffect("group")).case()

    _, labels, gone = case.grouped(column)

    blocks = [gone[columns] for name, columns in zip(case.names, case.slices, strict=True) if ":s(x)" in name]
    assert [set(block.tolist()) for block in blocks] == [{group} for group in vanishing]
    assert labels == sorted(set(DATA[column]))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_gaussian_fold_by_subtraction_is_the_fold_of_its_rows(name):
    bound = several(name, "Gaussian", DATA, RandomEffect("group"))
    rho = np.linspace(-1.0, 2.0, bound.penalties.q)

    values = []
    for case in (bound.without("group", "g02"), bound.case(DATA["group"] != "g02")):
        objective = case.objective(Counters())
        at = objective.evaluate(rho, objective.null, 1e-10, 1)
        values.append((at.value, at.theta, objective.hessian(at)))

    for subtracted, read in zip(*values, strict=True):
        np.testing.assert_allclose(subtracted, read, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["interaction", "tied"])
def test_the_order_of_folds_does_not_move_a_bit(name, tmp_path):
    def campaign(order):
        bound, found = several(name, "poisson", DATA, RandomEffect("group")), {}
        with gamwarm.open(tmp_path / f"{order[0]}.gamwarm") as store:
            fit(bound.case(), options=USUAL, store=store, group_seeds="group")
            view = store.frozen()
            for label in order:
                done = fit(bound.case(DATA["group"] != label), options=USUAL, store=view, leave_out=label)
                assert done.start.seeds == "used"
                found[label] = done.result.rho.tobytes() + b"".join(b.tobytes() for b in done.result.block_beta)
        return found

    assert campaign(GROUPS) == campaign(GROUPS[::-1])
