"""P-splines of one column: estimated or fixed smoothing, shrinkage to zero, one curve per level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Number
from typing import ClassVar

import numpy as np

from gamwarm.checks import as_bool, as_finite_float, as_int, as_str, column_name
from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.bound_term import (
    LEAST_SPREAD,
    BoundTerm,
    Information,
    check_width,
    informed_directions,
    penalty_scale,
)
from gamwarm.engine.new_rows import ByLevelRows, SplineRows
from gamwarm.engine.penalty import BoundPenalty
from gamwarm.engine.source import Source
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import BasisMeta, BlockwisePenalty
from gamwarm.records import group_label

__all__ = ["Smooth", "check_spline", "difference_basis", "knot_range"]

# Of a fixed log lambda: beyond it lies nothing but overflow, the curve is a polynomial or
# unpenalised to the last digit long before.
_MOST_LOG_LAMBDA = 100.0
# The eigenvectors of its penalty are found once per term: seconds here, minutes far beyond.
_MOST_BASIS_FUNCTIONS = 2000
# Eigenvalues of a penalty below this part of the largest are its null space.
_NULL_EIGENVALUE = 1e-9


@dataclass(frozen=True)
class Smooth:
    """A penalised B-spline (P-spline) of one column, summing to zero over the full data.

    Parameters
    ----------
    column : str
    k : int
        Basis functions before the sum-to-zero constraint (the raw width).
    degree : int
        Of the splines.
    penalty_order : int
        Order of the differences of coefficients that are penalised.
    predictor : str
    lower, upper : float, optional
        Ends of the equally spaced knots; default the column's range in the full data.
    by : str, optional
        A column of levels: one curve, in a block of its own, per level. Each sums to zero over the
        full data as the curve without ``by`` would, so that the levels' means belong to a `Factor`
        or `RandomEffect` of that column.
    tied : bool
        Whether the curves share their smoothing parameters; otherwise each level has its own.
    select : bool
        Whether the polynomials that the differences do not penalise have a penalty of their own, so
        that the complete term can be shrunk to zero.
    log_lambda : float, optional
        A fixed smoothing parameter, which is then not estimated: the natural logarithm of the
        factor of ``sum (differences of raw coefficients)^2``, with half of which the penalty enters
        the negative log-likelihood (of a `Gaussian`, times the variance). mgcv's ``sp`` is its
        exponential where ``scalePenalty=FALSE``.

    Raises
    ------
    InvalidInput
        The combination makes no sense; the message names the term and the next step.
    """

    column: str
    k: int = 20
    degree: int = 3
    penalty_order: int = 2
    predictor: str = "mean"
    lower: float | None = None
    upper: float | None = None
    by: str | None = None
    tied: bool = False
    select: bool = False
    log_lambda: float | None = None

    kind: ClassVar[str] = "bspline"

    def __post_init__(self) -> None:
        kind = type(self).__name__
        column_name(self.column, kind)
        call = f"{kind}({self.column!r})"
        as_str(self.predictor, f"{call}: predictor")
        if self.by is not None:
            column_name(self.by, f"{call}: by")
        check_spline(call, self.k, self.degree, self.penalty_order)
        what = f"term {self.name!r}"
        for name in ("tied", "select"):
            object.__setattr__(self, name, as_bool(getattr(self, name), f"{what}, {name}"))
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, as_finite_float(value, f"{what}, {name}"))
        if self.tied and self.by is None:
            raise InvalidInput(
                f"{what}: tied=True shares smoothing parameters over the levels of by=; name that column"
            )
        if self.by == self.column:
            raise InvalidInput(f"{what}: by is the smooth's own column; name a column of levels")
        if self.log_lambda is not None:
            object.__setattr__(self, "log_lambda", as_finite_float(self.log_lambda, f"{what}, log_lambda"))
            if abs(float(self.log_lambda or 0.0)) > _MOST_LOG_LAMBDA:
                raise InvalidInput(
                    f"{what}: log_lambda = {self.log_lambda:g} is beyond ±{_MOST_LOG_LAMBDA:g}; it is a natural "
                    "logarithm. For a straight line use Linear"
                )
            if self.select:
                raise InvalidInput(
                    f"{what}: select=True estimates whether the term is needed, log_lambda fixes its smoothing; "
                    "drop one of them"
                )
            if self.tied:
                raise InvalidInput(f"{what}: log_lambda fixes every level's smoothing, so nothing is tied; drop tied")
        if self.select and self.penalty_order == 1:
            raise InvalidInput(
                f"{what}: with penalty_order = 1 the penalty shrinks the complete term already; drop select"
            )

    @property
    def word(self) -> str:
        """What names the term."""
        return "s"

    @property
    def name(self) -> str:
        """Block name; with ``by`` that of each block begins so."""
        return f"{self.predictor}:{self.word}({self.column})" + ("" if self.by is None else f":{self.by}")

    def bind(self, source: Source, information: Information) -> tuple[BoundTerm, ...]:
        """Fix knots, centring, penalties and their scales on the full data."""
        group, rows = source.distinct((self.column,), f"term {self.name!r}")
        lower, upper = knot_range(self.column, rows[:, 0], self.lower, self.upper)
        counts = source.counts(group)
        raw = SplineRows(self.name, self.column, lower, upper, self.degree, np.eye(self.k))
        lift, eigenvalues = difference_basis(counts @ raw.table(source)[1], self.penalty_order)
        spline = SplineRows(self.name, self.column, lower, upper, self.degree, lift)
        table = spline.table(source)[1]
        levels = [""] if self.by is None else self._levels(source)
        penalties = self._penalties(table, counts / len(levels), eigenvalues, information(self.predictor), source.n)
        basis = BasisMeta(
            "bspline",
            degree=self.degree,
            num_knots=self.k + self.degree + 1,
            nullspace_order=self.penalty_order,
            periodic=False,
        )
        if self.by is None:
            whole = BoundTerm(self.name, self.predictor, group, table, lift, penalties, basis, spline)
            return (replace(whole, covariates=(self.column,)),)
        bound = []
        for level in levels:
            rule = ByLevelRows(f"{self.name}={level}", spline, self.by, level, tuple(levels))
            pairs, _, own = rule.own(source)
            block = rule.table(source)[1]
            one = BoundTerm(rule.name, self.predictor, pairs, block, lift, penalties, basis, rule, of_level=own)
            bound.append(one)
        return tuple(bound)

    def _levels(self, source: Source) -> list[str]:
        """Return the levels of ``by``: words, of which there must be two."""
        _, levels = source.levels(str(self.by), f"term {self.name!r}")
        if all(isinstance(level, Number) and not isinstance(level, bool) for level in levels):
            raise InvalidType(
                f"term {self.name!r}: by={self.by!r} is a numeric column, and by takes levels; give it as strings "
                "(column.astype(str)) if its numbers name groups, else use Tensor for a coefficient that varies"
            )
        if len(levels) < 2:
            raise InvalidInput(f"term {self.name!r}: by={self.by!r} has one level; drop by")
        check_width(f"term {self.name!r}", len(levels) * self.k, "merge levels, or use fewer basis functions")
        return [group_label(level) for level in levels]

    def _penalties(
        self, table: FloatArray, counts: FloatArray, eigenvalues: FloatArray, information: float, n: int | None
    ) -> tuple[BoundPenalty, ...]:
        rank = int((eigenvalues > 0.0).sum())
        label = self.name if self.tied else None
        if self.log_lambda is not None:
            return (BoundPenalty(eigenvalues, log_lambda=self.log_lambda),)
        informed = informed_directions(table[:, :rank], counts, information)
        bending = BoundPenalty(eigenvalues, penalty_scale(informed, eigenvalues[:rank], n), label=label)
        if not self.select:
            return (bending,)
        null = np.array(eigenvalues == 0.0, dtype=np.float64)
        informed = informed_directions(table[:, rank:], counts, information)
        shrinkage = BoundPenalty(
            null,
            penalty_scale(informed, null[rank:], n),
            lambda kept: BlockwisePenalty(np.diag(kept[rank:]), min(rank, kept.size), kept.size, kept.size),
            label=None if label is None else f"{label}:null space",
        )
        return bending, shrinkage


def check_spline(what: str, k: int, degree: int, penalty_order: int) -> None:
    """Refuse a B-spline basis that cannot be built, or of which the penalty leaves nothing."""
    as_int(degree, f"{what}: degree")
    as_int(penalty_order, f"{what}: penalty_order", minimum=1)
    as_int(k, f"{what}: k")
    least = max(degree + 1, penalty_order + 1, 3)
    if k < least:
        raise InvalidInput(f"{what}: k = {k} is too small; use k >= {least}")
    if k > _MOST_BASIS_FUNCTIONS:
        raise InvalidInput(f"{what}: k = {k} is too large; use k <= {_MOST_BASIS_FUNCTIONS}: the penalty smooths")


def knot_range(column: str, x: FloatArray, lower: float | None, upper: float | None) -> tuple[float, float]:
    """Return the ends of the knots: those given, else the range of x (m,)."""
    low = float(x.min()) if lower is None else float(lower)
    high = float(x.max()) if upper is None else float(upper)
    if not low < high and (lower is not None or upper is not None):
        raise InvalidInput(f"column {column!r}: knots from {low} to {high}; lower must be below upper")
    if not low < high:
        raise InvalidInput(
            f"column {column!r} spans [{low}, {high}]; a smooth needs two different values: drop the term"
        )
    if high - low < LEAST_SPREAD:
        raise InvalidInput(f"column {column!r} spans [{low}, {high}]; this is too narrow to square: rescale it")
    if x.min() < low or x.max() > high:
        raise InvalidInput(
            f"column {column!r} spans [{x.min()}, {x.max()}], outside [{low}, {high}]; widen lower and upper"
        )
    return low, high


def difference_basis(constraint: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    """Return coordinates in which a difference penalty is diagonal.

    Parameters
    ----------
    constraint : array of shape (k,)
        Direction of the raw coefficients that is left out.
    order : int
        Of the differences.

    Returns
    -------
    lift : array of shape (k, k - 1)
        Orthonormal columns.
    eigenvalues : array of shape (k - 1,)
        Of ``sum (differences of raw coefficients)^2`` there, in descending order; exactly 0 on its
        null space.
    """
    lift = _orthogonal_complement(constraint)
    difference = np.diff(np.eye(constraint.shape[0]), order, axis=0)
    eigenvalues, vectors = np.linalg.eigh(lift.T @ (difference.T @ difference) @ lift)
    descending = np.argsort(-eigenvalues)
    eigenvalues, vectors = eigenvalues[descending], vectors[:, descending]
    # LAPACK may return either sign of an eigenvector: the largest entry is made positive.
    signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])
    return lift @ (vectors * signs), np.where(eigenvalues > _NULL_EIGENVALUE * eigenvalues[0], eigenvalues, 0.0)


def _orthogonal_complement(constraint: FloatArray) -> FloatArray:
    """Return Z (k, k - 1), orthonormal and orthogonal to ``constraint``, by one reflection."""
    v = constraint / np.linalg.norm(constraint)
    v[0] += 1.0 if v[0] >= 0.0 else -1.0
    reflection = np.eye(v.shape[0]) - 2.0 * np.outer(v, v) / (v @ v)
    return np.ascontiguousarray(reflection[:, 1:])
