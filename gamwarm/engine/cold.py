"""Starts that know nothing but the data."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from gamwarm.engine._types import FloatArray
from gamwarm.engine.objective import Evaluation
from gamwarm.engine.outer import Search
from gamwarm.errors import InvalidInput

__all__ = ["ColdStart", "cold_evaluation", "cold_start_of", "refined"]

_FS_UPDATES = 2
_FS_MAX_MOVE = 6.0
_MARGIN = 2.0


class ColdStart(StrEnum):
    """How a fit without a parent begins.

    ``heuristic`` balances mean diagonals per term (as mgcv does), ``zero`` is rho = 0, ``fellner-schall`` makes two
    Fellner-Schall updates from there; ``best`` is the one that was cheapest most often when measured.
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
        raise InvalidInput(f"cold_start {value!r}; use one of {[str(c) for c in ColdStart]}") from None


def _inside(search: Search, rho: FloatArray) -> FloatArray:
    limit = search.bound - _MARGIN
    clipped: FloatArray = np.clip(rho, -limit, limit)
    return clipped


def _heuristic(search: Search) -> FloatArray:
    """Balance mean diagonals of data information and penalty, per term (as mgcv's initial values do)."""
    laml = search.laml
    diagonal = np.diagonal(laml.information(laml.null))
    rho = np.zeros(laml.q)
    for j in range(laml.q):
        own = laml.owner == j
        data, penalty = float(diagonal[own].mean()), float(laml.penalty[own].mean())
        rho[j] = np.log(data / penalty) if data > 0.0 else 0.0
    return _inside(search, rho)


def fellner_schall(search: Search, at: Evaluation) -> FloatArray:
    """Return the rho of one Fellner-Schall update (Wood and Fasiolo 2017): lambda *= edf / (lambda theta' S theta)."""
    laml = search.laml
    s = laml.diagonal(at.rho)
    own = laml.penalised
    quadratic = np.bincount(laml.owner[own], weights=(s * at.theta**2)[own] / at.scale, minlength=laml.q)
    ratio = np.log(np.maximum(at.edf, 1e-8)) - np.log(np.maximum(quadratic, 1e-300))
    return _inside(search, at.rho + np.clip(ratio, -_FS_MAX_MOVE, _FS_MAX_MOVE))


def cold_evaluation(search: Search, method: ColdStart) -> Evaluation:
    """Evaluate the objective at a cold start; whatever it takes to get there is counted."""
    laml = search.laml
    if method is ColdStart.ZERO or laml.q == 0:
        return search.evaluate(np.zeros(laml.q), laml.null)
    if method is ColdStart.HEURISTIC:
        return search.evaluate(_heuristic(search), laml.null)
    # rho = 0 is a balanced start here, because penalties are scaled to the data's information when a model is bound.
    return refined(search, search.evaluate(np.zeros(laml.q), laml.null))


def refined(search: Search, at: Evaluation) -> Evaluation:
    """Make two Fellner-Schall updates from an evaluation; from rho = 0 again if it is not finite."""
    for _ in range(_FS_UPDATES):
        if not at.is_finite:
            return search.evaluate(np.zeros(search.laml.q), search.laml.null)
        at = search.move(at, fellner_schall(search, at))
    return at
