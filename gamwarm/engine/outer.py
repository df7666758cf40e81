"""The search over rho: exact-Hessian Newton from a cold start, a gradient-only quasi-Newton ("chord") from a warm one.

Both stop at one certificate: every component of the projected gradient is within the tolerance, the inner solve
converged, and no coordinate is a false plateau. Where the search began does not enter it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gamwarm.engine._types import BoolArray, FloatArray
from gamwarm.engine.objective import Evaluation, Objective
from gamwarm.errors import FitFailed
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.records import PLATEAU_EDF, InnerMode
from gamwarm.transfer import InnerCapState, false_plateaus, inner_cap

__all__ = ["EIGENVALUE_FLOOR", "Outcome", "Search", "usable_metric"]

EIGENVALUE_FLOOR = 1e-4
_MAX_STEP = 4.0
_ARMIJO = 1e-4
_MAX_HALVINGS = 12
_JUMP_MARGIN = 0.3
_SLOW = 0.5
_PATIENCE = 1
_AT_BOUND = 1e-9
# In a minimum with a small edf the gradient is small beside the edf; on a false plateau both vanish together.
_BALANCE = 0.003
_PUSH = 1.5
_MAX_NUDGES = 2
_VALUE_NOISE = 1e-10


@dataclass
class Outcome:
    """Where a search ended.

    Attributes
    ----------
    at : Evaluation
    converged : bool
        Whether the certificate holds there.
    reason : str
        Why not, if not.
    resets : list of (coordinate, rho it had)
        False plateaus that went back to their default.
    stopped : bool
        Whether it ended because ``should_stop`` said so.
    """

    at: Evaluation
    converged: bool
    reason: str = ""
    resets: list[tuple[int, float]] = field(default_factory=list)
    stopped: bool = False


def usable_metric(hessian: FloatArray | None, q: int) -> FloatArray | None:
    """Return a stored outer Hessian if it can serve as a metric: finite, of shape (q, q), made symmetric."""
    if hessian is None or np.shape(hessian) != (q, q) or not np.isfinite(hessian).all():
        return None
    metric: FloatArray = 0.5 * (hessian + hessian.T)
    return metric


def positive(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return absolute, floored eigenvalues and the eigenvectors of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(np.abs(values), EIGENVALUE_FLOOR), vectors


class Search:
    """One outer search.

    Parameters
    ----------
    laml : Laml
    options : BlockwiseFitOptions
        ``outer_tol`` bounds max|dV/drho| (absolute); ``rho`` stays within ±``rho_bound``.
    default_rho : array of shape (q,)
        Where a false plateau goes back to.
    cached_inner : InnerMode, optional
        Of a restored record: budgets intermediate inner solves.
    on_step : callable, optional
        Called with the evaluation after each outer iteration.
    should_stop : callable, optional
        Asked after each outer iteration; where it returns True the search ends, unless it has its answer.
    """

    def __init__(
        self,
        laml: Objective,
        options: BlockwiseFitOptions,
        default_rho: FloatArray,
        cached_inner: InnerMode | None = None,
        on_step: Callable[[Evaluation], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.laml, self.options, self.default_rho = laml, options, default_rho
        self.tol, self.bound = options.outer_tol, options.rho_bound
        self._cached_inner, self._cap_state = cached_inner, InnerCapState()
        self._norm: float | None = None
        self._on_step = on_step
        self._should_stop = should_stop

    # -- evaluations -------------------------------------------------------------------------------------------

    def evaluate(self, rho: FloatArray, theta: FloatArray, gram: FloatArray | None = None) -> Evaluation:
        """Evaluate the objective at ``rho`` from ``theta``; an inner solve that ran into a cap goes on without one.

        ``gram`` is X'WX at some mode near, if one is known.
        """
        full = max(1, self.options.inner_max_cycles)
        cap = inner_cap(self.options, self._cached_inner, self._norm, self._cap_state)
        at = self.laml.evaluate(rho, theta, self.options.inner_tol, cap, gram)
        if not at.converged and cap < full:
            at = self.laml.evaluate(rho, at.theta, self.options.inner_tol, full)
        return at

    def move(self, at: Evaluation, rho: FloatArray) -> Evaluation:
        """Evaluate at ``rho``, starting the inner solve where the tangent of theta(rho) at ``at`` points."""
        delta = rho - at.rho
        # Along a plateau theta decays like exp(-rho); elsewhere this is the tangent to first order.
        reach = np.where(delta > 0.0, -np.expm1(-np.maximum(delta, 0.0)), np.maximum(delta, -2.0))
        theta = at.theta + at.tangent @ reach
        if np.abs(delta).max(initial=0.0) > 1.0 and not (
            self.laml.penalised_nll(rho, theta) < self.laml.penalised_nll(rho, at.theta)
        ):
            theta = at.theta
        return self.evaluate(rho, theta, at.gram)

    # -- the certificate ---------------------------------------------------------------------------------------

    def projected(self, at: Evaluation) -> FloatArray:
        """Return the gradient without the components that push against the bounds."""
        outward = ((at.rho >= self.bound - _AT_BOUND) & (at.gradient < 0.0)) | (
            (at.rho <= -self.bound + _AT_BOUND) & (at.gradient > 0.0)
        )
        return np.where(outward, 0.0, at.gradient)

    def is_flat(self, at: Evaluation) -> bool:
        """Whether the projected gradient is within the tolerance everywhere."""
        return at.is_finite and at.converged and bool((np.abs(self.projected(at)) <= self.tol).all())

    def certified(self, at: Evaluation) -> bool:
        """Whether ``at`` is an answer."""
        if at.verdict is None:
            at.verdict = self.is_flat(at) and not false_plateaus(at.rho, at.edf, at.gradient).any()
        return at.verdict

    # -- the search --------------------------------------------------------------------------------------------

    def run(self, first: Evaluation, metric: FloatArray | None = None) -> Outcome:
        """Search from ``first``.

        ``metric`` (q, q) starts the quasi-Newton phase: gradients only, until the gradient stops falling threefold
        per step; then, or without one, exact Hessians.
        """
        at, outcome = first, Outcome(first, False)
        if not at.is_finite:
            outcome.reason = at.failure or "the objective is not finite at the start"
            return outcome
        chord = metric is not None
        exact = not chord
        slow = nudges = 0
        reset: set[int] = set()
        steps = 0
        while True:
            self._norm = float(np.abs(at.gradient).max(initial=0.0))
            outcome.at = at
            if self.certified(at):
                outcome.converged = True
                return outcome
            if steps and self._should_stop is not None and self._should_stop():
                outcome.stopped = True
                outcome.reason = f"stopped after {steps} outer iterations, as the end of the job is near"
                return outcome
            if steps >= self.options.outer_max_iter:
                outcome.reason = f"outer_max_iter = {self.options.outer_max_iter} iterations were not enough"
                return outcome
            suspects = false_plateaus(at.rho, at.edf, at.gradient)
            push = suspects & self.is_flat(at)
            nudges += bool(push.any())
            doubted = suspects & (at.edf < PLATEAU_EDF) & (at.gradient > _BALANCE * at.edf)
            if nudges > _MAX_NUDGES and push.any():
                # On a plateau V_jj = -g_j; a clearly convex coordinate is a minimum with little left to smooth.
                doubted |= push & (np.diagonal(self.laml.hessian(at)) <= 2.0 * np.abs(at.gradient))
                chord, exact = False, True
            fresh = [int(j) for j in np.flatnonzero(doubted) if int(j) not in reset]
            if fresh:
                at = self._reset(at, fresh, outcome)
                reset.update(fresh)
                chord, exact = False, True
                steps += 1
                self._count(at)
                continue
            if exact:
                metric = self.laml.hessian(at)
            assert metric is not None
            following = self._line_search(at, metric, exact, push)
            if following is None and not exact:
                metric, exact = self.laml.hessian(at), True
                following = self._line_search(at, metric, exact, push)
            if following is None:
                outcome.reason = (
                    f"no step lowers the objective although max|gradient| = {self._norm:.3g} exceeds {self.tol:.3g}; "
                    "raise outer_tol or lower inner_tol"
                )
                return outcome
            steps += 1
            self._count(following)
            if chord:
                slow += bool(np.abs(self.projected(following)).max() > _SLOW * np.abs(self.projected(at)).max())
                exact = slow > _PATIENCE
                if exact:
                    slow = 0
                else:
                    metric = self._updated(metric, at, following)
            at = following

    def _count(self, at: Evaluation) -> None:
        self.laml.counters.outer_iterations += 1
        if self._on_step is not None and at.is_finite:
            self._on_step(at)

    def _reset(self, at: Evaluation, coordinates: list[int], outcome: Outcome) -> Evaluation:
        rho = np.array(at.rho)
        for j in coordinates:
            outcome.resets.append((j, float(rho[j])))
            rho[j] = self.default_rho[j]
        moved = self.move(at, rho)
        if not moved.is_finite:
            moved = self.evaluate(rho, self.laml.null)
        if not moved.is_finite:
            raise FitFailed("the objective is not finite after a false plateau went back to its default rho")
        return moved

    def _line_search(self, at: Evaluation, metric: FloatArray, exact: bool, push: BoolArray) -> Evaluation | None:
        step = self._step(at, metric, exact, push)
        slope = float(at.gradient @ step)
        noise = _VALUE_NOISE * (1.0 + abs(at.value))
        length = 1.0
        for _ in range(_MAX_HALVINGS if exact else 1):
            rho = np.clip(at.rho + length * step, -self.bound, self.bound)
            if np.array_equal(rho, at.rho):
                return None
            trial = self.move(at, rho)
            if trial.is_finite:
                if trial.value <= at.value + _ARMIJO * length * min(slope, 0.0) + noise:
                    return trial
                close = trial.value <= at.value + 1e4 * noise
                if close and np.abs(trial.gradient).max() < 0.5 * np.abs(at.gradient).max():
                    return trial
            length *= 0.5 if length > 0.2 else 0.25
        return None

    def _step(self, at: Evaluation, metric: FloatArray, exact: bool, push: BoolArray) -> FloatArray:
        # A flat point whose sign alone is wrong is stepped past, so that the sign test passes on the other side.
        gradient = np.where(push, _PUSH, 1.0) * self.projected(at)
        free = gradient != 0.0
        step = np.zeros(gradient.size)
        # V ~ V_inf + c exp(-rho) towards infinite smoothing: go at once to where the gradient is within tolerance.
        jump = free & (at.edf < PLATEAU_EDF) & (gradient < 0.0) & (at.rho > 0.0)
        if exact:
            jump &= np.abs(np.diagonal(metric) + gradient) <= 0.5 * np.abs(gradient)
        size = np.maximum(-gradient[jump], 1e-300)
        step[jump] = np.where(size > self.tol, np.log(size / (_JUMP_MARGIN * self.tol)), 0.0)
        rest = np.flatnonzero(free & ~jump)
        if rest.size:
            values, vectors = positive(metric[np.ix_(rest, rest)])
            part = -vectors @ ((vectors.T @ gradient[rest]) / values)
            step[rest] = part * min(1.0, _MAX_STEP / max(float(np.abs(part).max()), 1e-300))
        return step

    def _updated(self, metric: FloatArray, before: Evaluation, after: Evaluation) -> FloatArray:
        """BFGS update of the metric on the coordinates that are off their plateaus."""
        s, y = after.rho - before.rho, after.gradient - before.gradient
        live: BoolArray = (after.edf >= PLATEAU_EDF) | (after.rho < 0.0)
        s, y = np.where(live, s, 0.0), np.where(live, y, 0.0)
        values, vectors = positive(metric)
        floored: FloatArray = (vectors * values) @ vectors.T
        bs = floored @ s
        sbs, sy = float(s @ bs), float(s @ y)
        if sbs <= 0.0 or sy <= 1e-3 * sbs:
            return metric
        updated: FloatArray = floored - np.outer(bs, bs) / sbs + np.outer(y, y) / sy
        return updated
