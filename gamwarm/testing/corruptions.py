"""Starts that are wrong on purpose: starts that a damaged, foreign or outdated entry could give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gamwarm.records import ConstrainedWarmStart, Curvature, InnerMode

__all__ = ["Corruption", "corruptions_of", "tamperings_of"]

FAR = 6.0
NOISE = 3.0
NUISANCE = 30.0
LIE = 1000.0
NO_ROW = 1000


@dataclass(frozen=True)
class Corruption:
    """A named corruption of a start.

    Parameters
    ----------
    name : str
    apply : callable
        Takes a start and returns a new one of the same shapes.
    """

    name: str
    apply: Callable[[ConstrainedWarmStart], ConstrainedWarmStart]

    def __str__(self) -> str:
        return self.name


def corruptions_of(
    n_outer: int,
    rho_bound: float,
    rng: np.random.Generator,
    nuisance: int = 0,
    slots: Sequence[Sequence[int]] = (),
    active_sets: Sequence[Sequence[int] | None] | None = None,
) -> list[Corruption]:
    """Return corruptions of a start of ``n_outer`` coordinates, within ±``rho_bound``, by ``rng``.

    Outer coordinates: each ±6, permuted, all at either bound, NaN, nuisance ones 30 and -30; beta:
    negated, times 5, noise, NaN, zero; both of another model of the same shape; the metric: shrunk,
    negated, NaN; where blocks share a coordinate, that of another, and each other's coefficients;
    active sets, of a fit that has some: of every row so far, and of rows that there are not.

    Parameters
    ----------
    n_outer : int
    rho_bound : float
        Where "at the bound" is; 30 if it is infinite.
    rng : numpy.random.Generator
        For noise.
    nuisance : int
        The last so many coordinates are nuisance coordinates.
    slots : sequence of sequences of int
        Per block, the outer coordinates that it uses (`PenaltyLayout.per_block_slots`).
    active_sets : sequence of (None or row numbers), optional
        Of an answer of the fit, where its blocks have inequality constraints.
    """
    bound = rho_bound if np.isfinite(rho_bound) else 30.0
    found = [
        Corruption(f"rho[{j}] {sign:+g}", _shifted(j, sign, bound)) for j in range(n_outer) for sign in (FAR, -FAR)
    ]
    found += [
        Corruption(f"nuisance[{j}] = {value:+g}", _placed(n_outer - nuisance + j, value))
        for j in range(nuisance)
        for value in (NUISANCE, -NUISANCE)
    ]
    if n_outer > 1:
        found.append(Corruption("rho permuted", _rho(lambda rho: np.roll(rho, 1))))
    if n_outer:
        found += [
            Corruption("rho at the upper bound", _rho(lambda rho: np.full_like(rho, bound))),
            Corruption("rho at the lower bound", _rho(lambda rho: np.full_like(rho, -bound))),
            Corruption("rho NaN", _rho(lambda rho: np.full_like(rho, np.nan))),
            Corruption("metric shrunk", _metric(lambda h: h / LIE)),
            Corruption("metric negated", _metric(lambda h: -h)),
            Corruption("metric NaN", _metric(lambda h: np.full_like(h, np.nan))),
        ]
    users = {slot: [b for b, own in enumerate(slots) if slot in own] for own in slots for slot in own}
    tied = {slot: blocks for slot, blocks in users.items() if len(blocks) > 1}
    if tied:
        found.append(Corruption("ties swapped", lambda start: _swapped(start, tied)))
    found += [
        Corruption("beta negated", _beta(lambda beta: -beta)),
        Corruption("beta times 5", _beta(lambda beta: 5.0 * beta)),
        Corruption("beta noise", _beta(lambda beta: rng.normal(0.0, NOISE, beta.shape))),
        Corruption("beta NaN", _beta(lambda beta: np.full_like(beta, np.nan))),
        Corruption("beta zero", _beta(np.zeros_like)),
        Corruption("another model's", lambda start: _stranger(start, bound, rng)),
    ]
    if active_sets is not None:
        every = tuple(None if rows is None else range(max(rows) + 1) for rows in active_sets)
        found.append(Corruption("active sets of every row", lambda s: replace(s, active_sets=every)))
        found.append(
            Corruption("active sets of other rows", lambda s: replace(s, active_sets=_other_sets(active_sets)))
        )
    return found


def tamperings_of() -> list[Corruption]:
    """Return false stored numbers, which must not enter an answer: rho and beta stay."""
    return [
        Corruption("stored objective raised", lambda s: replace(s, objective=_lie(s.objective, LIE))),
        Corruption("stored objective lowered", lambda s: replace(s, objective=_lie(s.objective, -LIE))),
        Corruption("stored inner numbers", lambda s: replace(s, cached_inner=_other_inner(s.cached_inner))),
        Corruption("stored gradient and edf", lambda s: replace(s, curvature=_other_curvature(s.curvature))),
        Corruption("no stored numbers", lambda s: replace(s, objective=None, cached_inner=None, curvature=None)),
        Corruption("stored active sets", lambda s: replace(s, active_sets=_other_sets(s.active_sets))),
    ]


def _shifted(j: int, by: float, bound: float) -> Callable[[ConstrainedWarmStart], ConstrainedWarmStart]:
    def apply(start: ConstrainedWarmStart) -> ConstrainedWarmStart:
        rho = np.array(start.rho)
        rho[j] = np.clip(rho[j] + by, -bound, bound)
        return replace(start, rho=rho)

    return apply


def _placed(j: int, value: float) -> Callable[[ConstrainedWarmStart], ConstrainedWarmStart]:
    def apply(start: ConstrainedWarmStart) -> ConstrainedWarmStart:
        rho = np.array(start.rho)
        rho[j] = value
        return replace(start, rho=rho)

    return apply


def _rho(change: Callable[[Any], Any]) -> Callable[[ConstrainedWarmStart], ConstrainedWarmStart]:
    return lambda start: replace(start, rho=change(start.rho))


def _beta(change: Callable[[Any], Any]) -> Callable[[ConstrainedWarmStart], ConstrainedWarmStart]:
    return lambda start: replace(start, block_beta=tuple(change(np.array(beta)) for beta in start.block_beta))


def _metric(change: Callable[[Any], Any]) -> Callable[[ConstrainedWarmStart], ConstrainedWarmStart]:
    def apply(start: ConstrainedWarmStart) -> ConstrainedWarmStart:
        known = start.curvature
        if known is None or known.hessian is None:
            return start
        return replace(start, curvature=replace(known, hessian=change(np.array(known.hessian))))

    return apply


def _swapped(start: ConstrainedWarmStart, tied: dict[int, list[int]]) -> ConstrainedWarmStart:
    rho, betas = np.array(start.rho), list(start.block_beta)
    for slot, blocks in tied.items():
        rho[slot] = start.rho[(slot + 1) % len(rho)]
        for here, there in zip(blocks, [*blocks[1:], blocks[0]], strict=True):
            if betas[here].shape == start.block_beta[there].shape:
                betas[here] = np.array(start.block_beta[there])
    return replace(start, rho=rho, block_beta=tuple(betas))


def _stranger(start: ConstrainedWarmStart, bound: float, rng: np.random.Generator) -> ConstrainedWarmStart:
    """Keep shapes and sizes, replace numbers: rho within ±6, like coefficients, any metric."""
    limit = min(FAR, bound)
    q = len(start.rho)
    root = rng.normal(size=(q, q))
    return replace(
        start,
        rho=rng.uniform(-limit, limit, q),
        block_beta=tuple(rng.normal(0.0, _spread(b) + 1.0, b.shape) for b in start.block_beta),
        curvature=Curvature(rng.normal(size=q), root @ root.T + np.eye(q)),
    )


def _spread(beta: Any) -> float:
    return float(np.std(beta)) if beta.size else 0.0


def _other_sets(active_sets: Sequence[Sequence[int] | None] | None) -> list[list[int] | None] | None:
    if active_sets is None:
        return None
    return [None if rows is None else [*(row + 1 for row in rows), max(rows) + NO_ROW] for rows in active_sets]


def _lie(value: float | None, by: float) -> float:
    return by if value is None else value + by


def _other_inner(inner: InnerMode | None) -> InnerMode | None:
    if inner is None:
        return None
    return replace(
        inner,
        log_likelihood=_lie(inner.log_likelihood, LIE),
        penalty_value=_lie(inner.penalty_value, LIE),
        block_logdet_h=inner.block_logdet_h + LIE,
        block_logdet_s=inner.block_logdet_s - LIE,
        cycles=inner.cycles + 1,
    )


def _other_curvature(curvature: Curvature | None) -> Curvature | None:
    if curvature is None:
        return None
    gradient = None if curvature.gradient is None else curvature.gradient + LIE
    edf = None if curvature.edf is None else np.zeros_like(curvature.edf)
    return replace(curvature, gradient=gradient, edf=edf, plateau=None)
