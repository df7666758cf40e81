"""Any solver that takes a vector and returns one, with its answers kept and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.optimize

from gamwarm.adapters.description import Description, split_of, vector_of
from gamwarm.adapters.function import Function
from gamwarm.adapters.guarded_fit import Edf, GuardedFit, Solver, run
from gamwarm.adapters.methods import bounds_of
from gamwarm.adapters.naming import check_data, family_of, rows_of, warn_without_data
from gamwarm.checks import FloatArray, as_float, as_int, as_str
from gamwarm.display import brief_repr, counted
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.formats import REMEMBERED
from gamwarm.identity import FitProblem
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.store import FitStore

__all__ = ["remember", "remember_problem"]

_Result: Any = scipy.optimize.OptimizeResult
_ENGINE = ("gamwarm.adapters.remember", "")
_NEXT_STEP = 'return (x, converged), or a mapping with "x" and "success" (a scipy.optimize.OptimizeResult is one)'


def remember(
    solve: Callable[[Any], Any] | None,
    *,
    store: FitStore | None,
    name: str = "",
    start: Any = None,
    data: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    objective: Callable[[Any], float] | None = None,
    gradient: Callable[[Any], Any] | None = None,
    rho: Any = None,
    blocks: Mapping[str, Any] | None = None,
    bounds: Any = None,
    edf: Edf | None = None,
    tolerance: float = 1e-5,
    rho_bound: float = 15.0,
    version: str = "",
    n_rows: int | None = None,
    parent: Any = None,
    attributes: Mapping[str, str | int | float] | None = None,
    each: bool = False,
) -> Any:
    """Call ``solve`` with what ``store`` knows of this solver and these data, and keep its answer.

    The same solver, data and settings again: the stored answer is returned once ``objective``,
    evaluated there, gives what was stored for it; ``solve`` is not called. Other data (a fold): the
    answer of the fit with most rows is offered to ``solve``, if ``objective`` says that it is
    better than ``start``. If ``solve`` raises or does not converge from there, it is called again,
    without a start.

    Parameters
    ----------
    solve : callable
        ``solve(x)``: x is where to begin, an array of shape (k,) of its own that may be written to,
        or None to begin cold. Returns ``(x, converged)``; or a mapping with SciPy's names (an
        ``OptimizeResult`` is one): ``x``, of the shape of ``start``, ``success`` and, where known,
        ``fun``, ``nit``, ``nfev`` (else one evaluation per iteration is counted), ``message``. What
        it raises from a cold start reaches the caller. None (with ``each=True``): this rank has
        nothing to do.
    store : FitStore or None
        None: nothing is looked up or stored.
    name : str
        Names the *solver and its model*, which cannot be hashed: others need other names.
    start : array of shape (k,)
        Where ``solve(None)`` begins, as far as known, else zeros: what an offered start has to
        beat. Its log smoothing parameters are part of the exact key, its other entries are not.
    data : mapping of str to values, or a data frame
        Everything that ``solve`` and ``objective`` read; part of the exact key (see
        `gamwarm.family`). What cannot be hashed is refused. Pass ``{}`` if they read nothing.
    settings : mapping of str to values, optional
        Tolerances, limits, penalties and switches that the answer depends on; likewise.
    objective : callable, optional
        ``objective(x) -> float``, what ``solve`` minimizes (maximizes: the negative). Without it
        ``solve`` has to return ``fun``, every stored answer goes through ``solve``, and a start is
        only checked for finite numbers.
    gradient : callable, optional
        Of the objective, of shape (k,); used for ``rho`` only. Default: forward differences.
    rho, blocks, edf, rho_bound, version, n_rows, parent, attributes
        As in `minimize`.
    bounds : optional
        As SciPy takes them: starts are clipped to them. Part of the exact key.
    tolerance : float
        Of the gradient along ``rho``: what the solver stops at.
    each : bool
        Of a store on several ranks: one fit per rank, as in `WarmStartStore.fit`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x``, ``fun``, ``success``, ``message``; ``nit`` and ``nfev`` as ``solve`` says them, of
        all its calls (None if it does not); ``solved``, what ``solve`` returned for this answer
        (None if it was not called); and ``start``, ``kept``, ``start_used``, ``cost``, ``notes``,
        ``problem``, ``result`` as in `minimize`. None on a rank that has nothing to do.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the argument, or what ``solve`` returned, and the next step.
    """
    if solve is None and not (each and store is not None):
        raise InvalidType("solve is None; only a rank without work in a round of each=True passes None")
    solvers: list[_Called] = []

    def prepare() -> GuardedFit | None:
        if solve is None:
            return None
        problem, described, function, begin = _prepared(
            name=name, start=start, data=data, settings=settings, objective=objective, gradient=gradient, rho=rho,
            blocks=blocks, bounds=bounds, edf=edf, tolerance=tolerance, rho_bound=rho_bound, version=version,
            n_rows=n_rows,
        )  # fmt: skip
        if not callable(solve):
            raise InvalidType(f"solve is {type(solve).__name__}; give a callable solve(x)")
        if store is not None and data is None:
            warn_without_data(name)
        solvers.append(_Called(solve, function, begin.size))
        return GuardedFit(problem, described, function, begin, solvers[0], edf)

    found = run(prepare, store, parent, attributes, each=each)
    if found is not None:
        found.nit, found.nfev = solvers[0].said
    return found


def remember_problem(**arguments: Any) -> FitProblem:
    """Return the fit that `remember` looks up and stores for these arguments; nothing is called.

    Parameters
    ----------
    **arguments
        As `remember` takes them.
    """
    aside = ("solve", "store", "parent", "attributes", "each")
    return _prepared(**{key: value for key, value in arguments.items() if key not in aside})[0]


class _Called(Solver):
    """The caller's solver: what it returns is checked and copied."""

    def __init__(self, solve: Callable[[Any], Any], function: Function, size: int) -> None:
        self._solve, self._function, self._size = solve, function, size
        self._says_nit = self._says_nfev = True

    @property
    def said(self) -> tuple[int | None, int | None]:
        """Iterations and evaluations of all calls; None for what one of them did not say."""
        return self.iterations if self._says_nit else None, self.evaluations if self._says_nfev else None

    def search(self, x: FloatArray | None, metric: FloatArray | None) -> Any:
        """See `Solver.search`."""
        solved = self._solve(None if x is None else np.array(x))
        found = _read(solved, self._size)
        outside = np.flatnonzero(found.x != self._function.inside(found.x))
        if outside.size and np.isfinite(found.x).all():
            at = int(outside[0])
            raise InvalidInput(f"solve returned {found.x[at]} in entry {at} of x, outside its bounds; check bounds")
        self._count(found.get("nit"), found.get("nfev"))
        found.solved = solved
        if not np.isfinite(found.x).all():
            lost = int(np.flatnonzero(~np.isfinite(found.x))[0])
            found.success, found.fun = False, np.inf
            found.message = f"solve returned {found.x[lost]} in entry {lost} of x"
        elif self._function.is_known:
            found.fun = self._function.value(found.x)
        elif found.get("fun") is None:
            raise InvalidInput('nothing says what the objective is at x; pass objective=, or return "fun" too')
        else:
            found.fun = as_float(found.fun, "solve returned fun, which")
        if found.success and not np.isfinite(found.fun):
            found.success, found.message = False, f"the objective is {found.fun} at x"
        return found

    def _count(self, nit: Any, nfev: Any) -> None:
        iterations = 0 if nit is None else as_int(nit, "solve returned nit, which")
        self.iterations += iterations
        self.evaluations += iterations if nfev is None else as_int(nfev, "solve returned nfev, which")
        self._says_nit &= nit is not None
        self._says_nfev &= nit is not None or nfev is not None

    def at_answer(self, x: FloatArray) -> Any:
        """See `Solver.at_answer`: the solver has already said that this is an answer."""
        return _Result(success=True, message="the stored answer; its objective was evaluated again", solved=None)


