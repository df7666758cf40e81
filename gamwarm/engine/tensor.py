"""Tensor products of two P-splines, with or without main effects of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gamwarm.checks import as_finite_float, as_int, as_str, column_name
from gamwarm.display import brief_repr
from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.bound_term import BoundTerm, Information, check_width, informed_directions, penalty_scale
from gamwarm.engine.new_rows import SplineRows, TensorRows
from gamwarm.engine.penalty import BoundPenalty
from gamwarm.engine.smooth import check_spline, difference_basis, knot_range
from gamwarm.engine.source import Source
from gamwarm.errors import InvalidInput
from gamwarm.problem import BasisMeta, BlockwisePenalty, KroneckerPenalty

__all__ = ["Tensor", "check_tensors"]

# Of the main effects' Gram matrix, scaled to unit diagonal: below it a direction is another's copy.
_SAME_COLUMN = 1e-10


@dataclass(frozen=True, init=False)
class Tensor:
    """A smooth surface of two columns: the tensor product of two P-splines, a penalty per
    direction.

    Alone it includes both main effects (mgcv's ``te``). Beside a `Smooth` or `Linear` of one of its
    columns, in the same predictor, it leaves that column's main effect to it: it has no products
    with the other column's constant, and the main effects are projected out of the rest over the
    full data.

    Parameters
    ----------
    *columns : str
        Two.
    k : pair of int
        Basis functions of each margin (the raw width is their product).
    degree : int
        Of the splines.
    penalty_order : int
        Order of the differences of coefficients that are penalised, along each margin.
    predictor : str
    lower, upper : pair of float or None, optional
        Ends of the equally spaced knots of each margin; None is the column's range in the full
        data.

    Raises
    ------
    InvalidInput
        Naming the term and the next step.
    """

    columns: tuple[str, str]
    k: tuple[int, int] = (6, 6)
    degree: int = 3
    penalty_order: int = 2
    predictor: str = "mean"
    lower: tuple[float | None, float | None] = (None, None)
    upper: tuple[float | None, float | None] = (None, None)

    def __init__(
        self,
        *columns: str,
        k: Sequence[int] = (6, 6),
        degree: int = 3,
        penalty_order: int = 2,
        predictor: str = "mean",
        lower: Sequence[float | None] = (None, None),
        upper: Sequence[float | None] = (None, None),
    ) -> None:
        columns = tuple(column_name(column, "Tensor") for column in columns)
        what = f"Tensor{columns!r}"
        as_str(predictor, f"{what}: predictor")
        if len(columns) != 2 or columns[0] == columns[1]:
            raise InvalidInput(f"{what}: give two different column names; for one column use Smooth")
        widths = tuple(as_int(each, f"{what}, k") for each in _pair(k, f"{what}, k", "k=(6, 6)"))
        ends = {
            name: tuple(
                None if each is None else as_finite_float(each, f"{what}, {name}")
                for each in _pair(value, f"{what}, {name}", f"{name}=(0.0, None)")
            )
            for name, value in (("lower", lower), ("upper", upper))
        }
        for column, width in zip(columns, widths, strict=True):
            check_spline(f"{what}, margin {column!r}", width, degree, penalty_order)
        check_width(what, widths[0] * widths[1], "use fewer basis functions")
        values = {"columns": columns, "k": widths, "degree": degree, "penalty_order": penalty_order}
        for name, value in {**values, **ends, "predictor": predictor}.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:te({','.join(self.columns)})"

    def bind(self, source: Source, information: Information, mains: Sequence[BoundTerm] = ()) -> tuple[BoundTerm, ...]:
        """Fix knots, centring, projection, penalties and their scales on the full data.

        Parameters
        ----------
        source : Source
        information : callable
        mains : sequence of BoundTerm
            Of the same predictor, with a main effect of one of the columns (`main_effects`).
        """
        has_main = [any(column in main.covariates for main in mains) for column in self.columns]
        margins, eigenvalues = [], []
        # A margin's constant times the other margin is the other's main effect.
        constants = not has_main[1], not has_main[0]
        for column, k, constant, low, high in zip(self.columns, self.k, constants, self.lower, self.upper, strict=True):
            x = source.distinct((column,), f"term {self.name!r}")[1][:, 0]
            lower, upper = knot_range(column, x, low, high)
            lift, values = difference_basis(np.ones(k), self.penalty_order)
            if constant:
                lift, values = np.column_stack([lift, np.full(k, k**-0.5)]), np.append(values, 0.0)
            margins.append(SplineRows(self.name, column, lower, upper, self.degree, lift))
            eigenvalues.append(values)
        left, right = eigenvalues
        p = left.size * right.size
        # The product of both constants is zero once it is centred; it keeps the penalties products.
        held = None if any(has_main) else p - 1
        rule = TensorRows(self.name, (margins[0], margins[1]), np.zeros(p), held, (), np.zeros((0, p)))
        group, table = rule.table(source)
        counts = source.counts(group)
        rule = replace(rule, centre=(counts[:, None] * table).sum(axis=0) / counts.sum())
        couplings: tuple[tuple[str, FloatArray], ...] = ()
        if mains:
            rule = replace(rule, mains=tuple(main.new_rows for main in mains))
            rule = replace(rule, projection=self._projection(source, rule, group, counts, mains))
            ends = np.cumsum([main.lift.shape[1] for main in mains])[:-1]
            parts = np.split(rule.projection, ends)
            couplings = tuple((main.name, -main.lift @ part) for main, part in zip(mains, parts, strict=True))
        table = rule.table(source)[1]
        penalties = [
            self._penalty(left, right, table, counts, information(self.predictor), source.n, along_left=along_left)
            for along_left in (True, False)
        ]
        if held is not None:
            penalties.append(
                BoundPenalty(
                    np.eye(p)[held], 1.0, lambda _kept: BlockwisePenalty(np.eye(1), p - 1, p, p), log_lambda=0.0
                )
            )
        bound = BoundTerm(
            self.name,
            self.predictor,
            group,
            table,
            np.asarray(np.kron(margins[0].lift, margins[1].lift), dtype=np.float64),
            tuple(penalties),
            BasisMeta("bspline-tensor", degree=self.degree, nullspace_order=self.penalty_order, periodic=False),
            rule,
            couplings=couplings,
        )
        return (bound,)

    def _projection(
        self, source: Source, rule: TensorRows, group: str, counts: FloatArray, mains: Sequence[BoundTerm]
    ) -> FloatArray:
        """Return the least-squares coefficients (columns of all mains, p) of the products."""
        columns = rule.main_columns(source, group)
        theirs = np.concatenate([main.main_effects(self.columns) for main in mains])
        own = columns[:, theirs]
        # By einsum: unlike BLAS it adds up in one order for any number of threads.
        products = np.einsum("mi,m,mj->ij", own, counts, rule.centred(source)[1])
        gram = np.einsum("mi,m,mj->ij", own, counts, own)
        scale = 1.0 / np.sqrt(np.diagonal(gram))
        values, vectors = np.linalg.eigh(scale[:, None] * gram * scale)
        kept = vectors[:, values > _SAME_COLUMN] / np.sqrt(values[values > _SAME_COLUMN])
        out = np.zeros((columns.shape[1], products.shape[1]))
        out[theirs] = scale[:, None] * (kept @ (kept.T @ (scale[:, None] * products)))
        return out

    @staticmethod
    def _penalty(
        left: FloatArray,
        right: FloatArray,
        table: FloatArray,
        counts: FloatArray,
        information: float,
        n: int | None,
        *,
        along_left: bool,
    ) -> BoundPenalty:
        pair = [left, np.ones(right.size)] if along_left else [np.ones(left.size), right]
        diagonal: FloatArray = np.kron(*pair)
        own = np.flatnonzero(diagonal)
        scale = penalty_scale(informed_directions(table[:, own], counts, information), diagonal[own], n)
        pair[0 if along_left else 1] = scale * pair[0 if along_left else 1]
        return BoundPenalty(diagonal, scale, lambda _kept: KroneckerPenalty(np.diag(pair[0]), np.diag(pair[1])))


def _pair(value: Any, what: str, example: str) -> tuple[Any, Any]:
    """Return a value per margin."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InvalidInput(f"{what} is {brief_repr(value)}; give a value per margin, such as {example}")
    return value[0], value[1]


def check_tensors(tensors: Sequence[Tensor], covariates: Sequence[str]) -> None:
    """Refuse surfaces of one predictor that have an effect in common.

    Parameters
    ----------
    tensors : sequence of Tensor
    covariates : sequence of str
        Columns with a main effect of their own.
    """
    for place, one in enumerate(tensors):
        for other in tensors[place + 1 :]:
            shared = [column for column in one.columns if column in other.columns]
            if len(shared) == 2:
                raise InvalidInput(f"terms {one.name!r} and {other.name!r} are surfaces of the same columns; keep one")
            if shared and shared[0] not in covariates:
                raise InvalidInput(
                    f"terms {one.name!r} and {other.name!r} both include the main effect of {shared[0]!r}; add "
                    f"Smooth({shared[0]!r}), to which they then leave it"
                )
