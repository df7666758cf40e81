"""Derivative tables up to order 4, also far out, and likelihoods against scipy's distributions."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import gamwarm.engine
from gamwarm.engine import Gamma, LogLogistic, LogNormal, NegativeBinomial, Poisson
from tests.support.models import MODELS

FAMILIES = [getattr(gamwarm.engine, name) for name in MODELS]
seeds = st.integers(0, 2**32 - 1)


def named(kind):
    return kind("y", event="seen") if "event" in kind.__dataclass_fields__ else kind("y")


def all_tables(family, y, w, etas, orders):
    tables = family.derivatives(y, w, etas, orders)
    rest = family.nuisance_derivatives(y, w, etas, orders)
    assert not any(set(tables[order]) & set(rest[order]) for order in orders)
    return {order: {**tables[order], **rest[order]} for order in orders}


def assert_tables_agree(family, y, w, etas, step, tolerance):
    """Each table is the slope of the one before, to ``tolerance`` of that table's size in a row."""
    count, n = len(etas), y.shape[0]

    def moved(j, sign):
        return [eta + sign * step * (i == j) for i, eta in enumerate(etas)]

    tables = all_tables(family, y, w, etas, (1, 2, 3, 4))
    for i in range(n):
        one = slice(i, i + 1)
        for j in range(count):
            at = [[e if e.size == 1 else e[one] for e in moved(j, s)] for s in (1, -1)]
            up, down = (family.nll(y[one], w[one], each) for each in at)
            slope, terms = (up - down) / (2 * step), 1.0 + np.abs(y[i]).max() * np.abs(at[0][0]).max()
            assert abs(tables[1][(j,)][i] - slope) <= tolerance * (1.0 + abs(slope)) + 1e-15 * terms / step
    for order in (2, 3, 4):
        for j in range(count):
            up, down = (all_tables(family, y, w, moved(j, s), (order - 1,))[order - 1] for s in (1, -1))
            for index in combinations_with_replacement(range(count), order - 1):
                slope = np.zeros(n) + (up.get(index, 0.0) - down.get(index, 0.0)) / (2 * step)
                found = np.zeros(n) + tables[order].get(tuple(sorted((*index, j))), 0.0)
                noise = np.abs(up.get(index, 0.0)) * 1e-15 / step
                assert (np.abs(found - slope) <= tolerance * (1.0 + np.abs(slope)) + noise).all(), (order, index, j)


@settings(max_examples=60)
@given(seeds, st.sampled_from(FAMILIES))
def test_each_derivative_table_is_the_derivative_of_the_one_before(seed, kind):
    rng = np.random.default_rng(seed)
    family, n = named(kind), 5
    etas = [rng.uniform(-1, 1, n) for _ in family.predictors] + [rng.uniform(-1, 1, 1) for _ in family.nuisance]
    y = {
        "Binomial": rng.uniform(0, 1, n),
        "Gamma": rng.gamma(2.0, size=n),
        "LogLogistic": np.column_stack([rng.gamma(2.0, size=n), rng.integers(0, 2, n)]),
        "LogNormal": np.column_stack([rng.gamma(2.0, size=n), rng.integers(0, 2, n)]),
    }.get(kind.__name__, rng.poisson(2.0, n).astype(float))

    assert_tables_agree(family, y, rng.uniform(0.5, 2.0, n), etas, 1e-5, 2e-5)


TAILS = [
    (NegativeBinomial, [0.0, 3.0, 60.0], [-25.0, 0.0, 5.0], [0.5]),
    (NegativeBinomial, [0.0, 3.0, 60.0], [0.5, 1.0, 4.0], [12.0]),
    (NegativeBinomial, [0.0, 3.0, 60.0], [0.5, 1.0, 4.0], [30.0]),
    (NegativeBinomial, [0.0, 3.0, 60.0], [0.5, 1.0, 4.0], [-30.0]),
    (NegativeBinomial, [0.0, 1.0, 40000.0], [8.0, 12.0, 11.0], [-5.0]),
    (Gamma, [1e-6, 1.0, 1e6], [0.0, 3.0, 12.0], [-2.4]),
    (Gamma, [1.0, 1.1, 0.9], [0.1, 0.0, -0.1], [-12.0]),
    (Gamma, [1e-6, 1.0, 1e6], [0.0, 3.0, 12.0], [12.0]),
]
TIMES = [(z, seen) for z in (-30.0, -5.0, 3.99, 4.01, 12.0, 60.0) for seen in (0.0, 1.0)]


@pytest.mark.parametrize(("kind", "y", "eta", "nuisance"), TAILS)
def test_tables_stay_right_far_out(kind, y, eta, nuisance):
    etas = [np.array(eta), np.array(nuisance)]

    assert_tables_agree(named(kind), np.array(y), np.ones(3), etas, 1e-4, 1e-6)


