"""The certificate: the only definition of an answer, for every engine, family and start.

(a) the inner solve converged; (b) the projected gradient is within ``outer_tol``; (c) no coordinate
is a false plateau; (d) a proper minimum: an evaluation that is none is infinite (`checked`); (e) a
finite one: one more Newton step would change no linear predictor by more than `LAST_STEP_LIMIT`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from gamwarm.checks import FloatArray
from gamwarm.fitting.evaluation import Evaluation
from gamwarm.identity import FitProblem
from gamwarm.records import cut_coordinates, pushes_outwards
from gamwarm.transfer import find_false_plateaus

__all__ = ["LAST_STEP_LIMIT", "Certificate", "Refusal", "Verdict", "coordinate_names"]

# One order of magnitude from the value for a divergent coefficient, four from that for a finite
# optimum: (e) in docs/engine.md.
LAST_STEP_LIMIT: Final = 0.1
# At a lower bound this far out, d log|theta| / d log|rho|: coefficients that tend to a limit change
# like exp(rho) there, those that only the penalty still holds grow like -rho. Nearer to 0 the two
# look alike.
_GROWTH_RHO: Final = -10.0
_GROWTH_LIMIT: Final = 0.5
_LOOK: Final = (
    "look for separated data, an empty cell or a level without events there, and merge levels, drop the term or give "
    "it a penalty"
)


class Refusal(StrEnum):
    """Which part of the certificate a point fails."""

    INNER = "inner solve"
    GRADIENT = "gradient"
    PLATEAU = "false plateau"
    MINIMUM = "not a proper minimum"
    INFINITE = "no finite optimum"


@dataclass(frozen=True)
class Verdict:
    """Whether a point is an answer, and which part it fails, in words; of false plateaus also where
    (q,).
    """

    refusal: Refusal | None
    reason: str = ""
    where: npt.NDArray[np.bool_] | None = None

    @property
    def holds(self) -> bool:
        """Whether the point is an answer."""
        return self.refusal is None


def coordinate_names(problem: FitProblem) -> tuple[str, ...]:
    """Return a name per outer coordinate: the blocks that use it, or the nuisance
    coordinate's own.
    """
    users: list[list[str]] = [[] for _ in range(problem.layout.n_outer)]
    for spec, slots in zip(problem.specs, problem.layout.per_block_slots(), strict=True):
        for slot in dict.fromkeys(slots):
            users[slot].append(spec.name)
    return (*(", ".join(names) for names in users), *problem.nuisance)


def _coordinate_columns(problem: FitProblem) -> list[npt.NDArray[np.intp]]:
    """Return, per smoothing parameter, the coefficients of the blocks that use it."""
    ends = np.cumsum([0, *problem.block_dims])
    columns: list[list[int]] = [[] for _ in range(problem.layout.n_outer)]
    for b, slots in enumerate(problem.layout.per_block_slots()):
        for slot in dict.fromkeys(slots):
            columns[slot] += range(ends[b], ends[b + 1])
    return [np.array(each, dtype=np.intp) for each in columns]


class Certificate:
    """The certificate of one fit.

    Parameters
    ----------
    problem : FitProblem
    probe : callable (rho, near) -> Evaluation
        One more evaluation near a point, where the sign of a plateau's gradient cannot be read off
        it.
    """

    def __init__(self, problem: FitProblem, probe: Callable[[FloatArray, Evaluation], Evaluation]) -> None:
        options = problem.options
        self.tol, self._probe = options.outer_tol, probe
        self.smoothing = problem.layout.n_outer
        self.names = coordinate_names(problem)
        self._blocks = list(zip(problem.block_names, problem.block_dims, strict=True))
        self.bound = np.where(np.arange(problem.n_outer) < self.smoothing, options.rho_bound, np.inf)
        self._columns = _coordinate_columns(problem)
        self._known: dict[int, tuple[Evaluation, Verdict]] = {}

    def projected(self, at: Evaluation) -> FloatArray:
        """Return the gradient without the components that push against a bound."""
        outward = pushes_outwards(at.rho, at.gradient, self.bound)
        projected: FloatArray = np.where(outward, 0.0, at.gradient)
        return projected

    def is_flat(self, at: Evaluation) -> bool:
        """Whether the projected gradient is within the tolerance everywhere."""
        return at.is_finite and bool((np.abs(self.projected(at)) <= self.tol).all())

    def verdict(self, at: Evaluation) -> Verdict:
        """Return whether ``at`` is an answer; checked once per evaluation."""
        known = self._known.get(id(at))
        if known is None or known[0] is not at:
            known = at, self._judge(at)
            self._known = {id(at): known}  # a search only asks again about its current point
        return known[1]

    def _judge(self, at: Evaluation) -> Verdict:
        if not at.is_finite:
            return Verdict(Refusal.MINIMUM, at.failure or "the objective is not finite")
        if not self.is_flat(at):
            steepest = int(np.argmax(np.abs(self.projected(at))))
            return Verdict(
                Refusal.GRADIENT,
                f"|gradient| = {abs(self.projected(at)[steepest]):.3g} of {self.names[steepest]!r} exceeds "
                f"outer_tol = {self.tol:.3g}",
            )
        if at.converged is False:
            return Verdict(
                Refusal.INNER,
                f"the inner solve did not converge within {at.cycles} cycles{self._runaway(at)}; raise "
                "inner_max_cycles, or simplify that term",
            )
        false = find_false_plateaus(at, lambda rho: self._probe(rho, at), self.smoothing)
        if false.any():
            far = ", ".join(repr(self.names[j]) for j in np.flatnonzero(false))
            words = f"{far}: a false plateau, the objective falls towards less smoothing"
            return Verdict(Refusal.PLATEAU, words, false)
        return self.runs_away(at) or self.grows(at) or self._objection(at) or Verdict(None)

    def _objection(self, at: Evaluation) -> Verdict | None:
        """Return the engine's own refusal of a flat point, else None."""
        words = at.objection() if callable(at.objection) else at.objection
        return Verdict(Refusal.INFINITE, f"no finite optimum: {words}") if words else None

    def _far_cuts(self, at: Evaluation) -> list[int]:
        cut = cut_coordinates(at.rho, at.gradient, self.tol, self.bound)
        return [j for j in cut if at.rho[j] <= _GROWTH_RHO]

    def grows(self, at: Evaluation) -> Verdict | None:
        """Return the refusal of coefficients that run to infinity as fast as the lower bound lets
        them; else None.
        """
        if at.tangent is None:
            return None
        for j in self._far_cuts(at):
            theta, slope = at.theta[self._columns[j]], np.asarray(at.tangent)[self._columns[j], j]
            growth = float(at.rho[j] * (slope @ theta)) / max(float(theta @ theta), np.finfo(np.float64).tiny)
            if growth > _GROWTH_LIMIT:
                return Verdict(
                    Refusal.INFINITE,
                    f"no finite optimum: the coefficients of {self.names[j]!r} grow with each step of rho towards its "
                    f"lower bound and beyond; {_LOOK}",
                )
        return None

    def runs_away(self, at: Evaluation) -> Verdict | None:
        """Return the refusal of a mode at infinity, (e): an inner solve that has ended and still
        moves; else None.
        """
        change = at.newton_change if at.is_finite else None
        if change is not None and not change <= LAST_STEP_LIMIT:
            return Verdict(
                Refusal.INFINITE,
                f"no finite optimum: one more Newton step would change a linear predictor by {change:.2g} (at most "
                f"{LAST_STEP_LIMIT:g} at an optimum){self._runaway(at)}; {_LOOK}",
            )
        return None

    def _runaway(self, at: Evaluation) -> str:
        name = at.last_block() if callable(at.last_block) else at.last_block
        if not name:  # the engine does not say: what runs away is largest
            ends = np.cumsum([0, *(width for _, width in self._blocks)])
            sizes = [np.abs(at.theta[a:b]).max(initial=0.0) for a, b in pairwise(ends)]
            name = self._blocks[int(np.argmax(sizes))][0]
        return f", in term {name!r}"

    def cuts(self, at: Evaluation) -> list[str]:
        """Describe which coordinates of an answer were cut by the bound."""
        return [
            f"{self.names[j]!r} was cut by rho_bound: rho = {at.rho[j]:.4g} lies at its bound and the objective falls "
            f"beyond it with slope {at.gradient[j]:.3g}; this is the answer of the bounded problem, raise rho_bound"
            for j in cut_coordinates(at.rho, at.gradient, self.tol, self.bound)
        ]

    def unchecked(self, at: Evaluation) -> Sequence[str]:
        """Return what of the certificate the engine provides nothing to check."""
        missing = []
        if at.converged is None:
            missing.append("(a) whether the inner solve converged")
        if at.edf is None:
            missing.append("(d) effective degrees of freedom")
        if at.last_step is None:
            missing.append("(e) whether the optimum is finite: no last_step")
        if at.objection is None and len(self.names) > self.smoothing:
            missing.append("(f) whether nuisance coordinates are at a finite optimum: no objection")
        if at.tangent is None and self._far_cuts(at):
            missing.append("(e) whether the optimum beyond the lower bound is finite: no tangent")
        return missing
