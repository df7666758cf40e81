"""Surfaces: their penalties are Kronecker products, and their main effects can be terms of their
own.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

import gamwarm
from gamwarm import BlockwisePenalty, FixedPenalty, KroneckerPenalty
from gamwarm.engine import Gaussian, GaussianLocationScale, Intercept, Linear, RandomEffect, Smooth, Tensor, bind, fit
from tests.support.models import PENALTIES, TIGHT, columns, several


def splines(x, k, degree=3):
    """B-splines by scipy alone, (n, k)."""
    width = (x.max() - x.min()) / (k - degree)
    knots = x.min() + width * np.arange(-degree, k + 1)
    knots[degree], knots[k] = x.min(), x.max()
    return BSpline.design_matrix(x, knots, degree).toarray()


def rows_of(case):
    return {spec.name: spec.design.to_dense() for spec in case.problem(TIGHT).specs}


def raw_columns(data, k=(6, 5)):
    left, right = splines(data["x"], k[0]), splines(data["u"], k[1])
    products = (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)
    return products - products.mean(axis=0)


def differences(k):
    return np.diff(np.eye(k), 2, axis=0).T @ np.diff(np.eye(k), 2, axis=0)


@pytest.mark.parametrize("name", ["surface", "interaction", "one main effect"])
def test_the_penalties_are_those_of_the_differences_along_each_margin_and_kronecker_products(name):
    bound = several(name)
    spec = bound.case().problem(TIGHT).specs[-1]
    lift = bound.terms[-1].lift

    for penalty, raw in zip(
        spec.penalties, (np.kron(differences(6), np.eye(5)), np.kron(np.eye(6), differences(5))), strict=False
    ):
        assert type(penalty) is KroneckerPenalty
        reduced, dense = lift.T @ raw @ lift, penalty.to_dense()
        scale = dense.max() / reduced.max()
        np.testing.assert_allclose(dense, scale * reduced, atol=1e-12 * dense.max())
        assert np.array_equal(dense, np.diag(np.diagonal(dense)))
    assert spec.raw_width == 30
    assert spec.width == {"surface": 30, "interaction": 20, "one main effect": 25}[name]
    assert [np.linalg.matrix_rank(p.to_dense()) for p in spec.penalties[:2]] == [
        spec.width - null for null in spec.nullspace_dims[:2]
    ]


def test_the_product_of_both_constants_is_held_at_zero_by_a_fixed_penalty_of_one_coefficient():
    bound = several("surface")
    spec = bound.case().problem(TIGHT).specs[-1]

    held = spec.penalties[2]
    found = fit(bound.case(), options=TIGHT)

    assert type(held) is FixedPenalty
    assert type(held.inner) is BlockwisePenalty
    assert (held.log_lambda, held.inner.start, held.inner.stop) == (0.0, 29, 30)
    assert len(found.result.rho) == 2
    assert not rows_of(bound.case())["mean:te(x,u)"][:, 29].any()
    assert found.beta("mean:te(x,u)")[29] == 0.0


@pytest.mark.parametrize("name", ["surface", "interaction", "one main effect"])
def test_raw_coefficients_are_those_of_plain_b_splines_whatever_was_projected_out(name):
    data = columns()
    bound = several(name, data=data)
    found = fit(bound.case(), options=TIGHT)
    gauge = bound.case().problem(TIGHT).gauge

    raw = dict(zip(found.names, gauge.lift_blocks(found.result.block_beta), strict=True))
    eta = raw["mean:intercept"] + raw_columns(data) @ raw["mean:te(x,u)"] + data["exposure"]
    for column, k in (("x", 8), ("u", 6)):
        if f"mean:s({column})" in raw:
            eta = eta + splines(data[column], k) @ raw[f"mean:s({column})"]
    if "mean:u+z" in raw:
        both = np.column_stack([data["u"], data["z"]])
        eta = eta + (both - both.mean(axis=0)) @ raw["mean:u+z"]

    np.testing.assert_allclose(eta, found.fitted["mean"], atol=1e-10)
    assert gauge.is_block_diagonal == (name == "surface")


@pytest.mark.parametrize(("name", "mains"), [("interaction", [1, 2]), ("one main effect", [1])])
def test_main_effects_are_projected_out_over_the_full_data(name, mains):
    bound = several(name)
    case = bound.case()
    x = list(rows_of(case).values())
    projected = x[-1]
    centred = raw_columns(columns()) @ bound.terms[-1].lift
    own = np.hstack([x[b] for b in mains])[:, : 1 if name == "one main effect" else None]

    expected = centred - own @ np.linalg.lstsq(own, centred, rcond=None)[0]

    np.testing.assert_allclose(projected, expected, atol=1e-12)
    assert np.abs(own.T @ projected).max() < 1e-10
    assert np.abs(projected.sum(axis=0)).max() < 1e-10
    assert np.linalg.matrix_rank(np.hstack(x)) == sum(block.shape[1] for block in x)


def test_the_space_of_a_surface_is_that_of_its_main_effects_and_what_they_leave():
    """With equal margins, a surface and its decomposition fit the same functions."""
    data = columns()
    alone = bind(data, [Intercept(), Tensor("x", "u", k=(6, 5))], Gaussian("gaussian"))
    apart = bind(data, [Intercept(), Smooth("x", 6), Smooth("u", 5), Tensor("x", "u", k=(6, 5))], Gaussian("gaussian"))

    whole, parts = (np.hstack(list(rows_of(bound.case()).values())) for bound in (alone, apart))

    assert np.linalg.matrix_rank(whole) == np.linalg.matrix_rank(parts) == 30
    assert np.linalg.matrix_rank(np.hstack([whole, parts])) == 30


@pytest.mark.parametrize("name", ["surface", "interaction"])
def test_a_fold_starts_at_its_parents_function_through_the_full_gauge(name, tmp_path):
    bound = several(name, "poisson", None, RandomEffect("group"))
    with gamwarm.open(tmp_path / "fits.h5") as store:
        parent = fit(bound.case(), options=TIGHT, store=store)
        fold = bound.case(bound.source.columns["group"] != "g03")
        report = store.start_for(fold.problem(TIGHT))
        warm = fit(fold, options=TIGHT, store=store)
    cold = fit(fold, options=TIGHT)

    assert {term.beta for term in report.terms} == {"projected"}
    at_start = fold.predictors_at(np.concatenate(report.start.block_beta))[0]
    np.testing.assert_allclose(at_start, parent.fitted["mean"][fold.rows], atol=2e-6)
    assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-6 * abs(cold.result.objective))
    assert warm.cost.hessian_formations < cold.cost.hessian_formations


@pytest.mark.parametrize(
    ("parent", "child"),
    [("interaction", "fixed"), ("surface", "interaction"), ("interaction", "surface"), ("fixed", "interaction")],
)
def test_a_parent_with_other_terms_moves_no_answer(parent, child, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        fit(several(parent).case(), options=TIGHT, store=store)
        warm = fit(several(child).case(), options=TIGHT, store=store)
    cold = fit(several(child).case(), options=TIGHT)

    assert warm.start.source == "transfer"
    assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-6 * abs(cold.result.objective))


def test_a_surface_of_the_scale_has_main_effects_of_the_scale_only():
    terms = [Intercept(), Smooth("x", 8), Intercept("scale"), Tensor("x", "u", k=(5, 4), predictor="scale")]
    bound = bind(columns(), terms, GaussianLocationScale("gaussian"))

    found = fit(bound.case())

    assert bound.terms[-1].couplings == ()
    assert found.converged, found.reason


def test_new_rows_of_a_bound_surface_are_its_table():
    data = columns()
    for name in ("surface", "interaction", "one main effect"):
        term = several(name, data=data).terms[-1]
        source = several(name, data=data).source

        group, table = term.new_rows.table(type(source)(data))

        assert np.array_equal(table, term.table)
        assert group == term.group


def test_surfaces_that_make_no_sense_are_refused_by_name():
    data = columns()
    for make, said in (
        (lambda: Tensor("x"), r"Tensor\('x',\): give two different column names; for one column use Smooth"),
        (lambda: Tensor("x", "x"), "give two different column names"),
        (lambda: Tensor("x", "u", "z"), "give two different column names"),
        (lambda: Tensor("x", "u", k=6), r"k is 6; give a value per margin, such as k=\(6, 6\)"),
        (lambda: Tensor("x", "u", k=(6, 3)), r"margin 'u': k = 3 is too small; use k >= 4"),
        (lambda: Tensor("x", "u", k=(6, 5), penalty_order=0), "penalty_order is 0; it cannot be below 1"),
        (lambda: Tensor("x", "u", lower=0.0), r"lower is 0.0; give a value per margin, such as lower=\(0.0, None\)"),
        (lambda: Tensor("x", "u", upper=(np.inf, None)), r"Tensor\('x', 'u'\), upper"),
    ):
        with pytest.raises(gamwarm.GamwarmError, match=said):
            make()
    for terms, said in (
        ([Tensor("x", "u"), Tensor("u", "x")], "are surfaces of the same columns; keep one"),
        ([Tensor("x", "u"), Tensor("x", "z")], r"both include the main effect of 'x'; add Smooth\('x'\)"),
        ([Tensor("x", "kind")], "column 'kind'"),
        ([Tensor("x", "u", upper=(5.0, None))], r"column 'x' spans .* widen lower and upper"),
        ([Tensor("x", "u"), Tensor("x", "u")], "is given 2 times; keep one"),
    ):
        with pytest.raises(gamwarm.GamwarmError, match=said):
            bind(data, [Intercept(), *terms], Gaussian("gaussian"))


def test_two_surfaces_may_share_a_column_whose_main_effect_is_a_term():
    data = columns()
    terms = [Intercept(), Smooth("x", 6), Tensor("x", "u", k=(5, 4)), Tensor("x", "z", k=(5, 4))]

    found = fit(bind(data, terms, Gaussian("gaussian")).case())

    assert found.converged, found.reason


def test_linear_terms_of_other_columns_are_no_main_effects():
    bound = bind(columns(), [Intercept(), Linear("z"), Tensor("x", "u", k=(5, 4))], Gaussian("gaussian"))

    assert bound.terms[-1].couplings == ()
    assert PENALTIES["surface"][0].k == (6, 5)


def test_a_surface_with_wider_knots_predicts_beyond_its_data():
    data = columns()
    wide = Tensor("x", "u", k=(6, 5), lower=(-1.0, None), upper=(12.0, 6.0))
    found = fit(bind(data, [Intercept(), Smooth("x", 8, lower=-1.0, upper=12.0), wide], Gaussian("gaussian")).case())
    new = {"x": np.array([-0.5, 11.0]), "u": np.array([0.0, 5.0])}

    assert np.isfinite(found.predict(new).mu).all()
    with pytest.raises(gamwarm.InvalidInput, match=r"column 'x' holds 12.5 .* knots of term 'mean:s\(x\)'"):
        found.predict({"x": np.array([12.5]), "u": np.array([0.0])})