@pytest.mark.parametrize("kind", [LogLogistic, LogNormal])
@pytest.mark.parametrize("scale", [-2.0, 0.0, 3.0])
def test_tables_of_times_stay_right_far_out(kind, scale):
    z, seen = np.array(TIMES).T
    y = np.column_stack([np.exp(np.clip(z * np.exp(scale), -600, 600) + 0.5), seen])
    etas = [np.full(z.size, 0.5), np.full(z.size, scale)]

    assert_tables_agree(named(kind), y, np.ones(z.size), etas, 1e-5, 1e-4)


def test_the_likelihoods_are_those_of_scipy():
    rng = np.random.default_rng(0)
    n, w = 40, np.ones(40)
    eta, scale, tau = rng.normal(size=n), rng.normal(size=n) * 0.3, np.array([0.4])
    counts, times = rng.poisson(3.0, n).astype(float), rng.gamma(2.0, size=n)
    mu, sigma, theta, phi = np.exp(eta), np.exp(scale), np.exp(tau), np.exp(tau)
    wanted = {
        NegativeBinomial: (counts, [eta, tau], stats.nbinom.logpmf(counts, theta, theta / (theta + mu))),
        Gamma: (times, [eta, tau], stats.gamma.logpdf(times, 1 / phi, scale=mu * phi)),
    }
    for kind, law in ((LogLogistic, stats.fisk(1 / sigma, scale=mu)), (LogNormal, stats.lognorm(sigma, scale=mu))):
        for seen in (0.0, 1.0):
            y = np.column_stack([times, np.full(n, seen)])
            logs = law.logpdf(times) if seen else law.logsf(times)
            family = named(kind)
            value = family.nll(y, w, [eta, scale]) + family.constants(y, w).sum()
            assert value == pytest.approx(-logs.sum(), rel=1e-12)
        assert kind("y").mean([eta, scale - 1.0]) == pytest.approx(
            [stats.fisk(1 / s, scale=m).mean() if kind is LogLogistic else stats.lognorm(s, scale=m).mean()
             for s, m in zip(sigma / np.e, mu, strict=True)]
        )  # fmt: skip
        assert kind("y").quantile([eta, scale], 0.3) == pytest.approx(law.ppf(0.3))
    for kind, (y, etas, logs) in wanted.items():
        value = kind("y").nll(y, w, etas) + kind("y").constants(y, w).sum()
        assert value == pytest.approx(-logs.sum(), rel=1e-12)
    assert np.isinf(LogLogistic("y").mean([np.zeros(1), np.zeros(1)]))


@pytest.mark.parametrize("tau", [30.0, 40.0, 300.0])
def test_a_huge_theta_is_the_poisson_limit_to_the_last_digits(tau):
    y, w, eta = np.array([0.0, 1.0, 7.0, 300.0]), np.full(4, 1.5), np.array([-3.0, 0.0, 2.0, 6.0])
    etas = [eta, np.full(1, tau)]

    tables, limit = (f.derivatives(y, w, etas, (1, 2, 3, 4)) for f in (NegativeBinomial("y"), Poisson("y")))
    slope = NegativeBinomial("y").nuisance_derivatives(y, w, etas, (1,))[1][(1,)]

    assert NegativeBinomial("y").nll(y, w, etas) == pytest.approx(Poisson("y").nll(y, w, [eta]), rel=1e-10)
    for order in limit:
        for index, rows in limit[order].items():
            np.testing.assert_allclose(tables[order][index], rows, rtol=1e-7, atol=1e-12)
    mu = np.exp(eta)
    np.testing.assert_allclose(slope, w * ((y - mu) ** 2 - y) / 2.0 * np.exp(-tau), rtol=1e-6)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("far", [-800.0, -60.0, 60.0, 800.0])
def test_no_predictor_is_so_far_out_that_a_warning_escapes(kind, far):
    """Warnings are errors here; what overflows is infinite or not a number."""
    family = named(kind)
    y = np.array([[2.0, 0.0], [3.0, 1.0]]) if "event" in kind.__dataclass_fields__ else np.array([0.5, 1.0])
    y = np.array([0.0, 5.0]) if kind is NegativeBinomial else y
    count = len(family.predictors) + len(family.nuisance)
    for moved in range(count):
        etas = [np.full(2 if j < len(family.predictors) else 1, far if j == moved else 0.1) for j in range(count)]
        value = family.nll(y, np.ones(2), etas)

        assert not np.isfinite(value) or value > -1e6
        if np.isfinite(value) and kind.nuisance:
            all_tables(family, y, np.ones(2), etas, (1, 2, 3, 4))
            family.expected(y, np.ones(2), etas)
