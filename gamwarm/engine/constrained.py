"""The objectives of models with inequality constraints.

The mode is the minimiser of P over the feasible coefficients, on a face of which some constraints
hold with equality. How the mode moves with rho is told on that face. The determinants are those of
all coefficients: on the face they would jump where it changes, and with them the objective.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gamwarm.engine.arrays import BoolArray, FloatArray, IntArray
from gamwarm.engine.cholesky import Cholesky
from gamwarm.engine.constraints import Constraints, Face
from gamwarm.engine.gaussian import GaussianReml, Moments
from gamwarm.engine.laml import Laml
from gamwarm.engine.objective import Evaluation, Objective

__all__ = ["ConstrainedGaussian", "ConstrainedLaml"]


class _Constrained(Objective):
    """What both have in common.

    Attributes
    ----------
    constraints : Constraints
    offered : array of bool of shape (m,), or None
        Rows that the next inner solve takes to be active at first, besides those that are 0 at the
        coefficients that it begins with. They change its way and nothing else.
    """

    def __init__(self, *args: Any, constraints: Constraints, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.constraints = constraints
        self.offered: BoolArray | None = None
        self._working = np.zeros(constraints.m, dtype=np.bool_)

    def admissible(self, theta: FloatArray) -> FloatArray:
        """Return ``theta`` itself where it is feasible, else feasible coefficients near it."""
        return self.constraints.nearest(theta)

    def penalised_nll(self, rho: FloatArray, theta: FloatArray) -> float:
        return super().penalised_nll(rho, self.admissible(theta))  # type: ignore[safe-super]

    def evaluate(
        self, rho: FloatArray, theta: FloatArray, tol: float, max_cycles: int, gram: FloatArray | None = None
    ) -> Evaluation:
        theta = self.admissible(theta)
        self._working = self.constraints.on_face(theta)
        if self.offered is not None:
            self._working |= self.offered
            self.offered = None
        return super().evaluate(rho, theta, tol, max_cycles, gram)  # type: ignore[safe-super]

    def _face(self, matrix: FloatArray, factor: Cholesky, gradient: FloatArray, theta: FloatArray) -> Face:
        face = self.constraints.newton_face(matrix, factor, gradient, theta, self._working)
        self._working = face.active
        return face


class ConstrainedLaml(_Constrained, Laml):
    """Laplace approximate marginal likelihood at the constrained mode."""

    def _newton(
        self, matrix: FloatArray, factor: Cholesky, gradient: FloatArray, theta: FloatArray
    ) -> tuple[FloatArray, Face | None]:
        face = self._face(matrix, factor, gradient, theta)
        return face.step(gradient, theta), face


class ConstrainedGaussian(_Constrained, GaussianReml):
    """Restricted likelihood at the constrained mode."""

    def _mode(self, matrix: FloatArray, factor: Cholesky, theta: FloatArray) -> tuple[FloatArray, Face | None]:
        face = self._face(matrix, factor, -self.moments.xwz, np.zeros(theta.size))
        return face.solve(self.moments.xwz), face

    def of(self, moments: Moments, columns: IntArray) -> GaussianReml:
        return ConstrainedGaussian(*self._arguments(moments, columns), constraints=self.constraints.of(columns))
