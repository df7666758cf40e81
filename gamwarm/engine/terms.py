"""Terms of an additive predictor: as written by the user, and bound to the full data.

A bound term is a small table of distinct rows in *raw* columns, a lift ``T`` (raw = T theta) to
reduced coordinates in which the penalty is exactly diagonal, and a penalty scale. All three are
fixed by the full data, so ``rho`` and raw coefficients mean the same in every fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from gamwarm.checks import frozen
from gamwarm.engine.arrays import FloatArray, IntArray
from gamwarm.engine.new_rows import (
    ConstantRows,
    LevelRows,
    LinearRows,
    NewRows,
    SplineRows,
    gather,
    spline_rows,
)
from gamwarm.engine.penalty import BoundPenalty
from gamwarm.engine.source import Source
from gamwarm.errors import InvalidInput
from gamwarm.problem import BasisMeta

__all__ = ["BoundTerm", "Factor", "Intercept", "Linear", "RandomEffect", "Smooth", "Term"]

# Eigenvalues of a penalty below this part of the largest are its null space.
_NULL_EIGENVALUE = 1e-9
# Directions of a penalty that no data informs count as this share of the best informed one, so that
# the penalty's scale stays finite.
_UNINFORMED = 1e-8


@dataclass(frozen=True, eq=False)
class BoundTerm:
    """A term bound to the full data.

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
    by_level : bool
        Whether reduced columns belong to levels, which a fold may lack.
    reference : int
        For ``by_level``: level without a column of its own, -1 if every level has one.
    basis : BasisMeta
    new_rows : NewRows
        Evaluates the term at new values.
    nullspace_dims : tuple of int
        Directions that each penalty leaves out.
    constraint : array of shape (rows, p), optional
        Linearly independent rows A of inequalities ``A theta >= 0`` on the reduced coefficients.
    """

    name: str
    predictor: str
    group: str
    table: FloatArray
    lift: FloatArray
    penalties: tuple[BoundPenalty, ...]
    basis: BasisMeta
    new_rows: NewRows
    nullspace_dims: tuple[int, ...] = ()
    by_level: bool = False
    reference: int = -1
    labels: tuple[str, ...] = ()
    constraint: FloatArray | None = None

    def __post_init__(self) -> None:
        # Nothing can write to it: all folds name one table, and its digest is taken once.
        object.__setattr__(self, "table", frozen(self.table))

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

    def kept_columns(self, counts: IntArray) -> IntArray:
        """Return the reduced columns that rows with these level counts (m,) can inform."""
        width = self.lift.shape[1]
        if not self.by_level:
            return np.arange(width, dtype=np.intp)
        present = np.flatnonzero(counts > 0)
        if self.reference < 0:
            return present.astype(np.intp)
        # Without its reference level a contrast repeats the intercept: the first one takes over.
        reference = self.reference if counts[self.reference] > 0 else int(present[0])
        return np.array([level - 1 for level in present if level not in (reference, 0)], dtype=np.intp)


@dataclass(frozen=True)
class Intercept:
    """A constant.

    Parameters
    ----------
    predictor : str
        "mean", or "scale" for `GaussianLocationScale`.
    """

    predictor: str = "mean"

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:intercept"

    def bind(self, source: Source, information: Callable[[str], float]) -> BoundTerm:
        """Fix the term on the full data."""
        one = np.ones((1, 1))
        basis, rows = BasisMeta("intercept"), ConstantRows(self.name)
        return BoundTerm(self.name, self.predictor, source.unit(), one, one, (), basis, rows)


@dataclass(frozen=True, init=False)
class Linear:
    """Unpenalised numeric columns, centred on full-data means (coefficients per unit).

    Parameters
    ----------
    *columns : str
    predictor : str
    """

    columns: tuple[str, ...]
    predictor: str = "mean"

    def __init__(self, *columns: str, predictor: str = "mean") -> None:
        if not columns or len(set(columns)) != len(columns):
            raise InvalidInput(f"Linear{columns!r}: give one or more different column names")
        object.__setattr__(self, "columns", tuple(columns))
        object.__setattr__(self, "predictor", predictor)

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:{'+'.join(self.columns)}"

    def bind(self, source: Source, information: Callable[[str], float]) -> BoundTerm:
        """Fix the term on the full data."""
        group, rows = source.distinct(self.columns, f"term {self.name!r}")
        for j, column in enumerate(self.columns):
            if rows[:, j].min() == rows[:, j].max():
                raise InvalidInput(f"column {column!r} is constant; drop it from Linear{self.columns!r}")
        counts = np.bincount(source.groups[group].index, minlength=rows.shape[0])
        centre = counts @ rows / counts.sum()
        width = len(self.columns)
        return BoundTerm(
            self.name,
            self.predictor,
            group,
            rows - centre,
            np.eye(width),
            (),
            BasisMeta("linear"),
            LinearRows(self.name, self.columns, centre),
            labels=self.columns,
        )


@dataclass(frozen=True)
class Factor:
    """Unpenalised levels of a column, as contrasts to its first level in sorted order.

    Parameters
    ----------
    column : str
    predictor : str
    """

    column: str
    predictor: str = "mean"

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:{self.column}"

    def bind(self, source: Source, information: Callable[[str], float]) -> BoundTerm:
        """Fix the term on the full data."""
        group, levels, labels = _labelled_levels(source, self)
        return BoundTerm(
            self.name,
            self.predictor,
            group,
            table=np.eye(len(labels))[:, 1:],
            lift=np.eye(len(labels) - 1),
            penalties=(),
            basis=BasisMeta("factor"),
            new_rows=LevelRows(self.name, self.column, levels, contrasts=True),
            by_level=True,
            reference=0,
            labels=labels[1:],
        )


@dataclass(frozen=True)
class RandomEffect:
    """Independent normal effects of a column's levels: a ridge penalty, one smoothing parameter.

    Parameters
    ----------
    column : str
    predictor : str
    """

    column: str
    predictor: str = "mean"

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:re({self.column})"

    def bind(self, source: Source, information: Callable[[str], float]) -> BoundTerm:
        """Fix the term on the full data."""
        group, levels, labels = _labelled_levels(source, self)
        width = len(labels)
        counts = np.bincount(source.groups[group].index, minlength=width)
        scale = float(np.exp(np.mean(np.log(information(self.predictor) * counts)))) / _centring(source)
        return BoundTerm(
            self.name,
            self.predictor,
            group,
            table=np.eye(width),
            lift=np.eye(width),
            penalties=(BoundPenalty(np.full(width, _rounded(scale))),),
            basis=BasisMeta("random-effect", nullspace_order=0),
            new_rows=LevelRows(self.name, self.column, levels, contrasts=False),
            nullspace_dims=(0,),
            by_level=True,
            labels=labels,
        )


def _labelled_levels(source: Source, term: Factor | RandomEffect) -> tuple[str, tuple[Any, ...], tuple[str, ...]]:
    """Return the group of the column, its levels and the labels of coefficients."""
    group, levels = source.levels(term.column, f"term {term.name!r}")
    if len(levels) < 2:
        raise InvalidInput(f"column {term.column!r} has one level; drop {type(term).__name__}({term.column!r})")
    return group, tuple(levels), tuple(f"{term.column}={level}" for level in levels)


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
    """

    column: str
    k: int = 20
    degree: int = 3
    penalty_order: int = 2
    predictor: str = "mean"
    lower: float | None = None
    upper: float | None = None

    kind: ClassVar[str] = "bspline"

    def __post_init__(self) -> None:
        if self.degree < 0 or self.penalty_order < 1:
            raise InvalidInput(f"{self!r}: degree must be at least 0 and penalty_order at least 1")
        if self.k < max(self.degree + 1, self.penalty_order + 1, 3):
            least = max(self.degree + 1, self.penalty_order + 1, 3)
            raise InvalidInput(f"{type(self).__name__}({self.column!r}): k = {self.k} is too small; use k >= {least}")

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:s({self.column})"

    def bind(self, source: Source, information: Callable[[str], float]) -> BoundTerm:
        """Fix knots, centring, penalty and its scale on the full data."""
        group, rows = source.distinct((self.column,), f"term {self.name!r}")
        x = rows[:, 0]
        lower = float(x.min()) if self.lower is None else float(self.lower)
        upper = float(x.max()) if self.upper is None else float(self.upper)
        if not lower < upper:
            raise InvalidInput(f"column {self.column!r} spans [{lower}, {upper}]; a smooth needs two different values")
        if x.min() < lower or x.max() > upper:
            raise InvalidInput(
                f"column {self.column!r} spans [{x.min()}, {x.max()}], outside [{lower}, {upper}]; "
                "widen lower and upper"
            )
        first, values = spline_rows(x, lower, upper, self.k, self.degree)
        counts = np.bincount(source.groups[group].index, minlength=x.shape[0]).astype(np.float64)
        raw = gather(first, values, np.eye(self.k))
        lift = _sum_to_zero(counts @ raw)
        difference = np.diff(np.eye(self.k), self.penalty_order, axis=0)
        eigenvalues, vectors = np.linalg.eigh(lift.T @ (difference.T @ difference) @ lift)
        order = np.argsort(-eigenvalues)
        eigenvalues, vectors = eigenvalues[order], vectors[:, order]
        # LAPACK may return either sign of an eigenvector: the largest entry is made positive.
        signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])
        lift = lift @ (vectors * signs)
        eigenvalues = np.where(eigenvalues > _NULL_EIGENVALUE * eigenvalues[0], eigenvalues, 0.0)
        rank = int((eigenvalues > 0.0).sum())
        table = gather(first, values, lift)
        penalised = table[:, :rank]
        gram = information(self.predictor) * (penalised.T @ (counts[:, None] * penalised))
        informed = np.linalg.eigvalsh(gram)
        informed = np.maximum(informed, _UNINFORMED * informed[-1])
        scale = float(np.exp(np.mean(np.log(informed)) - np.mean(np.log(eigenvalues[:rank])))) / _centring(source)
        basis = BasisMeta(
            "bspline",
            degree=self.degree,
            num_knots=self.k + self.degree + 1,
            nullspace_order=self.penalty_order,
            periodic=False,
        )
        return BoundTerm(
            self.name,
            self.predictor,
            group,
            table,
            lift,
            (BoundPenalty(_rounded(scale) * eigenvalues),),
            basis,
            SplineRows(self.name, self.column, lower, upper, self.degree, lift),
            (lift.shape[1] - rank,),
        )


Term = Intercept | Linear | Factor | RandomEffect | Smooth


def _centring(source: Source) -> float:
    """Return by how much the data outweigh a penalty at rho = 0, as a geometric mean.

    A term's best lambda does not grow with n, the data's information does: measured against the
    data alone, rho of a wiggly term falls like -log n, measured against one row, a plateau begins
    at +log n. A quarter of log n keeps both inside the default bound of 10 up to millions of rows.
    """
    return float(np.sqrt(np.sqrt(float(source.n or 1))))


def _rounded(scale: float) -> float:
    # Any positive scale will do; a round one has no last bits of a reduction over rows.
    return float(f"{scale:.3g}")


def _sum_to_zero(constraint: FloatArray) -> FloatArray:
    """Return Z (k, k - 1), orthonormal and orthogonal to ``constraint``, by one reflection."""
    v = constraint / np.linalg.norm(constraint)
    v[0] += 1.0 if v[0] >= 0.0 else -1.0
    reflection = np.eye(v.shape[0]) - 2.0 * np.outer(v, v) / (v @ v)
    return np.ascontiguousarray(reflection[:, 1:])
