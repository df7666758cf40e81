"""Times to an event, some right-censored: accelerated failure time models.

``log T = mean + exp(scale) e``; with z = (log t - mean) exp(-scale) a row's negative
log-likelihood is ``scale + psi(z) + log t`` where the event was seen, psi minus the log density of
e, and ``psi(z)`` minus the log survival function of e where it was not. Derivatives by both
predictors follow from those of psi: d/dmean is ``-exp(-scale) d/dz``, d/dscale is ``-z d/dz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, log_ndtr, ndtri

from gamwarm.checks import FloatArray
from gamwarm.errors import InvalidInput
from gamwarm.families.family import HALF_LOG_2PI, Etas, Family, Table, exponential, is_exact, refuse

__all__ = ["LogLogistic", "LogNormal"]

_NULL_STEPS = 50
# From here on the continued fraction of Mills' ratio; it needs fewer terms the larger z is.
_FRACTION_FROM = 4.0
_FRACTION_TERMS = 120


@dataclass(frozen=True)
class _LogTime(Family):
    """What the families share.

    Parameters
    ----------
    response : str
        Column of positive times.
    event : str, optional
        Column that is 1 (true) where the event was seen at that time, 0 (false) where the row was
        censored then. Default: all were seen.
    """

    event: str | None = None

    predictors: ClassVar[tuple[str, ...]] = ("mean", "scale")
    log_concave: ClassVar[bool] = False
    _information: ClassVar[tuple[float, float]] = (1.0, 1.0)
    """Fisher information of an uncensored row at scale 0, per predictor."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.response,) if self.event is None else (self.response, self.event)

    def check(self, y: FloatArray) -> None:
        times, seen = _split(y)
        refuse(self.response, times, ~(times > 0), "times must be positive")
        if self.event is not None:
            refuse(self.event, seen, (seen != 0) & (seen != 1), "give 1 where the event was seen, 0 where not")

    @classmethod
    def _psi(cls, z: FloatArray, seen: FloatArray, order: int) -> list[FloatArray]:
        """Return psi and its derivatives up to ``order``, each of shape (n,)."""
        raise NotImplementedError

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        times, seen = _split(y)
        z = (np.log(times) - etas[0]) * np.exp(-etas[1])
        return seen * etas[1] + self._psi(z, seen, 0)[0]

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        times, seen = _split(y)
        return w * seen * np.log(times)

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        times, seen = _split(y)
        tables: dict[int, Table] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            b = np.exp(-etas[1])
            z = (np.log(times) - etas[0]) * b
            d1, d2, d3, d4 = (w * d for d in self._psi(z, seen, max(orders))[1:])
            for order in orders:
                if order == 1:
                    tables[1] = {(0,): -b * d1, (1,): w * seen - z * d1}
                elif order == 2:
                    tables[2] = {(0, 0): b * b * d2, (0, 1): b * (d1 + z * d2), (1, 1): z * (d1 + z * d2)}
                elif order == 3:
                    bend = d1 + z * (3.0 * d2 + z * d3)
                    tables[3] = {
                        (0, 0, 0): -(b**3) * d3,
                        (0, 0, 1): -b * b * (2.0 * d2 + z * d3),
                        (0, 1, 1): -b * bend,
                        (1, 1, 1): -z * bend,
                    }
                elif order == 4:
                    bend = d1 + z * (7.0 * d2 + z * (6.0 * d3 + z * d4))
                    tables[4] = {
                        (0, 0, 0, 0): b**4 * d4,
                        (0, 0, 0, 1): b**3 * (3.0 * d3 + z * d4),
                        (0, 0, 1, 1): b * b * (4.0 * d2 + z * (5.0 * d3 + z * d4)),
                        (0, 1, 1, 1): b * bend,
                        (1, 1, 1, 1): z * bend,
                    }
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        """Return the information of uncensored rows; of censored ones the curvature in z.

        What a censored row would tell depends on when others are censored, which no model here
        describes. The curvature of its own term is positive semidefinite too.
        """
        times, seen = _split(y)
        with np.errstate(over="ignore", invalid="ignore"):
            b = np.exp(-etas[1])
            z = (np.log(times) - etas[0]) * b
            hidden = w * (1.0 - seen) * self._psi(z, np.zeros(1), 2)[2]
            location, scale = self._information
            return {
                (0, 0): b * b * (location * w * seen + hidden),
                (0, 1): b * z * hidden,
                (1, 1): scale * w * seen + z * z * hidden,
            }

    def relative_changes(self, y: FloatArray, etas: Etas, changes: Etas) -> list[FloatArray]:
        """Return changes of the mean in terms of z."""
        return [changes[0] * np.exp(-etas[1]), changes[1]]

    def degeneracy(self, y: FloatArray, w: FloatArray, etas: Etas) -> str:
        times, seen = _split(y)
        exact = is_exact(w * seen, np.log(times), etas[0])
        return "the model fits the times exactly; their scale cannot be estimated" if exact else ""

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        times, seen = _split(y)
        events = w * seen
        if not events.any():
            raise InvalidInput(
                f"column {self.event!r} is 0 in all of these rows; without an event nothing can be fitted"
            )
        logs = np.log(times) - offset
        used = logs[w > 0.0]
        if used.min() == used.max():
            raise InvalidInput(f"column {self.response!r} is constant in these rows; a scale cannot be fitted to it")
        # Exponential waiting at the observed rate, then scoring with damped steps.
        centre = float(w @ logs / w.sum())
        at = np.array([centre, 0.5 * float(np.log(w @ (logs - centre) ** 2 / w.sum()))])
        y = np.column_stack([np.exp(np.clip(logs, -700.0, 700.0)), np.broadcast_to(seen, logs.shape)])
        return tuple(float(value) for value in self._fitted_constants(y, w, at))

    def _fitted_constants(self, y: FloatArray, w: FloatArray, at: FloatArray) -> FloatArray:
        value = self.nll(y, w, list(at[:, None]))
        for _ in range(_NULL_STEPS):
            etas = list(at[:, None])
            slope = np.array([d.sum() for d in self.derivatives(y, w, etas, (1,))[1].values()])
            unit = self.expected(y, w, etas)
            metric = np.array([[unit[0, 0].sum(), unit[0, 1].sum()], [unit[0, 1].sum(), unit[1, 1].sum()]])
            step = -np.linalg.solve(metric, slope)
            step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
            length = 1.0
            while length > 1e-3 and not (lower := self.nll(y, w, list((at + length * step)[:, None]))) < value:
                length *= 0.5
            if length <= 1e-3:
                break
            at, gain, value = at + length * step, value - lower, lower
            if gain < 1e-8 * (1.0 + abs(value)):
                break
        return at


