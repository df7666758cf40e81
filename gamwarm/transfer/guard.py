"""The guard of an offered start, for any engine: the tests on plain numbers, and `StartGuard`,
which applies them.

A transferred start is offered, not imposed. In order of cost: the *beta gate* compares penalized
negative log-likelihoods before anything is factorised; the *plateau sign test* checks the first
evaluation (and every final certificate); the *predicted-step test* asks the start's own metric how
far the search would go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray, as_float, float_vector, real_array
from gamwarm.errors import InvalidInput
from gamwarm.records import PLATEAU_EDF

__all__ = [
    "FALSE_PLATEAU_EDF",
    "PREDICTED_STEP_LIMIT",
    "GuardOutcome",
    "OuterPoint",
    "StartGuard",
    "beta_gate",
    "false_plateaus",
    "find_false_plateaus",
    "floored_eigen",
    "guard_sentence",
    "held_by_curvature",
    "is_same_objective",
    "predicted_step",
]

# The guard's thresholds and how they were chosen: docs/engine.md, "Guard".
PLATEAU_RHO: Final = 6.0
# Not PLATEAU_EDF, which says that a coordinate has nothing left to smooth: here it only has to be
# on the way there.
FALSE_PLATEAU_EDF: Final = 1.0
# Of log lambda: a start whose own metric predicts a longer first step is no better informed than a
# cold one.
PREDICTED_STEP_LIMIT: Final = 2.0
# The same of an offer of other terms, whose metric is another model's: the longest step that a
# search takes at once.
_PARTIAL_STEP_LIMIT: Final = 4.0
# Below this a gradient's sign is rounding, not evidence.
_SIGN_NOISE: Final = 1e-9
# Where the gradient c exp(-rho) is lost in that noise, c may still be worth 1e-9 exp(rho - 6) of
# objective: it matters from here on (1e-4).
_LOST_RHO: Final = 18.0
# One evaluation here sees c down to 2e-4.
_PROBE_RHO: Final = 12.0
# Where effective degrees of freedom are unknown, a minimum and a false plateau differ one unit
# nearer 0.
_PROBE_STEP: Final = 1.0
# Of outer Hessians, in units of objective per unit of rho squared: below it the objective is flat.
_EIGENVALUE_FLOOR: Final = 1e-4
# On a plateau V_jj = -g_j: a coordinate whose curvature exceeds this many gradients lies near a
# minimum.
_CONVEX: Final = 2.0
# Relative to 1 + |objective|: above what two builds of one engine differ by, below what another fit
# does.
_SAME_OBJECTIVE: Final = 1e-6

BoolArray = npt.NDArray[np.bool_]


def _vector(value: Any, what: str, length: int | None = None) -> FloatArray:
    return float_vector(value, what, length=length, finite=False)


def beta_gate(offered: float, null: float) -> bool:
    """Whether offered coefficients may be used.

    Parameters
    ----------
    offered, null : float
        Penalized negative log-likelihood, at the offered rho, of the offered coefficients and of
        the null start.
    """
    own, other = as_float(offered, "offered"), as_float(null, "null")
    return bool(np.isfinite(own) and not own > other)


def floored_eigen(symmetric: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return absolute, floored eigenvalues and the eigenvectors of an outer Hessian: the guard's
    and the search's.
    """
    values, vectors = np.linalg.eigh(symmetric)
    return np.maximum(np.abs(values), _EIGENVALUE_FLOOR), vectors


def is_same_objective(stored: float | None, evaluated: float) -> bool:
    """Whether an objective that was stored is the one evaluated at the same point, to 1e-6 of its
    size.

    If not, the record is of another function: it is not an exact hit, and is guarded like a
    transfer. None claims nothing.
    """
    return stored is None or bool(abs(evaluated - stored) <= _SAME_OBJECTIVE * (1.0 + abs(evaluated)))


