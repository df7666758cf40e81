"""What a fit of the reference engine returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gamwarm.display import NotebookTable, visible
from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.model import Case
from gamwarm.engine.prediction import Curve, FittedModel, HeldOut, Prediction, curves
from gamwarm.engine.term_table import TermRow, term_table
from gamwarm.errors import InvalidInput
from gamwarm.fitting import GuardReport, OuterFit, fit_facts, fit_repr
from gamwarm.records import Cost, FitResult
from gamwarm.transfer import StartReport

__all__ = ["ColdTrial", "EngineFit", "SeedCost"]


@dataclass(frozen=True, eq=False)
class ColdTrial:
    """A cold start that was evaluated.

    Attributes
    ----------
    method : str
    rho : array of shape (q,)
        Where its search began.
    objective : float
        There.
    """

    method: str
    rho: FloatArray
    objective: float


@dataclass(frozen=True)
class SeedCost:
    """What the group seeds of a parent took, within its cost."""

    hessian_formations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class EngineFit(NotebookTable):
    """A fit of the reference engine.

    Attributes
    ----------
    result : FitResult
        Of a rank without work (``case=None``): None.
    start : StartReport or None
        What the store offered; None without a store.
    kept : KeepOutcome or None
        What was stored.
    edf : dict of str to float
        Effective degrees of freedom per block, unpenalised directions included.
    cold : tuple of ColdTrial
        Cold starts that were evaluated.
    guard : GuardReport
    cost : Cost
    curvature_formations : int
        Hessian formations, within ``cost``, spent on the outer Hessian that is kept for children
        and not needed here.
    names : tuple of str
        Block names.
    reason : str
        Why the fit did not converge, if it did not.
    seeds : SeedCost
        What group seeds took, within ``cost``.
    fitted_by : callable, optional
        Computes `fitted` on demand.
    notes : tuple of str
        What else there is to know; see `gamwarm.OuterFit`.
    terms : tuple of TermRow
        Per block: coefficients, effective degrees of freedom, smoothing parameters, constraints.
    nuisance : dict of str to float
        Parameters of the response that were fitted with the smoothing parameters.
    model : FittedModel or None
        What `predict` needs: the coefficients and the inverse of the penalized Hessian (p, p).
    case : Case or None
        The rows that were fitted; not pickled.
    """

    result: Any
    start: StartReport | None
    kept: Any
    edf: dict[str, float]
    cold: tuple[ColdTrial, ...]
    guard: GuardReport
    cost: Cost
    curvature_formations: int
    names: tuple[str, ...]
    reason: str = ""
    seeds: SeedCost = SeedCost()
    fitted_by: Callable[[], dict[str, FloatArray]] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    terms: tuple[TermRow, ...] = ()
    nuisance: dict[str, float] = field(default_factory=dict)
    model: FittedModel | None = field(default=None, repr=False)
    case: Case | None = field(default=None, repr=False)

    @cached_property
    def fitted(self) -> dict[str, FloatArray]:
        """Linear predictor per name, with offset, of shape (n,); "response" is the mean."""
        return {} if self.fitted_by is None else self.fitted_by()

    def __getstate__(self) -> dict[str, Any]:
        # What makes them holds the data.
        return {**vars(self), "fitted": self.fitted, "fitted_by": None, "case": None}

    @property
    def active(self) -> dict[str, tuple[int, ...]]:
        """Per block, the rows of its inequality constraints that hold with equality."""
        sets = self.result.active_sets if self.result is not None else None
        return {name: rows or () for name, rows in zip(self.names, sets or [None] * len(self.names), strict=True)}

    @property
    def mu(self) -> FloatArray:
        """Response-scale mean, of shape (n,)."""
        return self.fitted["response"]

    @property
    def converged(self) -> bool:
        """Whether the certificate holds."""
        return isinstance(self.result, FitResult) and self.result.converged

    def __repr__(self) -> str:
        return fit_repr(self)

    def _facts(self) -> list[tuple[str, str]]:
        values = [(name, f"{value:.6g}") for name, value in self.nuisance.items()]
        return [*fit_facts(self), *values]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = []
        for term in self.terms:
            values = [f"{penalty.log_lambda:.2f} {penalty.state}".rstrip() for penalty in term.penalties]
            rows.append((term.name, str(term.columns), f"{term.edf:.2f}", ", ".join(values)))
        return ("term", "coefficients", "edf", "log lambda"), rows

    def summary(self) -> str:
        """Describe in lines of 80 columns the terms, the start, the guard, cost and savings."""
        outer = OuterFit(self.result, self.start, self.kept, self.guard, self.reason, self.notes, self.cost, None)
        terms = [*map(visible, term_table(self.terms, self.nuisance)), ""] if self.terms else []
        return "\n".join([*terms, outer.summary()])

    def predict(self, columns: Any, *, standard_errors: bool = False) -> Prediction:
        """Return linear predictors and mean response of new rows, without the fit's data.

        Parameters
        ----------
        columns : mapping of str to arrays of shape (n,), or a data frame
            The columns of the model's terms, and its offset's if it has one.
        standard_errors : bool
            Whether to compute standard errors too, at the fit's smoothing parameters.

        Returns
        -------
        Prediction
            A level that the fit had no rows of: a `RandomEffect` is at its prior mean, 0, with its
            prior variance in the standard errors.

        Raises
        ------
        InvalidInput, InvalidType
            Naming column and row: a column that is missing or has no value somewhere, an unseen
            level of a `Factor`, a value outside a smooth's knots.
        """
        return self._model("predict").predict(columns, standard_errors=standard_errors)

    def held_out(self, rows: Any = None, *, columns: Any = None) -> HeldOut:
        """Return the log-likelihood of rows that the fit did not use, at its coefficients.

        Its smoothing parameters and coefficients are plugged in: what they may vary by is not
        integrated over, and a level that the fit had no rows of has its prior mean, 0.

        Parameters
        ----------
        rows : bool array of shape (all rows,) or array of row numbers, optional
            Of the data that the model was bound to; default the rows that this fit left out.
        columns : mapping of str to arrays of shape (n,), or a data frame, optional
            Instead: other rows, with response, weights and offset. All that a fit that was pickled
            can use.

        Raises
        ------
        InvalidInput, InvalidType
            As `predict`; a response outside the family's range; no row was left out.
        """
        model = self._model("held_out")
        if columns is not None:
            if rows is not None:
                raise InvalidInput("held_out has rows and columns; give one of them")
            return model.log_likelihood(columns)
        if self.case is None:
            raise InvalidInput("a fit that was pickled has no data; give held_out(columns=...) with the response")
        return model.log_likelihood(self.case.columns_of(rows))

    def curves(self) -> dict[str, Curve]:
        """Return each term's contribution with standard errors, at values of the bound data.

        Of each term up to 200 distinct values, the same in every fit of one bound model, so that
        folds can be compared. Needs the data: a fit that was pickled returns none.
        """
        if self.case is None or self.model is None:
            return {}
        return curves(self.model, self.case.bound.terms)

    def _model(self, what: str) -> FittedModel:
        if self.model is None:
            raise InvalidInput(f"{what}: this rank had no case to fit (case=None); ask the rank that fitted it")
        return self.model

    def beta(self, name: str) -> FloatArray:
        """Return the reduced coefficients of a block."""
        return np.array(self.result.block_beta[self.names.index(name)])
