"""What leaving a group out does to each term: degrees of freedom, smoothing, curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.identity import FitProblem
from gamwarm.records import FitResult

__all__ = ["Curves", "TermChange", "TermState", "changes_between", "curves_of", "states_of"]

Curves = Mapping[str, Any]


@dataclass(frozen=True)
class TermState:
    """One term (block) of a fit.

    Attributes
    ----------
    edf : float or None
        Effective degrees of freedom; None if the engine does not say.
    log_lambda : tuple of float
        One per penalty.
    """

    edf: float | None
    log_lambda: tuple[float, ...]


@dataclass(frozen=True)
class TermChange:
    """What differs from the fit on all rows.

    Attributes
    ----------
    edf : float or None
    log_lambda : tuple of float
    curve : float or None
        Largest change of the term's curve, in the standard errors that it has in the fit on all
        rows (where these are small, in their root mean square); None without curves.
    """

    edf: float | None
    log_lambda: tuple[float, ...]
    curve: float | None


def states_of(problem: FitProblem | None, fit: Any, result: FitResult) -> dict[str, TermState]:
    """Return the terms of a fit by block name; empty for one whose problem is not known."""
    if problem is None or problem.n_outer == 0 or len(result.rho) != problem.n_outer:
        return {}
    layout, edf = problem.layout, getattr(fit, "edf", None)
    values = layout.expand(np.asarray(result.rho)[: layout.n_outer])
    states, first = {}, 0
    for spec, slots in zip(problem.specs, layout.per_block_slots(), strict=True):
        last = first + len(spec.penalties)
        own = edf.get(spec.name) if isinstance(edf, Mapping) else _summed(result, slots)
        states[spec.name] = TermState(None if own is None else float(own), tuple(values[first:last].tolist()))
        first = last
    return states


def _summed(result: FitResult, slots: tuple[int, ...]) -> float | None:
    if result.curvature is None or result.curvature.edf is None or not slots:
        return None
    return float(np.asarray(result.curvature.edf)[list(slots)].sum())


def curves_of(fit: Any) -> Curves:
    """Return the curves that a fit offers: what its method ``curves`` returns, else none."""
    offered = getattr(fit, "curves", None)
    found = offered() if callable(offered) else offered
    return found if isinstance(found, Mapping) else {}


def changes_between(
    whole: Mapping[str, TermState], fold: Mapping[str, TermState], before: Curves, after: Curves
) -> dict[str, TermChange]:
    """Return, per term that both fits have, what the fold changes."""
    changes = {}
    for name, state in fold.items():
        base = whole.get(name)
        if base is None or len(base.log_lambda) != len(state.log_lambda):
            continue
        changes[name] = TermChange(
            None if base.edf is None or state.edf is None else state.edf - base.edf,
            tuple(new - old for new, old in zip(state.log_lambda, base.log_lambda, strict=True)),
            _largest_move(before.get(name), after.get(name)),
        )
    return changes


def _largest_move(before: Any, after: Any) -> float | None:
    """Return the largest change of a curve in its standard errors before, where both have one.

    A centred line crosses zero with an error of zero: no error counts as less than their root mean
    square.
    """
    if before is None or after is None or before.points != after.points:
        return None
    moves: npt.NDArray[np.float64] = np.abs(after.values - before.values)
    both = np.isfinite(moves)
    errors = before.standard_errors[both]
    typical = float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0
    return float((moves[both] / np.maximum(errors, typical)).max()) if typical > 0.0 else None