def _read(solved: Any, size: int) -> Any:
    """Return what ``solve`` returned, with a copy of its vector."""
    if isinstance(solved, Mapping):
        for key in ("x", "success"):
            if key not in solved:
                raise InvalidInput(f"solve returned a mapping without {key!r}; {_NEXT_STEP}")
        found = _Result({key: solved.get(key) for key in ("x", "success", "fun", "nit", "nfev", "status", "message")})
    elif isinstance(solved, tuple) and len(solved) == 2:
        found = _Result(x=solved[0], success=solved[1])
    else:
        what = f"a tuple of {len(solved)}" if isinstance(solved, tuple) else type(solved).__name__
        raise InvalidType(f"solve returned {what}; {_NEXT_STEP}")
    if not isinstance(found.success, (bool, np.bool_)):
        raise InvalidType(
            f"solve says {brief_repr(found.success)} of whether it converged; return True or False there: {_NEXT_STEP}"
        )
    found.x, found.success = vector_of(found.x, "solve returned x, which", finite=False), bool(found.success)
    if found.x.size != size:
        raise InvalidInput(
            f"start has {counted(size, 'number')}, but solve returned {found.x.size} as x; give start the length of "
            "solve's own vector, or return all of x"
        )
    if not found.get("message"):
        found.message = "solve converged" if found.success else "solve did not converge"
    return found


def _prepared(
    *,
    name: str = "",
    start: Any = None,
    data: Any = None,
    settings: Any = None,
    objective: Any = None,
    gradient: Any = None,
    rho: Any = None,
    blocks: Mapping[str, Any] | None = None,
    bounds: Any = None,
    edf: Any = None,
    tolerance: float = 1e-5,
    rho_bound: float = 15.0,
    version: str = "",
    n_rows: int | None = None,
) -> tuple[FitProblem, Description, Function, FloatArray]:
    for what, value in (("objective", objective), ("gradient", gradient), ("edf", edf)):
        if value is not None and not callable(value):
            raise InvalidType(f"{what} is {type(value).__name__}; give a callable")
    if start is None:
        raise InvalidType("start is None; give where the solver begins cold, or zeros, as an array of shape (k,)")
    begin = vector_of(start, "start")
    known = check_data(data)
    if settings is not None and not isinstance(settings, Mapping):
        raise InvalidType(f"settings is {type(settings).__name__}; give a mapping (a dict)")
    split = split_of(begin.size, rho, blocks)
    if split.rho.size and objective is None:
        raise InvalidInput("rho needs objective: its rules ask what the objective is at other points; pass it")
    limits = bounds_of(bounds, begin.size)
    parts = {
        "version": as_str(version, "version", empty=True),
        "data": known,
        "settings": {} if settings is None else settings,
        "bounds": limits,
        "rho": split.rho,
        "blocks": [[block.coefficients, block.rho] for block in split.blocks],
    }
    family = family_of(REMEMBERED, "remember", name, parts)
    options = BlockwiseFitOptions(outer_tol=tolerance, rho_bound=rho_bound)
    described = Description(split, has_metric=False)
    problem = described.problem(family, begin, options, rows_of(known) if n_rows is None else n_rows, _ENGINE)
    function = Function(objective, gradient, (), limits, begin.size, name="objective", gradient_name="gradient")
    return problem, described, function, function.inside(begin)
