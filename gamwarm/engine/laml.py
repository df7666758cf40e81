"""The objective: Laplace approximate negative log marginal likelihood, with derivatives in rho.

With ``P(theta) = nll(theta) + theta' S theta / 2``, ``S = sum_j exp(rho_j) S_j``, theta the
minimiser of P and H its Hessian there, over p coefficients of which M are unpenalised::

    V(rho) = P(theta) + log|H| / 2 - log|S|_+ / 2 - M log(2 pi) / 2

A nuisance parameter of the family is an outer coordinate after those of rho, and to the derivative
tables one more predictor: it moves by 1 with its own coordinate and by 0 with the others, where a
predictor moves by ``X dtheta/drho``.

Penalties are diagonal (terms choose their reduced coordinates so), which keeps every trace free of
cancellation even where lambda is 1e6 times the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.cholesky import Cholesky, factorise
from gamwarm.engine.constraints import Face
from gamwarm.engine.design import Products
from gamwarm.engine.objective import LOG_2PI, Evaluation, Objective
from gamwarm.engine.penalty import DiagonalPenalties, Penalties
from gamwarm.engine.walls import Walls
from gamwarm.errors import FitFailed
from gamwarm.families import Etas, Family, Table
from gamwarm.fitting import ARMIJO

__all__ = ["Laml"]

# An old factor is used while it seems to converge in a few steps, each below half a formation.
_CHORD_REACH = 1.0
_CHORD_RATE = 0.3
_CHORD_STEPS = 3
_CHORD_MARGIN = 0.3
_MOST_INNER_HALVINGS = 40
# Of a nuisance parameter: 1 where it runs to infinity, of the size of outer_tol at an optimum.
_NUISANCE_STEP = 0.1
# Below it the objective is flat in a nuisance parameter, whatever its gradient rounds to.
_LEAST_CURVATURE = 1e-4
# Curvature over slope of P: 1 where the parameter runs to infinity.
_CLEARLY_CURVED = 2.0
# Of a log scale, below the null model's: a row with so little noise is fitted exactly.
_LOST_SCALE = 10.0
# A step compares its end point with its starting point, and the next one begins at one of them.
_POINTS = 3

_Point = tuple[list[FloatArray], float]


def _indices(rank: int, count: int) -> list[tuple[int, ...]]:
    return list(combinations_with_replacement(range(count), rank))


class Laml(Objective):
    """Objective of one case.

    Parameters
    ----------
    y, w, offset : arrays of shape (n,)
    products : Products
    family, penalties, null, names
        As in `Objective`.
    flat : sequence of float
        Each predictor of the null model, offset left out: the same number in every row. The
        nuisance parameters follow.
    constant : float
        The rows' part of the negative log-likelihood that no predictor enters.

    Attributes
    ----------
    reuse : bool
        Whether inner steps may use the factor of a Hessian formed before (the default), or Newton
        is plain.
    """

    reuse = True

    def __init__(
        self,
        family: Family,
        y: FloatArray,
        w: FloatArray,
        offset: FloatArray,
        products: Products,
        penalties: DiagonalPenalties,
        null: FloatArray,
        names: Sequence[str],
        flat: Sequence[float],
        constant: float,
    ) -> None:
        super().__init__(family, penalties, null, names, products.counters)
        self.y, self.offset = y, offset
        self.products = products
        self.constant, self.flat = constant, tuple(flat)
        self._predictors = range(len(family.predictors))
        self._every = range(len(family.predictors) + len(family.nuisance))
        self.origin[self.smoothing :] = self.flat[len(family.predictors) :]
        self.w = w

    @property
    def w(self) -> FloatArray:
        """Prior weights, of shape (n,); others may be set."""
        return self._w

    @w.setter
    def w(self, weights: FloatArray) -> None:
        self._w = weights
        self._points: dict[bytes, _Point] = {}
        self._null_nll: dict[bytes, float] = {}

    # -- the inner problem -------------------------------------------------------------------------

    def etas(self, rho: FloatArray, theta: FloatArray) -> list[FloatArray]:
        """Return the linear predictors, offset included, and the nuisance parameters."""
        etas = self.products.predict(theta)
        etas[0] = etas[0] + self.offset
        return etas + self._nuisance(rho)

    def _nuisance(self, rho: FloatArray) -> list[FloatArray]:
        return [np.full(1, value) for value in rho[self.smoothing :]]

    def penalised_nll(self, rho: FloatArray, theta: FloatArray) -> float:
        """Return P(theta), inf where it is not a number. No Hessian formation."""
        if not np.isfinite(theta).all():
            return np.inf
        nll = self._nll_of_null(rho) if theta is self.null else self._at(rho, theta)[1]
        value = nll + 0.5 * float(self.penalties.at(rho).diagonal @ theta**2)
        return value if np.isfinite(value) else np.inf

    def _at(self, rho: FloatArray, theta: FloatArray) -> _Point:
        """Return predictors and negative log-likelihood; those of the last few theta are known."""
        key = self._key(rho, theta)
        point = self._points.get(key)
        if point is None:
            etas = self.etas(rho, theta)
            point = etas, self.family.nll(self.y, self.w, etas)
            self._remember(key, point)
        return point

    def _exact_rows(self, etas: list[FloatArray]) -> str:
        """Say that the scale of some rows tends to 0, empty if it does not."""
        for name, values, flat in zip(self.family.predictors, etas, self.flat, strict=False):
            lost = np.flatnonzero(values < flat - _LOST_SCALE) if name == "scale" else ()
            if len(lost):
                return (
                    f"the scale of {len(lost)} of {self.y.shape[0]} rows tends to 0, as terms of 'mean' can fit them "
                    "exactly: merge levels of 'scale', or drop a term of either"
                )
        return ""

    def _remember(self, key: bytes, point: _Point) -> None:
        self._points[key] = point
        if len(self._points) > _POINTS:
            del self._points[next(iter(self._points))]

    def _key(self, rho: FloatArray, theta: FloatArray) -> bytes:
        return theta.tobytes() + rho[self.smoothing :].tobytes()

    def _nll_of_null(self, rho: FloatArray) -> float:
        key = rho[self.smoothing :].tobytes()
        if key not in self._null_nll:
            etas = [np.full(1, value) for value in self.flat[: len(self._predictors)]]
            if self.offset.any():
                etas[0] = etas[0] + self.offset
            self._null_nll = {key: self.family.nll(self.y, self.w, etas + self._nuisance(rho))}
        return self._null_nll[key]

    def log_likelihood(self, at: Evaluation) -> float:
        return -at.nll - self.constant

    def information(self, theta: FloatArray) -> FloatArray:
        etas = self.etas(self.origin, theta)
        return self.products.gram(self.family.expected(self.y, self.w, etas))  # type: ignore[arg-type]

    def _observed(
        self, gram: FloatArray, s: FloatArray, gradient: FloatArray, theta: FloatArray
    ) -> tuple[FloatArray, Cholesky | None]:
        """Return the Hessian for a Newton step from ``theta``, and its factor."""
        return self._factor(gram, s)

    def _walls(self, matrix: FloatArray, face: Face | None) -> Walls | None:
        """Return what active constraints add to a Hessian at the mode."""
        return None

    def admissible(self, theta: FloatArray) -> FloatArray:
        """Return coefficients from which the inner solve may begin: ``theta``, or near it."""
        return theta

    def _newton(
        self, matrix: FloatArray, factor: Cholesky, gradient: FloatArray, theta: FloatArray
    ) -> tuple[FloatArray, Face | None]:
        """Return the Newton step, and the face of the feasible coefficients that it leads to.

        ``factor`` is that of ``matrix``, the penalized Hessian here or near here.
        """
        return -factor.solve(gradient), None

    @staticmethod
    def _factor(gram: FloatArray, s: FloatArray) -> tuple[FloatArray, Cholesky | None]:
        matrix = np.array(gram)
        np.einsum("ii->i", matrix)[:] += s
        return matrix, factorise(matrix)

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(
        self, rho: FloatArray, theta: FloatArray, tol: float, max_cycles: int, gram: FloatArray | None = None
    ) -> Evaluation:
        """Minimise P at ``rho`` from ``theta`` and return the objective there.

        ``tol`` bounds the Newton decrement ``sqrt(g' H^-1 g)``. The coefficients returned are those
        at which the test passed, unmoved, so that a fit restored at its own answer returns it bit
        for bit; the objective is corrected to first order for the step that was not taken. A
        failure is an infinite value, not an exception.

        Between formations of H, steps reuse the last factor as long as they converge fast;
        ``gram`` (p, p), X'WX near here, gives the first such factor. Only an H formed at the point
        itself passes the test.
        """
        self.counters.evaluations += 1
        penalties = self.penalties.at(rho)
        s = penalties.diagonal
        theta = np.array(self.admissible(theta))
        etas, nll = self._at(rho, theta)
        objective = nll + 0.5 * float(s @ theta**2)
        if not np.isfinite(objective):
            theta, gram = np.array(self.null), None
            etas, nll = self._at(rho, theta)
            objective = nll + 0.5 * float(s @ theta**2)
        cycles = 0
        matrix, reused = self._factor(gram, s) if gram is not None and self.reuse else (None, None)
        reached, before = np.inf, np.inf
        while True:
            tables = self.family.derivatives(self.y, self.w, etas, (1,))
            gradient = self.products.adjoint(self._rows(tables[1])) + s * theta
            self.counters.inner_iterations += 1
            cycles += 1
            observed, chord = True, False
            factor = None
            if reused is not None:
                assert matrix is not None
                step, face = self._newton(matrix, reused, gradient, theta)
                reached, before = float(np.sqrt(max(-float(gradient @ step), 0.0))), reached
                if self._worth_a_chord(reached, before, tol) and cycles < max_cycles:
                    factor, decrement, chord = reused, reached, True
            if factor is None:
                second = self.family.derivatives(self.y, self.w, etas, (2,))[2]
                gram = self.products.gram(second)  # type: ignore[arg-type]
                matrix, factor = self._observed(gram, s, gradient, theta)
                observed = factor is not None
                if factor is None:
                    expected = self.family.expected(self.y, self.w, etas)
                    matrix, factor = self._factor(self.products.gram(expected), s)  # type: ignore[arg-type]
                    if factor is None:
                        # At an extreme rho this says nothing of the model: the search turns back,
                        # and only a start that fails so is the end of a fit.
                        why = self._exact_rows(etas) or self._singular_message(matrix)
                        return self._failed(rho, theta, cycles, why)
                step, face = self._newton(matrix, factor, gradient, theta)
                decrement = float(np.sqrt(max(-float(gradient @ step), 0.0)))
                if not np.isfinite(decrement):
                    return self._failed(rho, theta, cycles, self.family.degeneracy(self.y, self.w, etas))
                settled = face is None or face.holds(theta)
                if observed and decrement <= tol and settled:
                    return self._assemble(
                        rho, theta, etas, nll, step, decrement, cycles, factor, penalties, gram, True, face
                    )
                if cycles >= max_cycles:
                    if not observed:
                        return self._failed(rho, theta, cycles, self.family.degeneracy(self.y, self.w, etas))
                    return self._assemble(
                        rho, theta, etas, nll, step, decrement, cycles, factor, penalties, gram, False, face
                    )
                if not observed and decrement <= tol:
                    # Not a minimum: leave it along the most negative curvature.
                    whole = self._factor(self.products.gram(second), s)[0]  # type: ignore[arg-type]
                    escape = self._escape(rho, theta, whole, gradient)
                    if escape is None:
                        return self._failed(rho, theta, cycles, self._held_message(whole))
                    step = escape
                reused = factor if observed and self.reuse else None
                reached, before = decrement, np.inf
            slack = 1e-13 * (1.0 + abs(objective))
            length = 1.0
            for _ in range(_MOST_INNER_HALVINGS):
                trial = theta + length * step
                trial_etas = self.etas(rho, trial)
                trial_nll = self.family.nll(self.y, self.w, trial_etas)
                value = trial_nll + 0.5 * float(s @ trial**2)
                if value <= objective - ARMIJO * length * decrement**2 + slack:
                    break
                length *= 0.5
            else:
                if chord:
                    reused = None
                    continue
                if observed and decrement < 1e-3:
                    # The objective's own rounding hides any further progress: the mode is reached.
                    return self._assemble(
                        rho, theta, etas, nll, step, decrement, cycles, factor, penalties, gram, settled, face
                    )
                return self._failed(rho, theta, cycles, self.family.degeneracy(self.y, self.w, etas))
            if length < 1.0:
                reused = None
            theta, etas, nll, objective = trial, trial_etas, trial_nll, value

    @staticmethod
    def _worth_a_chord(reached: float, before: float, tol: float) -> bool:
        """Whether a step with an old factor (decrement ``before`` to ``reached``) beats a new H."""
        if not tol * _CHORD_MARGIN < reached < _CHORD_REACH:
            return False
        if before == np.inf:
            return True
        rate = reached / before
        return rate < _CHORD_RATE and reached * rate**_CHORD_STEPS < tol

    def _rows(self, table: Table, *more: int) -> list[FloatArray]:
        """Return a table's entries for each predictor and ``more``; zeros where missing."""
        found = [table.get(tuple(sorted((k, *more)))) for k in self._predictors]
        return [np.zeros(self.products.n) if rows is None else rows for rows in found]

    def tables(self, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        """Return derivative tables over predictors and nuisance parameters."""
        tables = self.family.derivatives(self.y, self.w, etas, orders)
        if not self.family.nuisance:
            return tables
        rest = self.family.nuisance_derivatives(self.y, self.w, etas, orders)
        return {order: {**tables[order], **rest[order]} for order in orders}

    def _nuisance_places(self) -> Iterator[tuple[int, int]]:
        """Yield outer coordinate and number in the derivative tables of each nuisance parameter."""
        return zip(range(self.smoothing, self.q), range(len(self._predictors), len(self._every)), strict=True)

    def moves(self, at: Evaluation) -> list[FloatArray]:
        """Return how predictors (n, q) and nuisance parameters (1, q) move with the outer
        coordinates.
        """
        return [*self.products.predict(at.tangent), *np.eye(self.q)[self.smoothing :, None]]

    def _escape(
        self, rho: FloatArray, theta: FloatArray, matrix: FloatArray, gradient: FloatArray
    ) -> FloatArray | None:
        """Return a step off a point that is flat and no minimum; None if there is none to be had.

        ``matrix`` is the Hessian of P there: the step follows its most negative curvature.
        """
        scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(matrix)), 1e-300))
        _, vectors = np.linalg.eigh(scale[:, None] * matrix * scale)
        direction: FloatArray = scale * vectors[:, 0]
        return direction

    # -- the outer objective -----------------------------------------------------------------------

    def _assemble(
        self,
        rho: FloatArray,
        theta: FloatArray,
        etas: list[FloatArray],
        nll: float,
        step: FloatArray,
        decrement: float,
        cycles: int,
        factor: Cholesky,
        penalties: Penalties,
        gram: FloatArray | None,
        converged: bool,
        face: Face | None,
    ) -> Evaluation:
        self._remember(self._key(rho, theta), (etas, nll))
        assert gram is not None
        walls = None if face is None else self._walls(gram + np.diag(penalties.diagonal), face)
        if walls is not None:
            if walls.factor is None:
                return self._failed(rho, theta, cycles, self._held_message(walls.matrix))
            factor = walls.factor
        unsafe = self.family.degeneracy(self.y, self.w, etas)
        unsafe = unsafe or self._nearly_singular(gram, penalties.diagonal, factor)
        if unsafe:
            return self._failed(rho, theta, cycles, unsafe)
        inverse = factor.inverse()
        pairs = [(i[0], i[1]) for i in _indices(2, len(self._predictors))]
        leverage = self.products.leverages(inverse, pairs)
        tables = self.tables(etas, (1, 2, 3))
        third = tables[3]
        curve = self._contract_third(leverage, third)
        pull = self.products.adjoint(curve[: len(self._predictors)])
        force = penalties.derivative() * theta[:, None]
        for j, nuisance in self._nuisance_places():
            force[:, j] = self.products.adjoint(self._rows(tables[2], nuisance))
        tangent = -(factor if face is None else face).solve(force)
        penalty_by = penalties.sums(theta**2)
        edf = penalties.log_det_gradient - penalties.sums(np.diagonal(inverse))
        gradient = 0.5 * penalty_by - 0.5 * edf + 0.5 * (tangent.T @ pull)
        for j, nuisance in self._nuisance_places():
            gradient[j] += float(tables[1][(nuisance,)].sum()) + 0.5 * float(curve[nuisance].sum())
        penalty = 0.5 * (float(penalty_by.sum()) + float(self.penalties.fixed @ theta**2))
        correction = 0.5 * float(pull @ step) - 0.5 * decrement**2
        if walls is not None:
            walls.move(tangent, force)
            gradient += walls.gradient()
            correction += walls.along(step)
        constant = self.constant - 0.5 * self.penalties.unpenalised * LOG_2PI
        value = nll + penalty + constant + 0.5 * factor.logdet - 0.5 * penalties.log_det + correction
        return Evaluation(
            np.array(rho),
            theta,
            value,
            gradient,
            edf,
            tangent,
            nll,
            penalty,
            decrement,
            cycles,
            converged,
            penalties,
            factor,
            etas,
            inverse,
            third,
            leverage,
            pull,
            gram=gram,
            step=step,
            force=force,
            face=face,
            walls=walls,
        )

    def newton_changes(self, at: Evaluation, columns: slice) -> float:
        assert at.step is not None
        part = np.zeros(at.step.size)
        part[columns] = at.step[columns]
        changes = self.products.predict(part)
        largest = 0.0
        relative = self.family.relative_changes(self.y, at.etas, changes)
        for name, change in zip(self.family.predictors, relative, strict=True):
            size = float(np.abs(change).max(initial=0.0))
            largest = max(largest, size / self._spread if name in self.family.response_units else size)
        return largest

    def objection(self, at: Evaluation) -> str:
        """Say which nuisance parameter still moves by a Newton step of its own: it has no finite
        optimum.

        Towards its limit the objective is ``V_inf + c exp(-|tau|)``, and so are its two parts, P
        and log|H| / 2: gradient and curvature vanish together and the step stays 1. Where P curves
        by more than twice its slope this is not so; elsewhere the outer Hessian decides.
        """
        if not self.family.nuisance:
            return ""
        tables = self.tables(at.etas, (1, 2))
        for (j, nuisance), name in zip(self._nuisance_places(), self.family.nuisance, strict=True):
            least = max(abs(float(at.gradient[j])) / _NUISANCE_STEP, _LEAST_CURVATURE)
            slope = abs(float(tables[1][(nuisance,)].sum()))
            curvature = float(tables[2][nuisance, nuisance].sum())
            curvature += float(self.products.adjoint(self._rows(tables[2], nuisance)) @ at.tangent[:, j])
            if curvature > max(_CLEARLY_CURVED * slope, least):
                continue
            curvature = float(self.hessian(at)[j, j])
            if not curvature > least:
                fall = abs(float(at.gradient[j]))
                return (
                    f"at {name!r} = {at.rho[j]:.4g} the objective curves by {curvature:.2g} and falls by {fall:.2g}, "
                    f"as it does where it has no minimum: {self.family.nuisance_advice}"
                )
        return ""

    @cached_property
    def _spread(self) -> float:
        """Standard deviation of the response."""
        centre = float(self.w @ self.y / self.w.sum())
        return max(float(np.sqrt(self.w @ (self.y - centre) ** 2 / self.w.sum())), 1e-300)

    def _contract_third(self, leverage: Mapping[tuple[int, int], FloatArray], third: Table) -> list[FloatArray]:
        """Per predictor and nuisance parameter m: sum over (k, l) of leverage_kl d3_klm."""
        out = [np.zeros(self.products.n) for _ in self._every]
        for m in self._every:
            for (k, level), lev in leverage.items():
                d = third.get(tuple(sorted((k, level, m))))
                if d is not None:
                    out[m] += (1.0 if k == level else 2.0) * lev * d
        return out

    def hessian(self, at: Evaluation) -> FloatArray:
        """Return the outer Hessian at an evaluation, (q, q): one formation per outer coordinate."""
        if at.hessian is not None:
            return at.hessian
        if at.factor is None or at.inverse is None or at.pull is None:
            raise FitFailed("no outer Hessian at a point where the objective is not finite")
        q, penalties = self.q, at.penalties
        own = penalties.derivative()
        moves = self.moves(at)
        moved = []
        for j in range(q):
            weights: Table = {}
            for k, level in _indices(2, len(self._predictors)):
                total: FloatArray | None = None
                for m in self._every:
                    d = at.third.get(tuple(sorted((k, level, m))))
                    if d is not None:
                        part = d * moves[m][:, j]
                        total = part if total is None else total + part
                if total is not None:
                    weights[k, level] = total
            matrix = self.products.gram(weights)  # type: ignore[arg-type]
            np.einsum("ii->i", matrix)[:] += own[:, j]
            moved.append(matrix)
        solved = [at.inverse @ matrix for matrix in moved]
        fourth = self._contract_fourth(at, moves)
        back = at.mode_inverse @ at.pull
        force = own * at.theta[:, None]
        direct = self._nuisance_terms(at, moves, back)
        penalty_by = penalties.sums(at.theta**2)
        shrinkage = penalties.sums(np.diagonal(at.inverse))
        out = -0.5 * penalties.log_det_hessian()
        for j in range(q):
            for i in range(j + 1):
                second = moved[i] @ at.tangent[:, j] + own[:, j] * at.tangent[:, i]
                if i == j:
                    second = second + force[:, j]
                value = float(force[:, j] @ at.tangent[:, i]) - 0.5 * float(np.sum(solved[i] * solved[j].T))
                value += float(direct[i, j])
                value += 0.5 * float(fourth[i, j]) - 0.5 * float(back @ second)
                if i == j:
                    value += 0.5 * float(penalty_by[j]) + 0.5 * float(shrinkage[j])
                out[i, j] = out[j, i] = out[i, j] + value
        at.hessian, at.moved = out, moved
        return out

    def _nuisance_terms(self, at: Evaluation, moves: Etas, back: FloatArray) -> FloatArray:
        """Return what the outer Hessian (q, q) has for nuisance coordinates j and any i <= j: the
        likelihood's direct derivatives, and those of the force on theta along ``back``.
        """
        out = np.zeros((self.q, self.q))
        along = self.products.predict(back) if self.family.nuisance else []
        second = self.tables(at.etas, (2,))[2] if self.family.nuisance else {}
        for j, nuisance in self._nuisance_places():
            for k in self._predictors:
                pull = second.get((k, nuisance))
                if pull is not None:
                    out[:, j] += pull @ moves[k]
                for m in self._every:
                    d = at.third.get(tuple(sorted((k, nuisance, m))))
                    if d is not None:
                        out[:, j] -= 0.5 * ((d * along[k]) @ np.broadcast_to(moves[m], (self.products.n, self.q)))
            for i, other in self._nuisance_places():
                d = second.get(tuple(sorted((nuisance, other))))
                if d is not None:
                    out[i, j] += float(d.sum())
        return out

    def _contract_fourth(self, at: Evaluation, moves: Etas) -> FloatArray:
        fourth = self.tables(at.etas, (4,))[4]
        out = np.zeros((self.q, self.q))
        for m in self._every:
            for o in self._every:
                rows: FloatArray | None = None
                for (k, level), lev in at.leverage.items():
                    d = fourth.get(tuple(sorted((k, level, m, o))))
                    if d is not None:
                        part = (1.0 if k == level else 2.0) * lev * d
                        rows = part if rows is None else rows + part
                if rows is not None:
                    out += np.broadcast_to(moves[m], (rows.size, self.q)).T @ (rows[:, None] * moves[o])
        return out
