"""The objectives of models with inequality constraints.

The mode is the minimiser of P over the feasible coefficients, on a face on which some constraints
hold with equality. How the mode moves with rho is told on that face. The determinants are those of
all coefficients: on the face they would jump where it changes, and with them the objective.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.optimize import nnls

from gamwarm.engine.arrays import BoolArray, FloatArray, IntArray
from gamwarm.engine.cholesky import Cholesky
from gamwarm.engine.constraints import Constraints, Face
from gamwarm.engine.gaussian import GaussianReml, Moments
from gamwarm.engine.laml import Laml
from gamwarm.engine.objective import Evaluation, Objective
from gamwarm.engine.walls import Walls

__all__ = ["ConstrainedGaussian", "ConstrainedLaml", "least_of_hull"]

# Where a move of this many units of log lambda changes the face, the objective has a kink: there it
# is as flat as the least of the gradients on either side and between.
_KINK = 1e-4
# Where P is compared beyond a barrier, in units of its width.
_BARRIERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# A side of a smaller share is rounding.
_LEAST_SHARE = 1e-9


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
        self._gradient = gradient
        face = self._face(matrix, factor, gradient, theta)
        return face.step(gradient, theta), face

    def _observed(
        self, gram: FloatArray, s: FloatArray, gradient: FloatArray, theta: FloatArray
    ) -> tuple[FloatArray, Cholesky | None]:
        matrix, factor = self._factor(gram, s)
        if factor is None:
            # Constraints may hold a mode where H is not positive definite. Along the face, where
            # the step goes, the walls change nothing.
            walls = Walls(Face(self.constraints, matrix, self.constraints.on_face(theta)), gradient)
            matrix, factor = walls.matrix, walls.factor
        return matrix, factor

    def _walls(self, matrix: FloatArray, face: Face | None) -> Walls | None:
        if face is None or self.family.log_concave:  # H is positive definite wherever the mode is
            return None
        return Walls(Face(self.constraints, matrix, face.active), self._gradient)

    def _escape(
        self, rho: FloatArray, theta: FloatArray, matrix: FloatArray, gradient: FloatArray
    ) -> FloatArray | None:
        along = self.constraints.basis[:, self.constraints.along(self._working)]
        step = super()._escape(rho, theta, along.T @ matrix @ along, gradient)
        assert step is not None
        step = along @ step
        if step @ matrix @ step < 0.0:
            return self.admissible(theta + step) - theta
        # On the face a minimum, but behind a barrier too low to hold it: beyond, P is lower.
        held = Face(self.constraints, matrix, self.constraints.on_face(theta))
        if not held.active.any():
            return None
        off = Walls(held, gradient).lowest_barrier()
        here = super().penalised_nll(rho, theta)
        for length in _BARRIERS:
            trial = self.admissible(theta + length * off)
            if super().penalised_nll(rho, trial) < here - 1e-9 * (1.0 + abs(here)):
                return trial - theta
        return None

    def evaluate(
        self, rho: FloatArray, theta: FloatArray, tol: float, max_cycles: int, gram: FloatArray | None = None
    ) -> Evaluation:
        at = super().evaluate(rho, theta, tol, max_cycles, gram)
        if at.is_finite and self.q:
            gradients = np.stack([at.gradient, *self._gradients_beyond(at)])
            shares = shares_of_least(gradients)
            at.gradient = shares @ gradients
            met = gradients[shares > _LEAST_SHARE]
            if len(met) > 1:
                at.kink = met[1:] - met[0]
        return at

    def _gradients_beyond(self, at: Evaluation) -> Iterator[FloatArray]:
        """Yield the gradients on the faces that some move of rho within `_KINK` leads to."""
        assert at.face is not None
        assert at.pull is not None
        constraints, matrix, active = self.constraints, at.face.matrix, at.face.active
        assert at.force is not None
        force = at.force
        room = np.where(active, at.face.multipliers(self._gradient), constraints.slack(at.theta))
        dual = constraints.basis[:, constraints.place].T @ (matrix @ at.tangent + force)
        change = np.where(active[:, None], dual, constraints.rows @ at.tangent)
        near = np.flatnonzero(room < _KINK * np.abs(change).sum(axis=1))
        own = 0.0 if at.walls is None else at.walls.gradient()
        for rows in [*near[:, None], near] if near.size > 1 else [near] * near.size:
            other = np.array(active)
            other[rows] = ~active[rows]
            face = Face(constraints, matrix, other)
            tangent = -face.solve(force)
            beyond = at.gradient - own + 0.5 * (tangent - at.tangent).T @ at.pull
            if at.walls is not None:
                walls = Walls(face, self._gradient)
                if walls.factor is None:
                    continue
                walls.move(tangent, force)
                beyond += walls.gradient()
            yield beyond

    def hessian(self, at: Evaluation) -> FloatArray:
        if at.hessian is not None:
            return at.hessian
        out = super().hessian(at)
        if at.walls is None:
            return out
        own, q = at.penalties.derivative(), np.arange(self.q)
        moved = np.array(at.moved).reshape(self.q, at.theta.size, at.theta.size)
        second = np.swapaxes(moved @ at.tangent, 1, 2) + np.einsum("pj,pi->ijp", own, at.tangent)
        second[q, q] += (own * at.theta[:, None]).T
        at.hessian = out + at.walls.hessian(moved, second)
        return at.hessian


class ConstrainedGaussian(_Constrained, GaussianReml):
    """Restricted likelihood at the constrained mode."""

    def _mode(self, matrix: FloatArray, factor: Cholesky, theta: FloatArray) -> tuple[FloatArray, Face | None]:
        face = self._face(matrix, factor, -self.moments.xwz, np.zeros(theta.size))
        return face.solve(self.moments.xwz), face

    def of(self, moments: Moments, columns: IntArray) -> GaussianReml:
        return ConstrainedGaussian(*self._arguments(moments, columns), constraints=self.constraints.of(columns))


def least_of_hull(gradients: FloatArray) -> FloatArray:
    """Return the shortest of all weighted means of the rows (k, q)."""
    return shares_of_least(gradients) @ gradients


def shares_of_least(gradients: FloatArray) -> FloatArray:
    """Return the weights (k,), with sum 1, of the shortest of all weighted means of the rows."""
    if len(gradients) == 1:
        return np.ones(1)
    # Weights that sum to 1, as a row that outweighs the others.
    weight = 1e4 * max(float(np.abs(gradients).max()), 1e-300)
    system = np.vstack([gradients.T, np.full(len(gradients), weight)])
    shares = nnls(system, np.append(np.zeros(gradients.shape[1]), weight))[0]
    out: FloatArray = shares / shares.sum()
    return out
