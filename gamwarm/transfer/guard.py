"""The guard of an offered start: three tests on plain numbers, for any engine.

A transferred start is offered, not imposed. In order of cost: the *beta gate* compares penalized negative
log-likelihoods before anything is factorised; the *plateau sign test* looks at the first evaluation (and at every final
certificate); the *predicted-step test* asks the start's own metric how far the search would go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.errors import InvalidInput

__all__ = ["beta_gate", "false_plateaus", "predicted_step"]

PLATEAU_RHO = 6.0
PLATEAU_EDF = 1.0
PREDICTED_STEP_LIMIT = 2.0
# Below this a gradient's sign is rounding, not evidence.
_SIGN_NOISE = 1e-9


def _vector(value: Any, what: str, length: int | None = None) -> npt.NDArray[np.float64]:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 1 or (length is not None and array.shape[0] != length):
        raise InvalidInput(f"{what} has shape {array.shape}; expected ({'q' if length is None else length},)")
    return array


def beta_gate(offered: float, null: float) -> bool:
    """Whether offered coefficients may be used.

    Parameters
    ----------
    offered, null : float
        Penalized negative log-likelihood, at the offered rho, of the offered coefficients and of the null start.
    """
    return bool(np.isfinite(offered) and not offered > null)


def false_plateaus(rho: Any, edf: Any, gradient: Any) -> npt.NDArray[np.bool_]:
    """Return, per outer coordinate, whether it sits on a plateau that leads uphill.

    Towards infinite smoothing the objective is ``V_inf + c exp(-rho)``: the gradient there is tiny whatever the
    coordinate should be, but its *sign* survives. ``rho > 6``, ``edf < 1`` and a positive gradient say that the
    objective falls towards less smoothing: the small gradient certifies nothing.

    Parameters
    ----------
    rho, edf, gradient : arrays of shape (q,)
        ``gradient`` is d objective / d rho of what is minimised.
    """
    r = _vector(rho, "rho")
    e, g = _vector(edf, "edf", r.shape[0]), _vector(gradient, "gradient", r.shape[0])
    flags: npt.NDArray[np.bool_] = (r > PLATEAU_RHO) & (e < PLATEAU_EDF) & (g > _SIGN_NOISE)
    return flags


def predicted_step(gradient: Any, metric: Any) -> float:
    """Return max|metric^-1 gradient|, inf if anything is non-finite or the metric cannot be inverted.

    Above 2 (units of log lambda) a start is doubtful: evaluate the cold start too and go on from the lower objective.

    Parameters
    ----------
    gradient : array of shape (q,)
    metric : array of shape (q, q)
        The start's own outer Hessian, positive definite.
    """
    g = _vector(gradient, "gradient")
    m = np.asarray(metric, dtype=np.float64)
    if m.shape != (g.shape[0], g.shape[0]):
        raise InvalidInput(f"metric has shape {m.shape}; the gradient has length {g.shape[0]}")
    if g.size == 0:
        return 0.0
    if not (np.isfinite(g).all() and np.isfinite(m).all()):
        return float("inf")
    try:
        step = np.linalg.solve(m, g)
    except np.linalg.LinAlgError:
        return float("inf")
    size = float(np.abs(step).max())
    return size if np.isfinite(size) else float("inf")
