"""One run of gam(): where mgcv's search begins, and whether what it found is an answer."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Final

import numpy as np

from gamwarm.adapters.mgcv.model import Model
from gamwarm.adapters.mgcv.session import entries, plain, session, wrapped
from gamwarm.checks import FloatArray
from gamwarm.errors import FitFailed, UnsupportedOption
from gamwarm.interrupts import cause, deliver
from gamwarm.records import Cost, Curvature, FitResult, StartSource, plateau_flags
from gamwarm.store import FitInProgress
from gamwarm.transfer import StartGuard, StartReport, find_false_plateaus, is_same_objective

__all__ = ["Point", "Run"]

log = logging.getLogger("gamwarm")

CONVERGED: Final = "full convergence"
_MOST_RESETS: Final = 2
_SAME_PREDICTOR: Final = 1e-3
"""One more inner fit moves the predictors of a stored answer by less than this share of their
spread.
"""
_CHECKPOINT_SECONDS: Final = 2.0


class Point:
    """An evaluation by mgcv, in gamwarm's outer coordinates.

    Attributes
    ----------
    raw : dict
        R's, by name.
    lsp : array
        mgcv's vector.
    rho, gradient : arrays of shape (q,)
    hessian : array of shape (q, q), or None
        Of families for which mgcv has first derivatives only.
    coef : array of shape (p,)
    tol : float
        The largest gradient that mgcv takes for 0 here.
    """

    def __init__(self, model: Model, raw: dict[str, Any]) -> None:
        self._model, self.raw = model, raw
        order = model.order
        self.lsp: FloatArray = plain(raw["lsp"])
        self.rho = model.from_mgcv(self.lsp)
        self.value = float(plain(raw["value"])[0])
        self.gradient: FloatArray = plain(raw["grad"])[order]
        hessian = plain(raw["hess"])
        self.hessian: FloatArray | None = None if hessian is None else hessian[np.ix_(order, order)]
        self.coef: FloatArray = plain(raw["coef"])
        self.tol = float(plain(raw["tol"])[0])
        self.iterations = int(plain(raw["iter"])[0])
        self.message = plain(raw["conv"])[0]
        self.inner = bool(plain(raw["inner"])[0])
        self.warnings: list[str] = plain(raw.get("words", session().rinterface.NULL)) or []

    @cached_property
    def edf_and_most(self) -> tuple[FloatArray, FloatArray]:
        """Effective degrees of freedom per smoothing parameter, and the most there may be."""
        return self._model.edf(self.lsp, plain(self.raw["factor"]()))

    @property
    def edf(self) -> FloatArray:
        """As the guard reads it: 0 at nuisance coordinates."""
        return np.concatenate([self.edf_and_most[0], np.zeros(len(self._model.nuisance))])

    @property
    def converged(self) -> bool:
        """Whether mgcv's search said so."""
        return bool(self.message == CONVERGED and np.isfinite(self.value))

    def passes(self) -> bool:
        """Whether mgcv's search would stop here: its own rule for gradient and Hessian."""
        if not (self.inner and np.isfinite(self.value) and (np.abs(self.gradient) <= self.tol).all()):
            return False
        if self.hessian is None or not self.hessian.size:
            return True
        values = np.linalg.eigvalsh(self.hessian)
        return bool((-values <= np.abs(values).max() * np.sqrt(np.finfo(float).eps)).all())

    def is_minimum(self) -> Any:
        """Return, per coordinate, whether curvature holds it: a false plateau has none."""
        if self.hessian is None:
            return np.zeros(len(self.rho), dtype=np.bool_)
        bent = np.diagonal(self.hessian)
        return (bent > 0.0) & (np.abs(self.gradient) < bent)


class _Nowhere:
    """A point at which mgcv failed."""

    def __init__(self, rho: FloatArray) -> None:
        self.rho, self.value, self.edf = rho, np.inf, np.zeros(len(rho))
        self.gradient = np.full(len(rho), np.nan)


