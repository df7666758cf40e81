"""Linear inequalities on coefficients, ``A theta >= 0``, and the faces on which some hold with
equality.

The rows of A are linearly independent, block by block, so that a basis B of the coefficients exists
with ``A B = [I 0]``: on a face some coordinates of it are 0, and exactly so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from gamwarm.engine.active_set import minimize_over_orthant
from gamwarm.engine.arrays import BoolArray, FloatArray, IntArray
from gamwarm.engine.cholesky import Cholesky, factorise

__all__ = ["Constraints", "Face"]

# A row within this part of what its block's coefficients could give is 0 to rounding, or within
# this part of what the largest coefficient of all could: a block may be all noise around 0.
_ON_FACE, _NOISE = 1e-10, 1e-14


class Constraints:
    """The inequalities of one fit.

    Parameters
    ----------
    p : int
        Coefficients.
    blocks : sequence of (columns, rows)
        Per constrained block, where its coefficients are and its rows of A, (m, width), m at most
        the width.

    Attributes
    ----------
    rows : array of shape (m, p)
        A, the blocks' rows one after the other.
    block : array of int of shape (m,)
        Position in ``blocks`` of each row.
    """

    def __init__(self, p: int, blocks: Sequence[tuple[slice, FloatArray]]) -> None:
        self.p = p
        self.columns = [columns for columns, _ in blocks]
        counts = [rows.shape[0] for _, rows in blocks]
        self.block: IntArray = np.repeat(np.arange(len(blocks)), counts)
        self.rows = np.zeros((sum(counts), p))
        basis = np.eye(p)
        # Coordinates in the basis: column i of it is the i-th coefficient's, or a row's.
        place, start = [], 0
        for columns, rows in blocks:
            m = rows.shape[0]
            self.rows[start : start + m, columns] = rows
            complement = np.linalg.qr(rows.T, mode="complete")[0][:, m:].T
            basis[columns, columns] = np.linalg.inv(np.vstack([rows, complement]))
            place.append(np.arange(columns.start, columns.start + m))
            start += m
        self.basis: FloatArray = basis
        self.place: IntArray = np.concatenate([np.zeros(0, dtype=np.intp), *place])
        self._reach = np.abs(self.rows).sum(axis=1)

    def of(self, columns: IntArray) -> Constraints:
        """Return the inequalities on some of the coefficients (ascending): of the blocks that are
        still there.
        """
        blocks = []
        for b, old in enumerate(self.columns):
            start, stop = np.searchsorted(columns, [old.start, old.stop]).tolist()
            if stop - start == old.stop - old.start:
                blocks.append((slice(start, stop), self.rows[self.block == b][:, old]))
        return Constraints(columns.size, blocks)

    def sets_of(self, active: BoolArray, blocks: Sequence[slice]) -> list[IntArray | None]:
        """Return the numbers of the active rows of each of the fit's blocks, by its columns."""
        numbers = [np.flatnonzero(active[self.block == b]) for b in range(len(self.columns))]
        return [numbers[self.columns.index(block)] if block in self.columns else None for block in blocks]

    def mask_of(self, sets: Sequence[Sequence[int] | None], blocks: Sequence[slice]) -> BoolArray:
        """Return which rows (m,) have these numbers, per block; numbers of no row are left out."""
        out = np.zeros(self.m, dtype=np.bool_)
        for rows, block in zip(sets, blocks, strict=True):
            if rows is not None and block in self.columns:
                own = np.flatnonzero(self.block == self.columns.index(block))
                out[own] = np.isin(np.arange(own.size), rows)
        return out

    @property
    def m(self) -> int:
        """Number of rows."""
        return int(self.rows.shape[0])

    def slack(self, theta: FloatArray) -> FloatArray:
        """Return A theta, of shape (m,)."""
        out: FloatArray = self.rows @ theta
        return out

    def rounding(self, theta: FloatArray) -> FloatArray:
        """Return, per row, what counts as 0 at these coefficients, of shape (m,)."""
        sizes = np.array([np.abs(theta[columns]).max(initial=0.0) for columns in self.columns])
        floor = _NOISE * float(np.abs(theta).max(initial=0.0))
        out: FloatArray = self._reach * np.maximum(_ON_FACE * sizes, floor)[self.block]
        return out

    def on_face(self, theta: FloatArray) -> BoolArray:
        """Return which rows hold with equality, to rounding, of shape (m,)."""
        held: BoolArray = self.slack(theta) <= self.rounding(theta)
        return held

    def nearest(self, theta: FloatArray) -> FloatArray:
        """Return ``theta`` where it is feasible, itself, else with its negative rows made 0."""
        slack = self.slack(theta)
        if (slack >= -self.rounding(theta)).all():
            return theta
        moved: FloatArray = theta - self.basis[:, self.place] @ np.minimum(slack, 0.0)
        return moved

    def along(self, active: BoolArray) -> BoolArray:
        """Return the columns of the basis (p,) along which these rows stay unchanged."""
        kept = np.ones(self.p, dtype=np.bool_)
        kept[self.place[active]] = False
        return kept

    def from_basis(self, columns: FloatArray) -> FloatArray:
        """Return ``B columns``, of shape (p,) or (p, q), block by block."""
        out = np.array(columns)
        for block in self.columns:
            out[block] = self.basis[block, block] @ columns[block]
        return out

    def to_basis(self, columns: FloatArray) -> FloatArray:
        """Return ``B' columns``, of shape (p,) or (p, q)."""
        out = np.array(columns)
        for block in self.columns:
            out[block] = self.basis[block, block].T @ columns[block]
        return out

    def newton_face(
        self, matrix: FloatArray, factor: Cholesky, gradient: FloatArray, theta: FloatArray, working: BoolArray
    ) -> Face:
        """Return the face on which a quadratic model has its feasible minimum.

        Parameters
        ----------
        matrix : array of shape (p, p)
            The model's Hessian, ``factor`` its factor.
        gradient : array of shape (p,)
            The model's, at ``theta``.
        working : array of bool of shape (m,)
            Rows taken to be active at first.
        """
        unbounded = theta - factor.solve(gradient)
        target = self.slack(unbounded)
        if (target >= -self.rounding(unbounded)).all():
            return Face(self, matrix, np.zeros(self.m, dtype=np.bool_), factor)
        active = minimize_over_orthant(self.rows @ factor.solve(self.rows.T), -target, working)[1]
        while True:
            face = Face(self, matrix, active, factor)
            end = theta + face.step(gradient, theta)
            left = ~active & (self.slack(end) < -self.rounding(end))
            if not left.any():
                return face
            active = active | left  # the multipliers' rounding hid them


