"""Convex quadratic programs over the non-negative orthant, by a primal active-set method.

``min x'Kx / 2 - c'x`` subject to ``x >= 0``: the dual of a projection onto a cone of linear
inequalities, where x are the multipliers and its free part is the active set.
"""

from __future__ import annotations

import numpy as np

from gamwarm.engine.arrays import BoolArray, FloatArray
from gamwarm.engine.cholesky import factorise

__all__ = ["minimize_over_orthant"]

# A slope below this part of the largest term is rounding: its coordinate stays at 0.
_ROUNDING = 1e-12
# Per coordinate; some 2 are usual. Only numbers whose rounding hides all progress need more.
_MOST_CHANGES = 50


def minimize_over_orthant(matrix: FloatArray, linear: FloatArray, start: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Return the minimiser (m,) and which of its coordinates are free (m,).

    The method of Lawson and Hanson (1974, chapter 23), begun with any set of free coordinates. Each
    coordinate that is freed lowers the objective by more than rounding, else it is held at 0, so no
    set occurs twice and degenerate problems end; among equals the lowest index is taken.

    Parameters
    ----------
    matrix : array of shape (m, m)
        Symmetric and positive definite.
    linear : array of shape (m,)
    start : array of bool of shape (m,)
        Coordinates taken to be free at first: any set gives the same minimiser.
    """
    scale = 1.0 / np.sqrt(np.diagonal(matrix))
    k, c = scale[:, None] * matrix * scale, scale * linear
    free = np.array(start)
    x = _on_free(k, c, free)
    while free.any() and float(x.min()) < 0.0:  # only at first: then every step is feasible
        free &= x > 0.0
        x = _on_free(k, c, free)
    free &= x > 0.0
    held = np.zeros(c.size, dtype=np.bool_)
    for _ in range(_MOST_CHANGES * c.size):
        slope = c - k @ x
        slope[free | held] = -np.inf
        j = int(np.argmax(slope))
        noise = _ROUNDING * (float(np.abs(c).max(initial=0.0)) + float(np.abs(x).max(initial=0.0)))
        if not slope[j] > noise:
            break
        free[j] = True
        target = _on_free(k, c, free)
        if not target[j] > 0.0:
            free[j], held[j] = False, True
            continue
        held[:] = False
        while True:
            blocked = free & (target <= 0.0)
            if not blocked.any():
                x = target
                break
            ratio = np.where(blocked, x / np.where(blocked, x - target, 1.0), np.inf)
            x = np.maximum(x + float(ratio.min()) * (target - x), 0.0)
            x[int(np.argmin(ratio))] = 0.0
            free &= x > 0.0
            target = _on_free(k, c, free)
    return scale * x, free


def _on_free(k: FloatArray, c: FloatArray, free: BoolArray) -> FloatArray:
    x = np.zeros(c.size)
    if free.any():
        part = k[np.ix_(free, free)]
        factor = factorise(part)
        x[free] = np.linalg.lstsq(part, c[free], rcond=None)[0] if factor is None else factor.solve(c[free])
    return x
