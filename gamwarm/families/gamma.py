"""Positive responses whose standard deviation is proportional to their mean.

With a = exp(-tau) the shape, tau the log dispersion and z = log y - eta, the negative
log-likelihood of a row is

    c(a) + a (e^z - z - 1) + log y,    c(a) = lgamma(a) - a log a + a

Large a take c from Stirling's series, which keeps the digits that the three terms cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import bernoulli, gammaln, polygamma

from gamwarm.checks import FloatArray
from gamwarm.families.family import HALF_LOG_2PI, Etas, Family, Table, exponential, is_exact, log_mean, moments, refuse

__all__ = ["Gamma"]

_STIRLING_FROM = 12.0
_POWERS = np.arange(1, 18, 2)
# B_2m / (2m (2m - 1)), of a^(1 - 2m).
_STIRLING = bernoulli(18)[2::2] / (_POWERS * (_POWERS + 1.0))
# (a d/da)^r = sum_k _STIRLING_NUMBERS[r][k] a^k (d/da)^k.
_STIRLING_NUMBERS = {1: (1.0,), 2: (1.0, 1.0), 3: (1.0, 3.0, 1.0), 4: (1.0, 7.0, 6.0, 1.0)}


@dataclass(frozen=True)
class Gamma(Family):
    """y > 0 has mean exp(mean) and variance phi mu^2; log phi is a nuisance coordinate."""

    kind: ClassVar[str] = "gamwarm.engine.Gamma"
    nuisance: ClassVar[tuple[str, ...]] = ("log dispersion",)
    nuisance_advice: ClassVar[str] = "the model fits the response exactly, or leaves nothing of it; drop or add terms"

    def check(self, y: FloatArray) -> None:
        refuse(self.response, y, ~(y > 0), "a Gamma response must be positive")

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        eta, tau = etas
        z = np.log(y) - eta
        return _shape_part(tau, 0) + np.exp(-tau) * (np.expm1(z) - z)

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        return w * np.log(y)

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        with np.errstate(over="ignore", invalid="ignore"):
            wa, z = w * np.exp(-etas[1]), np.log(y) - etas[0]
            return {r: {(0,) * r: -wa * np.expm1(z) if r == 1 else (-1.0) ** r * wa * np.exp(z)} for r in orders}

    def nuisance_derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        eta, tau = etas
        with np.errstate(over="ignore", invalid="ignore"):
            wa, z = w * np.exp(-tau), np.log(y) - eta
            lift = np.exp(z)
            by_eta = [np.expm1(z) - z, -np.expm1(z), lift, -lift]
            tables: dict[int, Table] = {}
            for order in orders:
                tables[order] = {
                    (0,) * k + (1,) * (order - k): (-1.0) ** (order - k) * wa * by_eta[k] for k in range(order)
                }
                tables[order][(1,) * order] = tables[order][(1,) * order] + w * _shape_part(tau, order)
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        with np.errstate(over="ignore"):
            return {(0, 0): w * np.exp(-etas[1])}

    def degeneracy(self, y: FloatArray, w: FloatArray, etas: Etas) -> str:
        exact = is_exact(w, np.log(y), etas[0])
        return "the model fits the response exactly; its dispersion cannot be estimated" if exact else ""

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        constant = log_mean(self.response, y, w, offset)
        _, variance = moments(self.response, np.exp(np.log(y) - constant - offset), w, "a dispersion")
        return constant, float(np.log(variance))

    def mean(self, etas: Etas) -> FloatArray:
        return exponential(etas[0])


def _shape_part(tau: FloatArray, order: int) -> FloatArray:
    """Return the tau-derivative of c(e^-tau), of shape (1,)."""
    a = np.exp(-tau)
    if float(a[0]) >= _STIRLING_FROM:
        # Each power a^-k = e^(k tau) gives a factor k.
        rest: FloatArray = (_STIRLING * _POWERS.astype(np.float64) ** order) @ (a ** -_POWERS[:, None])
        if order == 0:
            rest = rest + 0.5 * tau + HALF_LOG_2PI
        return rest + 0.5 if order == 1 else rest
    # lgamma(a) = lgamma(1 + a) + tau, whose parts stay numbers where a underflows.
    if order == 0:
        value: FloatArray = gammaln(1.0 + a) + tau + a * (tau + 1.0)
        return value
    # a^k (d/da)^k of the rest.
    parts = [a * (polygamma(0, 1.0 + a) + tau)]
    for k in range(2, order + 1):
        factorial = (1.0, 1.0, 2.0)[k - 2]
        parts.append(a**k * polygamma(k - 1, 1.0 + a) + (-1.0) ** (k - 1) * factorial * a)
    weighted = [number * part for number, part in zip(_STIRLING_NUMBERS[order], parts, strict=True)]
    out: FloatArray = (-1.0) ** order * np.sum(weighted, axis=0)
    return out + 1.0 if order == 1 else out
