"""What a response model is to the engine: derivatives of the negative log-likelihood by the linear
predictors.

A derivative of order r is a mapping from a sorted tuple of r predictor numbers to an array of shape
(n,); a tuple that is missing is identically zero. Prior weights multiply a row's contribution to
the log-likelihood (a row of weight 2 counts as two equal rows); for the binomial they are also the
numbers of trials of a proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray, column_name
from gamwarm.errors import InvalidInput

__all__ = ["HALF_LOG_2PI", "Etas", "Family", "Table", "exponential", "is_exact", "log_mean", "moments", "refuse"]

BoolArray = npt.NDArray[np.bool_]
Table = dict[tuple[int, ...], FloatArray]
Etas = Sequence[FloatArray]
HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))
# Sums of squares and their inverses over any number of rows stay numbers.
_LEAST_VARIANCE = 1e-250
# A residual sum of squares below this part of the total is rounding.
_EXACT_FIT = 1e-12


@dataclass(frozen=True)
class Family:
    """Column names of a response; use one of its subclasses.

    Parameters
    ----------
    response : str
        Column of the response.
    weights : str, optional
        Column of non-negative prior weights; default 1.
    offset : str, optional
        Column added to the linear predictor "mean".
    """

    response: str
    weights: str | None = None
    offset: str | None = None

    predictors: ClassVar[tuple[str, ...]] = ("mean",)
    kind: ClassVar[str] = ""
    nuisance: ClassVar[tuple[str, ...]] = ()
    """Parameters without a predictor, one number each for all rows; outer coordinates of a fit.

    Where a method takes predictors, these follow them, each of shape (1,).
    """
    nuisance_advice: ClassVar[str] = ""
    """What to do where the likelihood has no optimum in a nuisance parameter."""
    response_units: ClassVar[tuple[str, ...]] = ()
    """Predictors that are measured in the units of the response."""
    log_concave: ClassVar[bool] = True
    """Whether the likelihood is log-concave in the predictors: the inner problem has one mode."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                column_name(value, f"{type(self).__name__}: {each.name}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the response; where there are several, y has shape (n, columns)."""
        return (self.response,)

    def check(self, y: FloatArray) -> None:
        """Refuse responses outside the family's range, naming the column."""

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        """Return each row's negative log-likelihood at weight 1, up to `constants`, of shape (n,).

        A predictor may also be given as one number for all rows, of shape (1,). May overflow.
        """
        raise NotImplementedError

    def nll(self, y: FloatArray, w: FloatArray, etas: Etas) -> float:
        """Return the negative log-likelihood, up to `constants`; inf where it overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(w @ self.loss(y, etas))

    def log_likelihood(self, y: FloatArray, w: FloatArray, etas: Etas, scale: float = 1.0) -> FloatArray:
        """Return each row's log-likelihood, constants included, of shape (n,).

        ``scale`` is the variance of a Gaussian response.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(w > 0.0, -(w * self.loss(y, etas)) - self.constants(y, w), 0.0)

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        """Return each row's negative log-likelihood that no predictor enters, of shape (n,)."""
        raise NotImplementedError

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        """Return the tables of the asked orders (1 to 4), over the predictors."""
        raise NotImplementedError

    def nuisance_derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        """Return the rest of the tables: the tuples in which a nuisance parameter occurs.

        Nuisance parameters are numbered after the predictors.
        """
        return {order: {} for order in orders}

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        """Return the expected second derivatives by the predictors (Fisher information per row)."""
        raise NotImplementedError

    def relative_changes(self, y: FloatArray, etas: Etas, changes: Etas) -> list[FloatArray]:
        """Return changes of the predictors in units in which 1 is a lot.

        Where a row's likelihood vanishes with its predictor, each Newton step is about 1 of these.
        """
        return list(changes)

    def degeneracy(self, y: FloatArray, w: FloatArray, etas: Etas) -> str:
        """Return why nothing can be estimated at predictors like these, empty if it can."""
        return ""

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        """Return the constants that fit best, roughly: predictors, then nuisances."""
        raise NotImplementedError

    def mean(self, etas: Etas) -> FloatArray:
        """Return the response's mean of shape (n,)."""
        raise NotImplementedError


def exponential(eta: FloatArray) -> FloatArray:
    """Return ``e ** eta``, infinite where it overflows."""
    with np.errstate(over="ignore"):
        return np.exp(eta)


def is_exact(w: FloatArray, z: FloatArray, centre: FloatArray) -> bool:
    """Whether residuals ``z - centre`` are rounding next to the spread of ``z``."""
    spread = z - float(w @ z / w.sum())
    return not float(w @ (z - centre) ** 2) > _EXACT_FIT * float(w @ spread**2)


def refuse(column: str | None, values: FloatArray, bad: BoolArray, why: str) -> None:
    """Raise where a column holds what a family cannot fit, naming the first such row."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InvalidInput(f"column {column!r} holds {values[row]:g} at row {row}; {why}")


def log_mean(name: str, y: FloatArray, w: FloatArray, offset: FloatArray) -> float:
    """Return the constant of a log mean, refusing a response that is zero everywhere."""
    events = float(w @ y)
    if not events > 0.0:
        raise InvalidInput(f"column {name!r} is zero in all of these rows; a log mean cannot fit it")
    most = float(offset[w > 0.0].max())
    exposure = w @ np.exp(np.minimum(offset - most, 0.0))  # beside the largest, which may be beyond exp
    return float(np.log(events / exposure)) - most


def moments(name: str, z: FloatArray, w: FloatArray, what: str) -> tuple[float, float]:
    """Return the mean and the variance of a response, refusing one without a variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        centre = float(w @ z / w.sum())
        variance = float(w @ (z - centre) ** 2 / w.sum())
    if _LEAST_VARIANCE < variance < 1.0 / _LEAST_VARIANCE:
        return centre, variance
    used = z[w > 0.0]
    if used.min() < used.max():
        raise InvalidInput(f"column {name!r} has numbers such as {used.max():g}: too small or large to square; rescale")
    raise InvalidInput(f"column {name!r} is constant in these rows; {what} cannot be fitted to it")
