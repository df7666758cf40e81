"""Starts that know nothing but the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import numpy as np

import gamwarm
from gamwarm.display import brief_repr
from gamwarm.engine.arrays import FloatArray
from gamwarm.engine.objective import Objective
from gamwarm.errors import InvalidInput
from gamwarm.fitting import predicted_mode
from gamwarm.transfer import START_MARGIN

__all__ = ["ColdStart", "cold_evaluations", "cold_start_of"]

# Of Wood and Fasiolo (2017), from rho = 0; docs/engine.md compares two with other cold starts.
_FS_UPDATES = 2
# The ratio of an update is not defined where nothing is penalized.
_FS_MAX_MOVE = 6.0

Evaluate = Callable[[FloatArray, FloatArray], gamwarm.Evaluation]


class ColdStart(StrEnum):
    """How a fit without a parent begins.

    ``heuristic`` balances mean diagonals per term (as mgcv does), ``zero`` is rho = 0,
    ``fellner-schall`` makes two Fellner-Schall updates from there; ``best`` is the one that was
    cheapest most often when measured.
    """

    HEURISTIC = "heuristic"
    ZERO = "zero"
    FELLNER_SCHALL = "fellner-schall"
    BEST = "best"


def cold_start_of(value: str) -> ColdStart:
    """Return the named cold start or refuse it."""
    try:
        return ColdStart(value)
    except ValueError:
        raise InvalidInput(f"cold_start {brief_repr(value)}; use one of {[str(c) for c in ColdStart]}") from None


def cold_evaluations(
    laml: Objective, evaluate: Evaluate, method: ColdStart, rho_bound: float
) -> Iterator[tuple[ColdStart, gamwarm.Evaluation]]:
    """Yield evaluations at cold starts, ``method`` first; each is made when it is asked for.

    Parameters
    ----------
    laml : Objective
    evaluate : callable (rho, theta) -> Evaluation
    method : ColdStart
    rho_bound : float
        Starts stay `START_MARGIN` inside it.
    """
    first = ColdStart.FELLNER_SCHALL if method is ColdStart.BEST else method
    others = (ColdStart.HEURISTIC, ColdStart.ZERO, ColdStart.FELLNER_SCHALL)
    limit = rho_bound - START_MARGIN
    for each in dict.fromkeys((first, *others)):
        if laml.smoothing == 0 and each is not first:
            return
        if each is ColdStart.HEURISTIC:
            yield each, evaluate(_heuristic(laml, limit), laml.null)
            continue
        # rho = 0 is balanced: `bind` scales penalties to the data's information.
        at = evaluate(np.array(laml.origin), laml.null)
        if each is ColdStart.FELLNER_SCHALL:
            at = _refined(laml, evaluate, at, limit)
        yield each, at


def _heuristic(laml: Objective, limit: float) -> FloatArray:
    """Balance mean diagonals of data information and penalty per term, as mgcv does."""
    diagonal = np.diagonal(laml.information(laml.null))
    rho, penalties = np.array(laml.origin), laml.penalties
    for j in range(laml.smoothing):
        own = penalties.slots == j
        if own.any():  # not so where a fold has no row of the term's level
            data, penalty = float(diagonal[penalties.columns[own]].mean()), float(penalties.weights[own].mean())
            rho[j] = np.clip(np.log(data / penalty), -limit, limit) if data > 0.0 else 0.0
    return rho


def _refined(laml: Objective, evaluate: Evaluate, at: gamwarm.Evaluation, limit: float) -> gamwarm.Evaluation:
    """Make two Fellner-Schall updates (Wood and Fasiolo 2017) of lambda."""
    begin = at
    smoothing = slice(0, laml.smoothing)
    for _ in range(_FS_UPDATES if laml.smoothing else 0):
        if not at.is_finite:
            return begin
        quadratic = laml.penalties.at(at.rho).sums(at.theta**2 / at.state.scale)
        ratio = np.log(np.maximum(at.edf, 1e-8)) - np.log(np.maximum(quadratic, 1e-300))
        rho = np.array(at.rho)
        rho[smoothing] = np.clip((rho + np.clip(ratio, -_FS_MAX_MOVE, _FS_MAX_MOVE))[smoothing], -limit, limit)
        at = evaluate(rho, predicted_mode(at, rho, laml.smoothing, laml.penalised_nll))
    return at if at.is_finite else begin
