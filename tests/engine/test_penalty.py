"""Diagonal penalties that overlap: ``log|S|_+`` and its derivatives, wherever the lambdas are."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.engine.penalty import DiagonalPenalties

WEIGHT = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))


@st.composite
def penalties(draw):
    p, q = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    diagonals = draw(st.lists(st.lists(WEIGHT, min_size=p, max_size=p), min_size=q, max_size=q))
    held = draw(st.lists(WEIGHT, min_size=p, max_size=p))
    rho = np.array(draw(st.lists(st.floats(-34.5, 34.5), min_size=q, max_size=q)))  # e34.5 is 1e15
    entries = [(j, np.array(diagonal)) for j, diagonal in enumerate(diagonals)]
    return p, q, [*entries, (-1, np.array(held))], rho


def exact(p, q, entries, rho):
    """log|S|_+, gradient, Hessian and S in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        lambdas = [Decimal(float(r)).exp() for r in rho]
        value, gradient, hessian = Decimal(0), [Decimal(0)] * q, [[Decimal(0)] * q for _ in range(q)]
        diagonal = []
        for c in range(p):
            parts = [lambdas[j] * Decimal(float(d[c])) for j, d in entries if j >= 0]
            s = sum(parts) + Decimal(float(entries[-1][1][c]))
            diagonal.append(float(s))
            if s == 0:
                continue
            value += s.ln()
            for i in range(q):
                gradient[i] += parts[i] / s
                for j in range(q):
                    hessian[i][j] += (parts[i] / s if i == j else 0) - parts[i] * parts[j] / s**2
        return float(value), np.array(gradient, float), np.array(hessian, float), np.array(diagonal)


@given(penalties())
def test_the_log_determinant_and_its_derivatives_are_exact_wherever_the_lambdas_are(given_):
    p, q, entries, rho = given_
    at = DiagonalPenalties(p, q, entries).at(rho)

    value, gradient, hessian, diagonal = exact(p, q, entries, rho)

    assert at.log_det == pytest.approx(value, rel=1e-13, abs=1e-12)
    np.testing.assert_allclose(at.log_det_gradient, gradient, rtol=1e-13)
    np.testing.assert_allclose(at.log_det_hessian(), hessian, rtol=1e-12, atol=0)
    np.testing.assert_allclose(at.diagonal, diagonal, rtol=1e-14)


@given(penalties(), st.data())
def test_sums_and_derivatives_of_a_part_are_those_of_its_columns(given_, data):
    p, q, entries, rho = given_
    columns = np.array(sorted(data.draw(st.sets(st.integers(0, p - 1)))), dtype=np.intp)
    x = np.array(data.draw(st.lists(st.floats(-1e3, 1e3), min_size=len(columns), max_size=len(columns))))
    part = DiagonalPenalties(p, q, entries).of(columns).at(rho)

    dense = np.column_stack([np.exp(rho[j]) * d[columns] for j, d in entries if j >= 0])

    np.testing.assert_allclose(part.derivative(), dense, rtol=1e-14)
    np.testing.assert_allclose(part.sums(x), dense.T @ x, rtol=1e-12, atol=1e-12 * np.abs(dense.T * x).max(initial=1.0))
    assert part.penalties.unpenalised == (part.diagonal == 0.0).sum()


def test_what_exp_overflows_to_has_a_logarithm():
    both = DiagonalPenalties(1, 2, [(0, np.array([2.0])), (1, np.array([3.0]))])

    with np.errstate(over="ignore"):
        far = both.at(np.array([800.0, 799.0]))

    assert far.log_det == pytest.approx(800.0 + np.log(2.0 + 3.0 / np.e), rel=1e-15)


def test_without_overlaps_the_most_effective_degrees_of_freedom_are_the_ranks_to_the_last_bit():
    apart = DiagonalPenalties(5, 2, [(0, np.array([0, 1e-3, 7.0, 0, 0])), (1, np.array([0, 0, 0, 2.0, 0]))])

    at = apart.at(np.array([-3.3, 12.7]))

    assert at.log_det_gradient.tolist() == [2.0, 1.0]
    assert not at.log_det_hessian().any()
    assert apart.unpenalised == 2