def false_plateaus(rho: Any, edf: Any, gradient: Any) -> BoolArray:
    """Return, per outer coordinate, whether it sits on a plateau that leads uphill.

    Towards infinite smoothing the objective is ``V_inf + c exp(-rho)``: the gradient there is tiny
    whatever the coordinate should be, but its *sign* survives. ``rho > 6``, ``edf < 1`` and a
    positive gradient say that the objective falls towards less smoothing: the small gradient
    certifies nothing.

    Parameters
    ----------
    rho, edf, gradient : arrays of shape (q,)
        ``gradient`` is d objective / d rho of the minimised objective.
    """
    r = _vector(rho, "rho")
    e, g = _vector(edf, "edf", r.shape[0]), _vector(gradient, "gradient", r.shape[0])
    flags: BoolArray = (r > PLATEAU_RHO) & (e < FALSE_PLATEAU_EDF) & (g > _SIGN_NOISE)
    return flags


def held_by_curvature(metric: FloatArray, gradient: FloatArray, edf: FloatArray) -> BoolArray:
    """Return, per outer coordinate, whether an outer Hessian says that it lies near a minimum.

    Towards infinite smoothing ``V_jj = -g_j``, so curvature that clearly exceeds the gradient
    belongs to no plateau. A metric from elsewhere says nothing of this point: near a minimum
    ``V_jj`` is at most the effective degrees of freedom, which vanish with the distance from it.

    Parameters
    ----------
    metric : array of shape (q, q)
        Unknown where NaN.
    gradient, edf : arrays of shape (q,)
    """
    curvature = np.diagonal(metric)
    held: BoolArray = (curvature > _CONVEX * np.abs(gradient)) & (curvature <= edf)
    return held


def off_plateau(default_rho: FloatArray, smoothing: int) -> FloatArray:
    """Return where false plateaus go back to: the default, except where that could be on a
    plateau.
    """
    rho = np.array(default_rho)
    rho[:smoothing] = np.minimum(rho[:smoothing], PLATEAU_RHO)
    return rho


def predicted_step(gradient: Any, metric: Any) -> float:
    """Return max|metric^-1 gradient|, inf if anything is non-finite or the metric cannot be
    inverted.

    Above 2 (units of log lambda) a start is doubtful: also evaluate the cold start and continue
    from the lower objective.

    Parameters
    ----------
    gradient : array of shape (q,)
    metric : array of shape (q, q)
        The start's own outer Hessian, positive definite.
    """
    g = _vector(gradient, "gradient")
    m = real_array(metric, "metric", "a matrix of real numbers")
    if m.shape != (g.shape[0], g.shape[0]):
        raise InvalidInput(f"metric has shape {m.shape}; the gradient has length {g.shape[0]}")
    if g.size == 0:
        return 0.0
    if not (np.isfinite(g).all() and np.isfinite(m).all()):
        return float("inf")
    try:
        step = np.linalg.solve(m, g)
    except np.linalg.LinAlgError:
        return float("inf")
    size = float(np.abs(step).max())
    return size if np.isfinite(size) else float("inf")


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
        """Effective degrees of freedom per coordinate, of shape (q,); None if the engine does not
        know them.
        """


P = TypeVar("P", bound=OuterPoint)


def is_finite(point: OuterPoint) -> bool:
    """Whether value and gradient are numbers."""
    return bool(np.isfinite(point.value) and np.isfinite(np.asarray(point.gradient, dtype=np.float64)).all())


