"""One fit of any solver: where it begins, the guard of an offered start, its answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import scipy.optimize

from gamwarm.adapters.description import Description, inverse, positive_definite
from gamwarm.adapters.function import Function
from gamwarm.checks import FloatArray, float_vector
from gamwarm.errors import GamwarmError, InvalidInput, InvalidType
from gamwarm.identity import FitProblem
from gamwarm.parallel import broadcast_failure
from gamwarm.records import Cost, Curvature, FitResult, StartSource, plateau_flags
from gamwarm.store import FitStore, refuse_without_store
from gamwarm.transfer import StartGuard, StartReport, find_false_plateaus, is_same_objective

__all__ = ["RAISED", "Edf", "GuardedFit", "Solver", "run"]

log = logging.getLogger("gamwarm")
Edf = Callable[[FloatArray], tuple[Any, Any]]

_Result: Any = scipy.optimize.OptimizeResult
_MOST_RESETS: Final = 2
RAISED: Final = -1
"""Status of a search that ended by an exception."""


class Solver:
    """What a fit needs of a solver.

    Attributes
    ----------
    iterations, evaluations : int
        Of all searches so far; evaluations besides those of the fit's `Function`.
    handle : FitInProgress or None
        For checkpoints.
    is_users_own : bool
        Whether what it raises is meant for the caller, wherever the search began.
    """

    iterations = evaluations = 0
    handle: Any = None
    is_users_own = False

    def search(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        """Search from x (its own copy), None: cold; return ``x``, ``fun``, ``success``,
        ``message``.
        """
        raise NotImplementedError

    def at_answer(self, x: FloatArray) -> Any:
        """Return the outcome at its own stored answer without a search.

        The objective there is what was stored, to its last digits but three. None: search from it.
        """
        return None

    def is_over(self, found: Any) -> bool:
        """Whether no other search is to follow: it was stopped, or reached a limit."""
        return False


class _Point:
    """x as the guard sees it: log smoothing parameters and the function there."""

    def __init__(self, fit: GuardedFit, x: FloatArray) -> None:
        self._fit, self.x = fit, fit.function.inside(x)
        self.rho = self.x[fit.rho]
        self.value = fit.function.value(self.x)

    @cached_property
    def gradient(self) -> FloatArray:
        whole: FloatArray = self._fit.function.gradient(self.x)
        if not np.isfinite(whole).all():
            return np.full(self.rho.size, np.nan)
        return whole[self._fit.rho]

    @cached_property
    def edf(self) -> FloatArray | None:
        return None if self._fit.edf is None else self._fit.edf_at(self.x)[0]


class _Nowhere:
    """A point at which the function raised or is not finite."""

    def __init__(self, fit: GuardedFit, x: FloatArray) -> None:
        self.x, self.rho, self.value, self.edf = x, x[fit.rho], np.inf, np.zeros(fit.rho.size)
        self.gradient = np.full(fit.rho.size, np.nan)


class GuardedFit:
    """One fit: its searches, its guard, its answer.

    Parameters
    ----------
    problem : FitProblem
    described : Description
    function : Function
        The objective. Where it has none, only what the solver says of its answers counts.
    x0 : array of shape (k,)
        Where it begins cold, inside the bounds.
    solver : Solver
    edf : callable, optional
    """

    def __init__(
        self,
        problem: FitProblem,
        described: Description,
        function: Function,
        x0: FloatArray,
        solver: Solver,
        edf: Edf | None = None,
    ) -> None:
        self.began = time.perf_counter()
        self.problem, self.described = problem, described
        self.function, self.x0, self.solver, self.edf = function, x0, solver, edf
        self.rho, self.coefficients = described.split.rho, described.split.coefficients
        self.notes: list[str] = []
        self.used: bool | None = None

    # -- searching ---------------------------------------------------------------------------------

    def search(self, report: StartReport | None) -> Any:
        """Search from the offered start, else cold; from the other if that gives no answer."""
        if report is None or report.start is None:
            return self._from(None)
        x, metric = self.described.unpacked(report.start)
        lost = ~np.isfinite(x)
        if lost.any():
            self.notes.append(f"entries {np.flatnonzero(lost).tolist()} of the start are not finite: they start cold")
            x[lost], metric = self.x0[lost], None
        is_own = report.source == StartSource.EXACT and not lost.any()
        x = self.function.inside(x) if is_own else self.function.onto_bounds(x)
        is_answer = is_own and not report.is_checkpoint
        if is_own and self._reproduces(x, report.start.objective):
            self.used = True
            found = self._again(x, metric, report.start.objective) if is_answer else self._tried(x, metric)
            others: list[tuple[FloatArray | None, bool]] = [(None, False)] if is_answer else []
            if is_answer and self._contradicts(found, report.start.objective):
                cold = self._tried(None, None)
                if cold.success and cold.fun < found.fun:
                    found, self.used = cold, False
        else:
            found, others = self._guarded(x, metric)
            # The stored numbers may be wrong, and the answer right.
            if is_answer and found.success and self.function.is_known and self.function.agrees(x, found.fun):
                self._keep_bits(found, x, metric, self.function.value(x))
        for other, is_start in others:
            if found.success or self.solver.is_over(found):
                break
            origin = "offered" if is_start else "cold"
            self.notes.append(f"no answer ({found.message}); the {origin} start was searched too")
            again = self._tried(other, None)
            if again.success or again.fun < found.fun:
                found, self.used = again, is_start
        return found

    def _reproduces(self, x: FloatArray, stored: float | None) -> bool:
        """Whether the stored answer is this function's: the value there is the stored one."""
        if not self.function.is_known or stored is None:
            return True
        value = self._point(x).value
        if not np.isfinite(value):
            self.notes.append("the function is not finite at the stored answer")
        elif self.function.agrees(x, stored):
            return True
        elif not is_same_objective(stored, value):
            note = f"the stored objective {stored:.12g} is evaluated here as {value:.12g}"
            self.notes.append(f"{note}: the record was guarded like a transfer")
            log.warning("%s; the evaluation counts. If this is another function, give it another name", note)
        return False

    def _again(self, x: FloatArray, metric: FloatArray | None, stored: float | None) -> Any:
        """Return a stored answer, or search from it; its bits stay unless a better one is found."""
        if self.function.is_known and stored is not None:
            found = self.solver.at_answer(np.array(x))
            if found is not None:
                found.x, found.fun = np.array(x), self.function.value(x)
                if metric is not None:
                    found.hess_inv = metric
                if not self._false_plateaus(found).size:
                    return found
        found = self._tried(x, metric)
        known = self.function.value(x) if self.function.is_known else stored
        if known is None:
            return found
        same = is_same_objective(known, found.fun)
        if found.success:
            if same:
                self._keep_bits(found, x, metric, known)
        elif stored is not None and (same or self.function.is_known) and not self.solver.is_over(found):
            self._stand(found, x, metric, known)
        return found

    def _stand(self, found: Any, x: FloatArray, metric: FloatArray | None, value: float) -> None:
        """Return to an answer of this very function from which a search ends without one, unless it
        is a false plateau.

        Noise defeats a search that begins where another ended, at every repetition; the cold search
        would only end there again.
        """
        if found.get("status") == RAISED:
            return
        stands = _Result(x=np.array(x), fun=value, success=True)
        if not self._false_plateaus(stands).size:
            self._keep_bits(found, x, metric, value)
            found.success = True
            found.message = f"the stored answer stands: the search from it ended without one ({found.message})"
            self.notes.append(found.message)

    def _contradicts(self, found: Any, stored: float | None) -> bool:
        """Whether a solver of unknown objective says that its stored answer is another one's."""
        if self.function.is_known or not found.success or stored is None or is_same_objective(stored, found.fun):
            return False
        self.notes.append(
            f"from the stored answer, whose objective was {stored:.12g}, the solver ends at {found.fun:.12g}; "
            "the cold start was searched too"
        )
        return True

    @staticmethod
    def _keep_bits(found: Any, x: FloatArray, metric: FloatArray | None, value: float) -> None:
        """Return to a stored answer, than which nothing better was found."""
        if not np.array_equal(found.x, x):
            found.x, found.fun = np.array(x), value
            for name in ("jac", "grad"):
                found.pop(name, None)
        if metric is not None:
            found.hess_inv = metric

    def _guarded(self, x: FloatArray, metric: FloatArray | None) -> tuple[Any, list[tuple[FloatArray | None, bool]]]:
        """Search from as much of an offered start as passes the guard, or cold."""
        if not self.function.is_known:
            self.used = True
            return self._tried(x, metric), [(None, False)]
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
        found = self._tried(begin if self.used else None, metric if unchanged else None)
        if not self.used and done.continued_from == "start":  # nothing of the offer was left
            return found, []
        if done.continued_from == "cold":
            other = None if done.other is None or np.array_equal(done.other.x, self.x0) else done.other.x
            return found, [] if other is None else [(other, True)]
        return found, [(None, False)]

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

    def _tried(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        """Search from x; where x was offered, a function that raises fails no fit."""
        try:
            return self._from(x, metric)
        except Exception as error:
            if x is None or self.solver.is_users_own or isinstance(error, GamwarmError):
                raise
            message = f"it raised {type(error).__name__}: {error}"
            return _Result(x=x, fun=np.inf, success=False, status=RAISED, message=message)

    def _from(self, x: FloatArray | None, metric: FloatArray | None = None) -> Any:
        """Search from x; from a false plateau the search continues at that entry's cold value."""
        found = self._solved(x, metric)
        for _ in range(_MOST_RESETS):
            false = self._false_plateaus(found)
            if not false.size or self.solver.is_over(found):
                break
            self.notes.append(f"entries {false.tolist()} of x had stopped on a false plateau and were restarted")
            x = np.array(found.x)
            x[false] = self.x0[false]
            found = self._solved(x, None)
        false = self._false_plateaus(found)
        if false.size:
            found.success, found.message = False, f"entries {false.tolist()} of x stop on a false plateau"
        return found

    def _solved(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        return self.solver.search(None if x is None else self.function.inside(x), metric)

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

    # -- the answer --------------------------------------------------------------------------------

    def cost(self) -> Cost:
        """Return the cost so far."""
        seconds = time.perf_counter() - self.began
        return Cost(self.function.points + self.solver.evaluations, self.solver.iterations, seconds=seconds)

    def finish(
        self, found: Any, report: StartReport | None, handle: Any, attributes: Mapping[str, Any] | None = None
    ) -> Any:
        """Pass the outcome to the store, which adds attributes, and return it with its details."""
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
            iteration=self.solver.iterations,
            cost=found.cost,
            start_used=self.used,
            attributes={} if attributes is None else attributes,
        )
        found.start, found.notes, found.start_used, found.result = report, self.notes, self.used, result
        found.problem = self.problem
        found.kept = None if handle is None else handle.keep(result)
        return found

    def edf_at(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the effective degrees of freedom and their maxima that the user supplies."""
        assert self.edf is not None
        returned = self.edf(np.array(x))
        try:
            edf, most = (float_vector(part, "edf") for part in returned)
            if not edf.shape == most.shape == self.rho.shape:
                raise InvalidInput(f"they have shapes {edf.shape} and {most.shape}")
        except (TypeError, ValueError) as error:
            wanted = f"(edf, max_edf), two arrays of shape {self.rho.shape}"
            raise InvalidType(f"edf returned {type(returned).__name__}; return {wanted} ({error})") from None
        return edf, most

    def _curvature(self, x: FloatArray, found: Any, metric: FloatArray | None) -> Curvature | None:
        if self.rho.size == 0 or not np.isfinite(found.fun):
            return None
        slopes = found.get("grad", found.get("jac"))
        if not (isinstance(slopes, np.ndarray) and slopes.shape == x.shape and np.isfinite(slopes).all()):
            slopes = self.function.gradient(x)
        gradient = slopes[self.rho]
        # The curvature is the inverse of the inverse Hessian's part, the other entries optimised.
        hessian = None if metric is None else inverse(metric[np.ix_(self.rho, self.rho)])
        if self.edf is None:
            return Curvature(gradient, hessian)
        edf, most = self.edf_at(x)
        options = self.problem.options
        flags = plateau_flags(x[self.rho], gradient, edf, most, options.outer_tol, options.rho_bound)
        return Curvature(gradient, hessian, edf, flags)


def run(
    prepare: Callable[[], GuardedFit | None],
    store: FitStore | None,
    parent: Any,
    attributes: Mapping[str, str | int | float] | None,
    *,
    each: bool = False,
) -> Any:
    """Look up, search, keep; None where there is nothing to do on this rank.

    Parameters
    ----------
    prepare : callable
        Checks the arguments and describes the fit. Where it raises, the other ranks are told.
    store, parent, attributes, each
        As in `FitStore.fit`.
    """
    if store is not None and not callable(getattr(store, "fit", None)):
        raise InvalidType(f"store is {type(store).__name__}; give what gamwarm.open(path) returned, or None")
    if store is None:
        refuse_without_store(parent=parent, each=each)
    try:
        fit = prepare()
    except Exception as error:
        if store is not None:
            broadcast_failure(store.comm, "description of the fit", error)
        raise
    if store is None:
        return None if fit is None else fit.finish(fit.search(None), None, None, attributes)
    with store.fit(None if fit is None else fit.problem, parent, attributes=attributes, each=each) as handle:
        if fit is None:
            handle.keep(None)
            return None
        fit.solver.handle = handle
        return fit.finish(fit.search(handle.start), handle.start, handle)
