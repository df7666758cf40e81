"""`scipy.optimize.minimize` that begins where an earlier run ended, and never believes what was stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.optimize

from gamwarm.adapters.description import (
    MOST_FOR_METRIC,
    Description,
    FloatArray,
    NamedFunction,
    inverse,
    positive_definite,
    split_of,
)
from gamwarm.checks import float_vector
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.records import Cost, Curvature, FitResult, StartSource, plateau_flags
from gamwarm.transfer import PREDICTED_STEP_LIMIT, StartReport, beta_gate, false_plateaus, predicted_step

__all__ = ["minimize"]

log = logging.getLogger("gamwarm")
Edf = Callable[[FloatArray], tuple[Any, Any]]

METHODS = ("BFGS", "L-BFGS-B", "CG")
_GTOL = 1e-5
_SAME_OBJECTIVE = 1e-6
_MOST_RESETS = 2


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    store: Any,
    name: str,
    data: Mapping[str, Any] | None = None,
    rho: Any = None,
    blocks: Mapping[str, Any] | None = None,
    jac: Any = None,
    method: str = "BFGS",
    bounds: Any = None,
    options: Mapping[str, Any] | None = None,
    edf: Edf | None = None,
    rho_bound: float = 15.0,
    version: str = "",
    n_rows: int | None = None,
    parent: str | None = None,
) -> scipy.optimize.OptimizeResult:
    """Minimize ``fun`` as SciPy does, from what ``store`` knows of this function and these data.

    The same function, data and options again begin at their own answer, which is evaluated again: with a gradient that
    still passes, one evaluation and no iteration. Another data set (a fold) begins near the answer of the one with most
    rows; with BFGS also with its inverse Hessian (``hess_inv0``). Where it begins never decides where it ends: the
    stopping rule is SciPy's, on this function alone.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``, or ``(float, gradient)`` with ``jac=True``.
    x0 : array of shape (k,)
        Where to begin cold. Its log smoothing parameters are part of the exact key, its other entries are not.
    args : tuple
        Numbers, strings, arrays; part of the exact key.
    store : WarmStartStore or None
        None: nothing is looked up or kept.
    name : str
        Names the *function*, which cannot be hashed: other functions need other names.
    data : mapping of str to arrays
        Everything that ``fun`` reads beside ``x`` and ``args``; part of the exact key. What is not here cannot be seen.
    rho : slice, mask or indices, optional
        Which entries of ``x`` are log smoothing parameters (log lambda). They meet the rules of outer coordinates:
        ``rho_bound``, clamping, plateaus, the guard. The others are coefficients. Default: none.
    blocks : mapping of str to (slice, mask or indices), optional
        Terms of the model; every entry of ``x`` in one. Terms are matched by name. Default: one block.
    jac : callable or True, optional
        ``jac(x, *args) -> gradient``. Default: forward differences.
    method : {"BFGS", "L-BFGS-B", "CG"}
    bounds : optional
        As SciPy takes them (L-BFGS-B).
    options : mapping, optional
        SciPy's, such as ``gtol`` and ``maxiter``; part of the exact key, but for ``disp``. For L-BFGS-B ``ftol`` is 0
        unless you state it: a search that stopped because it was slow has not ended at its own answer, and goes on
        when it is resumed.
    edf : callable, optional
        ``edf(x) -> (edf, max_edf)``, arrays with one number per ``rho``, in the order of the blocks. With it,
        smoothing parameters that ran to infinity for good reason are kept; without it no fit with
        an absolute rho of ``rho_bound`` - 1 or more is.
    rho_bound : float
        Bound that the rules of outer coordinates go by (``fun`` itself is not bounded by it).
    version : str
        Change it when the function changes and its name does not.
    n_rows : int, optional
        Default: the longest first axis in ``data``. The fit with most rows is preferred as a parent.
    parent : str, optional
        Entry id to start from.

    Returns
    -------
    scipy.optimize.OptimizeResult
        SciPy's, and ``start`` (`StartReport` or None), ``kept`` (`KeepOutcome` or None), ``start_used``, ``cost``,
        ``notes`` (what the guard did), and ``result``, the `FitResult` that was handed to the store. ``nfev`` counts
        the calls of ``fun``, ``nit`` the iterations, of all searches together.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the argument, and the next step.
    """
    if method not in METHODS:
        raise InvalidInput(f"method is {method!r}; use one of {', '.join(METHODS)}: a gradient and no Hessian")
    if not callable(fun):
        raise InvalidType(f"fun is {type(fun).__name__}; give a callable")
    if not (jac is None or jac is True or callable(jac)):
        raise InvalidInput(f"jac is {jac!r}; give a callable, True (fun returns value and gradient) or None")
    begin = np.array(float_vector(x0, "x0"))
    split = split_of(begin.size, rho, blocks)
    chosen = dict(options or {})
    if method == "L-BFGS-B":
        chosen.setdefault("ftol", 0.0)
    if "hess_inv0" in chosen:
        raise InvalidInput("options hold hess_inv0; the store gives it")
    gtol = float(chosen.get("gtol", _GTOL))
    arrays = {} if data is None else data
    if not isinstance(arrays, Mapping):
        raise InvalidType(f"data is {type(data).__name__}; give a mapping of names to arrays")
    family = NamedFunction(
        name,
        version,
        {
            "args": list(args),
            "data": arrays,
            "method": method,
            "bounds": _plain_bounds(bounds),
            "options": {key: value for key, value in chosen.items() if key != "disp"},
        },
    )
    keeps_metric = method == "BFGS" and split.coefficients.size > 0 and begin.size <= MOST_FOR_METRIC
    described = Description(split, keeps_metric)
    rows = max((np.shape(a)[0] for a in arrays.values() if np.ndim(a)), default=0) if n_rows is None else n_rows
    fit_options = BlockwiseFitOptions(outer_tol=gtol, rho_bound=rho_bound)
    problem = described.problem(family, begin, fit_options, rows)
    objective = _Objective(fun, jac, args, bounds)
    run = _Run(described, objective, begin, method, bounds, chosen, edf, fit_options)
    if store is None:
        return run.finish(run.cold(), None, None)
    with store.fit(problem, parent) as handle:
        run.checkpoints = handle
        return run.finish(run.search(handle.start), handle.start, handle)


def _plain_bounds(bounds: Any) -> Any:
    if bounds is None:
        return None
    if isinstance(bounds, scipy.optimize.Bounds):
        return [np.atleast_1d(bounds.lb), np.atleast_1d(bounds.ub)]
    return [[-np.inf if low is None else float(low), np.inf if high is None else float(high)] for low, high in bounds]


class _Objective:
    """Values and gradients, each point evaluated once; counts points and calls."""

    def __init__(self, fun: Any, jac: Any, args: tuple[Any, ...], bounds: Any) -> None:
        self._fun, self._jac, self._args = fun, jac, args
        self._values: dict[bytes, float] = {}
        self._gradients: dict[bytes, FloatArray] = {}
        self.points = self.calls = self.gradient_calls = 0

    def _call(self, x: FloatArray) -> Any:
        self.calls += 1
        return self._fun(np.array(x), *self._args)

    def value(self, x: FloatArray) -> float:
        at = x.tobytes()
        if at not in self._values:
            self.points += 1
            found = self._call(x)
            if self._jac is True:
                found, gradient = found
                self._remember(self._gradients, at, np.array(gradient, dtype=np.float64).ravel())
            self._remember(self._values, at, float(np.asarray(found).item()))
        return self._values[at]

    def gradient(self, x: FloatArray) -> FloatArray:
        at = x.tobytes()
        if at not in self._gradients:
            value = self.value(x)
            if at not in self._gradients:
                self._remember(self._gradients, at, self._derivative(x, value))
        return self._gradients[at]

    def _derivative(self, x: FloatArray, value: float) -> FloatArray:
        self.gradient_calls += 1
        if callable(self._jac):
            return np.array(self._jac(np.array(x), *self._args), dtype=np.float64).ravel()
        steps = np.sqrt(np.finfo(np.float64).eps) * np.maximum(1.0, np.abs(x))
        slopes = np.zeros(x.size)
        for j, step in enumerate(steps):
            moved = np.array(x)
            moved[j] += step
            slopes[j] = (float(np.asarray(self._call(moved)).item()) - value) / (moved[j] - x[j])
        return slopes

    @staticmethod
    def _remember(known: dict[bytes, Any], at: bytes, found: Any) -> None:
        if len(known) >= 8:  # a line search goes back a point or two, never further
            del known[next(iter(known))]
        known[at] = found


class _Run:
    """One fit: its searches, its guard, its answer."""

    def __init__(
        self,
        described: Description,
        objective: _Objective,
        x0: FloatArray,
        method: str,
        bounds: Any,
        chosen: dict[str, Any],
        edf: Edf | None,
        options: BlockwiseFitOptions,
    ) -> None:
        self.began = time.perf_counter()
        self.described, self.objective, self.x0 = described, objective, x0
        self.method, self.bounds, self.chosen, self.edf, self.options = method, bounds, chosen, edf, options
        self.rho = described.split.rho
        self.checkpoints: Any = None
        self.iterations = 0
        self.notes: list[str] = []
        self.used: bool | None = None

    # -- searching ---------------------------------------------------------------------------------------------

    def run(self, x: FloatArray, metric: FloatArray | None = None) -> Any:
        """Search from ``x``; what stopped on a false plateau goes on from the cold value of that coordinate."""
        for resets in range(_MOST_RESETS + 1):
            found = self._minimize(x, metric)
            false = self.false_plateaus(found.x) if found.success else np.zeros(0, dtype=np.intp)
            if false.size == 0:
                return found
            if resets < _MOST_RESETS:
                self.notes.append(f"entries {false.tolist()} of x had stopped on a false plateau; they began again")
                x, metric = np.array(found.x), None
                x[false] = self.x0[false]
        found.success, found.message = False, f"entries {false.tolist()} of x stop on a false plateau"
        return found

    def _minimize(self, x: FloatArray, metric: FloatArray | None) -> Any:
        options = dict(self.chosen)
        if metric is not None and self.method == "BFGS":
            options["hess_inv0"] = metric
        search: Any = scipy.optimize.minimize
        found = search(
            self.objective.value,
            x,
            jac=self.objective.gradient,
            method=self.method,
            bounds=self.bounds,
            options=options,
            callback=self._stepped,
        )
        self.iterations += int(found.nit)
        if found.nit == 0 and metric is None:
            found.pop("hess_inv", None)  # the identity that it began with
        return found

    def _stepped(self, x: FloatArray) -> None:
        if self.checkpoints is not None:
            rho, beta = self.described.packed(np.array(x), None)
            cost = self.cost()
            self.checkpoints.checkpoint(
                FitResult(rho, beta, self.objective.value(x), False, iteration=cost.outer_iterations, cost=cost)
            )

    def cold(self) -> Any:
        return self.run(self.x0)

    def search(self, report: StartReport) -> Any:
        if report.start is None:
            return self.cold()
        x, metric = self.described.unpacked(report.start)
        if report.source == StartSource.EXACT:
            found = self._from_exact(x, metric, report.start.objective)
        else:
            found = self._from_offer(x, metric)
        if self.used and not found.success:
            self.notes.append(f"from the start: {found.message}; a cold start was tried")
            again = self.cold()
            if again.success or again.fun < found.fun:
                found, self.used = again, False
        return found

    def _from_exact(self, x: FloatArray, metric: FloatArray | None, stored: float | None) -> Any:
        self.used = bool(np.isfinite(x).all() and np.isfinite(self.objective.value(x)))
        if not self.used:
            self.notes.append("the function is not finite at the stored answer")
            return self.cold()
        value = self.objective.value(x)
        if stored is not None and not abs(value - stored) <= _SAME_OBJECTIVE * (1.0 + abs(value)):
            note = f"the stored objective {stored:.12g} is evaluated here as {value:.12g}"
            self.notes.append(note)
            log.warning("%s; the evaluation counts", note)
        return self.run(x, metric)

    # -- the guard ---------------------------------------------------------------------------------------------

    def _from_offer(self, x: FloatArray, metric: FloatArray | None) -> Any:
        x, metric = self._guarded(x, metric)
        self.used = not np.array_equal(x, self.x0)
        return self.run(x, metric)

    def _guarded(self, x: FloatArray, metric: FloatArray | None) -> tuple[FloatArray, FloatArray | None]:
        """Return where to begin: the start, or as much of it as passes."""
        if not np.isfinite(x).all():
            self.notes.append("the start is not finite")
            return self.x0, None
        value, split = self.objective.value, self.described.split
        if split.coefficients.size:
            plain = np.array(x)
            plain[split.coefficients] = self.x0[split.coefficients]
            if not beta_gate(value(x), value(plain)):
                self.notes.append("the offered coefficients are worse than those of x0: they start cold")
                x, metric = plain, None
        if not np.isfinite(value(x)) or not np.isfinite(self.objective.gradient(x)).all():
            self.notes.append("the function is not finite at the start")
            return self.x0, None
        false = self.false_plateaus(x)
        if false.size:
            self.notes.append(f"entries {false.tolist()} of x were on a false plateau: they start cold")
            x, metric = np.array(x), None
            x[false] = self.x0[false]
        if self._is_doubtful(x, metric) and value(self.x0) < value(x):
            self.notes.append("the cold start has the lower objective: the search goes on from it")
            return self.x0, None
        return x, metric

    def _is_doubtful(self, x: FloatArray, metric: FloatArray | None) -> bool:
        """Whether the cold start should be evaluated too: cheap beside a search, and coefficients have no scale."""
        if self.described.split.coefficients.size or metric is None:
            return True
        gradient = self.objective.gradient(x)
        step = predicted_step(gradient, np.linalg.inv(metric))
        return not step <= PREDICTED_STEP_LIMIT

    def false_plateaus(self, x: FloatArray) -> Any:
        """Return the entries of x that are log smoothing parameters on a plateau that leads uphill.

        Without ``edf`` a suspect is settled by one more evaluation, a unit towards less smoothing: at a minimum the
        objective rises that way.
        """
        if self.rho.size == 0:
            return self.rho
        rho, gradient = x[self.rho], self.objective.gradient(x)[self.rho]
        if self.edf is not None:
            return self.rho[false_plateaus(rho, np.asarray(self.edf(np.array(x))[0], dtype=np.float64), gradient)]
        found = []
        for j in self.rho[false_plateaus(rho, np.zeros(rho.size), gradient)]:
            less = np.array(x)
            less[j] -= 1.0
            if self.objective.value(less) < self.objective.value(x):
                found.append(j)
        return np.array(found, dtype=np.intp)

    # -- the answer --------------------------------------------------------------------------------------------

    def cost(self) -> Cost:
        seconds = time.perf_counter() - self.began
        return Cost(self.objective.points, self.iterations, seconds=seconds)

    def finish(self, found: Any, report: StartReport | None, handle: Any) -> scipy.optimize.OptimizeResult:
        x = np.array(found.x)
        hess_inv = found.get("hess_inv") if self.method == "BFGS" else None
        metric = None if hess_inv is None else positive_definite(np.asarray(hess_inv))
        found.cost = self.cost()
        rho, beta = self.described.packed(x, metric)
        result = FitResult(
            rho,
            beta,
            float(found.fun),
            bool(found.success),
            curvature=self._curvature(x, metric),
            iteration=self.iterations,
            cost=found.cost,
            start_used=self.used,
        )
        found.start, found.notes, found.start_used, found.result = report, self.notes, self.used, result
        found.kept = None if handle is None else handle.keep(result)
        found.nfev, found.nit = self.objective.calls, self.iterations
        answer: scipy.optimize.OptimizeResult = found
        return answer

    def _curvature(self, x: FloatArray, metric: FloatArray | None) -> Curvature | None:
        if self.rho.size == 0:
            return None
        gradient = self.objective.gradient(x)[self.rho]
        # Of all entries of x, the inverse of the inverse Hessian's part is the curvature with the others optimised.
        hessian = None if metric is None else inverse(metric[np.ix_(self.rho, self.rho)])
        if self.edf is None:
            return Curvature(gradient, hessian)
        edf, most = (np.asarray(part, dtype=np.float64) for part in self.edf(np.array(x)))
        flags = plateau_flags(x[self.rho], gradient, edf, most, self.options.outer_tol, self.options.rho_bound)
        return Curvature(gradient, hessian, edf, flags)
