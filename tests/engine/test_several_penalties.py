"""Smooths with a second, a tied or a fixed penalty, and one curve per level."""

from __future__ import annotations

import numpy as np
import pytest

import gamwarm
from gamwarm import BlockwisePenalty, DensePenalty, FixedPenalty, LabeledPenalty
from gamwarm.engine import Factor, Gaussian, Intercept, Linear, Poisson, Smooth, Tensor, bind, fit
from gamwarm.engine.arrays import Counters
from tests.engine.test_objective import differences, relative
from tests.support.models import FAMILIES, PENALTIES, TIGHT, columns, several


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("family", ["poisson", "Gaussian"])
def test_gradient_and_hessian_are_those_of_the_value(name, family):
    objective = several(name, family).case().objective(Counters())
    rho = np.linspace(-1.0, 1.5, objective.q)
    at = objective.evaluate(rho, objective.null, 1e-10, 500)

    gradient, hessian = differences(objective, rho, at.theta)

    assert at.converged
    assert relative(at.gradient, gradient) < 1e-7
    assert relative(objective.hessian(at), hessian) < 1e-7


@pytest.mark.parametrize("family", FAMILIES)
def test_overlapping_penalties_with_lambdas_far_apart_keep_their_derivatives(family):
    objective = several("surface", family).case().objective(Counters())
    rho = np.zeros(objective.q)
    rho[:2] = -12.0, 11.0
    at = objective.evaluate(rho, objective.null, 1e-10, 500)

    gradient, hessian = differences(objective, rho, at.theta, 1e-3)

    assert relative(at.gradient, gradient) < 1e-6
    assert relative(objective.hessian(at), hessian) < 1e-6
    most = at.penalties.log_det_gradient
    assert (at.edf >= -1e-9).all()
    assert (at.edf <= most + 1e-9).all()


def test_a_selected_smooth_has_a_penalty_on_what_the_differences_leave():
    spec = several("select").case().problem(TIGHT).specs[1]

    bending, shrinkage = spec.penalties
    whole = bending.to_dense() + shrinkage.to_dense()

    assert type(bending) is DensePenalty
    assert type(shrinkage) is BlockwisePenalty
    assert not (bending.to_dense() @ shrinkage.to_dense()).any()
    assert np.linalg.matrix_rank(whole) == spec.width == 7
    assert spec.nullspace_dims == (1, 6)


def test_a_selected_smooth_of_noise_is_shrunk_to_zero():
    found = fit(bind(columns(), [Intercept(), *PENALTIES["select"]], Gaussian("gaussian")).case())

    assert found.converged, found.reason
    assert found.edf["mean:s(u)"] < 0.1
    assert found.edf["mean:s(x)"] > 4.0


@pytest.mark.parametrize(("name", "slots"), [("by", 3), ("tied", 2)])
def test_each_level_has_a_block_and_tied_ones_share_their_smoothing_parameters(name, slots):
    data = columns()
    case = several(name, data=data).case()
    problem = case.problem(TIGHT)
    blocks = {spec.name: spec for spec in problem.specs if ":s(x)" in spec.name}

    assert list(blocks) == [f"mean:s(x):kind={level}" for level in "abc"]
    assert problem.layout.n_outer == slots
    for level, spec in zip("abc", blocks.values(), strict=True):
        design = spec.design.to_dense()
        assert not design[data["kind"] != level].any()
        assert {type(p) for p in spec.penalties} == {LabeledPenalty if name == "tied" else DensePenalty}
    # As of one curve for all rows: each row has its own level's columns.
    alone = bind(data, [Intercept(), Smooth("x", 8)], Poisson("poisson")).case().problem(TIGHT).specs[1]
    np.testing.assert_array_equal(sum(s.design.to_dense() for s in blocks.values()), alone.design.to_dense())


