"""The guard as one object, for any engine: give it callables, get the point to go on from and what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from gamwarm.checks import FloatArray, float_vector, real_array
from gamwarm.errors import InvalidInput
from gamwarm.records import PLATEAU_EDF
from gamwarm.transfer.guard import PREDICTED_STEP_LIMIT, beta_gate, false_plateaus, predicted_step

__all__ = ["GuardOutcome", "OuterPoint", "StartGuard"]


class OuterPoint(Protocol):
    """What the guard reads of an outer evaluation; an engine's own object will do."""

    @property
    def rho(self) -> Any:
        """Outer coordinates, of shape (q,)."""

    @property
    def value(self) -> float:
        """Objective that is minimised."""

    @property
    def gradient(self) -> Any:
        """D value / d rho, of shape (q,)."""

    @property
    def edf(self) -> Any:
        """Effective degrees of freedom per coordinate, of shape (q,)."""


P = TypeVar("P", bound=OuterPoint)


@dataclass
class GuardOutcome(Generic[P]):
    """Where to go on, and why.

    Attributes
    ----------
    point
        The engine's own evaluation to go on from.
    continued_from : str
        "start" or "cold".
    beta_used : bool
        Whether the offered coefficients passed the gate.
    resets : list of (coordinate, rho it had)
        False plateaus that went back to their default.
    predicted_step : float or None
        max|metric^-1 gradient| there; None without a metric.
    evaluations : int
        Outer evaluations that the guard asked for.
    """

    point: P
    continued_from: str
    beta_used: bool
    resets: list[tuple[int, float]] = field(default_factory=list)
    predicted_step: float | None = None
    evaluations: int = 1


class StartGuard(Generic[P]):
    """The three tests of an offered start, in order of cost.

    1. The penalized negative log-likelihood at the offered coefficients must not exceed that at the null start.
    2. After the first evaluation a false plateau (`false_plateaus`) goes back to its default.
    3. A predicted first step above 2, or anything non-finite, has the cold start evaluated; the lower objective goes
       on.

    A search must apply `false_plateaus` once more to the point where it wants to stop.

    Parameters
    ----------
    penalised_nll : callable (rho, coefficients) -> float
    evaluate : callable (rho, coefficients) -> point
        One outer evaluation, its inner solve begun at the coefficients.
    evaluate_cold : callable () -> point
        The evaluation that the engine begins with when it has no start.
    null : object
        The null start's coefficients, in whatever form the callables take.
    default_rho : array of shape (q,)

    Raises
    ------
    InvalidInput
        Shapes that disagree, named.
    """

    def __init__(
        self,
        *,
        penalised_nll: Callable[[FloatArray, Any], float],
        evaluate: Callable[[FloatArray, Any], P],
        evaluate_cold: Callable[[], P],
        null: Any,
        default_rho: Any,
    ) -> None:
        self._penalised_nll, self._evaluate, self._evaluate_cold = penalised_nll, evaluate, evaluate_cold
        self._null = null
        self._default = float_vector(default_rho, "default_rho")

    def admit(self, rho: Any, coefficients: Any, metric: Any = None) -> GuardOutcome[P]:
        """Test an offered start.

        Parameters
        ----------
        rho : array of shape (q,)
            A coordinate that is not finite counts as not offered.
        coefficients : object
            As the callables take them.
        metric : array of shape (q, q), optional
            The start's own outer Hessian. Without one the third test looks for non-finite numbers only.
        """
        offered = np.array(float_vector(rho, "rho", length=len(self._default), finite=False))
        lost = ~np.isfinite(offered)
        offered[lost] = self._default[lost]
        good = beta_gate(self._penalised_nll(offered, coefficients), self._penalised_nll(offered, self._null))
        start = coefficients if good else self._null
        outcome = GuardOutcome(self._evaluate(offered, start), "start", good)
        if self._is_finite(outcome.point):
            where = np.flatnonzero(false_plateaus(offered, outcome.point.edf, outcome.point.gradient))
            if where.size:
                outcome.resets = [(int(j), float(offered[j])) for j in where]
                offered[where] = self._default[where]
                outcome.point = self._evaluate(offered, start)
                outcome.evaluations += 1
        if metric is not None and self._is_finite(outcome.point):
            outcome.predicted_step = self._predicted(outcome.point, metric)
        doubtful = outcome.predicted_step is not None and outcome.predicted_step > PREDICTED_STEP_LIMIT
        if doubtful or not self._is_finite(outcome.point):
            cold = self._evaluate_cold()
            outcome.evaluations += 1
            if not self._is_finite(outcome.point) or float(cold.value) < float(outcome.point.value):
                outcome.point, outcome.continued_from = cold, "cold"
        return outcome

    @staticmethod
    def _is_finite(point: OuterPoint) -> bool:
        return bool(np.isfinite(point.value) and np.isfinite(np.asarray(point.gradient, dtype=np.float64)).all())

    def _predicted(self, point: OuterPoint, metric: Any) -> float:
        q = len(self._default)
        hessian = real_array(metric, "metric", "a matrix of real numbers")
        if hessian.shape != (q, q):
            raise InvalidInput(f"metric has shape {hessian.shape}; this fit has {q} outer coordinates")
        edf, rho = np.asarray(point.edf, dtype=np.float64), np.asarray(point.rho, dtype=np.float64)
        # On a plateau neither gradient nor curvature says how far it goes.
        live = np.flatnonzero((edf >= PLATEAU_EDF) | (rho < 0.0))
        gradient = np.asarray(point.gradient, dtype=np.float64)
        return predicted_step(gradient[live], hessian[np.ix_(live, live)])
