"""Diagonal penalties ``S(rho) = F + sum_j exp(rho_j) D_j``, which may overlap.

Terms choose reduced coordinates in which all their penalties are diagonal. An entry is one positive
diagonal element ``d_jc``: coefficient c, smoothing parameter j. Sums of entries have no negative
term, so ``log|S|_+`` and its derivatives lose no digit where lambdas are orders of magnitude apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gamwarm.checks import frozen
from gamwarm.engine.arrays import FloatArray, IntArray
from gamwarm.problem import DensePenalty, FixedPenalty, LabeledPenalty, Penalty

__all__ = ["BoundPenalty", "DiagonalPenalties", "Penalties"]

# Of one term, over the folds of a campaign: all levels kept, and one of them left out.
_SHARED_PENALTIES = 2


class BoundPenalty:
    """One physical penalty of a term bound to the full data.

    Parameters
    ----------
    unscaled : array of shape (p,)
        Diagonal of the penalty of raw coefficients as the term defines it.
    scale : float
        Times ``unscaled`` it is the penalty at rho = 0: ``rho + log(scale)`` is the log smoothing
        parameter of the penalty as it is defined, independent of the data.
    make : callable (diagonal of the kept columns) -> Penalty, optional
        What the penalty looks like to others; default dense.
    label : str, optional
        Penalties of one label share one smoothing parameter.
    log_lambda : float, optional
        A value that is not estimated.
    """

    def __init__(
        self,
        unscaled: FloatArray,
        scale: float = 1.0,
        make: Callable[[FloatArray], Penalty] | None = None,
        label: str | None = None,
        log_lambda: float | None = None,
    ) -> None:
        self.diagonal, self.scale = frozen(scale * unscaled), scale
        self.label, self.log_lambda = label, log_lambda
        self._make = make or (lambda kept: DensePenalty(np.diag(kept)))
        self._known: dict[bytes, Penalty] = {}

    def nullspace(self, kept: IntArray) -> int:
        """Return how many of the kept columns the penalty leaves out."""
        return int((self.diagonal[kept] == 0.0).sum())

    def physical(self, kept: IntArray) -> Penalty:
        """Return the penalty of the kept columns; folds of equal diagonals share one object."""
        diagonal = self.diagonal[kept]
        key = diagonal.tobytes()
        if key not in self._known:
            if len(self._known) >= _SHARED_PENALTIES:
                self._known.clear()
            made = self._make(diagonal)
            if self.label is not None:
                made = LabeledPenalty(self.label, made)
            self._known[key] = made if self.log_lambda is None else FixedPenalty(self.log_lambda, made)
        return self._known[key]


class DiagonalPenalties:
    """The penalties of p coefficients, with q smoothing parameters.

    Parameters
    ----------
    p, q : int
    entries : iterable of (j, diagonal of shape (p,))
        Penalty D_j; entries of one j are added up. j = -1 is the fixed part F.

    Attributes
    ----------
    columns, slots : arrays of int of shape (entries,)
        Coefficient c and smoothing parameter j of each entry, in ascending order.
    weights : array of shape (entries,)
        d_jc.
    fixed : array of shape (p,)
        Diagonal of F.
    penalised : array of bool of shape (p,)
    unpenalised : int
        Coefficients without any penalty.
    """

    def __init__(self, p: int, q: int, entries: Iterable[tuple[int, FloatArray]]) -> None:
        self.p, self.q = p, q
        table, self.fixed = np.zeros((p, q)), np.zeros(p)
        for slot, diagonal in entries:
            if slot < 0:
                self.fixed += diagonal
            else:
                table[:, slot] += diagonal
        columns, slots = np.nonzero(table)
        self._place(columns.astype(np.intp), slots.astype(np.intp), table[columns, slots])

    def _place(self, columns: IntArray, slots: IntArray, weights: FloatArray) -> None:
        self.columns, self.slots, self.weights = columns, slots, weights
        parts = np.bincount(columns, minlength=self.p) + (self.fixed > 0.0)
        self.penalised = parts > 0
        self.unpenalised = self.p - int(self.penalised.sum())
        # Where nothing overlaps, log|S|_+ is linear in rho.
        self._shared = parts > 1
        alone = ~self._shared[columns]
        self._rank = np.bincount(slots[alone], minlength=self.q).astype(np.float64)
        held = self.fixed[(self.fixed > 0.0) & ~self._shared]
        self._constant = float(np.log(weights[alone]).sum()) + float(np.log(held).sum())

    def of(self, columns: IntArray) -> DiagonalPenalties:
        """Return the penalties of some of the coefficients, in ascending order."""
        part = object.__new__(DiagonalPenalties)
        part.p, part.q, part.fixed = len(columns), self.q, self.fixed[columns]
        place = np.full(self.p, -1, dtype=np.intp)
        place[columns] = np.arange(len(columns))
        kept = place[self.columns] >= 0
        part._place(place[self.columns[kept]], self.slots[kept], self.weights[kept])
        return part

    def at(self, rho: FloatArray) -> Penalties:
        """Return the penalties at log smoothing parameters ``rho`` (q,)."""
        lambdas = np.exp(rho[self.slots]) * self.weights
        return Penalties(self, rho, lambdas, np.bincount(self.columns, weights=lambdas, minlength=self.p) + self.fixed)

    @property
    def overlaps(self) -> set[tuple[int, int]]:
        """Ordered pairs of different smoothing parameters that penalize a common coefficient."""
        first, second = self._overlaps
        return set(zip(self.slots[first].tolist(), self.slots[second].tolist(), strict=True))

    @cached_property
    def _overlaps(self) -> tuple[IntArray, IntArray]:
        """Ordered pairs of different entries of one coefficient."""
        # Entries are sorted by coefficient, so that neighbours at some distance make all pairs.
        left: list[IntArray] = []
        for distance in range(1, self.q):
            left.append(np.flatnonzero(self.columns[distance:] == self.columns[:-distance]).astype(np.intp))
            if left[-1].size == 0:
                break
        first = np.concatenate([*left, np.zeros(0, dtype=np.intp)])
        second = np.concatenate([*(at + d for d, at in enumerate(left, 1)), np.zeros(0, dtype=np.intp)])
        return np.concatenate([first, second]), np.concatenate([second, first])


@dataclass(frozen=True, eq=False)
class Penalties:
    """Diagonal penalties at one rho.

    Attributes
    ----------
    penalties : DiagonalPenalties
    rho : array of shape (q,)
    lambdas : array of shape (entries,)
        ``exp(rho_j) d_jc``.
    diagonal : array of shape (p,)
        Of S.
    """

    penalties: DiagonalPenalties
    rho: FloatArray
    lambdas: FloatArray
    diagonal: FloatArray

    def sums(self, values: FloatArray) -> FloatArray:
        """Return ``sum_c exp(rho_j) d_jc x_c`` per j, of shape (q,), for x of shape (p,)."""
        own = self.penalties
        return self._by_slot(self.lambdas * values[own.columns])

    def derivative(self) -> FloatArray:
        """Return the diagonals of dS / drho_j as columns, of shape (p, q)."""
        own = self.penalties
        out = np.zeros((own.p, own.q))
        out[own.columns, own.slots] = self.lambdas
        return out

    def _by_slot(self, values: FloatArray) -> FloatArray:
        own = self.penalties
        return np.bincount(own.slots, weights=values, minlength=own.q).astype(np.float64, copy=False)

    @cached_property
    def shares(self) -> FloatArray:
        """Each entry's share of its coefficient's penalty, of shape (entries,)."""
        return self._part(self.lambdas)

    def _part(self, values: FloatArray) -> FloatArray:
        whole = self.diagonal[self.penalties.columns]
        return np.divide(values, whole, out=np.ones(values.size), where=whole > 0.0)  # all underflown: 1

    @cached_property
    def log_det_gradient(self) -> FloatArray:
        """``d log|S|_+ / drho`` (q,): the most effective degrees of freedom of each j at this rho.

        The penalties' ranks where they do not overlap.
        """
        return self._by_slot(self.shares)

    @property
    def log_det(self) -> float:
        """``log|S|_+``."""
        own = self.penalties
        out = float(own._rank @ self.rho) + own._constant
        if not own._shared.any():
            return out
        # Whatever exp(rho) overflows to, its logarithm is known.
        entry = own._shared[own.columns]
        columns, logs = own.columns[entry], self.rho[own.slots[entry]] + np.log(own.weights[entry])
        largest = np.full(own.p, -np.inf)
        held = own._shared & (own.fixed > 0.0)
        largest[held] = np.log(own.fixed[held])
        np.maximum.at(largest, columns, logs)
        total = np.bincount(columns, weights=np.exp(logs - largest[columns]), minlength=own.p)
        total[held] += np.exp(np.log(own.fixed[held]) - largest[held])
        return out + float((largest[own._shared] + np.log(total[own._shared])).sum())

    def log_det_hessian(self) -> FloatArray:
        """Return ``d2 log|S|_+ / drho2``, of shape (q, q); zero where nothing overlaps."""
        own = self.penalties
        out = np.zeros((own.q, own.q))
        if not own._shared.any():
            return out
        first, second = own._overlaps
        product = self.shares[first] * self.shares[second]
        np.subtract.at(out, (own.slots[first], own.slots[second]), product)
        # share (1 - share), its second factor as the sum of the others: it does not cancel.
        held = self.shares * self._part(own.fixed[own.columns])
        out[np.diag_indices(own.q)] = self._by_slot(held) + np.bincount(
            own.slots[first], weights=product, minlength=own.q
        )
        return out
