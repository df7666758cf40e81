"""What a fit of the reference engine returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gamwarm.engine.arrays import FloatArray
from gamwarm.fitting import GuardReport, OuterFit
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
class EngineFit:
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

    @cached_property
    def fitted(self) -> dict[str, FloatArray]:
        """Linear predictor per name, with offset, of shape (n,); "response" is the mean."""
        return {} if self.fitted_by is None else self.fitted_by()

    def __getstate__(self) -> dict[str, Any]:
        # What makes them holds the data.
        return {**vars(self), "fitted": self.fitted, "fitted_by": None}

    @property
    def mu(self) -> FloatArray:
        """Response-scale mean, of shape (n,)."""
        return self.fitted["response"]

    @property
    def converged(self) -> bool:
        """Whether the certificate holds."""
        return isinstance(self.result, FitResult) and self.result.converged

    def summary(self) -> str:
        """Describe in lines the start, the guard's decision, the cost and the savings."""
        outer = OuterFit(self.result, self.start, self.kept, self.guard, self.reason, self.notes, self.cost, None)
        return outer.summary()

    def beta(self, name: str) -> FloatArray:
        """Return the reduced coefficients of a block."""
        return np.array(self.result.block_beta[self.names.index(name)])
