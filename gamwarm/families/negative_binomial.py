"""Counts that vary more than a Poisson process does.

With theta = exp(tau), ``Var y = mu + mu^2 / theta``, s = eta - tau and q = mu / (theta + mu) =
expit(s), the negative log-likelihood of a row is

    (y + theta) log(1 + e^s) - y eta - sum_{k < y} log(1 + k / theta) + log y!

All terms keep their digits however large theta is, where lgamma(y + theta) - lgamma(theta) would
lose them, so that the limit (Poisson) is reached smoothly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, gammaln

from gamwarm.checks import FloatArray
from gamwarm.families.family import Etas, Family, Table, exponential, log_mean, refuse

__all__ = ["NegativeBinomial"]

# The sum over k < y is a table up to the largest count.
_MOST = 2**22
# Bounds of theta relative to the mean count: where the null model shows no extra variance, and
# where it shows little else.
_LARGEST_RATIO = 100.0
_LEAST_RATIO = 1e-3


@dataclass(frozen=True)
class NegativeBinomial(Family):
    """y has mean exp(mean) and variance mu + mu^2 / theta; log theta is a nuisance coordinate."""

    kind: ClassVar[str] = "gamwarm.engine.NegativeBinomial"
    nuisance: ClassVar[tuple[str, ...]] = ("log theta",)
    nuisance_advice: ClassVar[str] = "these counts vary no more than Poisson counts do; use Poisson"

    def check(self, y: FloatArray) -> None:
        refuse(self.response, y, y < 0, "counts cannot be negative")
        refuse(self.response, y, y != np.floor(y), "counts must be whole numbers")
        refuse(self.response, y, y > _MOST, f"counts above {_MOST} are not supported; use Gamma or Gaussian")

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        eta, tau = etas
        rows: FloatArray = (y + np.exp(tau)) * np.logaddexp(0.0, eta - tau) - y * eta - _summed(y, tau, 0)
        return rows

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        rows: FloatArray = w * gammaln(y + 1.0)
        return rows

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        q, rest = expit(etas[0] - etas[1]), expit(etas[1] - etas[0])
        with np.errstate(over="ignore", invalid="ignore"):
            theta = np.exp(etas[1])
            second = w * (y + theta) * q * rest
            tables: dict[int, Table] = {}
            for order in orders:
                if order == 1:
                    tables[1] = {(0,): w * (theta * q - y * rest)}
                elif order == 2:
                    tables[2] = {(0, 0): second}
                elif order == 3:
                    tables[3] = {(0, 0, 0): second * (rest - q)}
                elif order == 4:
                    tables[4] = {(0, 0, 0, 0): second * (1.0 - 6.0 * q * rest)}
        return tables

    def nuisance_derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        eta, tau = etas
        theta, s = np.exp(tau), eta - tau
        q, rest = expit(s), expit(-s)
        with np.errstate(over="ignore", invalid="ignore"):
            d2, skew, tail = q * rest, rest - q, 1.0 - 6.0 * q * rest
            # theta log(1 + mu / theta) by tau: theta (log(1 + e^s) - q) and polynomials in q.
            bend = _softplus_less_expit(s, q)
            wt, wy = w * theta, w * y
            tables: dict[int, Table] = {}
            for order in orders:
                if order == 1:
                    tables[1] = {(1,): wt * bend - wy * q - w * _summed(y, tau, 1)}
                elif order == 2:
                    tables[2] = {
                        (0, 1): wt * q * q - wy * d2,
                        (1, 1): wt * (bend - q * q) + wy * d2 - w * _summed(y, tau, 2),
                    }
                elif order == 3:
                    tables[3] = {
                        (0, 0, 1): 2.0 * wt * q * d2 - wy * d2 * skew,
                        (0, 1, 1): -wt * q * q * skew + wy * d2 * skew,
                        (1, 1, 1): wt * (bend - 2.0 * q**3) - wy * d2 * skew - w * _summed(y, tau, 3),
                    }
                elif order == 4:
                    tables[4] = {
                        (0, 0, 0, 1): 2.0 * wt * q * d2 * (2.0 - 3.0 * q) - wy * d2 * tail,
                        (0, 0, 1, 1): -2.0 * wt * q * d2 * (1.0 - 3.0 * q) + wy * d2 * tail,
                        (0, 1, 1, 1): wt * q * q * tail - wy * d2 * tail,
                        (1, 1, 1, 1): wt * (bend - q * q + 4.0 * q**3 - 6.0 * q**4)
                        + wy * d2 * tail
                        - w * _summed(y, tau, 4),
                    }
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        with np.errstate(over="ignore", invalid="ignore"):
            return {(0, 0): w * np.exp(etas[0]) * expit(etas[1] - etas[0])}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        constant = log_mean(self.response, y, w, offset)
        mu = np.exp(np.minimum(constant + offset, 300.0))
        extra, square = float(w @ ((y - mu) ** 2 - mu)), float(w @ mu**2)
        least = float(w.sum()) / (_LARGEST_RATIO * float(w @ mu))
        inverse = min(max(extra / square, least), 1.0 / _LEAST_RATIO)
        return constant, -float(np.log(inverse))

    def mean(self, etas: Etas) -> FloatArray:
        return exponential(etas[0])


def _summed(y: FloatArray, tau: FloatArray, order: int) -> FloatArray:
    """Return the tau-derivative of sum_{k < y} log(1 + k e^-tau) for each y."""
    logs = np.log(np.arange(1.0, max(float(y.max(initial=0.0)), 1.0))) - tau
    p = expit(logs)
    if order == 0:
        terms = np.logaddexp(0.0, logs)
    elif order == 1:
        terms = -p
    else:
        terms = p * expit(-logs)
        if order == 3:
            terms = -terms * (1.0 - 2.0 * p)
        elif order == 4:
            terms *= 1.0 - 6.0 * p * (1.0 - p)
    sums = np.concatenate([np.zeros(2), np.cumsum(terms)])
    return sums[y.astype(np.intp)]


def _softplus_less_expit(s: FloatArray, q: FloatArray) -> FloatArray:
    """Return log(1 + e^s) - expit(s), which is q^2 / 2 + q^3 / 3 + ... for small q."""
    small = np.minimum(q, 0.1)
    series = np.zeros_like(small)
    for k in range(17, 1, -1):
        series = series * small + 1.0 / k
    out: FloatArray = np.where(q < 0.1, series * small * small, np.logaddexp(0.0, s) - q)
    return out