class Run:
    """One fit: its evaluations and searches, its guard, its answer.

    Attributes
    ----------
    answer : Point
    object : R's gam object
    notes : list of str
    used : bool or None
        Whether the offered start was gone on from.
    """

    def __init__(self, model: Model, handle: FitInProgress | None) -> None:
        self.model, self.handle = model, handle
        self.report: StartReport | None = None if handle is None else handle.start
        self.notes: list[str] = []
        self.warnings: list[str] = list(model.warnings)
        self.used: bool | None = None
        self.answer: Point | None = None
        self.object: Any = None
        self.bits: tuple[FloatArray, list[FloatArray]] | None = None
        self._error: BaseException | None = None
        self._iterations = 0
        self._counts = np.zeros(3)
        self._began = self._last_offered = time.monotonic()
        self._latest: Any = None
        self._stopping = False

    # -- R -----------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Run gam() in R, and once more without the start if that made it fail.

        Raises
        ------
        FitFailed
            mgcv's own error.
        """
        error = self._gam()
        if error is not None and self.report is not None and self.report.start is not None:
            self.notes.append(f"mgcv failed from the warm start ({error}); it began cold")
            self.used, self.bits = False, None
            error = self._gam(cold=True)
        if error is not None:
            raise FitFailed(f"mgcv: {error}")

    def _gam(self, *, cold: bool = False) -> str | None:
        global _current
        start = None if cold or self.report is None else self.report.start

        nothing = session().rinterface.BoolSexpVector([False])  # rpy2 takes NULL for an error, and prints it

        def road(given: Any) -> Any:
            try:
                self.answer = self._road(_Steering(self, given), start)
                return wrapped(self.answer.raw)
            except _Halted:
                return nothing
            except BaseException as error:  # it must not go through R
                self._error = error
                return nothing

        self.answer, before = None, _current
        _current = (road, self._seen)
        try:
            out = entries(session().call("run", self.model.fit, *_callbacks()))
        finally:
            _current = before
        self._counts += plain(out["cost"])
        null = session().rinterface.NULL
        self.object = None if out["object"] is null else out["object"]
        if out["alone"] is not null:
            self.answer = Point(self.model, entries(out["alone"]))
        self.warnings += plain(out["warnings"]) or []
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, _Failed):
                return str(error)
            raise cause(error)
        if self._stopping:
            self.answer = self._reached()
            return None
        failed = plain(out["error"])
        return None if failed is None else str(failed[0]).strip()

    def _seen(self, has_gradient: Any, progress: Any) -> Any:
        """Told of every evaluation of mgcv; returns whether to stop."""
        r = session().rinterface
        try:
            deliver()
            if has_gradient[0]:
                self._latest = progress
            if self.handle is not None:
                if self._latest is not None and time.monotonic() - self._last_offered >= _CHECKPOINT_SECONDS:
                    self._last_offered = time.monotonic()
                    self.handle.checkpoint(self._result(self._reached(), converged=False))
                self._stopping = self.handle.should_stop()
        except BaseException as error:  # it must not go through R
            self._error = error
        return r.BoolSexpVector([self.halted])

    def _reached(self) -> Point:
        return Point(self.model, _checked(self._latest()))

    @property
    def halted(self) -> bool:
        """Whether R is on its way out: nothing is to be searched any more."""
        return self._stopping or self._error is not None

    # -- the road ----------------------------------------------------------------------------------

    def _road(self, mgcv: _Steering, start: Any) -> Any:
        if start is None:
            return self._settled(mgcv, self._searched(mgcv, mgcv.cold, None))
        rho, coef = np.asarray(start.rho), self.model.joined(start.block_beta)
        assert self.report is not None
        if self.report.source == StartSource.EXACT:
            at = self._tried(mgcv.evaluate, self.model.to_mgcv(rho), coef)
            is_own = self._is_own(at, start.objective)
            if isinstance(at, Point) and not self.report.is_checkpoint and at.passes() and self._stays(at, coef):
                self.used = True
                self.bits = (np.array(rho), [np.array(beta) for beta in start.block_beta])
                return at
            if is_own:
                self.used = True
                found = self._searched(mgcv, at.lsp, at.coef, at)
                return self._settled(mgcv, self._or_other(mgcv, found, (mgcv.cold, None)))
        return self._settled(mgcv, self._guarded(mgcv, rho, coef))

    def _is_own(self, at: Any, stored: float | None) -> bool:
        if isinstance(at, _Nowhere) or not np.isfinite(at.value):
            self.notes.append("mgcv cannot evaluate the stored answer")
            return False
        if is_same_objective(stored, at.value):
            return True
        note = f"the stored objective {stored:.12g} is evaluated here as {at.value:.12g}"
        self.notes.append(note)
        log.warning("%s; the evaluation counts", note)
        return False

    def _stays(self, at: Point, coef: FloatArray) -> bool:
        moved, eta = self.model.X @ (at.coef - coef), self.model.X @ coef
        spread = float(np.std(eta)) or 1.0
        return bool(np.abs(moved).max(initial=0.0) <= _SAME_PREDICTOR * spread)

    def _guarded(self, mgcv: _Steering, rho: FloatArray, coef: FloatArray) -> Any:
        cold = self.model.from_mgcv(mgcv.cold)
        guard: StartGuard[Any] = StartGuard(
            evaluate=lambda at, beta: self._tried(mgcv.evaluate, self.model.to_mgcv(at), beta),
            evaluate_cold=lambda: self._tried(mgcv.evaluate, mgcv.cold, None),
            null=mgcv.null,
            default_rho=cold,
            penalised_nll=mgcv.penalized,
            nuisance=len(self.model.nuisance),
            is_answer=lambda at: isinstance(at, Point) and at.passes() and bool(at.is_minimum().all()),
            partial=getattr(self.report and self.report.start, "is_partial", False),
        )
        done = guard.admit(rho, coef, lambda at: getattr(at, "hessian", None))
        self.notes += done.notes
        if done.resets:
            self.notes.append(f"coordinates {[j for j, _ in done.resets]} were on a false plateau: they start cold")
        self.used = done.continued_from == "start"
        if isinstance(done.point, _Nowhere):
            self.used = False
            return self._searched(mgcv, mgcv.cold, None)
        found = self._searched(mgcv, done.point.lsp, done.point.coef, done.point)
        if self.used:
            return self._or_other(mgcv, found, (mgcv.cold, None))
        other = done.other
        return found if not isinstance(other, Point) else self._or_other(mgcv, found, (other.lsp, other.coef))

    def _or_other(self, mgcv: _Steering, found: Any, other: tuple[FloatArray, FloatArray | None]) -> Any:
        """Search from the other start where the first gave no answer; the lower counts."""
        if isinstance(found, Point) and found.converged:
            return found
        why = found.message if isinstance(found, Point) else "mgcv failed"
        again = self._searched(mgcv, *other)
        self.notes.append(
            f"no answer from the {'offered' if self.used else 'cold'} start ({why}); the other was searched too"
        )
        if isinstance(found, _Nowhere) or again.converged or again.value < found.value:
            self.used = not self.used
            return again
        return found

    def _searched(self, mgcv: _Steering, lsp: FloatArray, coef: FloatArray | None, memo: Point | None = None) -> Any:
        found = mgcv.search(lsp, coef, memo) if coef is None else self._tried(mgcv.search, lsp, coef, memo)
        if isinstance(found, Point):
            self._iterations += found.iterations
        return found

    def _settled(self, mgcv: _Steering, found: Any) -> Any:
        """Go on from false plateaus; what mgcv finds there counts if it is lower."""
        if isinstance(found, _Nowhere):
            raise _Failed("it failed from every start")
        for _ in range(_MOST_RESETS):
            if not found.converged:
                break
            probe = partial(self._probed, mgcv, found.coef)
            false = find_false_plateaus(found, probe, self.model.q) & ~found.is_minimum()
            if not false.any():
                break
            rho = np.array(found.rho)
            rho[false] = np.minimum(self.model.from_mgcv(mgcv.cold), 6.0)[false]
            again = self._searched(mgcv, self.model.to_mgcv(rho), found.coef)
            if isinstance(again, _Nowhere) or not again.converged or again.value >= found.value:
                break
            self.notes.append(f"coordinates {np.flatnonzero(false).tolist()} had stopped on a false plateau")
            found = again
        return found

    def _probed(self, mgcv: _Steering, coef: FloatArray, rho: FloatArray) -> Any:
        return self._tried(mgcv.evaluate, self.model.to_mgcv(rho), coef)

    def _tried(self, function: Callable[..., Point], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except _Failed as error:
            self.notes.append(f"mgcv failed at a start ({error})")
            return _Nowhere(np.full(len(self.model.order), np.nan))

    # -- the answer --------------------------------------------------------------------------------

    def cost(self) -> Cost:
        """Return the cost so far."""
        evaluations, inner, formations = (int(count) for count in self._counts)
        seconds = time.monotonic() - self._began
        return Cost(evaluations, self._iterations, inner, formations, seconds=seconds)

    def result(self) -> FitResult:
        """Return what the store keeps."""
        assert self.answer is not None
        return self._result(self.answer, converged=self.answer.converged)

    def _result(self, at: Point, *, converged: bool) -> FitResult:
        model, smoothing = self.model, self.model.q
        rho, beta = (at.rho, model.split(at.coef)) if self.bits is None else self.bits
        edf, most = at.edf_and_most
        options = model.problem.options
        flags = np.zeros(len(rho), dtype=np.bool_)
        part = slice(smoothing)
        flags[part] = plateau_flags(at.rho[part], at.gradient[part], edf, most, options.outer_tol, options.rho_bound)
        curvature = Curvature(at.gradient, at.hessian, at.edf, flags)
        return FitResult(
            rho, beta, at.value, converged, curvature=curvature, iteration=self._iterations, cost=self.cost(),
            start_used=self.used,
        )  # fmt: skip


class _Failed(Exception):
    """R's error in an evaluation or a search."""


