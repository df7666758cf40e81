"""Budget of intermediate inner solves near a restored answer. It never caps a final evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gamwarm.problem import BlockwiseFitOptions
from gamwarm.records import InnerMode

__all__ = ["InnerCapState", "inner_cap"]

# Of the first outer gradient: nearer to the optimum an inner solve that is cut short costs more
# than it saves.
_FULL_BUDGET_RATIO = 0.01
_SLACK_CYCLES = 5


@dataclass
class InnerCapState:
    """Memory of one outer search: the first gradient norm it met.

    Parameters
    ----------
    first_norm : float, optional
        None until a finite positive norm is met.
    """

    first_norm: float | None = None


def inner_cap(
    options: BlockwiseFitOptions, cached_inner: InnerMode | None, gradient_norm: float | None, state: InnerCapState
) -> int:
    """Return how many inner cycles an intermediate evaluation may take.

    An evaluation that runs into the cap is repeated with the full budget before its value accepts a
    step or certifies.

    Parameters
    ----------
    options : BlockwiseFitOptions
    cached_inner : InnerMode, optional
        Of the restored record; None gives the full budget and records no norm.
    gradient_norm : float, optional
        Norm of the outer gradient now; the first finite positive one is remembered in ``state``.
    state : InnerCapState
    """
    full = max(1, options.inner_max_cycles)
    if cached_inner is None:
        return full
    if gradient_norm is not None and math.isfinite(gradient_norm) and gradient_norm > 0.0:
        if state.first_norm is None:
            state.first_norm = float(gradient_norm)
        if gradient_norm / state.first_norm < _FULL_BUDGET_RATIO:
            return full
    cycles = cached_inner.cycles
    budget = cycles + _SLACK_CYCLES if cached_inner.converged else max(2 * cycles, cycles + _SLACK_CYCLES)
    return min(max(budget, 1), full)
