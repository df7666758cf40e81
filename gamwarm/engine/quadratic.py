"""A fit whose negative log-likelihood is a quadratic in theta: outer gradient and Hessian without
the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.cholesky import factorise
from gamwarm.engine.penalty import DiagonalPenalties

__all__ = ["QuadraticFit", "QuadraticPoint"]


@dataclass(frozen=True, eq=False)
class QuadraticPoint:
    """Mode (p,), d theta / d rho (p, q), inverse penalized Hessian (p, p), outer gradient (q,) and
    Hessian (q, q) at one rho.
    """

    theta: FloatArray
    tangent: FloatArray
    inverse: FloatArray
    own: FloatArray
    gradient: FloatArray
    hessian: FloatArray

    def without(self, gram: FloatArray, score: FloatArray) -> FloatArray:
        """Return the first-order change (q,) of the gradient without rows of this X'WX (p, p) and
        score (p,).
        """
        change = 2.0 * self.theta * (self.inverse @ score)
        change += np.einsum("ij,ji->i", self.inverse @ gram, self.inverse)
        out: FloatArray = 0.5 * (self.own.T @ change)
        return out


@dataclass(frozen=True, eq=False)
class QuadraticFit:
    """``theta' gram theta / 2 - linear' theta`` and diagonal penalties."""

    gram: FloatArray
    linear: FloatArray
    penalties: DiagonalPenalties

    def at(self, rho: FloatArray) -> QuadraticPoint | None:
        """Return the point at ``rho`` (q,); None where the penalized Hessian is not positive
        definite.
        """
        penalties = self.penalties.at(rho)
        matrix = np.array(self.gram)
        np.einsum("ii->i", matrix)[:] += penalties.diagonal
        factor = factorise(matrix)
        if factor is None:
            return None
        theta, inverse, own = factor.solve(self.linear), factor.inverse(), penalties.derivative()
        force = own * theta[:, None]
        tangent = -factor.solve(force)
        quadratic, trace = penalties.sums(theta**2), penalties.sums(np.diagonal(inverse))
        hessian = 0.5 * (np.diag(quadratic + trace) - own.T @ inverse**2 @ own - penalties.log_det_hessian())
        hessian += force.T @ tangent
        gradient = 0.5 * (quadratic + trace - penalties.log_det_gradient)
        return QuadraticPoint(theta, tangent, inverse, own, gradient, 0.5 * (hessian + hessian.T))
