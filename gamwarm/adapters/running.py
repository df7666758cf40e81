"""One run of the adapter: its searches by SciPy, the guard of its start, its answer."""

from __future__ import annotations

import copy
import inspect
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import scipy.optimize

from gamwarm.adapters.description import Description, inverse, positive_definite
from gamwarm.adapters.function import Function
from gamwarm.adapters.methods import Method
from gamwarm.checks import FloatArray
from gamwarm.errors import GamwarmError
from gamwarm.identity import FitProblem
from gamwarm.records import Cost, Curvature, FitResult, StartSource, plateau_flags
from gamwarm.transfer import StartGuard, StartReport, find_false_plateaus, is_same_objective

__all__ = ["Edf", "Minimization", "Search"]

log = logging.getLogger("gamwarm")
Edf = Callable[[FloatArray], tuple[Any, Any]]

_Result: Any = scipy.optimize.OptimizeResult
_MOST_RESETS: Final = 2
_LIMITS: Final = ("maxiter", "maxfev", "maxfun")
_RAN_OUT: Final = re.compile(r"max|limit|exceed", re.IGNORECASE)
_RAISED: Final = -1
_STOPPED: Final = 99  # SciPy's status of a callback that raised StopIteration


@dataclass
class Search:
    """What SciPy is asked for, wherever it begins.

    Attributes
    ----------
    x0 : array of shape (k,)
        Where it begins cold, inside the bounds.
    """

    function: Function
    x0: FloatArray
    method: Method
    hess: Any
    hessp: Any
    constraints: Any
    tol: float | None
    options: dict[str, Any]
    edf: Edf | None

    def run(self, x: FloatArray, metric: FloatArray | None, options: dict[str, Any], callback: Any) -> Any:
        """Search from x with these options; ``metric`` is an inverse Hessian for BFGS."""
        function, method = self.function, self.method
        options, x = copy.deepcopy(options), function.inside(x)  # SciPy writes to some arrays
        if metric is not None and method.name == "BFGS":
            options["hess_inv0"] = metric
        if "initial_simplex" in options:  # it is set to the point where the search begins
            simplex = np.asarray(options["initial_simplex"], dtype=np.float64)
            options["initial_simplex"] = simplex + (x - simplex[0])
        bounds = None
        if function.bounds is not None:
            lower, upper = function.bounds
            bounds = scipy.optimize.Bounds(lower, upper, keep_feasible=True)
            if method.name == "trust-constr":
                x = _interior(x, lower, upper)
                bounds = scipy.optimize.Bounds(lower, upper, keep_feasible=lower < upper)
        hess, hessp = (function.hessian(h) if callable(h) else copy.deepcopy(h) for h in (self.hess, self.hessp))
        minimize: Any = scipy.optimize.minimize
        found = minimize(
            function.value,
            x,
            jac=function.gradient if method.jac else None,
            hess=hess,
            hessp=hessp,
            method=method.name,
            bounds=bounds,
            constraints=self.constraints,
            tol=self.tol,
            options=options,
            callback=callback,
        )
        found.x = function.inside(found.x)  # COBYLA may end a little outside
        found.fun, found.success = function.value(found.x), bool(found.success)
        return found


