"""Response models as derivatives of the negative log-likelihood by the linear predictors.

A derivative of order r is a mapping from a sorted tuple of r predictor numbers to an array of shape
(n,); a tuple that is missing is identically zero. Prior weights multiply a row's contribution to
the log-likelihood (a row of weight 2 counts as two equal rows); for the binomial they are also the
numbers of trials of a proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, gammaln

from gamwarm.engine.arrays import FloatArray
from gamwarm.errors import InvalidInput

__all__ = ["Binomial", "Family", "Gaussian", "GaussianLocationScale", "Poisson", "Table"]

Table = dict[tuple[int, ...], FloatArray]
Etas = Sequence[FloatArray]
# Sums of squares and their inverses over any number of rows stay numbers.
_LEAST_VARIANCE = 1e-250
_HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class Family:
    """Column names of a response; use one of its subclasses.

    Parameters
    ----------
    response : str
        Column of the response.
    weights : str, optional
        Column of non-negative prior weights; default 1.
    offset : str, optional
        Column added to the linear predictor "mean".
    """

    response: str
    weights: str | None = None
    offset: str | None = None

    predictors: ClassVar[tuple[str, ...]] = ("mean",)
    kind: ClassVar[str] = ""
    response_units: ClassVar[tuple[str, ...]] = ()
    """Predictors that are measured in the units of the response."""
    log_concave: ClassVar[bool] = True
    """Whether the likelihood is log-concave in the predictors: the inner problem has one mode."""

    def check(self, y: FloatArray) -> None:
        """Refuse responses outside the family's range, naming the column."""

    def nll(self, y: FloatArray, w: FloatArray, etas: Etas) -> float:
        """Return the negative log-likelihood, up to `constants`; inf where it overflows.

        A predictor may also be given as one number for all rows, of shape (1,).
        """
        raise NotImplementedError

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        """Return each row's negative log-likelihood that no predictor enters, of shape (n,)."""
        raise NotImplementedError

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        """Return the tables of the asked orders (1 to 4)."""
        raise NotImplementedError

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        """Return the expected second derivatives (Fisher information per row)."""
        raise NotImplementedError

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        """Return the constant predictors that fit best, roughly."""
        raise NotImplementedError

    def mean(self, etas: Etas) -> FloatArray:
        """Return the response's mean of shape (n,)."""
        raise NotImplementedError


