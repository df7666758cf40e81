"""Outer curvature of a fit at its answer; the only place of the plateau and settled rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gamwarm.checks import as_finite_float, as_float, plain_array, real_array
from gamwarm.errors import InvalidInput
from gamwarm.records.equality import ContentEquality

__all__ = [
    "AT_BOUND",
    "PLATEAU_EDF",
    "Curvature",
    "are_finite",
    "cut_coordinates",
    "loose_vector",
    "plateau_flags",
    "pushes_outwards",
    "settled_flags",
]

PLATEAU_EDF: Final = 0.1  # effective degrees of freedom within this of none (or all) are spent on a plateau
AT_BOUND: Final = 1e-9  # a coordinate this near its bound counts as at it


def loose_vector(value: Any, what: str) -> npt.NDArray[np.float64]:
    """Return a read-only float64 vector; non-finite numbers may pass, a gate sees them later."""
    array = real_array(value, what, "a vector of real numbers")
    if array.ndim != 1:
        raise InvalidInput(f"{what} has shape {array.shape}; expected a vector")
    array.flags.writeable = False
    return array


def are_finite(vectors: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether all numbers of all vectors are finite."""
    return not vectors or bool(np.isfinite(np.concatenate(vectors)).all())


@dataclass(frozen=True, eq=False)
class Curvature(ContentEquality):
    """Outer gradient, Hessian, effective degrees of freedom and flags, per outer coordinate.

    Parameters
    ----------
    gradient : array of shape (q,), optional
        d objective / d rho.
    hessian : array of shape (q, q), optional
    edf : array of shape (q,), optional
        Summed over tied penalties.
    plateau : array of bool of shape (q,), optional
        From `plateau_flags`. None means no evidence.
    settled : array of bool of shape (q,), optional
        From `settled_flags`. `keep` computes it of a converged result that has its gradient;
        whatever an engine claims here is replaced.
    """

    gradient: Any = None
    hessian: Any = None
    edf: Any = None
    plateau: Any = None
    settled: Any = None

    def __post_init__(self) -> None:
        for name in ("gradient", "edf"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, loose_vector(getattr(self, name), f"curvature {name}"))
        if self.hessian is not None:
            hessian = real_array(self.hessian, "curvature hessian", "a matrix of real numbers")
            if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1]:
                raise InvalidInput(f"curvature hessian has shape {hessian.shape}; expected (q, q)")
            hessian.flags.writeable = False
            object.__setattr__(self, "hessian", hessian)
        for name in ("plateau", "settled"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, flag_vector(getattr(self, name), f"curvature {name}"))

    @classmethod
    def of_checked(cls, **parts: Any) -> Curvature:
        """Return one of parts that are as the constructor would make them; they are not copied."""
        curvature = object.__new__(cls)
        vars(curvature).update(dict.fromkeys(("gradient", "hessian", "edf", "plateau", "settled")), **parts)
        return curvature

    def with_settled(self, flags: npt.NDArray[np.bool_] | None) -> Curvature:
        """Return this with other settled flags, which are not copied."""
        again = object.__new__(Curvature)
        vars(again).update(vars(self), settled=flags)
        if flags is not None:
            flags.flags.writeable = False
        return again

    def invalid_reason(self, n_outer: int) -> str | None:
        """Return why this is not finite or not of ``n_outer`` coordinates, else None."""
        for name in ("gradient", "hessian", "edf", "plateau", "settled"):
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != n_outer:
                return f"curvature {name} has length {len(value)}; rho has {n_outer}"
            if value.dtype != np.bool_ and not np.isfinite(value).all():
                return f"curvature {name} holds a non-finite number"
        return None


def flag_vector(value: Any, what: str) -> npt.NDArray[np.bool_]:
    """Return a read-only vector of booleans; raises `InvalidInput` of anything else."""
    flags = plain_array(value, what, "a vector of booleans")
    if flags.ndim != 1 or (flags.size and flags.dtype != np.bool_):
        raise InvalidInput(f"{what} must be a vector of booleans, one per outer coordinate")
    flags = np.array(flags, dtype=np.bool_)
    flags.flags.writeable = False
    return flags


