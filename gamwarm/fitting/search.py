"""The outer search: exact Newton where there is a Hessian, else BFGS; from a transfer the parent's
Hessian as metric.

It stops at the certificate and nowhere else. Where it began does not enter it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray
from gamwarm.errors import FitFailed, InvalidInput
from gamwarm.fitting.certificate import Certificate, Refusal
from gamwarm.fitting.evaluation import Evaluation, Objective, checked
from gamwarm.fitting.metric import complete_metric, first_metric
from gamwarm.identity import FitProblem
from gamwarm.records import PLATEAU_EDF, Cost, InnerMode
from gamwarm.transfer import InnerCapState, false_plateaus, floored_eigen, held_by_curvature, inner_cap

__all__ = ["ARMIJO", "End", "Outcome", "Search", "predicted_mode"]

BoolArray = npt.NDArray[np.bool_]

# The share of the predicted decrease that a step must reach: c1 of Nocedal and Wright (2006),
# section 3.1.
ARMIJO = 1e-4
# Of log lambda in one step, outside jumps to a plateau.
_MAX_STEP = 4.0
_MAX_HALVINGS = 12
# A jump onto a plateau aims at this part of the tolerance.
_JUMP_MARGIN = 0.3
# A step that leaves more than this part of the gradient is slow; after so many an exact Hessian is
# formed.
_SLOW = 0.5
_PATIENCE = 1
# In a minimum with a small edf the gradient is small compared with the edf; on a false plateau both
# vanish together.
_BALANCE = 0.003
# A doubted coordinate moves at least this much further than its gradient asks, at most so often.
_PUSH = 1.5
_MAX_NUDGES = 2
# Rounding of an objective, relative to 1 + |objective|.
_VALUE_NOISE = 1e-10
# A step to which curvature adds little: its change is what the gradient predicts.
_SHORT = 1e-3
# Values along a step differ by what the gradients at its ends say, give or take this and the
# gradients' own difference.
_BRANCH_MARGIN = 1.0
# Of a step that crossed a kink: the next one is shorter by at least the rest of it, and is at least
# the rest of it.
_NEARER = 0.95
# Differences of gradients that are smaller than this part of the largest are no kink of their own.
_SAME_KINK = 1e-6
# An engine of single precision returns rho rounded.
_SINGLE = 1e-6
# A mode at infinity in so many points on end is one everywhere: what no penalty holds runs away at
# any rho.
_MAX_RUNAWAYS = 4
# Of an offer from a parent with other terms: those that help take 5 to 12 cycles on the benchmarks'
# data, those that do not take hundreds.
_OFFER_CYCLES = 15


class End(StrEnum):
    """How a search ended."""

    ANSWER = "answer"
    ITERATIONS = "out of iterations"
    STOPPED = "stopped"
    STALLED = "stalled"
    REFUSED = "refused"  # flat, and no answer
    RUNAWAY = "no finite optimum"
    NOT_FINITE = "not finite"


@dataclass
class Outcome:
    """Where a search ended, and how.

    Attributes
    ----------
    at : Evaluation
    end : End
    reason : str
        Why ``at`` is not an answer, if it is not.
    resets : list of (coordinate, rho it had)
        False plateaus that went back to their default.
    steps : int
    branch : str
        Words on another branch of the objective that the search met; empty if it met none.
    """

    at: Evaluation
    end: End = End.NOT_FINITE
    reason: str = ""
    resets: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    branch: str = ""

    @property
    def is_answer(self) -> bool:
        """Whether the certificate holds."""
        return self.end is End.ANSWER


def is_another_branch(at: Evaluation, after: Evaluation) -> bool:
    """Whether two values differ by more than their gradients explain.

    Along a smooth objective the difference lies near the interval of what the gradient at either
    end predicts. Where it does not, the inner solves ended in two modes, each with an objective of
    its own.
    """
    step, rise = after.rho - at.rho, after.value - at.value
    low, high = sorted((float(at.gradient @ step), float(after.gradient @ step)))
    return max(rise - high, low - rise) > _BRANCH_MARGIN + (high - low)


def predicted_mode(
    at: Evaluation, rho: FloatArray, smoothing: int, penalized_nll: Callable[[FloatArray, FloatArray], float] | None
) -> FloatArray:
    """Return coefficients near the mode at ``rho``: where the tangent of theta(rho) at ``at``
    points, or ``at``'s own.

    ``penalized_nll`` decides between them where the move is far.
    """
    if at.tangent is None:
        return np.asarray(at.theta)
    delta = rho - at.rho
    # Along a plateau theta decays like exp(-rho); elsewhere this is the tangent to first order.
    reach = np.where(delta > 0.0, -np.expm1(-np.maximum(delta, 0.0)), np.maximum(delta, -2.0))
    reach[smoothing:] = np.clip(delta[smoothing:], -2.0, 2.0)
    theta: FloatArray = at.theta + at.tangent @ reach
    far = np.abs(delta).max(initial=0.0) > 1.0
    if far and penalized_nll is not None and not penalized_nll(rho, theta) < penalized_nll(rho, at.theta):
        return np.asarray(at.theta)
    return theta


class Search:
    """Evaluations of one fit's objective, counted, and searches over them.

    Parameters
    ----------
    problem : FitProblem
    objective : Objective
    null : array of shape (p,)
        Coefficients of the null model.
    default_rho : array of shape (q,)
        Where a false plateau goes back to; off every plateau.
    cached_inner : InnerMode, optional
        Of a restored record: budgets intermediate inner solves.
    on_step : callable, optional
        Called with the evaluation after each outer iteration.
    should_stop : callable, optional
        Asked after each outer iteration; if it returns True the search stops, unless it has its
        answer.
    """

    def __init__(
        self,
        problem: FitProblem,
        objective: Objective,
        null: FloatArray,
        default_rho: FloatArray,
        cached_inner: InnerMode | None = None,
        on_step: Callable[[Evaluation], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.objective, self.null, self.default_rho = objective, null, default_rho
        self.options, self.q, self.p = problem.options, problem.n_outer, sum(problem.block_dims)
        self.certificate = Certificate(problem, lambda rho, near: self.move(near, rho))
        self.bound, self.smoothing = self.certificate.bound, self.certificate.smoothing
        self.tol = self.options.outer_tol
        self.cost = Cost()
        self._cached_inner, self._cap_state = cached_inner, InnerCapState()
        self._norm: float | None = None
        self._on_step, self._should_stop = on_step, should_stop
        self._branch = self._against = ""
        self._penalized_nll = getattr(objective, "penalized_nll", None)

    # -- evaluations -------------------------------------------------------------------------------

    def evaluate_offer(self, rho: FloatArray, theta: FloatArray) -> Evaluation:
        """Evaluate the objective at an offer from a parent with other terms, at a bounded cost.

        An inner solve that runs into the bound began far from its mode: the evaluation is returned
        as not finite, so that its value decides nothing. An engine that does not say whether its
        inner solve converged is given the full budget.
        """
        full = max(1, self.options.inner_max_cycles)
        if full <= _OFFER_CYCLES:
            return self.evaluate(rho, theta)
        at = self._evaluate(rho, theta, _OFFER_CYCLES)
        if at.converged is None:
            return self._evaluate(rho, theta, full)
        if not at.converged:
            at.value, at.gradient = np.inf, np.full(self.q, np.nan)
            at.failure = f"the inner solve was not done in {_OFFER_CYCLES} cycles"
        return at

    def evaluate(self, rho: FloatArray, theta: FloatArray) -> Evaluation:
        """Evaluate the objective; an inner solve that ran into its cap is repeated with the full
        budget.
        """
        full = max(1, self.options.inner_max_cycles)
        cap = inner_cap(self.options, self._cached_inner, self._norm, self._cap_state)
        at = self._evaluate(rho, theta, cap)
        if at.converged is False and cap < full:
            at = self._evaluate(rho, at.theta if np.isfinite(at.theta).all() else theta, full)
        return at

    def _evaluate(self, rho: FloatArray, theta: FloatArray, budget: int) -> Evaluation:
        try:
            found = self.objective.evaluate(np.array(rho), np.array(theta), budget)
        except Exception as error:
            error.add_note(f"in objective.evaluate at rho = {np.array2string(rho, precision=6, threshold=20)}")
            raise
        at = self.counted(found)
        if at.is_finite and not np.allclose(at.rho, rho, rtol=_SINGLE, atol=_SINGLE):
            raise InvalidInput(
                f"objective.evaluate was called at rho = {rho} and returned an evaluation at {at.rho}; evaluate at "
                "the requested point"
            )
        at.rho = np.array(rho)  # not as rounded by the engine: a bound is met exactly
        return at

    def counted(self, at: object) -> Evaluation:
        """Check an evaluation that the engine made, and count it."""
        known = checked(at, self.p, self.smoothing, self.certificate.names)
        cost = self.cost
        self.cost = replace(
            cost,
            evaluations=cost.evaluations + 1,
            inner_iterations=cost.inner_iterations + known.cycles,
            hessian_formations=cost.hessian_formations + known.formations,
        )
        return known

    def hessian(self, at: Evaluation) -> FloatArray | None:
        """Return the exact outer Hessian if the engine has one, and count its cost."""
        before = at.formations
        matrix = at.outer_hessian
        taken = at.formations - before
        self.cost = replace(self.cost, hessian_formations=self.cost.hessian_formations + taken)
        return matrix

    def penalized_nll(self, rho: FloatArray, theta: FloatArray) -> float:
        """Return the inner objective, inf if it is not a number."""
        assert self._penalized_nll is not None
        with np.errstate(all="ignore"):
            value = float(self._penalized_nll(np.array(rho), np.array(theta)))
        return value if np.isfinite(value) else np.inf

    @property
    def has_nll(self) -> bool:
        """Whether the engine provides the penalized negative log-likelihood."""
        return self._penalized_nll is not None

    def move(self, at: Evaluation, rho: FloatArray) -> Evaluation:
        """Evaluate at ``rho``, starting the inner solve where the tangent of theta(rho) at ``at``
        points.
        """
        nll = self.penalized_nll if self.has_nll else None
        moved = self.evaluate(rho, predicted_mode(at, rho, self.smoothing, nll))
        if moved is at:
            raise InvalidInput("objective.evaluate returned one Evaluation for two points; create a new one each time")
        if at.is_finite and moved.is_finite and is_another_branch(at, moved):
            self._branch = (
                f"the inner problem has more than one mode: a step of {np.abs(rho - at.rho).max():.2g} in rho "
                f"moved the objective from {at.value:.6g} to {moved.value:.6g}, which its gradients do not explain"
            )
        return moved

    def is_answer(self, at: Evaluation) -> bool:
        """Whether the certificate holds."""
        return self.certificate.verdict(at).holds

    # -- the search --------------------------------------------------------------------------------

    def run(self, first: Evaluation, metric: FloatArray | None = None) -> Outcome:
        """Search from ``first``; see `_run`."""
        self._branch = ""
        outcome = self._run(first, metric)
        outcome.branch = self._branch
        return outcome

    def _run(self, first: Evaluation, metric: FloatArray | None) -> Outcome:
        """Search from ``first``.

        ``metric`` (q, q) starts a quasi-Newton phase: gradients only, until the gradient stops
        falling by half per step; then, or without one, exact Hessians where the engine has them.
        """
        at, outcome = first, Outcome(first)
        if not at.is_finite:
            outcome.reason = at.failure or "the objective is not finite at the start"
            return outcome
        exact = metric is None and at.hessian is not None
        chord, slow, nudges, runaways = not exact, 0, 0, 0
        if not exact:
            metric = first_metric(at) if metric is None else complete_metric(metric, at)
        # The objective where a coordinate went back; it goes back again only from a flat point that
        # is lower.
        reset: dict[int, float] = {}
        # Where the objective last fell towards more smoothing; what went back to between there and
        # its plateau, once, goes to its default the next time.
        falling: dict[int, tuple[float, float]] = {}
        bracketed: set[int] = set()
        while True:
            self._norm = float(np.abs(at.gradient).max(initial=0.0))
            outcome.at = at
            verdict = self.certificate.verdict(at)
            if verdict.holds:
                outcome.end = End.ANSWER
                return outcome
            outcome.reason = verdict.reason
            if verdict.refusal in (Refusal.INNER, Refusal.INFINITE):  # flat: nothing to search for
                outcome.end = End.RUNAWAY if verdict.refusal is Refusal.INFINITE else End.REFUSED
                return outcome
            infinite = self.certificate.runs_away(at)
            runaways = 0 if infinite is None else runaways + 1
            if infinite is not None and runaways > _MAX_RUNAWAYS:
                outcome.end, outcome.reason = End.RUNAWAY, infinite.reason
                return outcome
            if outcome.steps and self._should_stop is not None and self._should_stop():
                outcome.end = End.STOPPED
                outcome.reason = f"stopped after {outcome.steps} outer iterations, as the end of the job is near"
                return outcome
            if outcome.steps >= self.options.outer_max_iter:
                outcome.end = End.ITERATIONS
                outcome.reason = (
                    f"outer_max_iter = {self.options.outer_max_iter} iterations were not enough ({verdict.reason})"
                )
                return outcome
            suspects = self._suspects(at)
            push = suspects & self.certificate.is_flat(at)
            nudges += bool(push.any())
            doubted = self._doubted(at, suspects)
            if chord and doubted.any():
                assert metric is not None
                doubted &= ~held_by_curvature(metric, at.gradient, at.edf)
            if nudges > _MAX_NUDGES and push.any():
                # On a plateau V_jj = -g_j; a clearly convex coordinate is a minimum with little
                # left to smooth.
                hessian = self.hessian(at)
                doubted |= push & (True if hessian is None else np.diagonal(hessian) <= 2.0 * np.abs(at.gradient))
                chord, exact = hessian is None, hessian is not None
            if verdict.where is not None:  # found by a probe, not by the sign of the gradient here
                doubted |= verdict.where & ~suspects
            lower = at.value + self._noise(at) if self.certificate.is_flat(at) else np.inf
            asked = map(int, np.flatnonzero(doubted))
            fresh = [j for j in asked if j not in reset or lower < reset[j]]
            if fresh:
                nearer = {j: falling[j] for j in fresh if j in falling and j not in bracketed}
                value = at.value
                at = self._reset(at, fresh, outcome, nearer)
                bracketed.update(nearer)
                reset.update((j, value) for j in fresh if j not in nearer)
                exact = at.hessian is not None
                chord, metric = not exact, None if exact else first_metric(at)
                self._step_done(at, outcome)
                continue
            if exact:
                metric = self.hessian(at)
                if metric is None:
                    exact, chord, metric = False, True, first_metric(at)
            assert metric is not None
            following = self._line_search(at, metric, exact, push)
            if following is None and not exact:
                again = self.hessian(at)
                exact, metric = again is not None, first_metric(at) if again is None else again
                chord = not exact
                following = self._line_search(at, metric, exact, push)
            if following is None:
                outcome.end = End.STALLED
                infinite = infinite or self.certificate.grows(at)
                if infinite is not None:
                    outcome.end, outcome.reason = End.RUNAWAY, infinite.reason
                    return outcome
                outcome.reason = (
                    f"no step lowers the objective further, and {verdict.reason}: stored as a checkpoint; "
                    f"{self._against or 'if the objective is noisy, raise outer_tol or lower inner_tol'}"
                )
                return outcome
            self._step_done(following, outcome)
            if chord:
                slow += self._size(following) > _SLOW * self._size(at)
                if slow > _PATIENCE and following.hessian is not None:
                    exact, chord, slow = True, False, 0
                else:
                    metric = self._updated(metric, at, following)
            outwards = np.flatnonzero((at.gradient < 0.0) & (at.rho > 0.0))
            falling |= {int(j): (float(at.rho[j]), float(at.gradient[j])) for j in outwards}
            at = following

    def _size(self, at: Evaluation) -> float:
        return float(np.abs(self.certificate.projected(at)).max(initial=0.0))

    def _suspects(self, at: Evaluation) -> BoolArray:
        if at.edf is None:
            return np.zeros(self.q, dtype=np.bool_)
        return false_plateaus(at.rho, at.edf, at.gradient)

    @staticmethod
    def _doubted(at: Evaluation, suspects: BoolArray) -> BoolArray:
        if at.edf is None:
            return suspects
        doubted: BoolArray = suspects & (at.edf < PLATEAU_EDF) & (at.gradient > _BALANCE * at.edf)
        return doubted

    def _step_done(self, at: Evaluation, outcome: Outcome) -> None:
        outcome.steps += 1
        self.cost = replace(self.cost, outer_iterations=self.cost.outer_iterations + 1)
        if self._on_step is not None and at.is_finite:
            self._on_step(at)

    def _reset(
        self, at: Evaluation, coordinates: list[int], outcome: Outcome, nearer: dict[int, tuple[float, float]]
    ) -> Evaluation:
        """Evaluate with coordinates off their false plateaus: at the default, or, where the
        objective fell outwards at a point ``nearer`` 0 (rho, gradient), between the two.
        """
        rho = np.array(at.rho)
        for j in coordinates:
            outcome.resets.append((j, float(rho[j])))
            rho[j] = self.default_rho[j]
            near, slope = nearer.get(j, (np.inf, 0.0))
            if near < at.rho[j] and at.gradient[j] > 0.0:
                rho[j] = minimum_between(near, slope, float(at.rho[j]), float(at.gradient[j]), _JUMP_MARGIN * self.tol)
        moved = self.move(at, rho)
        if not moved.is_finite:
            moved = self.evaluate(rho, self.null)
        if not moved.is_finite:
            raise FitFailed("the objective is not finite after a false plateau went back to its default rho")
        return moved

    def _line_search(self, at: Evaluation, metric: FloatArray, exact: bool, push: BoolArray) -> Evaluation | None:
        step = self._step(at, metric, exact, push)
        slope = float(at.gradient @ step)
        length, self._against = 1.0, ""
        # A quasi-Newton step that fails with an exact Hessian at hand is not worth halving.
        for _ in range(1 if not exact and at.hessian is not None else _MAX_HALVINGS):
            rho = np.clip(at.rho + length * step, -self.bound, self.bound)
            if np.array_equal(rho, at.rho):
                return None
            trial = self.move(at, rho)
            if trial.is_finite and self._is_better(trial, at, length * min(slope, 0.0)):
                return trial
            if push.any() and self._is_past(trial, at, push):
                return trial
            if trial.is_finite and length < _SHORT:
                self._note_against(trial.value - at.value, length * slope, at.value)
            length = self._shorter(at, trial, step, length)
        return None

    @staticmethod
    def _shorter(at: Evaluation, trial: Evaluation, step: FloatArray, length: float) -> float:
        """Return the length to try after one that went too far.

        Where constraints became active or inactive on the way, the objective may have a kink
        between: about where the tangents at both ends meet, which halving would hit by chance.
        """
        if trial.is_finite and _faces_differ(at, trial):
            before, after = float(at.gradient @ step), float(trial.gradient @ step)
            if before < 0.0 < after:
                meet = (trial.value - at.value - length * after) / (before - after)
                if 0.0 < meet < _NEARER * length:
                    return max(meet, (1.0 - _NEARER) * length)
        return length * (0.5 if length > 0.2 else 0.25)

    def _note_against(self, rise: float, expected: float, value: float) -> None:
        """Note a step so short that the gradient must tell its rise, and does not."""
        if abs(expected) < 1e3 * _VALUE_NOISE * (1.0 + abs(value)):
            return  # too short: the rise is lost in the noise of the value
        self._against = (
            f"along the shortest step that shows it the objective changes by {rise:.2g}, where its gradient says "
            f"{expected:.2g}: check the gradient, or, if the objective is noisy, raise outer_tol or lower inner_tol"
        )

    @staticmethod
    def _noise(at: Evaluation) -> float:
        return _VALUE_NOISE * (1.0 + abs(at.value))

    @staticmethod
    def _is_better(trial: Evaluation, at: Evaluation, expected: float) -> bool:
        """Whether a step is worth taking: the value falls; where it is lost in its noise, the
        gradient does.
        """
        rise, noise = trial.value - at.value, Search._noise(at)
        if rise <= ARMIJO * expected:
            return True
        steepness = float(np.abs(trial.gradient).max()) / max(float(np.abs(at.gradient).max()), 1e-300)
        if rise <= noise:
            return steepness < 1.0
        # Across a kink gradients fall and rise without end: there only the value counts.
        return rise <= 1e4 * noise and steepness < 0.5 and not _faces_differ(at, trial)

    def _is_past(self, trial: Evaluation, at: Evaluation, push: BoolArray) -> bool:
        """Whether a step from a flat point changed the sign of the doubted gradients and nothing
        else.
        """
        flat = self.certificate.is_flat(trial) and trial.value - at.value <= self._noise(at)
        return flat and bool((trial.gradient[push] < 0.0).all())

    def _step(self, at: Evaluation, metric: FloatArray, exact: bool, push: BoolArray) -> FloatArray:
        # A flat point whose sign alone is wrong is stepped past, so that the sign test passes on
        # the other side.
        gradient = self.certificate.projected(at)
        gradient = np.where(push, np.maximum(_PUSH * gradient, gradient + _JUMP_MARGIN * self.tol), gradient)
        free = gradient != 0.0
        step = np.zeros(gradient.size)
        # V ~ V_inf + c exp(-rho) towards infinite smoothing: go at once to where the gradient is
        # within tolerance.
        jump = np.zeros(self.q, dtype=np.bool_)
        if at.edf is not None:
            jump = free & (at.edf < PLATEAU_EDF) & (gradient < 0.0) & (at.rho > 0.0)
        if exact:
            jump &= np.abs(np.diagonal(metric) + gradient) <= 0.5 * np.abs(gradient)
        size = np.maximum(-gradient[jump], 1e-300)
        step[jump] = np.where(size > self.tol, np.log(size / (_JUMP_MARGIN * self.tol)), 0.0)
        rest = np.flatnonzero(free & ~jump)
        if rest.size:
            free_metric, slope = metric[np.ix_(rest, rest)], gradient[rest]
            along = None if at.kink is None else _directions_along(at.kink[:, rest])
            if along is not None:
                free_metric, slope = along.T @ free_metric @ along, along.T @ slope
            values, vectors = floored_eigen(free_metric)
            part = -vectors @ ((vectors.T @ slope) / values)
            if along is not None:
                part = along @ part
            step[rest] = part * min(1.0, _MAX_STEP / max(float(np.abs(part).max()), 1e-300))
        return step

    def _updated(self, metric: FloatArray, before: Evaluation, after: Evaluation) -> FloatArray:
        """BFGS update of the metric on the coordinates that are off their plateaus."""
        s, y = after.rho - before.rho, after.gradient - before.gradient
        if after.edf is not None:
            live = ~(after.edf < PLATEAU_EDF) | (after.rho < 0.0)  # NaN at nuisance coordinates: live
            s, y = np.where(live, s, 0.0), np.where(live, y, 0.0)
        values, vectors = floored_eigen(metric)
        floored: FloatArray = (vectors * values) @ vectors.T
        bs = floored @ s
        sbs, sy = float(s @ bs), float(s @ y)
        if sbs <= 0.0 or sy <= 1e-3 * sbs:
            return metric
        updated: FloatArray = floored - np.outer(bs, bs) / sbs + np.outer(y, y) / sy
        return updated


def minimum_between(near: float, falling: float, far: float, rising: float, margin: float) -> float:
    """Return where the slope of ``V_inf + c exp(-rho) + d exp(-2 rho)`` is ``-margin``.

    Its slopes at ``near`` and ``far`` are ``falling < 0 < rising``. Where that is less than 0 by a
    margin, the sign of the gradient does not depend on its noise.
    """
    # With u = exp(near - rho) the slope is -c u - 2 d u^2.
    u = np.exp(near - far)
    twice_d = (rising / u - falling) / (1.0 - u)
    c = -falling - twice_d
    root = np.sqrt(c * c + 4.0 * twice_d * min(margin, -falling))
    found = near - float(np.log((root - c) / (2.0 * twice_d)))
    return min(max(found, near), far)


def _directions_along(normals: FloatArray) -> FloatArray:
    """Return an orthonormal basis (q, d) of the directions that are orthogonal to all rows (k,
    q).
    """
    _, sizes, directions = np.linalg.svd(normals)
    rank = int((sizes > _SAME_KINK * sizes.max(initial=0.0)).sum())
    along: FloatArray = directions[rank:].T
    return along


def _faces_differ(one: Evaluation, other: Evaluation) -> bool:
    """Whether constraints became active or inactive between two evaluations."""
    before, after = one.active_sets, other.active_sets
    if before is None or after is None or len(before) != len(after):
        return False
    return not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
