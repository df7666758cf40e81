"""Searches by `scipy.optimize.minimize`, for `GuardedFit`."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.optimize

from gamwarm.adapters.description import Description
from gamwarm.adapters.function import Function
from gamwarm.adapters.guarded_fit import RAISED, Solver
from gamwarm.adapters.methods import Method
from gamwarm.checks import FloatArray
from gamwarm.records import Cost, FitResult

__all__ = ["ScipySolver", "Search"]

_Result: Any = scipy.optimize.OptimizeResult
_LIMITS: Final = ("maxiter", "maxfev", "maxfun")
_RAN_OUT: Final = re.compile(r"max|limit|exceed", re.IGNORECASE)
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


class ScipySolver(Solver):
    """Searches that together take no more than the limits in SciPy's options.

    With ``believes_values`` a stored answer whose value is reproduced is not searched from.
    """

    def __init__(
        self, asked: Search, described: Description, callback: Callable[..., Any] | None, *, believes_values: bool
    ) -> None:
        self._asked, self._described, self._callback = asked, described, callback
        self._believes_values = believes_values
        self._wants_result = callback is not None and _takes_result(callback)
        self._stopped = False
        self._calls = 0

    def search(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        """See `Solver.search`."""
        asked = self._asked
        options = dict(asked.options)
        for name in _LIMITS:
            left = self._left(name)
            if left is not None and (self.iterations or self._calls):
                options[name] = max(left, 1)
        try:
            found = asked.run(asked.x0 if x is None else x, metric, options, self._stepped)
        except StopIteration:  # of a method whose callback SciPy does not listen to
            if not self._stopped:
                raise
            found = _Result(x=self._last, fun=asked.function.value(self._last), nit=0, nfev=0)
        if self._stopped:
            found.success, found.status = False, _STOPPED
            found.message = "`callback` raised `StopIteration`."
        self.iterations += int(found.get("nit", 0))
        self._calls += int(found.get("nfev", 0))
        if not found.get("nit", 0) and metric is None:
            found.pop("hess_inv", None)  # the identity that it began with
        return found

    def _left(self, limit: str) -> int | None:
        """Return the remainder of a limit on iterations or evaluations; None without one."""
        allowed = self._asked.options.get(limit)
        if allowed is None:
            return None
        counts_calls = limit != "maxiter" or self._asked.method.name == "COBYLA"
        return int(allowed) - (self._calls if counts_calls else self.iterations)

    def at_answer(self, x: FloatArray) -> Any:
        """See `Solver.at_answer`."""
        if not self._believes_values:
            return None
        message = "the stored answer; the function was evaluated again"
        return _Result(jac=self._asked.function.gradient(x), success=True, status=0, message=message)

    def is_over(self, found: Any) -> bool:
        """See `Solver.is_over`."""
        lefts = [left for left in map(self._left, _LIMITS) if left is not None]
        return self._stopped or min(lefts, default=1) <= 0 or _ran_out(found)

    def _stepped(self, xk: Any, state: Any = None) -> None:
        function = self._asked.function
        x = self._last = function.inside(xk)
        if self.handle is not None:
            rho, beta = self._described.packed(x, None)
            cost = Cost(function.points, self.iterations)
            self.handle.checkpoint(
                FitResult(rho, beta, function.value(x), False, iteration=cost.outer_iterations, cost=cost)
            )
        stop = False
        if self._callback is not None:
            self.is_users_own = True
            try:
                if self._wants_result:
                    now = _Result(x=x, fun=function.value(x)) if state is None else state
                    stop = self._callback(intermediate_result=now) is True
                elif self._asked.method.name == "trust-constr":
                    stop = bool(self._callback(x, state))
                else:
                    self._callback(x)
            except StopIteration:
                stop = True
            self.is_users_own = False
        if self.handle is not None and self.handle.should_stop():
            stop = True
        if stop:
            self._stopped = True
            raise StopIteration


def _ran_out(found: Any) -> bool:
    """Whether a search ended because it reached a limit, as far as its message says."""
    return not found.success and found.get("status") != RAISED and bool(_RAN_OUT.search(str(found.message)))


def _takes_result(callback: Callable[..., Any]) -> bool:
    """Whether a callback takes ``intermediate_result``, as SciPy finds out."""
    try:
        return set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):
        return False