def find_false_plateaus(
    point: OuterPoint, evaluate: Callable[[FloatArray], OuterPoint], smoothing: int | None = None
) -> BoolArray:
    """Return, per outer coordinate, whether it is a false plateau, with one more evaluation if
    needed.

    `false_plateaus` decides wherever it can. Where the sign of the gradient is lost in its noise
    (from rho = 18 on), or where the point knows no effective degrees of freedom, one evaluation
    nearer 0 decides for all such coordinates together: on a false plateau the objective still falls
    towards less smoothing there.

    Parameters
    ----------
    point : OuterPoint
        Finite.
    evaluate : callable (rho) -> point
        One outer evaluation near ``point``.
    smoothing : int, optional
        The first so many coordinates are log smoothing parameters; those after them have no
        plateaus. Default: all.
    """
    rho, gradient = _vector(point.rho, "rho"), _vector(point.gradient, "gradient")
    far = rho > PLATEAU_RHO
    if smoothing is not None:
        far &= np.arange(rho.size) < smoothing
    if not far.any():
        return far
    lost = far & (rho > _LOST_RHO) & (np.abs(gradient) <= _SIGN_NOISE)
    if point.edf is None:
        found = np.zeros(rho.size, dtype=np.bool_)
        asked = far & (gradient > _SIGN_NOISE)
    else:
        edf = _vector(point.edf, "edf", rho.size)
        found = far & false_plateaus(rho, edf, gradient)
        lost &= edf < FALSE_PLATEAU_EDF
        asked = np.zeros(rho.size, dtype=np.bool_)
    if (lost | asked).any():
        nearer = np.where(lost, _PROBE_RHO, np.where(asked, rho - _PROBE_STEP, rho))
        probe = evaluate(nearer)
        if is_finite(probe):
            found |= (lost | asked) & (np.asarray(probe.gradient, dtype=np.float64) > _SIGN_NOISE)
    return found


@dataclass
class GuardOutcome(Generic[P]):
    """Where to continue, and why.

    Attributes
    ----------
    point
        The engine's own evaluation to continue from.
    continued_from : str
        "start" or "cold".
    beta_used : bool
        Whether the offered coefficients passed the gate.
    resets : list of (coordinate, rho it had)
        False plateaus that went back to their default.
    predicted_step : float or None
        max|metric^-1 gradient| there; None if not computed.
    evaluations : int
        Outer evaluations that the guard asked for.
    other
        The evaluation that was not gone on from, where a cold one was made too. If the search from
        ``point`` ends without an answer, search from here; of two answers the lower counts.
    notes : list of str
    """

    point: P
    continued_from: str
    beta_used: bool
    resets: list[tuple[int, float]] = field(default_factory=list)
    predicted_step: float | None = None
    evaluations: int = 1
    other: P | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def cold_evaluated(self) -> bool:
        """Whether the start was doubtful enough to evaluate a cold one too."""
        return self.other is not None

    def __str__(self) -> str:
        return guard_sentence(self)


class GuardFacts(Protocol):
    """What both a guard's outcome and a fit's report of it have."""

    @property
    def continued_from(self) -> str: ...
    @property
    def resets(self) -> Sequence[tuple[int, float]]: ...
    @property
    def predicted_step(self) -> float | None: ...
    @property
    def cold_evaluated(self) -> bool: ...
    @property
    def notes(self) -> Sequence[str]: ...


def guard_sentence(facts: GuardFacts) -> str:
    """Return one line: where a fit went on from, and what the guard did before."""
    done = list(facts.notes)
    if facts.resets:
        done.append("false plateaus went back: " + ", ".join(f"rho[{j}] from {rho:.3g}" for j, rho in facts.resets))
    if facts.cold_evaluated:
        asked = "" if facts.predicted_step is None else f" (predicted step {facts.predicted_step:.2g})"
        done.append(f"the start was doubtful{asked}, so a cold one was evaluated too")
    origin = "offered" if facts.continued_from == "start" else "cold"
    return f"continued from the {origin} start" + "".join(f"; {each}" for each in done)


