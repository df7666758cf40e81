"""Projection of raw coefficients into a child's reduced coordinates."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray, notes_of
from gamwarm.problem import BasisMeta

__all__ = ["has_finite_numbers", "project", "projection_cost", "relative_residual", "resample"]

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
    normal = _normal_equations(lift)
    if normal.chosen is not None:  # T'T is the identity, and the solution a division
        finite = np.isfinite(target).all()
        return target[normal.chosen] / (1.0 + _RELATIVE_RIDGE) if finite else np.full(reduced, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        moment = lift.T @ target
    if normal.gram is None or not np.isfinite(moment).all():
        return np.full(reduced, np.nan)  # a solver given infinities may answer with innocent zeros
    return np.asarray(np.linalg.solve(normal.gram, moment), dtype=np.float64)


class _Normal(NamedTuple):
    """What depends on T alone: whether it is finite, `_chosen_rows`, else T'T and ridge (None
    where that is not finite).
    """

    finite: bool
    chosen: npt.NDArray[np.intp] | None
    gram: FloatArray | None


def _normal_equations(lift: FloatArray) -> _Normal:
    """Return what `project` needs of T; folds that share T, immutable, share that too."""
    notes = notes_of(lift)
    known: _Normal | None = notes.get("normal equations")
    if known is not None:
        return known
    chosen, gram = _chosen_rows(lift), None
    if chosen is None and lift.shape[1]:
        with np.errstate(over="ignore", invalid="ignore"):
            gram = lift.T @ lift
        if np.isfinite(gram).all():
            ridge = max(_RELATIVE_RIDGE * float(np.trace(gram)) / lift.shape[1], _LEAST_RIDGE)
            gram[np.diag_indices(lift.shape[1])] += ridge
        else:
            gram = None
    notes["normal equations"] = found = _Normal(bool(np.isfinite(lift).all()), chosen, gram)
    return found


def has_finite_numbers(lift: FloatArray) -> bool:
    """Whether all numbers of T are finite."""
    return _normal_equations(lift).finite


def _chosen_rows(lift: FloatArray) -> npt.NDArray[np.intp] | None:
    """Return which raw coefficient each reduced one is, None where the lift does more than leave
    some out.
    """
    raw, reduced = lift.shape
    if np.count_nonzero(lift != 0.0) != reduced:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        row_numbers = np.arange(raw, dtype=np.float64) @ lift  # of the ones, if there is a one per column
    if not ((row_numbers >= 0.0) & (row_numbers < raw)).all():
        return None
    chosen = row_numbers.astype(np.intp)
    used = np.zeros(raw, dtype=np.bool_)
    used[chosen] = True
    if np.count_nonzero(used) != reduced or not (lift[chosen, np.arange(reduced)] == 1.0).all():
        return None
    return chosen


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
    norm = _norm(target)
    return _norm(lift @ theta - target) / norm if norm > 0.0 else 0.0


def _norm(vector: FloatArray) -> float:
    """Return what `numpy.linalg.norm` would, without its overhead."""
    return math.sqrt(vector @ vector)


def resample(raw: FloatArray, there: BasisMeta | None, here: BasisMeta | None) -> FloatArray | None:
    """Return a spline's raw coefficients in the basis of another width: the least-squares fit to
    its function.

    None unless both are open B-splines that say their degree and the number of their knots. The
    knots are taken as equally spaced over one interval; where they are not, the result is a guess.
    """
    if there is None or here is None or not _is_open_spline(there, len(raw)) or not _is_open_spline(here):
        return None
    assert there.num_knots and here.num_knots
    points = np.linspace(0.0, 1.0, 4 * max(there.num_knots, here.num_knots))
    values, design = _spline_design(points, there) @ raw, _spline_design(points, here)
    return np.asarray(np.linalg.lstsq(design, values, rcond=None)[0], dtype=np.float64)


def _is_open_spline(basis: BasisMeta, width: int | None = None) -> bool:
    if basis.kind != "bspline" or basis.periodic or basis.degree is None or basis.num_knots is None:
        return False
    own = basis.num_knots - basis.degree - 1
    return own > basis.degree and width in (None, own)


def _spline_design(points: FloatArray, basis: BasisMeta) -> FloatArray:
    from scipy.interpolate import BSpline  # noqa: PLC0415 - slow to import; few transfers need it

    assert basis.degree is not None
    assert basis.num_knots is not None
    degree, k = basis.degree, basis.num_knots - basis.degree - 1
    knots = np.arange(-degree, k + 1) / (k - degree)
    knots[degree], knots[k] = 0.0, 1.0
    return np.asarray(BSpline.design_matrix(points, knots, degree).toarray(), dtype=np.float64)