def test_curves_by_level_are_fitted_to_their_levels_rows_alone():
    """Without ties and common terms each level's fit is one of its own."""
    data = columns()
    terms = [Factor("kind"), Intercept(), Smooth("x", 8, by="kind", log_lambda=1.0)]
    found = fit(bind(data, terms, Poisson("poisson")).case(), options=TIGHT)
    own = data["kind"] == "b"
    ends = {"lower": data["x"].min(), "upper": data["x"].max()}
    alone = fit(
        bind(
            {name: values[own] for name, values in data.items()},
            [Intercept(), Smooth("x", 8, log_lambda=1.0, **ends)],
            Poisson("poisson"),
        ).case(),
        options=TIGHT,
    )

    np.testing.assert_allclose(found.mu[own], alone.mu, rtol=1e-6)


@pytest.mark.parametrize("name", ["by", "tied"])
def test_a_fold_without_a_level_has_no_column_for_its_curve_and_transfers(name, tmp_path):
    data = columns()
    bound = several(name, data=data)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        parent = fit(bound.case(), options=TIGHT, store=store, group_seeds="kind")
        fold = bound.without("kind", "b")
        problem = fold.problem(TIGHT)
        warm = fit(fold, options=TIGHT, store=store)
        again = fit(bound.without("kind", "b"), options=TIGHT, store=store)
    cold = fit(bound.case(data["kind"] != "b"), options=TIGHT)

    assert problem.block_dims[-3:] == (7, 0, 7)
    assert problem.layout.n_outer == len(parent.result.rho)
    assert warm.start.source == "transfer"
    assert warm.converged, warm.reason
    assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-6 * abs(cold.result.objective))
    assert warm.cost.hessian_formations < cold.cost.hessian_formations
    assert (again.start.source, again.cost.evaluations) == ("exact", 1)


def test_a_fixed_penalty_has_no_outer_coordinate_and_its_factor_is_that_of_the_raw_differences():
    bound = several("fixed")
    spec = bound.case().problem(TIGHT).specs[1]
    difference = np.diff(np.eye(8), 2, axis=0)

    (penalty,) = spec.penalties
    found = fit(bound.case(), options=TIGHT)

    assert type(penalty) is FixedPenalty
    assert penalty.log_lambda == 2.0
    lift = bound.terms[1].lift
    np.testing.assert_allclose(penalty.to_dense(), lift.T @ difference.T @ difference @ lift, atol=1e-12)
    assert len(found.result.rho) == 1
    np.testing.assert_array_equal(found.result.inner.log_lambdas, [2.0, found.result.rho[0]])


def test_smoothing_fixed_at_what_was_estimated_gives_the_same_fit():
    data = columns()
    free = bind(data, [Intercept(), Smooth("x", 8)], Poisson("poisson"))
    found = fit(free.case(), options=TIGHT)

    held = Smooth("x", 8, log_lambda=float(found.result.rho[0] + np.log(free.terms[1].penalties[0].scale)))
    again = fit(bind(data, [Intercept(), held], Poisson("poisson")).case(), options=TIGHT)

    np.testing.assert_allclose(again.mu, found.mu, rtol=1e-8)
    assert again.result.objective == pytest.approx(found.result.objective, abs=1e-8)
    assert again.edf == pytest.approx(found.edf, rel=1e-6)


@pytest.mark.parametrize("family", ["poisson", "Gaussian"])
@pytest.mark.parametrize("name", PENALTIES)
def test_the_penalty_of_a_mode_counts_every_penalty_of_every_block(name, family):
    case = several(name, family).case()
    objective = case.objective(Counters())
    rho = np.linspace(-1.0, 1.5, objective.q)
    at = objective.evaluate(rho, objective.null, 1e-10, 500)

    problem = case.problem(TIGHT)
    penalties = [(columns, p) for spec, columns in zip(problem.specs, case.slices, strict=True) for p in spec.penalties]
    logs = problem.layout.expand(rho)
    total = sum(
        np.exp(log) * at.theta[columns] @ penalty.to_dense() @ at.theta[columns]
        for log, (columns, penalty) in zip(logs, penalties, strict=True)
    )

    assert at.penalty == pytest.approx(0.5 * total / at.scale, rel=1e-9)


