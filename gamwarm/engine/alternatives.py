"""Other minima of the outer objective, looked for on a quadratic model of the likelihood.

Smoothing parameters of one term that overlap (the margins of a surface, a curve and its null space)
can be traded for each other, and one that several curves share chooses between wiggly curves and
none: there the objective may have several minima. With the likelihood replaced by its quadratic
model at an answer the objective is known everywhere without a Hessian formation. The model of a
Gaussian likelihood is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gamwarm.engine.arrays import FloatArray, IntArray
from gamwarm.engine.cholesky import factorise
from gamwarm.engine.constraints import Face
from gamwarm.engine.gaussian import GaussianReml
from gamwarm.engine.objective import Evaluation, Objective

__all__ = ["alternatives"]

# Of log lambda: little changes beyond either end.
_GRID = np.arange(-4.0, 17.0, 2.0)
# A minimum of the grid is looked at more closely twice, at these distances.
_CLOSER = (0.8, 0.3)
_AROUND = np.arange(-2.0, 3.0)
# Two minima lie further apart than this.
_APART = 1.0
# Wider terms are left out: a determinant at each point would take longer than the fit.
_MOST_COLUMNS = 150
# Of the objective: what the other smoothing parameters may gain once these have moved.
_GAIN = 0.5
# Another minimum is lower by at least this.
_LOWER = 1e-4
_UPDATES = 12
# Fellner-Schall steps are too short where penalties overlap.
_STRETCH, _MAX_MOVE = 1.5, 4.0

Profile = Callable[[FloatArray], FloatArray]


def alternatives(
    laml: Objective, at: Evaluation, blocks: Sequence[slice], bound: float
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield at most one rho (q,) where the objective should be lower than at an answer, with
    coefficients (p,) near the mode there.

    Parameters
    ----------
    laml : Objective
    at : Evaluation
        The answer.
    blocks : sequence of slice
        The coefficients of each block.
    bound : float
        Of smoothing parameters.
    """
    choices = _choices(laml, blocks)
    model = _Quadratic(laml, at, bound) if choices else None
    places = [rho for slots in choices for rho in model.minima(slots)] if model else []
    if model is None or not places:
        return
    here = model.settled(at.rho)[0]
    value, rho, theta = min(map(model.settled, places), key=lambda each: each[0])
    if value < here - _LOWER:
        yield rho, theta


def _choices(laml: Objective, blocks: Sequence[slice]) -> list[IntArray]:
    """Return the smoothing parameters to look at: pairs that overlap, and those of many blocks."""
    penalties = laml.penalties
    pairs = {(j, k) for j, k in penalties.overlaps if j < k}
    ends = [columns.stop for columns in blocks]
    used = np.unique(np.stack([penalties.slots, np.searchsorted(ends, penalties.columns, "right")]), axis=1)[0]
    shared = {int(j) for j in np.flatnonzero(np.bincount(used) > 1)} - {j for pair in pairs for j in pair}
    return [np.array(each, dtype=np.intp) for each in [*sorted(pairs), *([j] for j in sorted(shared))]]