class Face:
    """The coefficients at which some rows are 0, with a quadratic model's Hessian on it.

    Parameters
    ----------
    constraints : Constraints
    matrix : array of shape (p, p)
    active : array of bool of shape (m,)
        Rows that are 0 here.
    whole : Cholesky, optional
        Factor of ``matrix``, where it is known.
    """

    def __init__(
        self, constraints: Constraints, matrix: FloatArray, active: BoolArray, whole: Cholesky | None = None
    ) -> None:
        self.constraints, self.matrix, self.active, self._whole = constraints, matrix, active, whole

    @cached_property
    def _parts(self) -> tuple[BoolArray, Cholesky | None]:
        """Which columns of the basis lie in the face (p,), and the factor of the Hessian there."""
        kept, constraints = self.constraints.along(self.active), self.constraints
        return kept, factorise(constraints.to_basis(constraints.to_basis(self.matrix).T)[np.ix_(kept, kept)])

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Return ``Z (Z'HZ)^-1 Z' rhs`` for directions Z in the face, of rhs's shape."""
        if self._whole is not None and not self.active.any():
            return self._whole.solve(rhs)
        kept, factor = self._parts
        if factor is None:  # the whole is positive definite, so this is its rounding
            return np.zeros(rhs.shape)
        inside = np.zeros(rhs.shape)
        inside[kept] = factor.solve(self.constraints.to_basis(rhs)[kept])
        return self.constraints.from_basis(inside)

    @cached_property
    def inverse(self) -> FloatArray:
        """``Z (Z'HZ)^-1 Z'``, of shape (p, p)."""
        if self._whole is not None and not self.active.any():
            return self._whole.inverse()
        kept, factor = self._parts
        inside = np.zeros(self.matrix.shape)
        if factor is not None:
            inside[np.ix_(kept, kept)] = factor.inverse()
        return self.constraints.from_basis(self.constraints.from_basis(inside).T)

    def step(self, gradient: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the Newton step from ``theta`` onto the face and to the minimum there."""
        if not self.active.any():
            return -self.solve(gradient)
        onto = self.onto(theta)
        return onto - self.solve(gradient + self.matrix @ onto)

    def onto(self, theta: FloatArray) -> FloatArray:
        """Return the step that makes the active rows 0 and leaves the others unchanged."""
        place = self.constraints.place[self.active]
        out: FloatArray = -self.constraints.basis[:, place] @ self.constraints.slack(theta)[self.active]
        return out

    def multipliers(self, gradient: FloatArray) -> FloatArray:
        """Return the multipliers of all rows at a minimum with this gradient, of shape (m,)."""
        out: FloatArray = np.where(self.active, self.constraints.basis[:, self.constraints.place].T @ gradient, 0.0)
        return out

    def holds(self, theta: FloatArray) -> bool:
        """Whether the active rows are 0 at ``theta``, and no row is negative, to rounding."""
        slack, rounding = self.constraints.slack(theta), self.constraints.rounding(theta)
        return bool((slack >= -rounding).all() and (slack <= rounding)[self.active].all())