class StartGuard(Generic[P]):
    """The three tests of an offered start, in order of cost.

    1. The penalized negative log-likelihood at the offered coefficients must not exceed that at the
       null start.
    2. After the first evaluation a false plateau (`find_false_plateaus`) goes back to its default,
       unless the start's metric says that a minimum is near.
    3. A predicted first step above 2, or anything non-finite, has the cold start evaluated; the
       search continues from the lower objective.

    A search must check for false plateaus again at the point where it is about to stop.

    Parameters
    ----------
    evaluate : callable (rho, coefficients) -> point
        One outer evaluation, its inner solve begun at the coefficients. Both are copies that may be
        written to.
    evaluate_cold : callable () -> point
        The evaluation that the engine begins with when it has no start.
    null : object
        The null start's coefficients, in whatever form the callables take.
    default_rho : array of shape (q,)
        Where a coordinate goes whose offered value is of no use.
    penalised_nll : callable (rho, coefficients) -> float, optional
        Without it the first test only asks whether the coefficients are finite.
    rho_bound : float
        Offered log smoothing parameters are clipped to it; a gradient that pushes against it
        predicts no step.
    nuisance : int
        The last so many outer coordinates are nuisance coordinates: no bound, no plateau.
    is_answer : callable (point) -> bool, optional
        A point that passes the engine's certificate is not doubted.
    partial : bool
        The offer comes from a fit with other terms. If its coefficients do not pass the first test,
        nothing of it is evaluated and the search begins cold. The third test leaves out coordinates
        whose diagonal of the metric is NaN, and its limit is 4.

    Raises
    ------
    InvalidInput
        Shapes that disagree, named.
    """

    def __init__(
        self,
        *,
        evaluate: Callable[[FloatArray, Any], P],
        evaluate_cold: Callable[[], P],
        null: Any,
        default_rho: Any,
        penalised_nll: Callable[[FloatArray, Any], float] | None = None,
        rho_bound: float = float("inf"),
        nuisance: int = 0,
        is_answer: Callable[[P], bool] | None = None,
        partial: bool = False,
    ) -> None:
        self._penalised_nll, self._evaluate, self._evaluate_cold = penalised_nll, evaluate, evaluate_cold
        self._null, self._is_answer, self._partial = null, is_answer, partial
        self._default = float_vector(default_rho, "default_rho")
        self._smoothing = len(self._default) - nuisance
        self._bounds = np.where(np.arange(len(self._default)) < self._smoothing, rho_bound, np.inf)

    def admit(self, rho: Any, coefficients: Any, metric: Any = None) -> GuardOutcome[P]:
        """Test an offered start.

        Parameters
        ----------
        rho : array of shape (q,)
            A coordinate that is not finite counts as not offered.
        coefficients : object
            As the callables take them.
        metric : array of shape (q, q), or callable (point) -> array or None, optional
            The start's own outer Hessian; a callable is asked where the third test needs one.
            Without one that test looks for non-finite numbers only.
        """
        offered = np.array(float_vector(rho, "rho", length=len(self._default), finite=False))
        lost = ~np.isfinite(offered)
        offered[lost] = self._default[lost]
        offered = np.clip(offered, -self._bounds, self._bounds)
        good = self._gate(offered, coefficients)
        if self._partial and not good:
            outcome = GuardOutcome(self._evaluate_cold(), "cold", good)
            outcome.notes.append("the parent has other terms and its coefficients are worse than the null model's")
            return outcome
        start = coefficients if good else self._null
        outcome = GuardOutcome(self._evaluate(np.array(offered), start), "start", good)
        if lost.any():
            outcome.notes.append(f"rho of coordinates {np.flatnonzero(lost).tolist()} was not finite")
        if not good:
            outcome.notes.append("the offered coefficients are worse than the null model's: they start cold")
        if is_finite(outcome.point) and not self._answers(outcome.point):
            self._reset(outcome, start, metric)
        if is_finite(outcome.point) and not self._answers(outcome.point):
            outcome.predicted_step = self._predicted(outcome.point, metric, outcome.resets)
        limit = _PARTIAL_STEP_LIMIT if self._partial else PREDICTED_STEP_LIMIT
        doubtful = outcome.predicted_step is not None and not outcome.predicted_step <= limit
        if doubtful or not is_finite(outcome.point):
            cold = self._evaluate_cold()
            outcome.evaluations += 1
            outcome.other = cold
            if is_finite(cold) and not (is_finite(outcome.point) and float(outcome.point.value) <= float(cold.value)):
                outcome.point, outcome.other, outcome.continued_from = cold, outcome.point, "cold"
                outcome.notes.append("the cold start has the lower objective")
        return outcome

    def _gate(self, rho: FloatArray, coefficients: Any) -> bool:
        if self._penalised_nll is None:
            return bool(np.isfinite(np.asarray(coefficients, dtype=np.float64)).all())
        with np.errstate(all="ignore"):
            offered = self._penalised_nll(np.array(rho), coefficients)
        return beta_gate(offered, self._penalised_nll(np.array(rho), self._null))

    def _answers(self, point: P) -> bool:
        return self._is_answer is not None and self._is_answer(point)

    def _reset(self, outcome: GuardOutcome[P], start: Any, metric: Any) -> None:
        def probe(rho: FloatArray) -> P:
            outcome.evaluations += 1
            return self._evaluate(rho, start)

        rho = np.array(_vector(outcome.point.rho, "rho", len(self._default)))
        false = find_false_plateaus(outcome.point, probe, self._smoothing)
        if false.any():
            false &= ~self._held(outcome.point, metric)
        where = np.flatnonzero(false)
        if where.size:
            outcome.resets = [(int(j), float(rho[j])) for j in where]
            rho[where] = off_plateau(self._default, self._smoothing)[where]
            outcome.point = probe(rho)

    def _held(self, point: P, metric: Any) -> BoolArray:
        """Return where the sign of a gradient proves no plateau, as the metric knows a minimum
        there.
        """
        q = len(self._default)
        hessian = None if point.edf is None else self._hessian(point, metric)
        if hessian is None:
            return np.zeros(q, dtype=np.bool_)
        gradient = _vector(point.gradient, "gradient", q)
        # A sign that a probe had to find says nothing of curvature here.
        return held_by_curvature(hessian, gradient, _vector(point.edf, "edf", q)) & (gradient > _SIGN_NOISE)

    def _hessian(self, point: P, metric: Any) -> FloatArray | None:
        q = len(self._default)
        if callable(metric):
            metric = metric(point)
        if metric is None:
            return None
        hessian = real_array(metric, "metric", "a matrix of real numbers")
        if hessian.shape != (q, q):
            raise InvalidInput(f"metric has shape {hessian.shape}; this fit has {q} outer coordinates")
        return hessian

    def _predicted(self, point: P, metric: Any, resets: list[tuple[int, float]]) -> float | None:
        q = len(self._default)
        hessian = self._hessian(point, metric)
        if hessian is None:
            return None
        rho, gradient = _vector(point.rho, "rho", q), _vector(point.gradient, "gradient", q)
        # On a plateau neither gradient nor curvature says how far it goes, and a coordinate that
        # went back has left the start's metric behind.
        live = np.ones(q, dtype=np.bool_)
        if point.edf is not None:
            live[: self._smoothing] = (_vector(point.edf, "edf", q) >= PLATEAU_EDF)[: self._smoothing]
            live |= rho < 0.0
        if self._partial:
            live &= ~np.isnan(np.diagonal(hessian))
        live[[j for j, _ in resets]] = False
        outward = ((rho >= self._bounds) & (gradient < 0.0)) | ((rho <= -self._bounds) & (gradient > 0.0))
        asked = np.flatnonzero(live)
        part = hessian[np.ix_(asked, asked)]
        if not np.isfinite(part).all():
            return float("inf")
        # A Hessian off its minimum need not be positive definite.
        values, vectors = floored_eigen(0.5 * (part + part.T))
        floored = (vectors * values) @ vectors.T
        return predicted_step(np.where(outward, 0.0, gradient)[asked], floored)
