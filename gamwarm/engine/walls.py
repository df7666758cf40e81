"""What active constraints add to the curvature that the determinant of the objective sees.

Where a likelihood is not log-concave, constraints may hold a mode off whose face the Hessian H is
not positive definite, and near such modes ``log|H|`` has no lower bound. But behind an active row
of multiplier ``l`` the penalized likelihood falls off like ``exp(-l t)``, whose integral is that of
an unnormalised normal density of precision ``2 pi l^2``: so the determinant is that of ``M = H + 2
pi sum_r l_r^2 a_r a_r'``. Where a row's multiplier vanishes, so does its part and the part's
derivative; far from there, M is H on the face and that precision across it.
"""

from __future__ import annotations

import numpy as np

from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.cholesky import Cholesky, factorise
from gamwarm.engine.constraints import Face

__all__ = ["Walls"]

_SQRT_2PI = float(np.sqrt(2.0 * np.pi))


class Walls:
    """The active rows of one mode, and how their multipliers change with rho.

    Parameters
    ----------
    face : Face
        With the Hessian of the inner objective.
    gradient : array of shape (p,)
        Of the inner objective.

    Attributes
    ----------
    matrix : array of shape (p, p)
        M.
    factor : Cholesky, or None where M is not positive definite
    """

    def __init__(self, face: Face, gradient: FloatArray) -> None:
        self._face = face
        self._rows = _SQRT_2PI * face.constraints.rows[face.active]
        self._dual = face.constraints.basis[:, face.constraints.place[face.active]].T
        self._multipliers = np.maximum(self._dual @ gradient, 0.0)
        self.matrix: FloatArray = face.matrix
        if self._multipliers.any():
            self.matrix = face.matrix + self._rows.T @ ((self._multipliers**2)[:, None] * self._rows)
        self.factor: Cholesky | None = factorise(self.matrix)

    def lowest_barrier(self) -> FloatArray:
        """Return the step off the face (p,) to the top of the lowest barrier that P has there."""
        dual = self._dual.T
        off = dual - self._face.solve(self._face.matrix @ dual)
        curvature = off.T @ self._face.matrix @ off
        least = np.linalg.eigh(curvature + np.diag(self._multipliers**2))[1][:, 0]
        sides = [*np.eye(least.size), np.maximum(least, 0.0), np.maximum(-least, 0.0)]
        best, lowest = np.zeros(off.shape[0]), np.inf
        for side in sides:
            slope, bend = float(self._multipliers @ side), float(side @ curvature @ side)
            if bend < 0.0 and slope**2 / -bend < lowest:
                best, lowest = off @ (side * max(slope, 1e-9) / -bend), slope**2 / -bend
        return best

    def move(self, tangent: FloatArray, force: FloatArray) -> None:
        """Set how the mode (p, q) and the penalty's force on it (p, q) change with rho."""
        assert self.factor is not None
        self._solved = self.factor.solve(self._rows.T).T
        self._gram = self._solved @ self._rows.T
        self._by = self._dual @ (self._face.matrix @ tangent + force)
        self._curvature_by = 2.0 * self._multipliers[:, None] * self._by

    def gradient(self) -> FloatArray:
        """Return the walls' part of the gradient of ``log|M| / 2``, of shape (q,)."""
        out: FloatArray = 0.5 * np.diagonal(self._gram) @ self._curvature_by
        return out

    def along(self, step: FloatArray) -> float:
        """Return the change of ``log|M| / 2`` by the walls along a step in the face (p,)."""
        change = self._multipliers * (self._dual @ (self._face.matrix @ step))
        return float(np.diagonal(self._gram) @ change)

    def hessian(self, moved: FloatArray, second: FloatArray) -> FloatArray:
        """Return the walls' part of the Hessian of ``log|M| / 2``, of shape (q, q).

        Parameters
        ----------
        moved : array of shape (q, p, p)
            How the Hessian of the inner objective changes with rho.
        second : array of shape (q, q, p)
            ``moved_i dtheta_j + dS_j dtheta_i + d2S_ij theta``, the force on the second derivative
            of the mode.
        """
        force = second - (second @ self._face.inverse) @ self._face.matrix
        by_by = np.moveaxis(force @ self._dual.T, 2, 0)
        by, k = self._by, self._curvature_by
        curvature = 2.0 * (by[:, :, None] * by[:, None] + self._multipliers[:, None, None] * by_by)
        crossed = np.einsum("rc,icd,rd->ir", self._solved, moved, self._solved, optimize=True) @ k
        out: FloatArray = np.tensordot(np.diagonal(self._gram), curvature, 1)
        out -= crossed + crossed.T + k.T @ (self._gram**2 @ k)
        return 0.5 * out