def _checked(out: Any) -> dict[str, Any]:
    found = entries(out)
    if "error" in found:
        raise _Failed(str(plain(found["error"])[0]).strip())
    return found


class _Halted(Exception):
    """The user or the store stopped the fit in the middle of an evaluation."""


class _Steering:
    """What session.R gives to choose from: evaluations and searches of mgcv."""

    def __init__(self, run: Run, given: Any) -> None:
        self._run, self._model, self._given = run, run.model, entries(given)
        model = run.model
        if int(plain(self._given["width"])[0]) != model.X.shape[1]:
            raise UnsupportedOption(
                f"the family {model.call.family} adds coefficients of its own, which this adapter does not know; "
                "fit one model per response"
            )
        self.cold: FloatArray = plain(self._given["cold"])
        null = plain(self._given["null"])
        self.null = np.zeros(model.X.shape[1]) if null is None else null
        self.penalized: Callable[[Any, Any], float] | None = None
        if self._given["penalized"] is not session().rinterface.NULL:
            self.penalized = self._penalized

    def _call(self, name: str, *arguments: Any) -> dict[str, Any]:
        try:
            return _checked(self._given[name](*[wrapped(each) for each in arguments]))
        except _Failed:
            if self._run.halted:
                raise _Halted from None
            raise

    def evaluate(self, lsp: FloatArray, coef: FloatArray | None) -> Point:
        return Point(self._model, self._call("evaluate", lsp, coef))

    def search(self, lsp: FloatArray, coef: FloatArray | None, memo: Point | None = None) -> Point:
        return Point(self._model, self._call("search", lsp, coef, None if memo is None else memo.raw))

    def _penalized(self, rho: Any, coef: Any) -> float:
        try:
            return float(plain(self._call("penalized", self._model.to_mgcv(rho), np.asarray(coef))["value"])[0])
        except _Failed:
            return float("inf")


_current: tuple[Callable[..., Any], Callable[..., Any]] | None = None
"""The run that R's calls are for; R runs one at a time."""
_made: list[Any] = []


def _callbacks() -> list[Any]:
    """Return the two functions that R calls; made once, R keeps them for good."""
    if not _made:
        atexit.register(_made.clear)  # while R still is there
        _made.append(session().callback(lambda given: _current[0](given)))  # type: ignore[index]
        _made.append(session().callback(lambda *told: _current[1](*told)))  # type: ignore[index]
    return _made
