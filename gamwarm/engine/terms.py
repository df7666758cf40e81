"""Terms of an additive predictor, as written by the user; each binds itself to the full data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gamwarm.checks import as_str, column_name
from gamwarm.engine.bound_term import LEAST_SPREAD, BoundTerm, Information, check_width, penalty_scale
from gamwarm.engine.new_rows import ConstantRows, LevelRows, LinearRows
from gamwarm.engine.penalty import BoundPenalty
from gamwarm.engine.smooth import Smooth
from gamwarm.engine.source import Source
from gamwarm.engine.tensor import Tensor
from gamwarm.errors import InvalidInput
from gamwarm.problem import BasisMeta

__all__ = ["Factor", "Intercept", "Linear", "RandomEffect", "Smooth", "Tensor", "Term"]


@dataclass(frozen=True)
class Intercept:
    """A constant.

    Parameters
    ----------
    predictor : str
        "mean", or "scale" for `GaussianLocationScale`.
    """

    predictor: str = "mean"

    def __post_init__(self) -> None:
        as_str(self.predictor, "Intercept: predictor")

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:intercept"

    def bind(self, source: Source, information: Information) -> tuple[BoundTerm, ...]:
        """Fix the term on the full data."""
        one = np.ones((1, 1))
        basis, rows = BasisMeta("intercept"), ConstantRows(self.name)
        return (BoundTerm(self.name, self.predictor, source.unit(), one, one, (), basis, rows),)


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
        columns = tuple(column_name(column, "Linear") for column in columns)
        if not columns or len(set(columns)) != len(columns):
            raise InvalidInput(f"Linear{columns!r}: give one or more different column names")
        as_str(predictor, f"Linear{columns!r}: predictor")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "predictor", predictor)

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:{'+'.join(self.columns)}"

    def bind(self, source: Source, information: Information) -> tuple[BoundTerm, ...]:
        """Fix the term on the full data."""
        group, rows = source.distinct(self.columns, f"term {self.name!r}")
        for j, column in enumerate(self.columns):
            if rows[:, j].min() == rows[:, j].max():
                raise InvalidInput(f"column {column!r} is constant; drop it from Linear{self.columns!r}")
            if rows[:, j].max() - rows[:, j].min() < LEAST_SPREAD:
                raise InvalidInput(f"column {column!r} varies by less than {LEAST_SPREAD:g}; rescale it")
        counts = np.bincount(source.groups[group].index, minlength=rows.shape[0])
        centre = counts @ rows / counts.sum()
        width = len(self.columns)
        bound = BoundTerm(
            self.name,
            self.predictor,
            group,
            rows - centre,
            np.eye(width),
            (),
            BasisMeta("linear"),
            LinearRows(self.name, self.columns, centre),
            labels=self.columns,
            covariates=self.columns,
        )
        return (bound,)


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

    def __post_init__(self) -> None:
        column_name(self.column, "Factor")
        as_str(self.predictor, f"Factor({self.column!r}): predictor")

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:{self.column}"

    def bind(self, source: Source, information: Information) -> tuple[BoundTerm, ...]:
        """Fix the term on the full data."""
        group, levels, labels = _labelled_levels(source, self)
        bound = BoundTerm(
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
        return (bound,)


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

    def __post_init__(self) -> None:
        column_name(self.column, "RandomEffect")
        as_str(self.predictor, f"RandomEffect({self.column!r}): predictor")

    @property
    def name(self) -> str:
        """Block name."""
        return f"{self.predictor}:re({self.column})"

    def bind(self, source: Source, information: Information) -> tuple[BoundTerm, ...]:
        """Fix the term on the full data."""
        group, levels, labels = _labelled_levels(source, self)
        width = len(labels)
        scale = penalty_scale(information(self.predictor) * source.counts(group), np.ones(width), source.n)
        bound = BoundTerm(
            self.name,
            self.predictor,
            group,
            table=np.eye(width),
            lift=np.eye(width),
            penalties=(BoundPenalty(np.ones(width), scale),),
            basis=BasisMeta("random-effect", nullspace_order=0),
            new_rows=LevelRows(self.name, self.column, levels, contrasts=False),
            by_level=True,
            labels=labels,
        )
        return (bound,)


def _labelled_levels(source: Source, term: Factor | RandomEffect) -> tuple[str, tuple[Any, ...], tuple[str, ...]]:
    """Return the group of the column, its levels and the labels of coefficients."""
    group, levels = source.levels(term.column, f"term {term.name!r}")
    if len(levels) < 2:
        raise InvalidInput(f"column {term.column!r} has one level; drop {type(term).__name__}({term.column!r})")
    check_width(f"term {term.name!r}", len(levels), "merge levels, or drop the term")
    return group, tuple(levels), tuple(f"{term.column}={level}" for level in levels)


Term = Intercept | Linear | Factor | RandomEffect | Smooth | Tensor