def _moments(name: str, z: FloatArray, w: FloatArray, what: str) -> tuple[float, float]:
    """Return the mean and the variance of a response, refusing one without a variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        centre = float(w @ z / w.sum())
        variance = float(w @ (z - centre) ** 2 / w.sum())
    if _LEAST_VARIANCE < variance < 1.0 / _LEAST_VARIANCE:
        return centre, variance
    used = z[w > 0.0]
    if used.min() < used.max():
        raise InvalidInput(f"column {name!r} has numbers such as {used.max():g}: too small or large to square; rescale")
    raise InvalidInput(f"column {name!r} is constant in these rows; {what} cannot be fitted to it")


@dataclass(frozen=True)
class GaussianLocationScale(Family):
    """y ~ N(mean, exp(scale)^2): identity link for the mean, log standard deviation."""

    predictors: ClassVar[tuple[str, ...]] = ("mean", "scale")
    response_units: ClassVar[tuple[str, ...]] = ("mean",)
    kind: ClassVar[str] = "gamwarm.engine.GaussianLocationScale"
    log_concave: ClassVar[bool] = False

    def nll(self, y: FloatArray, w: FloatArray, etas: Etas) -> float:
        residual = y - etas[0]
        with np.errstate(over="ignore", invalid="ignore"):
            return float(w @ (etas[1] + 0.5 * residual * residual * np.exp(-2.0 * etas[1])))

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        return _HALF_LOG_2PI * w

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        residual = y - etas[0]
        t = w * np.exp(-2.0 * etas[1])
        u = residual * t
        v = residual * u
        tables: dict[int, Table] = {}
        for order in orders:
            if order == 1:
                tables[1] = {(0,): -u, (1,): w - v}
            elif order == 2:
                tables[2] = {(0, 0): t, (0, 1): 2.0 * u, (1, 1): 2.0 * v}
            elif order == 3:
                tables[3] = {(0, 0, 1): -2.0 * t, (0, 1, 1): -4.0 * u, (1, 1, 1): -4.0 * v}
            elif order == 4:
                tables[4] = {(0, 0, 1, 1): 4.0 * t, (0, 1, 1, 1): 8.0 * u, (1, 1, 1, 1): 8.0 * v}
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        return {(0, 0): w * np.exp(-2.0 * etas[1]), (1, 1): 2.0 * w}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        centre, variance = _moments(self.response, y - offset, w, "a scale")
        return centre, 0.5 * float(np.log(variance))

    def mean(self, etas: Etas) -> FloatArray:
        return etas[0]


@dataclass(frozen=True)
class Gaussian(Family):
    """y ~ N(mean, phi): identity link, one variance, profiled out (restricted likelihood)."""

    kind: ClassVar[str] = "gamwarm.engine.Gaussian"

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        """Return the weights: information relative to the variance."""
        return {(0, 0): np.array(w)}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        return _moments(self.response, y - offset, w, "a variance")[:1]

    def mean(self, etas: Etas) -> FloatArray:
        return etas[0]


@dataclass(frozen=True)
class Poisson(Family):
    """y ~ Poisson(exp(mean))."""

    kind: ClassVar[str] = "gamwarm.engine.Poisson"

    def check(self, y: FloatArray) -> None:
        if (y < 0).any():
            row = int(np.flatnonzero(y < 0)[0])
            raise InvalidInput(f"column {self.response!r} holds {y[row]} at row {row}; counts cannot be negative")

    def nll(self, y: FloatArray, w: FloatArray, etas: Etas) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return float(w @ (np.exp(etas[0]) - y * etas[0]))

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        rows: FloatArray = w * gammaln(y + 1.0)
        return rows

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        mu = w * np.exp(etas[0])
        return {r: {(0,) * r: mu - w * y if r == 1 else mu} for r in orders}

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        return {(0, 0): w * np.exp(etas[0])}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        events = float(w @ y)
        if not events > 0.0:
            raise InvalidInput(f"column {self.response!r} is zero in all of these rows; a log mean cannot fit it")
        most = float(offset[w > 0.0].max())
        exposure = w @ np.exp(np.minimum(offset - most, 0.0))  # beside the largest, which may be beyond exp
        return (float(np.log(events / exposure)) - most,)

    def mean(self, etas: Etas) -> FloatArray:
        return np.exp(etas[0])


@dataclass(frozen=True)
class Binomial(Family):
    """y is 0/1, or a proportion of ``weights`` trials; P(success) = expit(mean)."""

    kind: ClassVar[str] = "gamwarm.engine.Binomial"

    def check(self, y: FloatArray) -> None:
        bad = (y < 0) | (y > 1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidInput(
                f"column {self.response!r} holds {y[row]} at row {row}; "
                "give 0/1, or proportions and their trials as weights"
            )

    def nll(self, y: FloatArray, w: FloatArray, etas: Etas) -> float:
        return float(w @ (np.logaddexp(0.0, etas[0]) - y * etas[0]))

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        rows: FloatArray = gammaln(w * y + 1.0) + gammaln(w * (1.0 - y) + 1.0) - gammaln(w + 1.0)
        return rows

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        p = expit(etas[0])
        tables: dict[int, Table] = {}
        d2 = w * p * (1.0 - p)
        for order in orders:
            if order == 1:
                tables[1] = {(0,): w * (p - y)}
            elif order == 2:
                tables[2] = {(0, 0): d2}
            elif order == 3:
                tables[3] = {(0, 0, 0): d2 * (1.0 - 2.0 * p)}
            elif order == 4:
                tables[4] = {(0, 0, 0, 0): d2 * (1.0 - 6.0 * p * (1.0 - p))}
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        p = expit(etas[0])
        return {(0, 0): w * p * (1.0 - p)}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        total = float(w.sum())
        rate = float((w @ y + 0.5) / (total + 1.0))
        return (float(np.log(rate / (1.0 - rate)) - w @ offset / total),)

    def mean(self, etas: Etas) -> FloatArray:
        p: FloatArray = expit(etas[0])
        return p
