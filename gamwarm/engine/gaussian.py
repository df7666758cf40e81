"""Gaussian identity models: restricted likelihood with the variance profiled out, on moments alone.

Of the rows, only ``X'WX``, ``X'Wz`` and ``z'Wz`` enter, so a fold is a subtraction: all rows'
moments less its group's. With ``D(rho) = min (z - X theta)'W(z - X theta) + theta' S theta``, N the
total weight, M unpenalised coefficients, ``H = X'WX + S`` and ``phi = D / (N - M)``::

    V(rho) = (N - M) (log(2 pi phi) + 1) / 2 + log|H| / 2 - log|S|_+ / 2

Here lambda is relative to the variance: the prior of a penalised coefficient is N(0, phi / (lambda
s)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gamwarm.engine.arrays import Counters, FloatArray, IntArray
from gamwarm.engine.cholesky import Cholesky, factorise
from gamwarm.engine.constraints import Face
from gamwarm.engine.objective import LOG_2PI, Evaluation, Objective
from gamwarm.engine.penalty import DiagonalPenalties
from gamwarm.errors import FitFailed
from gamwarm.families import Family

__all__ = ["GaussianReml", "Moments"]

# Coefficients this near (as a Newton decrement) to the mode count as the mode.
_SAME_MODE = 1e-6
# A residual sum of squares below this part of the total is rounding.
_EXACT_FIT = 1e-12


@dataclass(frozen=True)
class Moments:
    """What a Gaussian model needs of its rows.

    Attributes
    ----------
    xwx : array of shape (p, p)
    xwz : array of shape (p,)
    zwz : float
    weight : float
        Sum of the prior weights.
    """

    xwx: FloatArray
    xwz: FloatArray
    zwz: float
    weight: float

    def without(self, other: Moments) -> Moments:
        """Return the moments of these rows less those of ``other``."""
        return Moments(self.xwx - other.xwx, self.xwz - other.xwz, self.zwz - other.zwz, self.weight - other.weight)

    def of(self, columns: IntArray) -> Moments:
        """Return the moments of some of the columns."""
        return Moments(
            np.ascontiguousarray(self.xwx[np.ix_(columns, columns)]), self.xwz[columns], self.zwz, self.weight
        )


class GaussianReml(Objective):
    """Objective of one case of a Gaussian model.

    Parameters
    ----------
    moments : Moments
        Of the response less offset and ``shift``.
    shift : array of shape (p,)
        Coefficients that were taken out of the response beforehand (its mean, in the intercept).
    family, penalties, names, counters
        As in `Objective`.
    """

    def __init__(
        self,
        family: Family,
        moments: Moments,
        shift: FloatArray,
        penalties: DiagonalPenalties,
        names: Sequence[str],
        counters: Counters,
    ) -> None:
        null = np.array(shift)
        constant = np.flatnonzero(shift)
        if constant.size == 1 and moments.xwx[constant[0], constant[0]] > 0.0:
            null[constant] += moments.xwz[constant] / moments.xwx[constant[0], constant[0]]
        super().__init__(family, penalties, null, names, counters)
        self.moments, self.shift = moments, shift
        self.freedom = moments.weight - penalties.unpenalised
        if not self.freedom > 0.0:
            raise FitFailed(
                f"rows of total weight {moments.weight:g} cannot determine a variance next to {penalties.unpenalised} "
                "unpenalised coefficients; drop terms"
            )

    def _discrepancy(self, rho: FloatArray, theta: FloatArray) -> float:
        m, t = self.moments, theta - self.shift
        return float(m.zwz - 2.0 * t @ m.xwz + t @ m.xwx @ t + self.penalties.at(rho).diagonal @ t**2)

    def penalised_nll(self, rho: FloatArray, theta: FloatArray) -> float:
        if not np.isfinite(theta).all():
            return np.inf
        d = self._discrepancy(rho, theta)
        return 0.5 * self.freedom * (LOG_2PI + float(np.log(d / self.freedom)) + 1.0) if d > 0.0 else np.inf

    def information(self, theta: FloatArray) -> FloatArray:
        return self.moments.xwx

    def log_likelihood(self, at: Evaluation) -> float:
        return -at.nll

    def evaluate(
        self, rho: FloatArray, theta: FloatArray, tol: float, max_cycles: int, gram: FloatArray | None = None
    ) -> Evaluation:
        self.counters.evaluations += 1
        self.counters.inner_iterations += 1
        m, penalties = self.moments, self.penalties.at(rho)
        s = penalties.diagonal
        matrix = np.array(m.xwx)
        matrix[np.diag_indices_from(matrix)] += s
        factor = factorise(matrix)
        if factor is None:
            return self._failed(rho, theta, 1, self._singular_message(matrix))
        unsafe = self._nearly_singular(m.xwx, s, factor)
        if unsafe:
            return self._failed(rho, theta, 1, unsafe)
        mode, face = self._mode(matrix, factor, theta)
        d = m.zwz - float(mode @ m.xwz)
        if not d > _EXACT_FIT * m.zwz:
            return self._failed(rho, theta, 1, "the model fits the response exactly; its variance cannot be estimated")
        phi = d / self.freedom
        off = theta - self.shift - mode
        distance = float(np.sqrt(max(float(off @ matrix @ off), 0.0) / phi)) if np.isfinite(off).all() else np.inf
        near = distance <= min(tol, _SAME_MODE) and (face is None or face.holds(theta))
        kept = np.array(theta) if near else mode + self.shift
        inverse = factor.inverse()
        quadratic = penalties.sums(mode**2)
        edf = penalties.log_det_gradient - penalties.sums(np.diagonal(inverse))
        value = 0.5 * self.freedom * (LOG_2PI + float(np.log(phi)) + 1.0)
        value += 0.5 * factor.logdet - 0.5 * penalties.log_det
        penalty = 0.5 * (float(quadratic.sum()) + float(self.penalties.fixed @ mode**2)) / phi
        nll = 0.5 * m.weight * (LOG_2PI + float(np.log(phi))) + 0.5 * self.freedom - penalty
        return Evaluation(
            np.array(rho),
            kept,
            value,
            0.5 * (quadratic / phi - edf),
            edf,
            -(factor if face is None else face).solve(penalties.derivative() * mode[:, None]),
            nll,
            penalty,
            0.0,
            1,
            True,
            penalties,
            factor,
            inverse=inverse,
            gram=m.xwx,
            scale=phi,
            face=face,
        )

    def _mode(self, matrix: FloatArray, factor: Cholesky, theta: FloatArray) -> tuple[FloatArray, Face | None]:
        """Return the mode less the shift, and the face of the feasible coefficients that it is on.

        ``factor`` is that of ``matrix``, the penalized Hessian.
        """
        return factor.solve(self.moments.xwz), None

    def of(self, moments: Moments, columns: IntArray) -> GaussianReml:
        """Return the objective of some of the coefficients, with other moments of them."""
        return GaussianReml(*self._arguments(moments, columns))

    def _arguments(self, moments: Moments, columns: IntArray) -> tuple[Any, ...]:
        names = [self.names[c] for c in columns]
        return self.family, moments, self.shift[columns], self.penalties.of(columns), names, Counters()

    def hessian(self, at: Evaluation) -> FloatArray:
        """Return the outer Hessian at an evaluation, (q, q), without a pass over the rows."""
        if at.hessian is not None:
            return at.hessian
        if at.factor is None or at.inverse is None:
            raise FitFailed("no outer Hessian at a point where the objective is not finite")
        penalties, mode = at.penalties, (at.factor if at.face is None else at.face).solve(self.moments.xwz)
        d = at.scale * self.freedom
        own, quadratic = penalties.derivative(), penalties.sums(mode**2)
        force = own * mode[:, None]
        second = np.diag(quadratic) + 2.0 * force.T @ at.tangent
        out: FloatArray = 0.5 * self.freedom * (second / d - np.outer(quadratic / d, quadratic / d))
        out += 0.5 * (np.diag(penalties.sums(np.diagonal(at.inverse))) - own.T @ at.inverse**2 @ own)
        out -= 0.5 * penalties.log_det_hessian()
        at.hessian = 0.5 * (out + out.T)
        return at.hessian
