"""Laws of the building blocks: products on distinct rows, bases and lifts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamwarm.engine import Smooth
from gamwarm.engine.arrays import Counters
from gamwarm.engine.design import Group, Piece, Products
from gamwarm.engine.source import Source
from tests.support.models import FAMILIES, columns, model

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30)
@given(seeds, st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 2))
def test_products_on_distinct_rows_are_the_dense_products(seed, sizes, n_predictors):
    rng = np.random.default_rng(seed)
    n = 60
    groups = {f"g{i}": Group(rng.integers(0, size, n).astype(np.intp), size) for i, size in enumerate(sizes)}
    pieces, at = [], 0
    for k in range(n_predictors):
        for name, group in groups.items():
            width = int(rng.integers(1, 4))
            pieces.append(Piece(k, name, rng.normal(size=(group.size, width)), slice(at, at + width)))
            at += width
    tables, dense = (Products(n, n_predictors, pieces, groups, Counters(), d) for d in (True, False))
    pairs = [(k, m) for k in range(n_predictors) for m in range(k, n_predictors)]
    weights = {pair: rng.normal(size=n) for pair in pairs}
    symmetric = rng.normal(size=(at, at))
    symmetric = symmetric + symmetric.T
    rows = [rng.normal(size=n) for _ in range(n_predictors)]

    assert np.allclose(tables.gram(weights), dense.gram(weights), atol=1e-10)
    assert np.allclose(tables.adjoint(rows), dense.adjoint(rows), atol=1e-10)
    for theta in (rng.normal(size=at), rng.normal(size=(at, 2))):
        for a, b in zip(tables.predict(theta), dense.predict(theta), strict=True):
            assert np.allclose(a, b, atol=1e-10)
    for pair in pairs:
        a, b = (p.leverages(symmetric, [pair])[pair] for p in (tables, dense))
        assert np.allclose(a, b, atol=1e-9)


@settings(max_examples=30)
@given(seeds, st.lists(st.integers(1, 40), min_size=1, max_size=4), st.booleans())
def test_products_of_some_rows_are_those_of_all_with_no_weight_elsewhere(seed, sizes, on_distinct_rows):
    rng = np.random.default_rng(seed)
    groups = {f"g{i}": Group(rng.integers(0, size, 60).astype(np.intp), size) for i, size in enumerate(sizes)}
    pieces = [
        Piece(k, name, rng.normal(size=(group.size, 2)), slice(4 * i + 2 * k, 4 * i + 2 * k + 2))
        for i, (name, group) in enumerate(groups.items())
        for k in (0, 1)
    ]
    whole = Products(60, 2, pieces, groups, Counters(), on_distinct_rows)
    picked = np.flatnonzero(rng.random(60) < 0.3)
    weights = {pair: rng.normal(size=60) for pair in ((0, 0), (0, 1), (1, 1))}
    elsewhere = np.isin(np.arange(60), picked, invert=True)

    part = whole.of_rows(picked).gram({pair: w[picked] for pair, w in weights.items()})

    assert whole.counters.hessian_formations == 0
    assert np.allclose(part, whole.gram({pair: np.where(elsewhere, 0.0, w) for pair, w in weights.items()}), atol=1e-10)


@settings(max_examples=20)
@given(seeds, st.integers(8, 30))
def test_levels_with_one_column_each_have_the_dense_products(seed, size):
    rng = np.random.default_rng(seed)
    n = 120
    groups = {name: Group(rng.integers(0, m, n).astype(np.intp), m) for name, m in (("level", size), ("x", 25))}
    chosen = np.zeros((size, size))
    chosen[np.arange(size), rng.integers(0, size, size)] = rng.normal(size=size) * (rng.random(size) < 0.8)
    pieces = [Piece(0, "level", chosen, slice(0, size)), Piece(0, "x", rng.normal(size=(25, 2)), slice(size, size + 2))]
    tables, dense = (Products(n, 1, pieces, groups, Counters(), d) for d in (True, False))
    w, symmetric = {(0, 0): rng.normal(size=n)}, rng.normal(size=(size + 2, size + 2))
    symmetric = symmetric + symmetric.T

    assert np.allclose(tables.gram(w), dense.gram(w), atol=1e-10)
    a, b = (p.leverages(symmetric, [(0, 0)])[0, 0] for p in (tables, dense))
    assert np.allclose(a, b, atol=1e-9)


def test_cross_tables_too_large_to_hold_give_the_same_products(monkeypatch):
    laml = model("gaussian").case().objective(Counters(), True)
    wanted = laml.information(laml.null), laml.products.leverages(np.eye(laml.null.size), [(0, 0), (0, 1)])
    monkeypatch.setattr("gamwarm.engine.design._TABLE_FLOOR", 1)
    monkeypatch.setattr("gamwarm.engine.design._TABLE_PER_ROW", 0)

    assert np.allclose(laml.information(laml.null), wanted[0])
    for pair, rows in laml.products.leverages(np.eye(laml.null.size), [(0, 0), (0, 1)]).items():
        assert np.allclose(rows, wanted[1][pair])


@settings(max_examples=30)
@given(st.integers(4, 25), st.integers(1, 3), st.integers(1, 3), seeds)
def test_a_smooth_sums_to_zero_and_its_penalty_is_the_difference_penalty_of_its_raw_coefficients(
    k, degree, order, seed
):
    k = max(k, degree + 2, order + 2)
    x = np.random.default_rng(seed).uniform(-3, 7, 50)
    source = Source({"x": x})
    term = Smooth("x", k, degree, order).bind(source, lambda _: 2.0)[0]
    design = term.table[source.groups[term.group].index]
    raw_penalty = np.diff(np.eye(k), order, axis=0)
    raw_penalty = raw_penalty.T @ raw_penalty
    reduced = term.lift.T @ raw_penalty @ term.lift
    diagonal = term.penalties[0].diagonal
    scale = diagonal[0] / reduced[0, 0]

    assert np.allclose(design.sum(axis=0), 0.0, atol=1e-8)
    assert np.allclose(term.lift.T @ term.lift, np.eye(k - 1))
    assert np.allclose(scale * reduced, np.diag(diagonal), atol=1e-8 * diagonal[0])
    assert term.penalties[0].nullspace(np.arange(k - 1)) == order - 1 == int((diagonal == 0).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_weight_two_count_as_two_rows(family):
    data = columns(120)
    data["trials"] = np.ones(120)
    bound = model(family, data)
    twice = bound.case(np.repeat(np.arange(120), 2))
    heavy = bound.case()
    heavy.w = 2.0 * heavy.w
    a, b = twice.objective(Counters()), heavy.objective(Counters())
    rho = np.full(a.q, 2.0)

    left, right = a.evaluate(rho, a.null, 1e-9, 200), b.evaluate(rho, a.null, 1e-9, 200)

    assert np.allclose(left.theta, right.theta, atol=1e-7)
    assert left.gradient == pytest.approx(right.gradient, abs=1e-7)
