"""A term bound to the full data.

A bound term is a small table of distinct rows in *raw* columns, a lift ``T`` (raw = T theta) to
reduced coordinates in which its penalties are exactly diagonal, and a scale per penalty. All three
are fixed by the full data, so ``rho`` and raw coefficients mean the same in every fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from gamwarm.checks import frozen
from gamwarm.engine.arrays import BoolArray, FloatArray, IntArray
from gamwarm.engine.new_rows import NewRows
from gamwarm.engine.penalty import BoundPenalty
from gamwarm.errors import InvalidInput
from gamwarm.problem import BasisMeta

__all__ = ["LEAST_SPREAD", "BoundTerm", "Information", "check_width", "informed_directions", "penalty_scale"]

Information = Callable[[str], float]
"""A row's expected information on the predictor of that name, at the null model."""

LEAST_SPREAD = 1e-100
"""Of a covariate: the square of a smaller range is lost to underflow."""

# A direction of a penalty with less than this share of the best informed one's information has no
# data, as where a column has fewer distinct values than its smooth has coefficients.
_UNINFORMED = 1e-8
# The Hessian is dense: of so many coefficients, 0.8 GB.
_MOST_COEFFICIENTS = 10_000


@dataclass(frozen=True, eq=False)
class BoundTerm:
    """One block of a term bound to the full data.

    Attributes
    ----------
    name : str
        Block name.
    predictor : str
    group : str
        Covariate that indexes the rows of ``table``.
    table : array of shape (m, p)
        Distinct rows in reduced columns, before any fold drops columns.
    lift : array of shape (raw, p)
        raw = lift @ theta.
    penalties : tuple of BoundPenalty
        Of the block, before any fold drops columns.
    basis : BasisMeta
    new_rows : NewRows
        Evaluates the term at new values.
    by_level : bool
        Whether reduced columns belong to levels, which a fold may lack.
    reference : int
        For ``by_level``: level without a column of its own, -1 if every level has one.
    labels : tuple of str
        A name per column; empty: they have none.
    of_level : array of bool of shape (m,), optional
        Rows of the table at which the term is not zero: those of one level, without which the block
        has no column.
    constraint : array of shape (rows, p), optional
        Linearly independent rows A of inequalities ``A theta >= 0`` on the reduced coefficients.
    covariates : tuple of str
        Numeric columns whose main effect the term is: one, or one per coefficient.
    couplings : tuple of (block name, array of shape (raw width of that block, p))
        What the term adds to the raw coefficients of other blocks: off-diagonal parts of T.
    """

    name: str
    predictor: str
    group: str
    table: FloatArray
    lift: FloatArray
    penalties: tuple[BoundPenalty, ...]
    basis: BasisMeta
    new_rows: NewRows
    by_level: bool = False
    reference: int = -1
    labels: tuple[str, ...] = ()
    of_level: BoolArray | None = None
    constraint: FloatArray | None = None
    covariates: tuple[str, ...] = ()
    couplings: tuple[tuple[str, FloatArray], ...] = ()

    def __post_init__(self) -> None:
        # Nothing can write to it: all folds name one table, and its digest is taken once.
        object.__setattr__(self, "table", frozen(self.table))
        object.__setattr__(self, "lift", frozen(self.lift))

    def columns(self, kept: IntArray) -> FloatArray:
        """Return the kept (ascending) columns of the table, of shape (m, len(kept))."""
        if len(kept) == self.table.shape[1]:
            return self.table
        return np.ascontiguousarray(self.table[:, kept])

    def distinct_rows(self, kept: IntArray) -> Any:
        """Return the kept columns of the table; a random effect's are sparse."""
        if not self.by_level or self.reference >= 0:
            return self.columns(kept)
        entries = np.zeros(self.table.shape[0] + 1, dtype=np.int32)
        entries[kept + 1] = 1
        parts = np.ones(len(kept)), np.arange(len(kept), dtype=np.int32), np.cumsum(entries, dtype=np.int32)
        return sparse.csr_array(parts, shape=(self.table.shape[0], len(kept)))

    @property
    def has_levels(self) -> bool:
        """Whether a fold without some level's rows has fewer columns."""
        return self.by_level or self.of_level is not None

    @property
    def is_held(self) -> bool:
        """Whether every coefficient has a penalty."""
        return bool(np.any([penalty.diagonal > 0.0 for penalty in self.penalties], axis=0).all())

    def main_effects(self, columns: Sequence[str]) -> BoolArray:
        """Return which coefficients (p,) belong to a main effect of one of the columns."""
        if len(self.covariates) == 1:
            return np.full(self.lift.shape[1], self.covariates[0] in columns)
        return np.array([column in columns for column in self.covariates], dtype=np.bool_)

    def rows_of_case(self, counts: IntArray) -> NewRows:
        """Return the rule for new rows of a fit to rows with these counts (m,)."""
        return self.new_rows.of_case(counts if self.of_level is None else counts[self.of_level])

    def kept_columns(self, counts: IntArray) -> IntArray:
        """Return the reduced columns that rows with these counts (m,) can inform."""
        width = self.lift.shape[1]
        if self.of_level is not None:
            return np.arange(width if counts[self.of_level].any() else 0, dtype=np.intp)
        if not self.by_level:
            return np.arange(width, dtype=np.intp)
        present = np.flatnonzero(counts > 0)
        if self.reference < 0:
            return present.astype(np.intp)
        # Without its reference level a contrast repeats the intercept: the first one takes over.
        reference = self.reference if counts[self.reference] > 0 else int(present[0])
        return np.array([level - 1 for level in present if level not in (reference, 0)], dtype=np.intp)


def check_width(what: str, width: int, advice: str) -> None:
    """Refuse more coefficients than a dense Hessian can have."""
    if width > _MOST_COEFFICIENTS:
        raise InvalidInput(f"{what} has {width} coefficients; this engine takes {_MOST_COEFFICIENTS}: {advice}")


def penalty_scale(informed: FloatArray, diagonal: FloatArray, n: int | None) -> float:
    """Return the factor of a penalty at lambda = 1, to three digits.

    There the data's information on the penalised directions, as a geometric mean, is ``n ** (1 /
    4)`` times the penalty. A term's best lambda does not grow with n, the data's information does:
    measured against the data alone, rho of a wiggly term falls like -log n, measured against one
    row, a plateau begins at +log n. A quarter of log n keeps both inside the default bound of 10 up
    to millions of rows.

    Directions without data are left out, and as many of those that the penalty holds most: they say
    nothing about the balance, and any number for them would move every lambda.

    Parameters
    ----------
    informed : array of shape (rank,)
        Information on each penalised direction; from `informed_directions` where columns are
        correlated.
    diagonal : array of shape (rank,)
        Of the penalty, before it is scaled.
    n : int
        Rows of the full data.
    """
    known = informed[informed > _UNINFORMED * informed.max()]
    balance = float(np.exp(np.mean(np.log(known)) - np.mean(np.log(np.sort(diagonal)[: known.size]))))
    # Any positive scale will do; a round one has no last bits of a reduction over rows.
    return float(f"{balance / float(np.sqrt(np.sqrt(float(n or 1)))):.3g}")


def informed_directions(table: FloatArray, counts: FloatArray, information: float) -> FloatArray:
    """Return the eigenvalues (p,) of the expected information on columns.

    Parameters
    ----------
    table : array of shape (m, p)
    counts : array of shape (m,)
        Rows of the data that are like each row of the table.
    information : float
        Of one row.
    """
    informed: FloatArray = np.linalg.eigvalsh(information * (table.T @ (counts[:, None] * table))).astype(np.float64)
    return informed