def _legal_bound(rho_bound: Any) -> float:
    bound = as_finite_float(rho_bound, "rho_bound", infinite=True)
    if not bound > 2.0:
        raise InvalidInput(f"rho_bound is {rho_bound}; it must be above 2 (or inf)")
    return bound


def pushes_outwards(rho: Any, gradient: Any, rho_bound: Any) -> npt.NDArray[np.bool_]:
    """Return, per coordinate, whether it lies at a bound and the objective falls beyond it."""
    r, g = np.asarray(rho, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    out: npt.NDArray[np.bool_] = ((r >= rho_bound - AT_BOUND) & (g < 0.0)) | ((r <= -rho_bound + AT_BOUND) & (g > 0.0))
    return out


def cut_coordinates(rho: Any, gradient: Any, tol: float, rho_bound: Any) -> list[int]:
    """Return the coordinates that the bound cut: at it, pushing outwards by more than ``tol``."""
    steep = np.abs(np.asarray(gradient, dtype=np.float64)) > tol
    return [int(j) for j in np.flatnonzero(pushes_outwards(rho, gradient, rho_bound) & steep)]


def settled_flags(rho: Any, gradient: Any, tol: float, rho_bound: float) -> npt.NDArray[np.bool_]:
    r"""Return, per outer coordinate, whether the certificate supports it where it is.

    Either \|gradient\| <= tol, or the coordinate lies at ±rho_bound (within 1e-9) and the objective
    falls beyond it: the answer of the bounded problem. Like a plateau flag, a settled flag is
    evidence that a large \|rho\| is an answer and not a diverged search.

    Parameters
    ----------
    rho, gradient : arrays of shape (q,)
    tol : float
        Gradient tolerance of the certificate.
    rho_bound : float
        Nuisance coordinates have none: give inf.
    """
    bound = _legal_bound(rho_bound)
    r, g = loose_vector(rho, "rho"), loose_vector(gradient, "gradient")
    if r.shape != g.shape:
        raise InvalidInput(f"rho and gradient have lengths {len(r)}, {len(g)}; they must agree")
    flat: npt.NDArray[np.bool_] = np.abs(g) <= as_float(tol, "tol")
    return flat | pushes_outwards(r, g, bound)


def plateau_flags(
    rho: Any, gradient: Any, edf: Any, max_edf: Any, tol: float, rho_bound: float
) -> npt.NDArray[np.bool_]:
    r"""Return, per outer coordinate, whether the objective is flat beyond this point.

    For rho > 0: edf < 0.1 and gradient <= tol. For rho < 0: max_edf - edf < 0.1 and gradient >=
    -tol. A flag is evidence that a large \|rho\| is an answer and not a diverged search.

    Parameters
    ----------
    rho, gradient, edf : arrays of shape (q,)
    max_edf : array of shape (q,) or float
        Largest effective degrees of freedom a coordinate can have (rank of its penalties).
    tol : float
        Gradient tolerance of the certificate.
    rho_bound : float
        The fit's bound; the rule itself does not depend on it, but it must be a legal one.
    """
    _legal_bound(rho_bound)
    r, g, e = (loose_vector(v, name) for v, name in ((rho, "rho"), (gradient, "gradient"), (edf, "edf")))
    if not r.shape == g.shape == e.shape:
        raise InvalidInput(f"rho, gradient and edf have lengths {len(r)}, {len(g)}, {len(e)}; they must agree")
    top, limit = real_array(max_edf, "max_edf", "a number or a vector of them"), as_float(tol, "tol")
    top = np.full(r.shape, top) if top.ndim == 0 else top
    if top.shape != r.shape:
        raise InvalidInput(f"max_edf has shape {top.shape}, rho {r.shape}; they must agree")
    vanished = (r > 0) & (e < PLATEAU_EDF) & (g <= limit)
    saturated = (r < 0) & (top - e < PLATEAU_EDF) & (g >= -limit)
    flags: npt.NDArray[np.bool_] = vanished | saturated
    return flags
