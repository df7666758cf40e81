"""What a fit of the reference engine returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gamwarm.engine._types import FloatArray
from gamwarm.records import Cost, FitResult
from gamwarm.transfer import StartReport

__all__ = ["ColdTrial", "EngineFit", "GuardReport", "SeedCost"]


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


@dataclass
class GuardReport:
    """What the guard did with an offered start.

    Attributes
    ----------
    beta_used : bool or None
        Whether the offered coefficients passed the beta gate; None if none were offered.
    predicted_step : float or None
        max|metric^-1 gradient| at the start (log lambda); None where it was not asked.
    cold_evaluated : bool
        Whether the start was doubtful enough to evaluate a cold one too.
    continued_from : str
        "start" or "cold".
    resets : list of (coordinate, rho it had)
        False plateaus that went back to their default.
    notes : list of str
    """

    beta_used: bool | None = None
    predicted_step: float | None = None
    cold_evaluated: bool = False
    continued_from: str = "cold"
    resets: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        done = list(self.notes)
        if self.resets:
            done.append("false plateaus went back: " + ", ".join(f"rho[{j}] from {rho:.3g}" for j, rho in self.resets))
        if self.cold_evaluated:
            asked = "" if self.predicted_step is None else f" (predicted step {self.predicted_step:.2g})"
            done.append(f"the start was doubtful{asked}, a cold one was evaluated too")
        return f"continued from the {self.continued_from}" + "".join(f"; {each}" for each in done)


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
        What was filed.
    edf : dict of str to float
        Effective degrees of freedom per block, unpenalised directions included.
    cold : tuple of ColdTrial
        Cold starts that were evaluated.
    guard : GuardReport
    cost : Cost
    curvature_formations : int
        Hessian formations, within ``cost``, spent on the outer Hessian that is kept for children and not needed here.
    names : tuple of str
        Block names.
    reason : str
        Why the fit did not converge, if it did not.
    seeds : SeedCost
        What group seeds took, within ``cost``.
    fitted_by : callable, optional
        Makes `fitted` when somebody asks for it.
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

    @cached_property
    def fitted(self) -> dict[str, FloatArray]:
        """Linear predictor per name, offset included, each of shape (n,); "response" is the response-scale mean."""
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
        """Return in lines what the fit started from, what the guard did, what it took, and what the start saved."""
        lines = ["no store"] if self.start is None else self.start.summary().splitlines()
        if self.start is not None and self.start.start is not None:
            lines.append(f"  guard: {self.guard}")
        cost = self.cost
        lines.append(
            f"  this fit: {cost.evaluations} evaluations, {cost.hessian_formations} Hessian formations "
            f"({cost.for_children} for later fits), {cost.seconds:.3g} s"
        )
        if self.kept is not None and self.kept.saved is not None:
            lines.append(f"  saved against the fit it started from: {self.kept.saved}")
        return "\n".join(lines + ([f"  not converged: {self.reason}"] if self.reason else []))

    def beta(self, name: str) -> FloatArray:
        """Return the reduced coefficients of a block."""
        return np.array(self.result.block_beta[self.names.index(name)])