@dataclass(frozen=True)
class LogLogistic(_LogTime):
    """log T = mean + exp(scale) e, e standard logistic; right-censored."""

    kind: ClassVar[str] = "gamwarm.engine.LogLogistic"
    _information: ClassVar[tuple[float, float]] = (1.0 / 3.0, (3.0 + np.pi**2) / 9.0)

    @classmethod
    def _psi(cls, z: FloatArray, seen: FloatArray, order: int) -> list[FloatArray]:
        times = 1.0 + seen
        if order == 0:
            return [times * np.logaddexp(0.0, z) - seen * z]
        p, rest = expit(z), expit(-z)
        second = times * p * rest
        return [z, times * p - seen, second, second * (rest - p), second * (1.0 - 6.0 * p * rest)]

    def mean(self, etas: Etas) -> FloatArray:
        """Return the mean time, infinite where exp(scale) >= 1; the median is exp(mean)."""
        sigma = exponential(etas[1])
        spread = np.where(sigma < 1.0, 1.0 / np.sinc(np.where(sigma < 1.0, sigma, 0.0)), np.inf)
        out: FloatArray = exponential(etas[0]) * spread
        return out

    def quantile(self, etas: Etas, probability: float) -> FloatArray:
        """Return the time by which the event has happened with ``probability``, of shape (n,)."""
        odds = np.log(probability) - np.log1p(-probability)
        return exponential(etas[0] + exponential(etas[1]) * odds)


@dataclass(frozen=True)
class LogNormal(_LogTime):
    """log T = mean + exp(scale) e, e standard normal; right-censored."""

    kind: ClassVar[str] = "gamwarm.engine.LogNormal"
    _information: ClassVar[tuple[float, float]] = (1.0, 2.0)

    def relative_changes(self, y: FloatArray, etas: Etas, changes: Etas) -> list[FloatArray]:
        """Return changes of the mean in terms of z, times ``1 + |z|``.

        A normal survival function goes to 1 like ``exp(-z^2 / 2)``, where Newton steps are ``1 /
        |z|``.
        """
        b = np.exp(-etas[1])
        return [changes[0] * b * (1.0 + np.abs(np.log(_split(y)[0]) - etas[0]) * b), changes[1]]

    @classmethod
    def _psi(cls, z: FloatArray, seen: FloatArray, order: int) -> list[FloatArray]:
        event = np.broadcast_to(seen, np.broadcast_shapes(seen.shape, z.shape)) > 0.0
        if order == 0:
            return [np.where(event, HALF_LOG_2PI + 0.5 * z * z, -log_ndtr(-z))]
        out = [np.where(event, known, 0.0) for known in (z, z, 1.0, 0.0, 0.0)]
        for whole, part in zip(out, _hazard(np.broadcast_to(z, event.shape)[~event]), strict=True):
            whole[~event] = part
        return out

    def mean(self, etas: Etas) -> FloatArray:
        """Return the mean time; the median is exp(mean)."""
        return exponential(etas[0] + 0.5 * exponential(2.0 * etas[1]))

    def quantile(self, etas: Etas, probability: float) -> FloatArray:
        """Return the time by which the event has happened with ``probability``, of shape (n,)."""
        return exponential(etas[0] + exponential(etas[1]) * ndtri(probability))


def _split(y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return times, and 1 where the event was seen."""
    return (y, np.ones(1)) if y.ndim == 1 else (y[:, 0], y[:, 1])


def _hazard(z: FloatArray) -> list[FloatArray]:
    """Return z, then derivatives 1 to 4 of -log(1 - Phi(z)): the normal hazard r and its own.

    With m = r - z, c and d the tails of the continued fraction m = 1 / (z + 2 / (z + 3 / (z +
    ...))): 1 - r m = m (c - m) and r'' / r = m^2 c (d - c), without the cancellations of r m -
    1 at large z.
    """
    low = np.clip(z, -40.0, _FRACTION_FROM)  # r is 0 below
    r = np.exp(-0.5 * low * low - HALF_LOG_2PI - log_ndtr(-low))
    m = r - low
    slope = r * m - 1.0
    bend = m * m + slope
    far = z > _FRACTION_FROM
    high = z[far]
    c = d = np.zeros_like(high)
    for k in range(_FRACTION_TERMS if high.size else 0, 1, -1):
        c, d = k / (high + c), c
    m[far] = 1.0 / (high + c)
    slope[far] = -m[far] * (c - m[far])
    bend[far] = m[far] ** 2 * c * (d - c)
    r[far] = high + m[far]
    return [z, r, r * m, r * bend, r * ((m + r) * bend + 2.0 * m * slope)]