def test_smooths_that_make_no_sense_are_refused_by_name():
    data = columns() | {"number": np.arange(400) % 3}
    for make, said in (
        (lambda: Smooth("x", tied=True), r"term 'mean:s\(x\)': tied=True shares .* by=; name that column"),
        (lambda: Smooth("x", by="x"), "by is the smooth's own column"),
        (lambda: Smooth("x", select=True, log_lambda=1.0), "drop one of them"),
        (lambda: Smooth("x", by="kind", tied=True, log_lambda=1.0), "nothing is tied; drop tied"),
        (lambda: Smooth("x", select=True, penalty_order=1), "shrinks the complete term already; drop select"),
        (lambda: Smooth("x", log_lambda=np.inf), r"term 'mean:s\(x\)', log_lambda"),
        (lambda: Smooth("x", log_lambda=800.0), "log_lambda = 800 is beyond ±100; it is a natural logarithm"),
        (lambda: Smooth("x", select="yes"), r"term 'mean:s\(x\)', select"),
        (lambda: Smooth("x", by="kind", tied=1), r"term 'mean:s\(x\):kind', tied"),
        (lambda: Smooth("x", log_lambda="2"), r"term 'mean:s\(x\)', log_lambda"),
    ):
        with pytest.raises(gamwarm.GamwarmError, match=said):
            make()
    for term, said in (
        (Smooth("x", by="number"), r"by='number' is a numeric column, .* \(column.astype\(str\)\)"),
        (Smooth("x", by="one"), "by='one' has one level; drop by"),
        (Smooth("x", by="nowhere"), r"term 'mean:s\(x\):nowhere' needs column 'nowhere'"),
    ):
        with pytest.raises(gamwarm.GamwarmError, match=said):
            bind(data | {"one": np.full(400, "a")}, [Intercept(), term], Gaussian("gaussian"))


def test_new_rows_of_a_curve_by_level_are_its_table_and_unknown_levels_are_refused():
    data = columns()
    bound = several("by", data=data)
    term = bound.terms[-1]

    group, table = term.new_rows.table(type(bound.source)(data))
    assert np.array_equal(table, term.table)
    assert group == term.group

    new = {"x": np.array([1.0, 2.0]), "kind": np.array(["a", "d"])}
    with pytest.raises(gamwarm.InvalidInput, match=r"column 'kind' has the level 'd' at row 1, .*'mean:s\(x\):kind=c'"):
        term.new_rows.table(type(bound.source)(new))
    counts = np.bincount(bound.source.groups[term.group].index[data["kind"] != "c"], minlength=len(term.table))
    with pytest.raises(gamwarm.InvalidInput, match="column 'kind' has the level 'c'"):
        term.rows_of_case(counts).table(type(bound.source)({"x": np.array([1.0]), "kind": np.array(["c"])}))


@pytest.mark.parametrize("other", [Smooth("x", 8), Linear("x"), Tensor("x", "u", k=(5, 4)), Smooth("x", 6, by="site")])
def test_curves_by_level_beside_their_sum_are_deviations_from_it_or_refused(other):
    data = columns()
    data["site"] = np.array(["n", "s"])[np.arange(400) % 2]
    parts = [Intercept(), Factor("kind"), other]

    with pytest.raises(gamwarm.InvalidInput, match=r"give 'mean:s\(x\):(kind|site)' select=True, which makes its "):
        bind(data, [*parts, Smooth("x", 8, by="kind", tied=True)], Gaussian("gaussian"))

    found = fit(bind(data, [*parts, Smooth("x", 8, by="kind", tied=True, select=True)], Gaussian("gaussian")).case())
    assert found.converged, found.reason
