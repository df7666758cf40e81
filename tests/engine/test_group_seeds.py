"""Group seeds: their derivatives are those of the objective, and folds that start from them begin
nearer their end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gamwarm
import gamwarm.engine.seeds
from gamwarm import InvalidInput
from gamwarm.engine import Binomial, Factor, Intercept, Poisson, RandomEffect, Smooth, bind, fit
from gamwarm.engine.arrays import Counters
from gamwarm.engine.penalty import DiagonalPenalties
from gamwarm.engine.quadratic import QuadraticFit
from gamwarm.engine.seeds import _gradient_changes, group_changes
from tests.support.models import FAMILIES, TIGHT, USUAL, columns, mcycle, model

DATA = columns()
GROUPS = sorted(set(DATA["group"]))


def at_optimum(family):
    case = model(family).case()
    done = fit(case, options=TIGHT)
    laml = case.objective(Counters())
    at = laml.evaluate(np.array(done.result.rho), np.concatenate(done.result.block_beta), 1e-10, 500)
    return case, laml, at


@pytest.mark.parametrize("family", FAMILIES)
def test_the_change_of_the_outer_gradient_is_its_derivative_with_respect_to_a_groups_weight(family):
    case, laml, at = at_optimum(family)
    index, labels, _ = case.grouped("group")
    laml.hessian(at)
    tables = laml.tables(at.etas, (1, 2))

    change = _gradient_changes(laml, at, tables, index, len(labels))

    weights, h = laml.w, 1e-4
    for g in (0, 7):
        moved = []
        for sign in (1.0, -1.0):
            laml.w = weights * (1.0 - sign * h * (index == g))
            moved.append(laml.evaluate(at.rho, at.theta, 1e-10, 500).gradient)
        assert change[g] == pytest.approx((moved[0] - moved[1]) / (2 * h), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_come_at_least_twice_as_near_to_the_fold_as_the_parent_is(family):
    case, laml, at = at_optimum(family)
    index, labels, gone = case.grouped("group")
    changes = group_changes(laml, at, index, len(labels), gone)
    far, near = np.zeros(2), np.zeros(2)
    for g, label in enumerate(labels):
        fold = fit(model(family).case(DATA["group"] != label), options=TIGHT)
        kept = gone != g
        theta = np.concatenate(fold.result.block_beta)
        for total, rho, beta in ((far, 0.0, 0.0), (near, changes.rho[g], changes.theta[g])):
            total += (
                np.abs(fold.result.rho - at.rho - rho).max(),
                np.abs(theta - (at.theta + beta)[kept]).max(),
            )

    assert (2.0 * near < far).all(), (near, far)


def quadratic(seed, q=3, p=8):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(30, p))
    penalties = DiagonalPenalties(
        p, q, [(j, np.where(np.arange(p) % (q + 1) >= j, rng.uniform(0.5, 2.0, p), 0.0)) for j in range(q)]
    )
    return QuadraticFit(root.T @ root, rng.normal(size=p) * 20.0, penalties), rng.normal(size=q), root


def laplace(quad, rho):
    """The objective that a quadratic fit has the derivatives of."""
    penalties = quad.penalties.at(rho)
    matrix = quad.gram + np.diag(penalties.diagonal)
    mode = np.linalg.solve(matrix, quad.linear)
    return 0.5 * (np.linalg.slogdet(matrix)[1] - penalties.log_det - quad.linear @ mode)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_quadratic_fits_gradient_and_hessian_are_those_of_its_objective(seed):
    quad, rho, _ = quadratic(seed)
    at, h = quad.at(rho), 1e-5

    for j, e in enumerate(h * np.eye(rho.size)):
        assert at.gradient[j] == pytest.approx((laplace(quad, rho + e) - laplace(quad, rho - e)) / (2 * h), abs=1e-6)
        up, down = quad.at(rho + e), quad.at(rho - e)
        assert at.hessian[j] == pytest.approx((up.gradient - down.gradient) / (2 * h), abs=1e-6)
        assert at.tangent[:, j] == pytest.approx((up.theta - down.theta) / (2 * h), abs=1e-6)


def test_what_rows_mean_to_a_quadratic_fit_is_its_gradients_derivative_with_respect_to_their_weight():
    quad, rho, root = quadratic(4)
    gram, score, h = root[:5].T @ root[:5], np.linspace(-1.0, 1.0, 8), 1e-6
    at = quad.at(rho)

    moved = [
        QuadraticFit(quad.gram - s * gram, quad.linear + s * (score - gram @ at.theta), quad.penalties).at(rho).gradient
        for s in (h, -h)
    ]

    assert at.without(gram, score) == pytest.approx((moved[0] - moved[1]) / (2 * h), abs=1e-6)


@pytest.mark.parametrize("family", ["gaussian", "poisson", "binomial", "loglogistic"])
def test_seeds_of_second_order_are_nearer_than_those_of_first_order_and_know_the_folds_hessian(family, monkeypatch):
    case, laml, at = at_optimum(family)
    index, labels, gone = case.grouped("group")
    found = []
    for is_long in (False, True):
        monkeypatch.setattr(gamwarm.engine.seeds, "_is_long", lambda laml, is_long=is_long: is_long)
        found.append(group_changes(laml, at, index, len(labels), gone))
    linear, second = found
    assert linear.hessian is None
    off = np.zeros((2, 2))
    bent = np.zeros(2)
    for g, label in enumerate(labels):
        fold = fit(model(family).case(DATA["group"] != label), options=TIGHT, outer_hessian=True).result
        theta, kept = np.concatenate(fold.block_beta), gone != g
        for i, changes in enumerate(found):
            off[i, 0] += np.abs(fold.rho - at.rho - changes.rho[g]).max()
            off[i, 1] += np.abs(theta - (at.theta + changes.theta[g])[kept]).max()
        bent += [np.abs(h - fold.curvature.hessian).max() for h in (at.hessian, second.hessian[g])]

    assert 2.5 * off[1, 0] < off[0, 0], off
    assert 1.5 * off[1, 1] < off[0, 1], off
    assert 4.0 * bent[1] < bent[0], bent


def test_a_fold_begins_with_its_own_hessian_and_stores_none_that_was_not_computed_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(gamwarm.engine.seeds, "_is_long", lambda laml: True)
    bound = model("poisson")
    rows = DATA["group"] != GROUPS[3]
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        parent = fit(bound.case(), options=USUAL, store=store, group_seeds="group")
        entry = parent.kept.artifact.entry_id
        seeds = store.get_artifact(bound.case().problem(USUAL).descriptor.key).seeds
        report = store.start_for(bound.case(rows).problem(USUAL), entry, GROUPS[3])
        assert np.array_equal(seeds.hessian, parent.result.seeds.hessian)
        assert np.array_equal(report.start.curvature.hessian, seeds.hessian[3])
        assert np.array_equal(_offer(store, bound.case(rows), entry).curvature.hessian, parent.result.curvature.hessian)

        case = bound.case(rows)
        answer = fit(case, options=USUAL).result
        at_once = replace(report.start, rho=answer.rho, block_beta=tuple(answer.block_beta))
        found = fit(bound.case(rows), options=USUAL, start=at_once).result

    assert np.array_equal(found.rho, answer.rho)
    assert found.curvature.hessian is None


def test_a_held_out_level_is_dropped_exactly_and_not_by_its_derivative():
    """Few levels with much data each: the derivative sees almost nothing of the level that
    leaves.
    """
    rng = np.random.default_rng(8)
    group = np.repeat([f"s{i}" for i in range(8)], 300)
    effect = rng.normal(0, 0.7, 8)
    x = rng.uniform(0, 10, group.size).round(1)
    y = rng.poisson(np.exp(1.0 + 0.5 * np.sin(x) + np.repeat(effect, 300))).astype(float)
    bound = model("poisson", {"x": x, "group": group, "poisson": y, "exposure": np.zeros(y.size)},
                  [Intercept(), Smooth("x", 10), RandomEffect("group")])  # fmt: skip
    case = bound.case()
    done = fit(case, options=TIGHT)
    laml = case.objective(Counters())
    at = laml.evaluate(np.array(done.result.rho), np.concatenate(done.result.block_beta), 1e-10, 500)
    index, labels, gone = case.grouped("group")

    with_levels = group_changes(laml, at, index, len(labels), gone).rho
    by_derivative = group_changes(laml, at, index, len(labels), np.full_like(gone, -1)).rho

    true = np.array([fit(bound.case(group != label), options=TIGHT).result.rho - at.rho for label in labels])
    assert (gone >= 0).sum() == 8
    assert np.abs(true - with_levels).max() < 0.4 * np.abs(true - by_derivative).max()


def test_vanishing_coefficients_are_those_of_levels_that_one_group_alone_has():
    data = {"g": np.array(["a", "a", "b", "b", "c"]), "lv": np.array([0, 1, 1, 2, 3]), "y": np.array([0, 1, 0, 1, 1])}
    bound = bind(data, [Intercept(), Factor("lv"), RandomEffect("g")], Binomial("y"))

    index, labels, gone = bound.case().grouped("g")

    assert labels == ["a", "b", "c"]
    assert index.tolist() == [0, 0, 1, 1, 2]
    assert gone.tolist() == [-1, -1, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fold_seeded_through_a_file_ends_where_cold_ends_and_costs_less_than_an_unseeded_one(family, tmp_path):
    bound = model(family)
    plain = seeded = 0
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        parent = fit(bound.case(), options=USUAL, store=store, group_seeds="group")
        entry = parent.kept.artifact.entry_id
        kept = store.get_artifact(bound.case().problem(USUAL).descriptor.key)
        assert list(kept.seeds.labels) == GROUPS
        for label in GROUPS[::2]:
            rows = DATA["group"] != label
            cold = fit(bound.case(rows), options=USUAL)
            unseeded = fit(bound.case(rows), options=USUAL, start=_offer(store, bound.case(rows), entry))
            plain += unseeded.cost.inner_iterations
            warm = fit(bound.case(rows), options=USUAL, store=store, parent=entry, leave_out=label)

            assert warm.start.seeds == "used"
            assert warm.result.start_used is True
            assert abs(warm.result.objective - cold.result.objective) < 1e-3
            seeded += warm.cost.inner_iterations

    assert seeded < plain


def _offer(store, case, entry):
    return store.start_for(case.problem(USUAL), entry).start


def test_a_case_without_a_group_is_labelled_with_it_unless_the_caller_says_otherwise(tmp_path):
    bound = model("poisson")
    with gamwarm.open(tmp_path / "fits.h5") as store:
        fit(bound.without("group", "g03"), options=USUAL, store=store)
        fit(bound.without("group", "g04"), options=USUAL, store=store, attributes={"group": "own", "job": 3})
        keys = store.keys()
        labels = [store.get_record(key).attributes for key in keys]

    assert {"group": "g03"} in labels
    assert {"group": "own", "job": 3} in labels


def test_a_group_without_seeds_transfers_plainly_and_says_why(tmp_path):
    bound = mcycle()
    times = np.asarray(bound.source.columns["times"])
    rows = times != times[50]
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        bare = fit(bound.case(), options=USUAL, store=store)
        without = store.start_for(bound.case(rows).problem(USUAL), leave_out=times[50])
        seeded = fit(bound.case(rows), options=USUAL, store=store, group_seeds="times")
        other = store.start_for(bound.case(times < 50).problem(USUAL), seeded.kept.artifact.entry_id, leave_out=-1.0)
        plain = store.start_for(bound.case(rows[::-1]).problem(USUAL), bare.kept.artifact.entry_id)

    assert without.source == "transfer"
    assert without.seeds == "the parent has no group seeds"
    assert "no group -1.0" in other.seeds
    assert plain.seeds == ""


def test_seeds_are_added_to_a_fit_that_is_kept_without_them_only_when_it_is_fitted_again(tmp_path):
    bound = model("poisson")
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        fit(bound.case(), options=USUAL, store=store, group_seeds="group")
        again = fit(bound.case(), options=USUAL, store=store, group_seeds="group")

    assert again.start.source == "exact"
    assert again.cost.hessian_formations == 1
    assert again.result.seeds is None


def test_a_seeded_column_that_the_data_lacks_is_named():
    with pytest.raises(InvalidInput, match="nobody"):
        fit(model("poisson").case(), options=USUAL, group_seeds="nobody")
    with pytest.raises(InvalidInput, match="store"):
        fit(model("poisson").case(), options=USUAL, leave_out="g00")


def test_seed_formations_are_counted_and_at_most_those_of_two_outer_hessians(tmp_path):
    bound = model("poisson")
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        plain = fit(bound.case(), options=USUAL, store=None, outer_hessian=True)
        seeded = fit(bound.case(), options=USUAL, store=store, group_seeds="group")

    q = len(plain.result.rho)
    assert seeded.cost.hessian_formations - plain.cost.hessian_formations <= 2 * q
    assert seeded.seeds.seconds > 0.0


@pytest.mark.parametrize(("copies", "second"), [(1, False), (8, True)])
def test_second_order_is_left_to_models_with_many_rows(copies, second):
    data = {name: np.tile(values, copies) for name, values in columns(200).items()}
    bound = bind(data, [Intercept(), Smooth("x", 6)], Poisson("poisson"))
    case = bound.case()
    done = fit(case, options=USUAL)
    laml = case.objective(Counters())
    at = laml.evaluate(np.array(done.result.rho), np.concatenate(done.result.block_beta), 1e-6, 500)
    index, labels, gone = case.grouped("group")

    assert (group_changes(laml, at, index, len(labels), gone).hessian is not None) is second