def _interior(x: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Return x off its bounds: a barrier is infinite there."""
    room = np.where(np.isfinite(upper - lower), 0.25 * (upper - lower), np.inf)
    step = np.minimum(1e-8 * np.maximum(1.0, np.abs(x)), room)
    moved: FloatArray = np.where(lower < upper, np.minimum(np.maximum(x, lower + step), upper - step), x)
    return moved


class _Point:
    """x as the guard sees it: log smoothing parameters and the function there."""

    def __init__(self, run: Minimization, x: FloatArray) -> None:
        self._run, self.x = run, run.function.inside(x)
        self.rho = self.x[run.rho]
        self.value = run.function.value(self.x)

    @cached_property
    def gradient(self) -> FloatArray:
        whole: FloatArray = self._run.function.gradient(self.x)
        if not np.isfinite(whole).all():
            return np.full(self.rho.size, np.nan)
        return whole[self._run.rho]

    @cached_property
    def edf(self) -> FloatArray | None:
        return None if self._run.asked.edf is None else self._run.edf_at(self.x)[0]


class _Nowhere:
    """A point at which the function raised or is not finite."""

    def __init__(self, run: Minimization, x: FloatArray) -> None:
        self.x, self.rho, self.value, self.edf = x, x[run.rho], np.inf, np.zeros(run.rho.size)
        self.gradient = np.full(run.rho.size, np.nan)


class Minimization:
    """One fit: its searches, its guard, its answer."""

    def __init__(
        self, problem: FitProblem, described: Description, asked: Search, callback: Callable[..., Any] | None
    ) -> None:
        self.began = time.perf_counter()
        self.problem, self.described, self.asked = problem, described, asked
        self.function, self.x0 = asked.function, asked.x0
        self.rho, self.coefficients = described.split.rho, described.split.coefficients
        self.handle: Any = None
        self.iterations = self.evaluations = 0
        self.notes: list[str] = []
        self.used: bool | None = None
        self._callback = callback
        self._wants_result = callback is not None and _takes_result(callback)
        self._stopped = self._users_own = False

    # -- searching ---------------------------------------------------------------------------------

    def search(self, report: StartReport | None) -> Any:
        """Search from the offered start, else from x0; from the other if that gives no answer."""
        if report is None or report.start is None:
            return self._from(self.x0)
        x, metric = self.described.unpacked(report.start)
        lost = ~np.isfinite(x)
        if lost.any():
            self.notes.append(f"entries {np.flatnonzero(lost).tolist()} of the start are not finite: they start cold")
            x[lost], metric = self.x0[lost], None
        x = self.function.inside(x)
        if report.source == StartSource.EXACT and not lost.any() and self._is_own(x, report.start.objective):
            self.used = True
            found = self._again(x, metric, keep_bits=not report.is_checkpoint)
            others = [] if report.is_checkpoint else [(self.x0, False)]
        else:
            found, others = self._guarded(x, metric)
        for other, is_start in others:
            if found.success or self._is_over(found):
                break
            origin = "offered" if is_start else "cold"
            self.notes.append(f"no answer ({found.message}); the {origin} start was searched too")
            again = self._tried(other, None, is_offered=is_start)
            if again.success or again.fun < found.fun:
                found, self.used = again, is_start
        return found

    def _is_own(self, x: FloatArray, stored: float | None) -> bool:
        """Whether the stored answer is this function's: the value there is the stored one."""
        value = self._point(x).value
        if not np.isfinite(value):
            self.notes.append("the function is not finite at the stored answer")
            return False
        if is_same_objective(stored, value):
            return True
        note = f"the stored objective {stored:.12g} is evaluated here as {value:.12g}"
        self.notes.append(f"{note}: the record was guarded like a transfer")
        log.warning("%s; the evaluation counts", note)
        return False

    def _again(self, x: FloatArray, metric: FloatArray | None, *, keep_bits: bool) -> Any:
        """Search from a stored answer; where SciPy finds nothing better, its bits stay."""
        found = self._tried(x, metric, is_offered=True)
        if keep_bits and found.success and is_same_objective(self.function.value(x), found.fun):
            if not np.array_equal(found.x, x):
                found.x, found.fun = x, self.function.value(x)
                for name in ("jac", "grad"):
                    found.pop(name, None)
            if metric is not None:
                found.hess_inv = metric
        return found

    def _guarded(self, x: FloatArray, metric: FloatArray | None) -> tuple[Any, list[tuple[FloatArray, bool]]]:
        """Search from as much of an offered start as passes the guard, or from x0."""
        own = None
        if metric is not None and self.rho.size and not self.coefficients.size:
            own = inverse(metric[np.ix_(self.rho, self.rho)])
        if own is None:  # nothing says how far a search would go, and coefficients have no scale: look at x0 as well
            own = np.full((self.rho.size, self.rho.size), np.nan)
        guard: StartGuard[Any] = StartGuard(
            evaluate=lambda rho, beta: self._point(self._joined(rho, beta)),
            evaluate_cold=lambda: self._point(self.x0, is_offered=False),
            null=self.x0[self.coefficients],
            default_rho=self.x0[self.rho],
            penalised_nll=self._value if self.coefficients.size else None,
            rho_bound=self.problem.options.rho_bound,
        )
        done = guard.admit(x[self.rho], x[self.coefficients], own)
        self.notes += done.notes
        if done.resets:
            where = [int(self.rho[j]) for j, _ in done.resets]
            self.notes.append(f"entries {where} of x were on a false plateau and start cold")
        begin = done.point.x
        self.used = done.continued_from == "start" and not np.array_equal(begin, self.x0)
        unchanged = self.used and np.array_equal(begin, x)
        found = self._tried(begin, metric if unchanged else None, is_offered=bool(self.used))
        other = done.other.x if done.continued_from == "cold" and done.other is not None else self.x0
        if np.array_equal(other, begin):
            return found, []
        return found, [(other, done.continued_from == "cold")]

    def _joined(self, rho: Any, beta: Any) -> FloatArray:
        x = np.array(self.x0)
        x[self.rho], x[self.coefficients] = rho, beta
        return x

    def _value(self, rho: Any, beta: Any) -> float:
        return float(self._point(self._joined(rho, beta)).value)

    def _point(self, x: FloatArray, *, is_offered: bool = True) -> Any:
        """Evaluate for the guard; a function that fails at an offered point fails no fit."""
        try:
            point = _Point(self, x)
            _ = point.gradient if self.rho.size else None
        except Exception as error:
            if not is_offered or isinstance(error, GamwarmError):
                raise
            self.notes.append(f"the function raised {type(error).__name__} at a warm start ({error})")
            return _Nowhere(self, x)
        return point

    def _tried(self, x: FloatArray, metric: FloatArray | None, *, is_offered: bool) -> Any:
        """Search from x; where x was offered, a function that raises fails no fit."""
        try:
            return self._from(x, metric)
        except Exception as error:
            if not is_offered or self._users_own or isinstance(error, GamwarmError):
                raise
            message = f"the function raised {type(error).__name__}: {error}"
            return _Result(x=x, fun=np.inf, success=False, status=_RAISED, message=message)

    def _from(self, x: FloatArray, metric: FloatArray | None = None) -> Any:
        """Search from x; from a false plateau the search continues at that entry's cold value."""
        found = self._scipy(x, metric)
        for _ in range(_MOST_RESETS):
            false = self._false_plateaus(found)
            if not false.size or self._is_over(found):
                break
            self.notes.append(f"entries {false.tolist()} of x had stopped on a false plateau and were restarted")
            x = np.array(found.x)
            x[false] = self.x0[false]
            found = self._scipy(x, None)
        false = self._false_plateaus(found)
        if false.size:
            found.success, found.message = False, f"entries {false.tolist()} of x stop on a false plateau"
        return found

    def _false_plateaus(self, found: Any) -> Any:
        none = np.zeros(0, dtype=np.intp)
        if not found.success or not self.rho.size:
            return none
        point = self._point(found.x)
        if not np.isfinite(point.value) or not np.isfinite(point.gradient).all():
            return none

        def nearer(rho: FloatArray) -> Any:
            return self._point(self._joined(rho, found.x[self.coefficients]))

        return self.rho[find_false_plateaus(point, nearer)]

    def _scipy(self, x: FloatArray, metric: FloatArray | None) -> Any:
        options = dict(self.asked.options)
        for name in _LIMITS:
            left = self._left(name)
            if left is not None and (self.iterations or self.evaluations):
                options[name] = max(left, 1)
        try:
            found = self.asked.run(x, metric, options, self._stepped)
        except StopIteration:  # of a method whose callback SciPy does not listen to
            if not self._stopped:
                raise
            found = _Result(x=self._last, fun=self.function.value(self._last), nit=0, nfev=0)
        if self._stopped:
            found.success, found.status = False, _STOPPED
            found.message = "`callback` raised `StopIteration`."
        self.iterations += int(found.get("nit", 0))
        self.evaluations += int(found.get("nfev", 0))
        if not found.get("nit", 0) and metric is None:
            found.pop("hess_inv", None)  # the identity that it began with
        return found

    def _left(self, limit: str) -> int | None:
        """Return the remainder of a limit on iterations or evaluations; None without one."""
        allowed = self.asked.options.get(limit)
        if allowed is None:
            return None
        counts_calls = limit != "maxiter" or self.asked.method.name == "COBYLA"
        return int(allowed) - (self.evaluations if counts_calls else self.iterations)

    def _is_over(self, found: Any) -> bool:
        """Whether no other search is to follow: it was stopped, or reached a limit."""
        lefts = [left for left in map(self._left, _LIMITS) if left is not None]
        if self._stopped or min(lefts, default=1) <= 0:
            return True
        return not found.success and found.status != _RAISED and bool(_RAN_OUT.search(str(found.message)))

    def _stepped(self, xk: Any, state: Any = None) -> None:
        x = self._last = self.function.inside(xk)
        if self.handle is not None:
            rho, beta = self.described.packed(x, None)
            cost = self.cost()
            self.handle.checkpoint(
                FitResult(rho, beta, self.function.value(x), False, iteration=cost.outer_iterations, cost=cost)
            )
        stop = False
        if self._callback is not None:
            self._users_own = True
            try:
                if self._wants_result:
                    now = _Result(x=x, fun=self.function.value(x)) if state is None else state
                    stop = self._callback(intermediate_result=now) is True
                elif self.asked.method.name == "trust-constr":
                    stop = bool(self._callback(x, state))
                else:
                    self._callback(x)
            except StopIteration:
                stop = True
            self._users_own = False
        if self.handle is not None and self.handle.should_stop():
            stop = True
        if stop:
            self._stopped = True
            raise StopIteration

    # -- the answer --------------------------------------------------------------------------------

    def cost(self) -> Cost:
        """Return the cost so far."""
        seconds = time.perf_counter() - self.began
        return Cost(self.function.points, self.iterations, seconds=seconds)

    def finish(self, found: Any, report: StartReport | None, handle: Any) -> Any:
        """Pass the outcome to the store, and return it with its details."""
        x = np.array(found.x)
        hess_inv = found.get("hess_inv") if self.described.has_metric else None
        metric = None if hess_inv is None else positive_definite(np.asarray(hess_inv))
        rho, beta = self.described.packed(x, metric)
        curvature = self._curvature(x, found, metric)
        found.cost = self.cost()
        result = FitResult(
            rho,
            beta,
            float(found.fun),
            bool(found.success),
            curvature=curvature,
            iteration=self.iterations,
            cost=found.cost,
            start_used=self.used,
        )
        found.start, found.notes, found.start_used, found.result = report, self.notes, self.used, result
        found.problem = self.problem
        found.kept = None if handle is None else handle.keep(result)
        found.nfev, found.nit = self.function.calls, self.iterations
        return found

    def edf_at(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the effective degrees of freedom and their maxima that the user supplies."""
        assert self.asked.edf is not None
        edf, most = (np.asarray(part, dtype=np.float64) for part in self.asked.edf(np.array(x)))
        return edf, most

    def _curvature(self, x: FloatArray, found: Any, metric: FloatArray | None) -> Curvature | None:
        if self.rho.size == 0 or not np.isfinite(found.fun):
            return None
        slopes = found.get("grad") if self.asked.method.name == "trust-constr" else found.get("jac")
        if not (isinstance(slopes, np.ndarray) and slopes.shape == x.shape and np.isfinite(slopes).all()):
            slopes = self.function.gradient(x)
        gradient = slopes[self.rho]
        # The curvature is the inverse of the inverse Hessian's part, the other entries optimised.
        hessian = None if metric is None else inverse(metric[np.ix_(self.rho, self.rho)])
        if self.asked.edf is None:
            return Curvature(gradient, hessian)
        edf, most = self.edf_at(x)
        options = self.problem.options
        flags = plateau_flags(x[self.rho], gradient, edf, most, options.outer_tol, options.rho_bound)
        return Curvature(gradient, hessian, edf, flags)


def _takes_result(callback: Callable[..., Any]) -> bool:
    """Whether a callback takes ``intermediate_result``, as SciPy finds out."""
    try:
        return set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):
        return False
