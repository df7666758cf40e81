"""What SciPy's methods take: derivatives, bounds, constraints, and the options of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.optimize

from gamwarm.checks import FloatArray
from gamwarm.errors import InvalidInput, InvalidType

__all__ = ["DIFFERENCES", "METHODS", "SILENT", "Method", "bounds_of", "method_of"]

DIFFERENCES: Final = ("2-point", "3-point", "cs")
SILENT: Final = frozenset({"disp", "iprint", "verbose", "return_all"})
"""Options that control output only, and so are not part of the name."""
_STEP: Final = float(np.sqrt(np.finfo(np.float64).eps))


@dataclass(frozen=True)
class Method:
    """One method of `scipy.optimize.minimize`.

    Attributes
    ----------
    name : str
        As SciPy writes it.
    options : frozenset of str
    jac : {"", "differences", "needed"}
        Whether it takes gradients: none, by differences where none is given, or given ones only.
    hess, hessp : bool
    needs_hess : bool
        Of a method that takes both, one of them will do.
    bounds, constraints : bool
    eps : float or None
        Absolute step of its differences; None for a relative one.
    gtol : float
        Its default tolerance of the gradient.
    """

    name: str
    options: frozenset[str]
    jac: str = ""
    hess: bool = False
    hessp: bool = False
    needs_hess: bool = False
    bounds: bool = False
    constraints: bool = False
    eps: float | None = _STEP
    gtol: float = 1e-5


def _options(names: str) -> frozenset[str]:
    return frozenset(f"disp maxiter {names}".split())


_TRUST: Final = "initial_trust_radius max_trust_radius eta gtol return_all subproblem_maxiter"
_ALL: Final = (
    Method("Nelder-Mead", _options("maxfev return_all initial_simplex xatol fatol adaptive"), bounds=True),
    Method("Powell", _options("xtol ftol maxfev direc return_all"), bounds=True),
    Method("CG", _options("gtol norm eps return_all finite_diff_rel_step c1 c2"), "differences"),
    Method("BFGS", _options("gtol norm eps return_all finite_diff_rel_step xrtol c1 c2"), "differences"),
    Method("Newton-CG", _options("xtol eps return_all c1 c2"), "needed", hess=True, hessp=True),
    Method(
        "L-BFGS-B", _options("maxcor ftol gtol eps maxfun iprint maxls finite_diff_rel_step"), "differences",
        bounds=True, eps=1e-8,
    ),
    Method(
        "TNC",
        _options(
            "eps scale offset maxCGit eta stepmx accuracy minfev ftol xtol gtol rescale finite_diff_rel_step maxfun"
        )
        - {"maxiter"},
        "differences", bounds=True, eps=1e-8,
    ),
    Method("COBYLA", _options("rhobeg tol catol f_target"), bounds=True, constraints=True),
    Method(
        "COBYQA", _options("maxfev f_target feasibility_tol initial_tr_radius final_tr_radius scale"), bounds=True,
        constraints=True,
    ),
    Method("SLSQP", _options("ftol iprint eps finite_diff_rel_step"), "differences", bounds=True, constraints=True),
    Method(
        "trust-constr",
        _options(
            "xtol gtol barrier_tol sparse_jacobian verbose finite_diff_rel_step initial_constr_penalty "
            "initial_tr_radius initial_barrier_parameter initial_barrier_tolerance factorization_method"
        ),
        "differences", hess=True, hessp=True, bounds=True, constraints=True, eps=None, gtol=1e-8,
    ),
    Method("dogleg", _options(_TRUST), "needed", hess=True, needs_hess=True, gtol=1e-4),
    Method("trust-ncg", _options(_TRUST), "needed", hess=True, hessp=True, needs_hess=True, gtol=1e-4),
    Method("trust-exact", _options(_TRUST), "needed", hess=True, needs_hess=True, gtol=1e-4),
    Method("trust-krylov", _options(f"{_TRUST} inexact"), "needed", hess=True, hessp=True, needs_hess=True, gtol=1e-4),
)  # fmt: skip
METHODS: Final = {method.name.lower(): method for method in _ALL}

# Why an option that SciPy knows is not taken.
_REFUSED: Final = {
    "hess_inv0": "the store gives it",
    "workers": "points are evaluated one by one, each once",
}


def method_of(
    name: Any,
    *,
    jac: Any,
    hess: Any,
    hessp: Any,
    bounds: Any,
    constraints: Any,
    options: dict[str, Any],
) -> Method:
    """Return the method, having refused by name what it would not use.

    Raises
    ------
    InvalidInput, InvalidType
    """
    if name is None:
        name = "SLSQP" if constraints else "BFGS" if bounds is None else "L-BFGS-B"
    if not isinstance(name, str) or name.lower() not in METHODS:
        raise InvalidInput(f"method is {name!r}; use one of {', '.join(each.name for each in _ALL)}")
    method = METHODS[name.lower()]
    if not (jac is None or jac is False or jac is True or callable(jac) or jac in DIFFERENCES):
        raise InvalidInput(
            f"jac is {jac!r}; give a callable, True (fun returns value and gradient), None or one of {DIFFERENCES}"
        )
    takes = {
        "jac": bool(method.jac) or jac is True,
        "hess": method.hess,
        "hessp": method.hessp,
        "bounds": method.bounds,
        "constraints": method.constraints,
    }
    given = {
        "jac": None if jac is False else jac,
        "hess": hess,
        "hessp": hessp,
        "bounds": bounds,
        "constraints": constraints or None,
    }
    for argument, value in given.items():
        if value is not None and not takes[argument]:
            raise InvalidInput(f"{method.name} does not use {argument}; omit it, or choose a method that does")
    if method.jac == "needed" and not (callable(jac) or jac is True):
        raise InvalidInput(f"{method.name} needs jac: a callable, or True where fun returns value and gradient")
    if method.needs_hess and hess is None and hessp is None:
        raise InvalidInput(f"{method.name} needs hess{' or hessp' if method.hessp else ''}")
    if hess is not None and hessp is not None:
        raise InvalidInput("hess and hessp are both given; one of them would be ignored: omit it")
    if isinstance(hess, str) and not (callable(jac) or jac is True):
        raise InvalidInput(f"hess is {hess!r}, differences of a gradient that is differences itself; give jac")
    for option in options:
        if option in _REFUSED:
            raise InvalidInput(f"options hold {option}; {_REFUSED[option]}: omit it")
        if option not in method.options:
            raise InvalidInput(
                f"{method.name} has no option {option!r}; it has {', '.join(sorted(method.options, key=str.lower))}"
            )
    return method


def bounds_of(bounds: Any, size: int) -> tuple[FloatArray, FloatArray] | None:
    """Return lower and upper bounds, each of shape (size,); None if nothing is bounded.

    Parameters
    ----------
    bounds : None, `scipy.optimize.Bounds`, or one (lower, upper) an entry of x, None for none

    Raises
    ------
    InvalidInput, InvalidType
    """
    if bounds is None:
        return None
    try:
        if isinstance(bounds, scipy.optimize.Bounds):
            lower, upper = (np.broadcast_to(np.asarray(b, dtype=np.float64), (size,)) for b in (bounds.lb, bounds.ub))
        else:
            pairs = [tuple(pair) for pair in bounds]
            if len(pairs) != size or any(len(pair) != 2 for pair in pairs):
                raise InvalidInput(f"bounds has {len(pairs)} entries; give one pair (lower, upper) for each of {size}")
            lower = np.array([-np.inf if low is None else float(low) for low, _ in pairs])
            upper = np.array([np.inf if high is None else float(high) for _, high in pairs])
    except (TypeError, ValueError) as error:
        raise InvalidType(
            f"bounds cannot be read ({error}); give scipy.optimize.Bounds, or one pair (lower, upper) per entry of x"
        ) from None
    wrong = ~(lower <= upper)
    if wrong.any():
        j = int(np.flatnonzero(wrong)[0])
        raise InvalidInput(f"bounds of entry {j} of x are [{lower[j]}, {upper[j]}]; lower must be below upper")
    if np.isneginf(lower).all() and np.isposinf(upper).all():
        return None
    return np.array(lower), np.array(upper)
