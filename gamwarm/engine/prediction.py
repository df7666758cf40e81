"""What a fit says of new rows: predictors, means, their standard errors, and the log-likelihood.

It needs the fit's coefficients and the inverse of its penalized Hessian, and no row of the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gamwarm.checks import as_bool
from gamwarm.engine.arrays import Counters, FloatArray, IntArray
from gamwarm.engine.bound_term import BoundTerm
from gamwarm.engine.design import Group, Piece, Products
from gamwarm.engine.model import Case, response_of
from gamwarm.engine.new_rows import LevelRows, NewRows
from gamwarm.engine.objective import Evaluation
from gamwarm.engine.source import Source
from gamwarm.families import Family
from gamwarm.identity import FitProblem

__all__ = ["Curve", "FittedModel", "FittedTerm", "HeldOut", "Prediction", "curves", "fitted_model"]

# Most rows at which a curve is compared; all levels of a random effect or factor are.
_CURVE_ROWS = 200
# Step of a central difference in a linear predictor: error 1e-10 of the derivative, as rounding.
_STEP = 6e-6


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a fit predicts for n rows.

    Attributes
    ----------
    fitted : dict of str to array of shape (n,)
        Linear predictor per name, with offset; "response" is the mean of the response.
    standard_errors : dict of str to array of shape (n,), or None
        Of the same; None if they were not asked for. They are those of the posterior at the fit's
        smoothing parameters, from the inverse of the penalized Hessian; that of the response is
        carried over to first order.
    """

    fitted: dict[str, FloatArray]
    standard_errors: dict[str, FloatArray] | None = None

    @property
    def mu(self) -> FloatArray:
        """Response-scale mean, of shape (n,)."""
        return self.fitted["response"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The log-likelihood of rows at a fit's coefficients.

    Attributes
    ----------
    per_row : array of shape (n,)
        Prior weights and constants included.
    """

    per_row: FloatArray

    @property
    def total(self) -> float:
        """Sum over the rows."""
        return float(self.per_row.sum())

    def __repr__(self) -> str:
        return f"<log-likelihood {self.total:.6g} of {self.per_row.size} rows>"


@dataclass(frozen=True, eq=False)
class Curve:
    """A term's contribution to its predictor, at values of the data.

    Attributes
    ----------
    points : str
        Names the values: curves of equal points can be compared.
    values : array of shape (m,)
        Not a number at a level that the fit had no rows of.
    standard_errors : array of shape (m,)
    """

    points: str
    values: FloatArray
    standard_errors: FloatArray


@dataclass(frozen=True, eq=False)
class FittedTerm:
    """A term of a fit.

    Attributes
    ----------
    name, predictor : str
    new_rows : NewRows
    kept : array of int of shape (p,)
        The term's reduced columns that the fit has.
    columns : slice
        Where its coefficients are in theta.
    prior_variance : float
        Of a level that no data inform; infinite for other terms.
    """

    name: str
    predictor: str
    new_rows: NewRows
    kept: IntArray
    columns: slice
    prior_variance: float


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A fit without its data: it pickles.

    Attributes
    ----------
    family : Family
    terms : tuple of FittedTerm
    theta : array of shape (p,)
    inverse : array of shape (p, p)
        Inverse of the penalized Hessian; times ``scale`` it is the posterior covariance.
    scale : float
        Variance of a Gaussian response; 1 for other families.
    nuisance : list of arrays of shape (1,)
        The family's nuisance parameters.
    """

    family: Family
    terms: tuple[FittedTerm, ...]
    theta: FloatArray
    inverse: FloatArray
    scale: float
    nuisance: list[FloatArray]

    def predict(self, columns: Any, *, standard_errors: bool = False) -> Prediction:
        """Return what the fit predicts for new rows; see `EngineFit.predict`."""
        standard_errors = as_bool(standard_errors, "standard_errors")
        return self._predict(Source(columns), standard_errors=standard_errors)

    def log_likelihood(self, columns: Any) -> HeldOut:
        """Return the log-likelihood of new rows; see `EngineFit.held_out`."""
        new, family = Source(columns), self.family
        y, w = response_of(new, family)
        found = self._predict(new, standard_errors=False).fitted
        etas = [*(found[name] for name in family.predictors), *self.nuisance]
        return HeldOut(family.log_likelihood(y, w, etas, self.scale))

    def _predict(self, new: Source, *, standard_errors: bool) -> Prediction:
        predictors = self.family.predictors
        offset = None if self.family.offset is None else new.numbers(self.family.offset, "the offset")
        tables = [term.new_rows.table(new) for term in self.terms]
        n, groups = new.rows(), new.groups
        etas = [np.zeros(n) for _ in predictors]
        if offset is not None:
            etas[0] += offset
        for term, (group, table) in zip(self.terms, tables, strict=True):
            with np.errstate(over="ignore"):
                values = table[:, term.kept] @ self.theta[term.columns]
            etas[predictors.index(term.predictor)] += values[groups[group].index]
        fitted = {**dict(zip(predictors, etas, strict=True)), "response": self.family.mean([*etas, *self.nuisance])}
        if not standard_errors:
            return Prediction(fitted)
        pieces = [
            Piece(predictors.index(term.predictor), group, table[:, term.kept], term.columns)
            for term, (group, table) in zip(self.terms, tables, strict=True)
        ]
        return Prediction(fitted, self._standard_errors(new, etas, pieces, groups))

    def _standard_errors(
        self, new: Source, etas: Sequence[FloatArray], pieces: Sequence[Piece], groups: dict[str, Group]
    ) -> dict[str, FloatArray]:
        predictors = self.family.predictors
        products = Products(etas[0].size, len(predictors), pieces, groups, Counters(), discretised=True)
        places = range(len(predictors))
        covariance = products.leverages(self.inverse, [(k, other) for k in places for other in places if k <= other])
        for pair in covariance:
            covariance[pair] = self.scale * covariance[pair]
        for term, piece in zip(self.terms, pieces, strict=True):
            unseen = term.new_rows.at_prior(new)
            if unseen is not None:
                k = piece.predictor
                covariance[k, k] = covariance[k, k] + term.prior_variance * unseen[groups[piece.group].index]
        means, slopes = self._slopes(etas)
        variances = {name: covariance[k, k] for k, name in enumerate(predictors)} | {"response": np.zeros(etas[0].size)}
        with np.errstate(invalid="ignore", over="ignore"):
            for (k, other), values in covariance.items():
                variances["response"] += (1.0 if k == other else 2.0) * slopes[k] * slopes[other] * values
        variances["response"][~np.isfinite(means)] = np.inf  # a mean that a heavy tail makes infinite
        return {name: np.sqrt(np.maximum(values, 0.0)) for name, values in variances.items()}

    def _slopes(self, etas: Sequence[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
        """Return the response's mean and its derivative by each predictor, of shape (n,)."""
        slopes = []
        for k in range(len(etas)):
            up, down = ([eta + (k == i) * step for i, eta in enumerate(etas)] for step in (_STEP, -_STEP))
            means = (self.family.mean([*each, *self.nuisance]) for each in (up, down))
            with np.errstate(invalid="ignore"):
                slopes.append(np.subtract(*means) / (up[k] - down[k]))
        return self.family.mean([*etas, *self.nuisance]), slopes


def fitted_model(case: Case, problem: FitProblem, family: Family, at: Evaluation) -> FittedModel:
    """Return what an evaluation of a case's objective says of new rows."""
    assert at.inverse is not None
    lambdas = np.exp(problem.layout.expand(at.rho[: problem.layout.n_outer]))
    terms, first = [], 0
    for spec, term, new_rows, kept, columns in zip(
        problem.specs, case.bound.terms, case.new_rows, case.kept, case.slices, strict=True
    ):
        last = first + len(spec.penalties)
        prior = np.inf
        if term.by_level and first < last:
            pairs = zip(lambdas[first:last], spec.penalties, strict=True)
            prior = at.scale / sum(float(weight) * float(penalty.to_dense()[0, 0]) for weight, penalty in pairs)
        first = last
        terms.append(FittedTerm(term.name, term.predictor, new_rows, kept, columns, prior))
    nuisance = [np.full(1, value) for value in at.rho[problem.layout.n_outer :]]
    return FittedModel(family, tuple(terms), at.theta, at.inverse, at.scale, nuisance)


def curves(model: FittedModel, terms: Sequence[BoundTerm]) -> dict[str, Curve]:
    """Return each term's curve, at up to 200 of its distinct values (all of its levels)."""
    out = {}
    for term, bound in zip(model.terms, terms, strict=True):
        table = bound.table[bound.table.any(axis=1)]
        if len(table) > _CURVE_ROWS and not bound.by_level:
            table = table[np.linspace(0, len(table) - 1, _CURVE_ROWS).round().astype(np.intp)]
        own = table[:, term.kept]
        values = own @ model.theta[term.columns]
        block = model.inverse[term.columns, term.columns]
        if bound.by_level and own.shape[1]:  # no row has two entries
            column = own.argmax(axis=1)
            variances = model.scale * np.diagonal(block)[column] * own[np.arange(len(own)), column] ** 2
        else:
            variances = model.scale * np.einsum("ij,ij->i", own @ block, own)
        values[np.delete(table, term.kept, axis=1).any(axis=1)] = np.nan
        if isinstance(term.new_rows, LevelRows) and not term.new_rows.has_reference:
            values[:] = np.nan  # contrasts to another level are another curve
        points = hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()
        out[term.name] = Curve(points, values, np.sqrt(np.maximum(variances, 0.0)))
    return out
