"""Projection of raw coefficients into a child's reduced coordinates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray

__all__ = ["project", "projection_cost", "relative_residual"]

# Enough to survive a rank-deficient gauge, too little to move a coefficient.
_RELATIVE_RIDGE = 1e-8
_LEAST_RIDGE = 1e-12  # of a block of zeros


def project(lift: FloatArray, target: FloatArray) -> FloatArray:
    """Return ``argmin |T theta - target|^2`` by ridge normal equations.

    Parameters
    ----------
    lift : array of shape (raw, reduced)
        T.
    target : array of shape (raw,)
        ``beta_raw - a``.

    Notes
    -----
    The ridge is ``max(1e-8 * trace(T'T) / reduced, 1e-12)``: enough to survive a rank-deficient T,
    too little to matter. A zero-width T gives an empty vector; sums that overflow give NaN.
    """
    reduced = lift.shape[1]
    if reduced == 0:
        return np.zeros(0)
    chosen = _chosen_rows(lift)
    if chosen is not None:  # T'T is the identity, and the solution a division
        return target[chosen] / (1.0 + _RELATIVE_RIDGE) if np.isfinite(target).all() else np.full(reduced, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        gram, moment = lift.T @ lift, lift.T @ target
    if not (np.isfinite(gram).all() and np.isfinite(moment).all()):
        return np.full(reduced, np.nan)  # a solver given infinities may answer with innocent zeros
    ridge = max(_RELATIVE_RIDGE * float(np.trace(gram)) / reduced, _LEAST_RIDGE)
    gram[np.diag_indices(reduced)] += ridge
    return np.asarray(np.linalg.solve(gram, moment), dtype=np.float64)


def _chosen_rows(lift: FloatArray) -> npt.NDArray[np.intp] | None:
    """Return which raw coefficient each reduced one is, None where the lift does more than leave
    some out.
    """
    if np.count_nonzero(lift) != lift.shape[1]:
        return None
    rows, columns = np.nonzero(lift)
    if not (lift[rows, columns] == 1.0).all():
        return None
    chosen = np.full(lift.shape[1], -1, dtype=np.intp)
    chosen[columns] = rows
    used = np.zeros(lift.shape[0], dtype=np.bool_)
    used[rows] = True
    return chosen if (chosen >= 0).all() and np.count_nonzero(used) == len(rows) else None


def projection_cost(lift: FloatArray | None) -> float:
    """Return the multiplications of `project`, about: the Gram matrix and its solution. 0 without
    anything to do.
    """
    if lift is None:
        return 0.0
    raw, reduced = lift.shape
    return float(raw * reduced**2 + reduced**3 // 3)


def relative_residual(lift: FloatArray, theta: FloatArray, target: FloatArray) -> float:
    """Return ``|T theta - target| / |target|`` (0 for a zero target)."""
    norm = float(np.linalg.norm(target))
    return float(np.linalg.norm(lift @ theta - target)) / norm if norm > 0.0 else 0.0
