"""`scipy.optimize.least_squares` and `curve_fit` that begin where an earlier fit ended."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import scipy.linalg
import scipy.optimize

from gamwarm.adapters.description import Description, split_of, vector_of
from gamwarm.adapters.function import Function
from gamwarm.adapters.guarded_fit import GuardedFit, Solver, run
from gamwarm.adapters.methods import bounds_of
from gamwarm.adapters.naming import check_data, family_of, rows_of, warn_without_data
from gamwarm.checks import FloatArray, as_str
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.formats import SCIPY_LEAST_SQUARES
from gamwarm.identity import FitProblem
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.store import FitStore

__all__ = ["curve_fit", "least_squares"]

_scipy: Any = scipy.optimize
_Result: Any = scipy.optimize.OptimizeResult
_NOT_NAMED: Final = frozenset({"fun", "x0", "f", "p0", "bounds", "full_output", "verbose", "callback", "workers"})
"""Arguments that decide no answer, and bounds, which have several forms."""
_GTOL: Final = 1e-8  # SciPy's default
_SHORT: Final = "dogbox stopped because of a short step"


def least_squares(
    fun: Callable[..., Any],
    x0: Any,
    *arguments: Any,
    store: FitStore | None,
    name: str,
    data: Mapping[str, Any] | None = None,
    blocks: Mapping[str, Any] | None = None,
    version: str = "",
    n_rows: int | None = None,
    parent: Any = None,
    attributes: Mapping[str, str | int | float] | None = None,
    each: bool = False,
    **keywords: Any,
) -> Any:
    """Minimize a sum of squares as SciPy does, from what ``store`` knows of this model.

    The same model, data and options again: the residuals and the Jacobian are evaluated once at the
    stored answer, and its sum of squares must be the stored one. Other data begin at the answer of
    the fit with most rows, if its sum of squares is below that at ``x0``.

    Parameters
    ----------
    fun, x0, *arguments, **keywords
        As the installed `scipy.optimize.least_squares` takes them. ``args``, ``kwargs``, ``bounds``
        and the options are part of the exact key, ``x0`` is not.
    store : FitStore or None
        None: nothing is looked up or stored, and the answer is SciPy's.
    name : str
        Names the *model*, which cannot be hashed.
    data : mapping of str to values, or a data frame
        Everything that ``fun`` and ``jac`` read besides ``x``, ``args`` and ``kwargs``; part of the
        exact key.
    blocks, version, n_rows, parent, attributes, each
        As in `gamwarm.adapters.minimize`. ``n_rows`` also looks at ``args``.

    Returns
    -------
    scipy.optimize.OptimizeResult
        SciPy's, and ``start``, ``kept``, ``start_used``, ``notes``, ``problem`` and ``result`` as
        in `minimize` (``cost`` is SciPy's, half the sum of squares; the `Cost` is ``result.cost``).
        ``nfev`` counts the evaluations of all searches and of the guard.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the argument, and the next step.
    """
    solvers: list[_LeastSquares] = []

    def prepare() -> GuardedFit:
        given = _bound(_scipy.least_squares, (fun, x0, *arguments), keywords)
        args, extra = given.pop("args", ()), given.pop("kwargs", None) or {}
        args = args if isinstance(args, tuple) else (args,)
        begin, jac = vector_of(x0, "x0"), given.get("jac")
        residuals = _Residuals(lambda x: fun(x, *args, **extra), given)
        asked = {key: value for key, value in given.items() if key not in ("fun", "x0")}
        if callable(jac):
            asked["jac"] = lambda x: jac(x, *args, **extra)
        parts = {"args": args, "kwargs": extra, "data": check_data(data), **_named(_scipy.least_squares, given)}
        rows = max(rows_of(parts["data"]), rows_of({str(i): each for i, each in enumerate(args)}))
        described = _described(
            begin, residuals, parts, given.get("bounds"), kind="least_squares", name=name, version=version,
            blocks=blocks, n_rows=rows if n_rows is None else n_rows,
        )  # fmt: skip
        solvers.append(_LeastSquares(residuals, begin, asked))
        if store is not None and data is None and not args and not extra:
            warn_without_data(name)
        return GuardedFit(*described, solvers[0])

    found = run(prepare, store, parent, attributes, each=each)
    return solvers[0].finished(found)


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    *arguments: Any,
    store: FitStore | None,
    name: str,
    data: Mapping[str, Any] | None = None,
    version: str = "",
    parent: Any = None,
    attributes: Mapping[str, str | int | float] | None = None,
    each: bool = False,
    **keywords: Any,
) -> Any:
    """Fit a curve as SciPy does, from what ``store`` knows of this curve.

    Parameters
    ----------
    f, xdata, ydata, *arguments, **keywords
        As the installed `scipy.optimize.curve_fit` takes them. ``xdata``, ``ydata``, ``sigma``,
        ``bounds`` and the options are part of the exact key, ``p0`` is not.
    store : FitStore or None
        None: nothing is looked up or stored, and the answer is SciPy's.
    name : str
        Names the *curve*, which cannot be hashed.
    data : mapping of str to values, or a data frame
        What ``f`` reads besides its arguments; part of the exact key.
    version, parent, attributes, each
        As in `gamwarm.adapters.minimize`.

    Returns
    -------
    tuple
        SciPy's: ``popt, pcov``, or with ``full_output=True`` ``popt, pcov, infodict, mesg, ier``.
        ``infodict["fit"]`` is what `least_squares` returns, with ``start``, ``kept``, ``problem``
        and so on.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the argument, and the next step.
    RuntimeError, ValueError, TypeError
        As SciPy raises them, of the fit from ``p0``.
    """
    solvers: list[_CurveFit] = []
    full_output = bool(keywords.get("full_output", False))

    def prepare() -> GuardedFit:
        given = _bound(_scipy.curve_fit, (f, xdata, ydata, *arguments), keywords)
        given |= given.pop("kwargs", {})
        _convert(given)
        begin = _first_guess(f, given)
        residuals = _Residuals(_weighted(f, given), given)
        parts = {"data": check_data(data), **_named(_scipy.curve_fit, given)}
        described = _described(
            begin, residuals, parts, given.get("bounds"), kind="curve_fit", name=name, version=version, blocks=None,
            n_rows=given["ydata"].size,
        )  # fmt: skip
        solvers.append(_CurveFit(residuals, begin, given))
        return GuardedFit(*described, solvers[0])

    found = run(prepare, store, parent, attributes, each=each)
    found = solvers[0].finished(found)
    answer = (found.x, found.pcov)
    return (*answer, {**found.infodict, "fit": found}, found.message, found.status) if full_output else answer


class _Residuals:
    """The caller's residuals; where a sum of squares was asked for, they are not evaluated again.

    Attributes
    ----------
    repeats : int
        Evaluations that were spared.
    """

    def __init__(self, fun: Callable[[FloatArray], Any], given: Mapping[str, Any]) -> None:
        self._fun, self._known, self.repeats = fun, dict[bytes, Any](), 0
        self._loss, self._scale = given.get("loss", "linear"), float(given.get("f_scale", 1.0))

    def __call__(self, x: Any) -> Any:
        known = self._known.pop(np.asarray(x).tobytes(), None)
        if known is None:
            return self._fun(x)
        self.repeats += 1
        return known

    def half_sum(self, x: FloatArray) -> float:
        """Return half the sum of squares, or of the losses of the squares, as SciPy does."""
        found = np.atleast_1d(np.asarray(self._fun(np.array(x)), dtype=np.float64))
        self._known[x.tobytes()] = found
        if self._loss == "linear":
            return 0.5 * float(found @ found)
        squares = (found / self._scale) ** 2
        losses = self._loss(squares)[0] if callable(self._loss) else _LOSSES[self._loss](squares)
        return 0.5 * self._scale**2 * float(np.sum(losses))


_LOSSES: Final[dict[str, Callable[[FloatArray], FloatArray]]] = {
    "soft_l1": lambda z: 2.0 * (np.sqrt(1.0 + z) - 1.0),
    "huber": lambda z: np.where(z <= 1.0, z, 2.0 * np.sqrt(z) - 1.0),
    "cauchy": np.log1p,
    "arctan": np.arctan,
}


class _LeastSquares(Solver):
    def __init__(self, residuals: _Residuals, x0: FloatArray, asked: dict[str, Any]) -> None:
        self._residuals, self._x0, self._asked = residuals, x0, asked

    def search(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        """See `Solver.search`."""
        found = self._searched(self._x0 if x is None else x, self._asked)
        if x is not None and self._is_doubtful(found.status) and found.optimality > self._asked.get("gtol", _GTOL):
            found.success, found.message = False, _SHORT
        return found

    def at_answer(self, x: FloatArray) -> Any:
        """See `Solver.at_answer`: residuals and Jacobian there, for SciPy's result."""
        # "lm" takes a step before it looks at the limit; "trf" begins a little inside the bounds.
        found = self._searched(x, {**self._asked, "max_nfev": 1, "method": "dogbox"})
        found.success, found.status = True, max(int(found.status), 1)
        found.message = "the stored answer; its sum of squares was evaluated again"
        return found

    def is_over(self, found: Any) -> bool:
        """See `Solver.is_over`: ``max_nfev`` was reached, or the callback stopped it."""
        return found.get("status") in (0, -2)

    def _is_doubtful(self, status: int) -> bool:
        # Near a bound dogbox cuts its step to the bound, and may take the short step for
        # convergence.
        return self._asked.get("method") == "dogbox" and status in (3, 4)

    def finished(self, found: Any) -> Any:
        """Return SciPy's result with its own names."""
        if "jac" not in found:  # the answer is the stored one, the search ended beside it
            found.update(self.at_answer(found.x))
        found.fun, found.cost = found.pop("residuals"), found.fun
        found.nfev = found.result.cost.evaluations
        return found

    def _searched(self, x: FloatArray, asked: Mapping[str, Any]) -> Any:
        before = self._residuals.repeats
        found = _scipy.least_squares(self._residuals, x, **asked)
        self.evaluations += int(found.nfev) - (self._residuals.repeats - before)
        self.iterations += max(int(found.njev or 1) - 1, 0)
        found.residuals, found.fun = found.fun, float(found.cost)
        return found


class _CurveFit(_LeastSquares):
    def search(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        """See `Solver.search`."""
        asked = {**self._asked, "full_output": True}
        if x is not None:
            asked["p0"] = x
        popt, pcov, infodict, message, status = _scipy.curve_fit(**asked)
        self.evaluations += int(infodict["nfev"])
        fun = self._residuals.half_sum(popt) if self._asked.get("loss", "linear") != "linear" else None
        value = 0.5 * float(infodict["fvec"] @ infodict["fvec"]) if fun is None else fun
        is_short = x is not None and self._is_doubtful(status)
        return _Result(
            x=np.array(popt), fun=value, success=not is_short, status=status, message=_SHORT if is_short else message,
            pcov=pcov, infodict=infodict,
        )  # fmt: skip

    def at_answer(self, x: FloatArray) -> Any:
        """See `Solver.at_answer`."""
        given = self._asked
        if given.get("col_deriv"):  # a Jacobian that only one of SciPy's solvers reads
            return None
        asked: dict[str, Any] = {key: given[key] for key in ("bounds", "loss", "f_scale", "diff_step") if key in given}
        if callable(given.get("jac")):
            asked["jac"] = _weighted(given["jac"], {**given, "ydata": 0.0})
        at = _scipy.least_squares(self._residuals, x, max_nfev=1, method="dogbox", **asked)
        infodict = {"nfev": 1, "fvec": at.fun}
        return _Result(
            success=True, status=1, message="the stored answer; its sum of squares was evaluated again",
            pcov=_covariance(at, absolute=bool(given.get("absolute_sigma", False))), infodict=infodict,
        )  # fmt: skip

    def finished(self, found: Any) -> Any:
        """Return the result with the names of `least_squares`."""
        found.fun, found.cost = found.infodict["fvec"], found.fun
        found.nfev = found.result.cost.evaluations
        return found


def _covariance(at: Any, *, absolute: bool) -> FloatArray:
    """Return the covariance of the parameters, by SciPy's rules."""
    _, s, vt = scipy.linalg.svd(at.jac, full_matrices=False)
    kept = s > np.finfo(np.float64).eps * max(at.jac.shape) * s[0]
    s, vt = s[kept], vt[kept]
    rows, columns = at.jac.shape
    scale = 1.0 if absolute else 2.0 * at.cost / (rows - columns) if rows > columns else np.inf
    covariance: FloatArray = (vt.T / s**2) @ vt
    if not (np.isfinite(scale) and np.isfinite(covariance).all()):
        warnings.warn(
            "Covariance of the parameters could not be estimated", scipy.optimize.OptimizeWarning, stacklevel=2
        )
        return np.full((columns, columns), np.inf)
    return scale * covariance


def _bound(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by SciPy's names."""
    try:
        return dict(inspect.signature(function).bind(*arguments, **keywords).arguments)
    except TypeError as error:
        raise InvalidType(f"{error}; see scipy.optimize.{function.__name__}") from None


def _named(function: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is hashed of SciPy's arguments: all that differ from their defaults."""
    known = inspect.signature(function).parameters
    return {
        key: "a callable" if callable(value) else value
        for key, value in given.items()
        if key not in _NOT_NAMED and not (key in known and _is_default(value, known[key].default))
    }


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(value, (str, int, float, type(None))):
        return bool(value == default)
    return value is default


def _described(
    begin: FloatArray,
    residuals: _Residuals,
    parts: Mapping[str, Any],
    bounds: Any,
    *,
    kind: str,
    name: str,
    version: str,
    blocks: Mapping[str, Any] | None,
    n_rows: int,
) -> tuple[FitProblem, Description, Function, FloatArray]:
    split = split_of(begin.size, None, blocks)
    if bounds is not None and not isinstance(bounds, scipy.optimize.Bounds):
        try:
            bounds = scipy.optimize.Bounds(*bounds)
        except TypeError:
            raise InvalidType(
                f"bounds is {type(bounds).__name__}; give (lower, upper) or scipy.optimize.Bounds"
            ) from None
    limits = bounds_of(bounds, begin.size)
    named = {
        "version": as_str(version, "version", empty=True),
        **parts,
        "bounds": limits,
        "blocks": [block.coefficients for block in split.blocks],
    }
    family = family_of(SCIPY_LEAST_SQUARES, f"scipy.optimize.{kind}", name, named)
    described = Description(split, has_metric=False)
    function = Function(residuals.half_sum, None, (), limits, begin.size, name="the sum of squares")
    return described.problem(family, begin, BlockwiseFitOptions(), n_rows), described, function, begin


def _convert(given: dict[str, Any]) -> None:
    """Make arrays of the data as SciPy does, without the rows that ``nan_policy`` omits."""
    if isinstance(given["xdata"], (list, tuple, np.ndarray)):
        given["xdata"] = np.asarray(given["xdata"], dtype=np.float64)
    x, y = given["xdata"], np.asarray(given["ydata"], dtype=np.float64)
    sigma = None if given.get("sigma") is None else np.asarray(given["sigma"])
    if given.get("nan_policy") == "omit" and not given.get("check_finite"):
        keep = ~(np.isnan(x).any(axis=tuple(range(x.ndim - 1))) | np.isnan(y))
        given["xdata"], y = x[..., keep], y[keep]
        if sigma is not None and sigma.ndim:
            sigma = sigma[keep] if sigma.ndim == 1 else sigma[np.ix_(keep, keep)]
        given.update(nan_policy=None, check_finite=False)
    given.update(ydata=y, sigma=sigma)


def _first_guess(f: Callable[..., Any], given: Mapping[str, Any]) -> FloatArray:
    """Return where SciPy begins."""
    if given.get("p0") is not None:
        return vector_of(given["p0"], "p0")
    parameters = inspect.signature(f).parameters.values()
    size = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters) - 1
    if size < 1:
        raise InvalidInput("f does not say how many parameters it has; pass p0")
    bounds = given.get("bounds", (-np.inf, np.inf))
    lower, upper = (bounds.lb, bounds.ub) if isinstance(bounds, scipy.optimize.Bounds) else bounds
    low, high = (np.broadcast_to(np.asarray(each, dtype=np.float64), (size,)) for each in (lower, upper))
    begin = np.ones(size)
    both, below, above = np.isfinite(low) & np.isfinite(high), np.isfinite(low), np.isfinite(high)
    begin[below] = low[below] + 1.0
    begin[above & ~below] = high[above & ~below] - 1.0
    begin[both] = 0.5 * (low[both] + high[both])
    return begin


def _weighted(f: Callable[..., Any], given: Mapping[str, Any]) -> Callable[[FloatArray], Any]:
    """Return the residuals (or their Jacobian, if ``ydata`` is 0) in units of ``sigma``."""
    x, y, sigma = given["xdata"], given["ydata"], given["sigma"]

    def residuals(p: FloatArray) -> Any:
        found = np.asarray(f(x, *p)) - y
        if sigma is None:
            return found
        if sigma.ndim == 2 and sigma.size > 1:
            return scipy.linalg.solve_triangular(scipy.linalg.cholesky(sigma, lower=True), found, lower=True)
        return found / sigma if found.ndim == 1 else found / np.reshape(sigma, (-1, 1))

    return residuals
