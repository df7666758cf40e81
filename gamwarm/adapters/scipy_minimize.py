"""`scipy.optimize.minimize` that begins where an earlier run ended; stored values are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gamwarm.adapters.description import Description, split_of, vector_of
from gamwarm.adapters.function import Function
from gamwarm.adapters.guarded_fit import Edf, GuardedFit, run
from gamwarm.adapters.methods import SILENT, bounds_of, method_of
from gamwarm.adapters.naming import check_data, family_of, rows_of, warn_without_data
from gamwarm.adapters.scipy_search import ScipySolver, Search
from gamwarm.checks import as_str
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.formats import SCIPY_MINIMIZE
from gamwarm.identity import FitProblem
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.store import FitStore

__all__ = ["minimize", "minimize_problem", "run_minimize"]


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    *,
    store: FitStore | None,
    name: str,
    data: Mapping[str, Any] | None = None,
    rho: Any = None,
    blocks: Mapping[str, Any] | None = None,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    method: str | None = None,
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
    edf: Edf | None = None,
    rho_bound: float = 15.0,
    version: str = "",
    n_rows: int | None = None,
    parent: Any = None,
    attributes: Mapping[str, str | int | float] | None = None,
    each: bool = False,
) -> Any:
    """Minimize ``fun`` as SciPy does, from what ``store`` knows of this function and these data.

    The same function, data and options again begin at their own answer, which is evaluated again:
    where SciPy's method tests the gradient first, that is one evaluation and no iteration. Another
    data set (a fold) begins near the answer of the one with most rows; with BFGS also with its
    inverse Hessian (``hess_inv0``). Where it begins never decides where it ends: the stopping rule
    is SciPy's, on this function alone, and only SciPy's search reports success. Where noise defeats
    a search from a stored answer whose value is the stored one, that answer stands; ``message``
    says so.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``, or ``(float, gradient)`` with ``jac=True``. Never called outside
        the bounds.
    x0 : array of shape (k,), or a number
        Where to begin cold. Its log smoothing parameters are part of the exact key, its other
        entries are not.
    args : tuple or object
        As SciPy takes them; numbers, strings, arrays; part of the exact key.
    store : FitStore or None
        None: nothing is looked up or stored.
    name : str
        Names the *function*, which cannot be hashed: other functions (and gradients, constraints)
        need other names.
    data : mapping of str to values, or a data frame
        Everything that ``fun`` reads besides ``x`` and ``args``; part of the exact key, with masks,
        names and indexes (see `gamwarm.family`). Anything else goes unnoticed.
    rho : slice, mask or indices, optional
        Which entries of ``x`` are log smoothing parameters (log lambda). They meet the rules of
        outer coordinates: ``rho_bound``, clamping, plateaus, the guard. The others are
        coefficients. Default: none.
    blocks : mapping of str to (slice, mask or indices), optional
        Terms of the model; every entry of ``x`` in one. Terms are matched by name. Default: one
        block.
    jac : callable, True, None, or {"2-point", "3-point", "cs"}, optional
        As SciPy takes it. Default: forward differences where the method needs a gradient.
    hess, hessp, bounds, constraints, tol : optional
        As SciPy takes them; arguments that the method ignores are refused.
    method : str, optional
        Any of SciPy's; default as SciPy chooses: SLSQP with constraints, L-BFGS-B with bounds, else
        BFGS.
    callback : callable, optional
        As SciPy takes it, ``callback(xk)`` or ``callback(intermediate_result=...)``; it may raise
        ``StopIteration``.
    options : mapping, optional
        SciPy's, such as ``gtol`` and ``maxiter``; part of the exact key, except output options.
        An option that the method does not have is refused. All searches of one call together take
        no more iterations or evaluations than ``maxiter``, ``maxfev`` or ``maxfun`` allow. For
        L-BFGS-B ``ftol`` is 0 unless you state it or ``tol``: a search that stopped because of slow
        progress has not reached its answer, and continues when it is resumed.
    edf : callable, optional
        ``edf(x) -> (edf, max_edf)``, arrays with one number per ``rho``, in the order of the
        blocks. With it, smoothing parameters that ran to infinity are known to be on a plateau, and
        copied as such to other fits.
    rho_bound : float
        Bound that the rules of outer coordinates go by (``fun`` itself is not bounded by it).
    version : str
        Change it when the function changes and its name does not.
    n_rows : int, optional
        Default: the longest first axis in ``data``. The fit with most rows is preferred as a
        parent.
    parent : str or KeepOutcome, optional
        The fit to start from; see `WarmStartStore.fit`.
    attributes : mapping of str to strings and numbers, optional
        Labels, kept with record and artifact.
    each : bool
        Of a store on several ranks: one fit per rank, as in `WarmStartStore.fit`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        SciPy's, and ``start`` (`StartReport` or None), ``kept`` (`KeepOutcome` or None),
        ``start_used``, ``cost``, ``notes`` (what the guard did), ``problem`` (`FitProblem`), and
        ``result``, the `FitResult` that was passed to the store. ``nfev`` counts the calls of
        ``fun``, ``nit`` the iterations, of all searches together.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the argument, and the next step.
    """
    return run_minimize(
        fun, x0, args, store=store, name=name, data=data, rho=rho, blocks=blocks, jac=jac, hess=hess, hessp=hessp,
        method=method, bounds=bounds, constraints=constraints, tol=tol, callback=callback, options=options, edf=edf,
        rho_bound=rho_bound, version=version, n_rows=n_rows, parent=parent, attributes=attributes, each=each,
    )  # fmt: skip


def run_minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: Any,
    *,
    store: FitStore | None,
    callback: Callable[..., Any] | None = None,
    parent: Any,
    attributes: Mapping[str, str | int | float] | None,
    each: bool = False,
    believes_values: bool = False,
    **described: Any,
) -> Any:
    """`minimize`; with ``believes_values`` a stored answer is not searched from."""
    searched: list[Search] = []

    def prepare() -> GuardedFit:
        problem, description, search = _prepared(fun, x0, args, **described)
        if callback is not None and not callable(callback):
            raise InvalidType(f"callback is {type(callback).__name__}; give a callable")
        searched.append(search)
        if store is not None and described.get("data") is None and args in ((), None):
            warn_without_data(described["name"])
        solver = ScipySolver(search, description, callback, believes_values=believes_values)
        return GuardedFit(problem, description, search.function, search.x0, solver, described.get("edf"))

    found = run(prepare, store, parent, attributes, each=each)
    if found is not None:
        found.nfev, found.nit = searched[0].function.calls, found.cost.outer_iterations
    return found


def minimize_problem(fun: Callable[..., Any], x0: Any, args: Any = (), **arguments: Any) -> FitProblem:
    """Return the fit that `minimize` looks up and stores for these arguments; nothing is evaluated.

    Parameters
    ----------
    fun, x0, args, **arguments
        As `minimize` takes them.
    """
    aside = ("store", "callback", "parent", "attributes", "each")
    return _prepared(fun, x0, args, **{key: value for key, value in arguments.items() if key not in aside})[0]


def _prepared(
    fun: Callable[..., Any],
    x0: Any,
    args: Any,
    *,
    name: str,
    data: Any = None,
    rho: Any = None,
    blocks: Mapping[str, Any] | None = None,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    method: str | None = None,
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    options: Mapping[str, Any] | None = None,
    edf: Edf | None = None,
    rho_bound: float = 15.0,
    version: str = "",
    n_rows: int | None = None,
) -> tuple[FitProblem, Description, Search]:
    if not callable(fun):
        raise InvalidType(f"fun is {type(fun).__name__}; give a callable")
    for what, value in (("hess", hess), ("hessp", hessp), ("edf", edf)):
        if value is not None and not (callable(value) or (what == "hess" and not isinstance(value, np.ndarray))):
            raise InvalidType(f"{what} is {type(value).__name__}; give a callable")
    if options is not None and not isinstance(options, Mapping):
        raise InvalidType(f"options is {type(options).__name__}; give a mapping (a dict)")
    known = check_data(data)
    begin = vector_of(x0, "x0")
    chosen = dict(options or {})
    how = method_of(method, jac=jac, hess=hess, hessp=hessp, bounds=bounds, constraints=constraints, options=chosen)
    limits = bounds_of(bounds, begin.size)
    if tol is not None:
        tol = _tolerance(tol)
    elif how.name == "L-BFGS-B":
        chosen.setdefault("ftol", 0.0)
    arguments = args if isinstance(args, tuple) else (args,)
    split = split_of(begin.size, rho, blocks)
    parts = {
        "version": as_str(version, "version", empty=True),
        "args": arguments,
        "data": known,
        "method": how.name,
        "bounds": limits,
        "constraints": _described(constraints),
        "options": {key: value for key, value in chosen.items() if key not in SILENT},
        "tol": tol,
        "rho": split.rho,
        "blocks": [[block.coefficients, block.rho] for block in split.blocks],
    }
    family = family_of(SCIPY_MINIMIZE, "scipy.optimize.minimize", name, parts)
    function = Function(fun, jac, arguments, limits, begin.size, how, chosen)
    described = Description(split, how.name == "BFGS")
    gtol = _tolerance(chosen.get("gtol", how.gtol if tol is None else tol), "options['gtol']")
    fit_options = BlockwiseFitOptions(outer_tol=gtol if gtol > 0.0 else how.gtol, rho_bound=rho_bound)
    problem = described.problem(family, begin, fit_options, rows_of(known) if n_rows is None else n_rows)
    search = Search(function, function.inside(begin), how, hess, hessp, constraints, tol, chosen)
    return problem, described, search


def _tolerance(tol: Any, what: str = "tol") -> float:
    try:
        value = float(tol)
    except (TypeError, ValueError):
        value = np.nan
    if not value >= 0.0:
        raise InvalidInput(f"{what} is {tol!r}; give a number of at least 0")
    return value


def _described(constraints: Any) -> Any:
    """Return what can be hashed of constraints: kinds, numbers, arguments; functions by name."""
    if isinstance(constraints, Mapping):
        return {str(key): value for key, value in constraints.items() if not callable(value)}
    if hasattr(constraints, "lb"):
        numbers = {"kind": type(constraints).__name__}
        parts = {part: getattr(constraints, part) for part in ("A", "lb", "ub") if hasattr(constraints, part)}
        return {**numbers, **parts}
    if constraints is None:
        return []
    try:
        return [_described(each) for each in constraints]
    except TypeError:
        raise InvalidType(f"constraints is {type(constraints).__name__}; give SciPy's constraints") from None