class _Quadratic:
    """The objective with the likelihood replaced by its quadratic model at an answer; of a model
    with constraints, on its face.
    """

    def __init__(self, laml: Objective, at: Evaluation, bound: float) -> None:
        assert at.gram is not None
        self.laml, self.at, self.gram = laml, at, at.gram
        self.limits = np.where(np.arange(laml.q) < laml.smoothing, bound, np.inf)
        self.freedom = laml.freedom if isinstance(laml, GaussianReml) else None
        self.shift = laml.shift if isinstance(laml, GaussianReml) else np.zeros(laml.penalties.p)
        mode = at.theta - self.shift
        self.pull = self.gram @ mode + at.penalties.diagonal * mode
        twice = 2.0 * (at.nll + at.penalty) if self.freedom is None else at.scale * self.freedom
        self.constant = twice + float(self.pull @ mode)

    def settled(self, rho: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the lowest value near ``rho``, with its rho and mode, by Fellner-Schall updates
        (Wood and Fasiolo 2017).
        """
        best = (np.inf, rho, self.at.theta)
        for _ in range(_UPDATES):
            value, step, theta = self._at(rho)
            if not value < best[0] - 1e-2 * _LOWER:
                break
            best = value, rho, theta
            rho = np.clip(rho + np.clip(_STRETCH * step, -_MAX_MOVE, _MAX_MOVE), -self.limits, self.limits)
        return best

    def _at(self, rho: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return value, step in rho and mode."""
        penalties = self.laml.penalties.at(rho)
        matrix = self.gram + np.diag(penalties.diagonal)
        factor = factorise(matrix)
        if factor is None:
            return np.inf, np.zeros(rho.size), self.at.theta
        face = self.at.face
        mode = factor.solve(self.pull) if face is None else self._onto(face, matrix)
        twice, scale = self.constant - float(self.pull @ mode), 1.0
        fit = 0.5 * twice
        if self.freedom is not None:
            scale = max(twice, 1e-300) / self.freedom
            fit = 0.5 * self.freedom * float(np.log(scale))
        edf = penalties.log_det_gradient - penalties.sums(np.diagonal(factor.inverse()))
        least = 1e-10
        step = np.log(np.maximum(edf, least)) - np.log(np.maximum(penalties.sums(mode**2) / scale, least))
        return fit + 0.5 * factor.logdet - 0.5 * penalties.log_det, step, mode + self.shift

    def _onto(self, face: Face, matrix: FloatArray) -> FloatArray:
        return Face(face.constraints, matrix, face.active).solve(self.pull)

    def minima(self, slots: IntArray) -> Iterator[FloatArray]:
        """Yield rho at the minima in some smoothing parameters, the others as they are, but for the
        minimum at hand.
        """
        profile = self._profile(slots)
        if profile is None:
            return
        here, d = self.at.rho[slots], slots.size
        grid = np.unique(np.clip(_GRID, -self.limits[0], self.limits[0]))
        mesh = _mesh(grid, d)
        values = profile(mesh.reshape(-1, d)).reshape(mesh.shape[:-1])
        padded = np.pad(values, 1, constant_values=np.inf)
        ways = [way for way in np.ndindex(*[3] * d) if any(step != 1 for step in way)]
        around = np.stack([padded[tuple(slice(o, o + grid.size) for o in way)] for way in ways])
        lowest = values <= around.min(axis=0)
        own = tuple(int(np.abs(grid - x).argmin()) for x in here)
        while not lowest[own]:
            way = ways[int(np.argmin([layer[own] for layer in around]))]
            own = tuple(place + step - 1 for place, step in zip(own, way, strict=True))
        for place in map(tuple, np.argwhere(lowest & np.isfinite(values))):
            point, value = mesh[place], float(values[place])
            for distance in _CLOSER:
                near = point + distance * _mesh(_AROUND, d).reshape(-1, d)
                found = profile(near)
                point, value = near[found.argmin()], float(found.min())
            # The grid may not tell two near minima apart.
            limit = _GAIN if place != own else -_LOWER
            if value < limit and np.abs(point - here).max() > _APART:
                rho = np.array(self.at.rho)
                rho[slots] = point
                yield np.clip(rho, -self.limits, self.limits)

    def _profile(self, slots: IntArray) -> Profile | None:
        """Return the objective, less its value at hand, as a function of points (g, d) in some
        smoothing parameters.
        """
        at, derivative = self.at, self.at.penalties.derivative()
        columns = np.flatnonzero(derivative[:, slots].any(axis=1))
        if at.inverse is None or not 0 < columns.size <= _MOST_COLUMNS:
            return None
        own, here = derivative[np.ix_(columns, slots)].T, at.rho[slots]
        rest = np.delete(derivative[columns], slots, axis=1).sum(axis=1) + self.laml.penalties.fixed[columns]
        before, theta = at.penalties.diagonal[columns], at.theta[columns]
        inverse, response = at.inverse[np.ix_(columns, columns)], at.mode_inverse[np.ix_(columns, columns)]

        def profile(points: FloatArray) -> FloatArray:
            diagonal = np.exp(points - here) @ own + rest
            change = diagonal - before
            unit = np.eye(columns.size)
            sign, log = np.linalg.slogdet(unit + inverse * change[:, None, :])
            moved = np.linalg.solve(unit + response * change[:, None, :], np.tile(theta[:, None], (len(points), 1, 1)))
            rise = ((theta * change) * moved[..., 0]).sum(axis=1)
            if self.freedom is not None:
                rise = self.freedom * np.log1p(np.maximum(rise / (at.scale * self.freedom), -1.0 + 1e-12))
            value = 0.5 * (rise + log - np.log(diagonal / before).sum(axis=1))
            return np.where((sign > 0.0) & np.isfinite(value), value, np.inf)

        return profile


def _mesh(grid: FloatArray, d: int) -> FloatArray:
    """Return all points with coordinates of the grid, of shape (g, …, g, d)."""
    return np.stack(np.meshgrid(*[grid] * d, indexing="ij"), axis=-1)
