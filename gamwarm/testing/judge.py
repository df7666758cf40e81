"""Comparison of an answer with the cold fit's, and of its claims with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.identity import FitProblem
from gamwarm.records import Curvature, FitResult, plateau_flags
from gamwarm.testing.driver import Fitted, Tolerances, objective_at, problem_of
from gamwarm.testing.report import Verdict

__all__ = ["Judge", "Judgement"]

FloatArray = npt.NDArray[np.float64]

_STEP = 1e-3
# A central difference of an objective that is good to about 1e-9 of its size.
_NOISE = 1e-9
_SLACK = 3.0
_FAR_OUT = 6.0
_WAY_IN = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Judgement:
    """How an answer compares, and why it does not."""

    verdict: Verdict
    gap: float
    distance: float
    reason: str = ""


class Judge:
    """Judges the answers of one case against its cold fit."""

    def __init__(self, driver: Any, case: Any, cold: Fitted, tolerances: Tolerances) -> None:
        self.driver, self.case, self.cold, self.tolerances = driver, case, cold, tolerances
        self.problem: FitProblem = problem_of(driver, case)

    def max_edf(self, rho: Any) -> FloatArray:
        """Largest edf per smoothing parameter: its penalties' share of their blocks' at ``rho``.

        That is the rank of a penalty that overlaps with no other.
        """
        layout = self.problem.layout
        most = np.zeros(layout.n_outer)
        slots, logs = iter(layout.physical_to_outer), iter(layout.expand(np.asarray(rho)[: layout.n_outer]))
        for spec in self.problem.specs:
            whole = np.zeros((spec.width, spec.width))
            parts: dict[int, FloatArray] = {}
            for penalty in spec.penalties:
                slot, matrix = next(slots), np.exp(next(logs)) * np.asarray(penalty.to_dense())
                whole += matrix
                if slot is not None:
                    parts[slot] = parts.get(slot, 0.0) + matrix
            # Scaled to unit diagonal, so that no part of it is lost beside a lambda 1e10 times
            # larger.
            diagonal = np.diagonal(whole)
            scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, np.inf))
            inverse = np.linalg.pinv(whole * np.outer(scale, scale), hermitian=True) * np.outer(scale, scale)
            for slot, matrix in parts.items():
                most[slot] += float(np.sum(inverse * matrix))
        return most

    # -- compared with the cold fit ----------------------------------------------------------------

    def judge(self, answer: Fitted) -> Judgement:
        """Compare an answer with the cold fit: objective, fitted values, edf off plateaus."""
        cold, this, limit = self.cold.result, answer.result, self.tolerances
        distance = self._distance(answer)
        if cold.objective is None or this.objective is None or not np.isfinite(this.objective):
            return Judgement(Verdict.MOVED, float("nan"), distance, f"its objective is {this.objective}")
        gap = this.objective - cold.objective
        if not this.converged:
            return Judgement(Verdict.MOVED, gap, distance, "it did not converge, and the cold fit did")
        if gap < -limit.objective:
            return Judgement(Verdict.BETTER, gap, distance)
        if gap > limit.objective:
            reason = f"its objective is {gap:.3g} above the cold fit's {cold.objective:.9g}"
            doubt = self.doubt(this)
            if doubt is None:
                return Judgement(Verdict.MODE, gap, distance, reason)
            return Judgement(Verdict.MOVED, gap, distance, f"{reason}, and {doubt}")
        if not distance <= limit.fitted:
            reason = f"its fitted values lie {distance:.3g} standard deviations from the cold fit's"
            return Judgement(Verdict.MOVED, gap, distance, reason)
        moved = self._moved_edf(this)
        if moved is not None:
            return Judgement(Verdict.MOVED, gap, distance, moved)
        return Judgement(Verdict.SAME, gap, distance)

    def _distance(self, answer: Fitted) -> float:
        if answer.fitted.shape != self.cold.fitted.shape:
            return float("inf")
        if not answer.fitted.size:
            return 0.0
        spread = float(np.std(self.cold.fitted))
        return float(np.abs(answer.fitted - self.cold.fitted).max()) / (spread if spread > 0.0 else 1.0)

    def _moved_edf(self, this: FitResult) -> str | None:
        mine, cold = _edf(this), _edf(self.cold.result)
        if mine is None or cold is None:
            return None
        if mine.shape != cold.shape:
            return f"it has edf of shape {mine.shape}, the cold fit of {cold.shape}"
        off = ~(self._flags(this) | self._flags(self.cold.result))
        gap = np.where(off, np.abs(mine - cold), 0.0)
        if gap.max(initial=0.0) <= self.tolerances.edf:
            return None
        j = int(gap.argmax())
        return f"coordinate {j} has edf {mine[j]:.4g}, in the cold fit {cold[j]:.4g}"

    # -- claims ------------------------------------------------------------------------------------

    def _flags(self, result: FitResult) -> npt.NDArray[np.bool_]:
        curvature = result.curvature
        if curvature is None or curvature.gradient is None or curvature.edf is None:
            return np.zeros(len(result.rho), dtype=np.bool_)
        options = self.problem.options
        most = self.max_edf(result.rho)
        flags = np.zeros(len(result.rho), dtype=np.bool_)  # nuisance coordinates have no plateau
        smoothing = slice(0, most.size)
        rho, gradient, edf = (np.asarray(v)[smoothing] for v in (result.rho, curvature.gradient, curvature.edf))
        flags[smoothing] = plateau_flags(rho, gradient, edf, most, options.outer_tol, options.rho_bound)
        # Without the penalty's coefficients nothing says how many edf there may be.
        without_lineage = np.flatnonzero((most == 0.0) & (rho < 0.0))
        flags[without_lineage] = False if curvature.plateau is None else curvature.plateau[without_lineage]
        return flags

    def wrong_flags(self, result: FitResult) -> str | None:
        """Return which plateau flag is claimed that the rule does not give, else None."""
        curvature = result.curvature
        if curvature is None or curvature.plateau is None or not curvature.plateau.any():
            return None
        if curvature.gradient is None or curvature.edf is None:
            return "plateau flags are claimed without gradient and edf"
        claimed = np.flatnonzero(curvature.plateau & ~self._flags(result))
        if claimed.size == 0:
            return None
        j = int(claimed[0])
        if j >= self.problem.layout.n_outer:
            return f"coordinate {j} is a nuisance coordinate, and is claimed to be on a plateau"
        most = self.max_edf(result.rho)[j]
        return (
            f"coordinate {j} is claimed to be on a plateau: rho = {result.rho[j]:.4g}, edf = {curvature.edf[j]:.4g} of "
            f"at most {most:g}, gradient = {curvature.gradient[j]:.3g}; plateau_flags says it is not"
        )

    @property
    def can_evaluate(self) -> bool:
        return hasattr(self.driver, "objective")

    def wrong_objective(self, result: FitResult) -> str | None:
        """Return how the claimed objective differs from the model's, if that can be evaluated."""
        if not self.can_evaluate or result.objective is None:
            return None
        value = objective_at(self.driver, self.case, result)
        if abs(value - result.objective) <= self.tolerances.objective:
            return None
        return f"it claims the objective {result.objective:.9g}; evaluated from scratch at its rho it is {value:.9g}"

    def doubt(self, result: FitResult) -> str | None:
        """Return why a point is not a local optimum, else None."""
        if not self.can_evaluate:
            return "the driver has no objective(case, rho) to show that it is another optimum"
        wrong = self.wrong_objective(result)
        if wrong is not None:
            return wrong
        rho = np.array(result.rho)
        smoothing = np.arange(rho.size) < self.problem.layout.n_outer
        bound = np.where(smoothing, self.problem.options.rho_bound, np.inf)
        gradient = np.zeros(rho.size)
        for j in range(rho.size):
            step = np.zeros(rho.size)
            step[j] = _STEP
            above, below = (objective_at(self.driver, self.case, result, rho + sign * step) for sign in (1.0, -1.0))
            gradient[j] = (above - below) / (2.0 * _STEP)
        outward = ((rho >= bound - _STEP) & (gradient < 0.0)) | ((rho <= -bound + _STEP) & (gradient > 0.0))
        noise = _NOISE * (1.0 + abs(result.objective or 0.0)) / _STEP
        limit = _SLACK * self.problem.options.outer_tol + noise
        steep = np.flatnonzero(~outward & ~(np.abs(gradient) <= limit))
        if steep.size:
            j = int(steep[0])
            return f"the objective falls there: its derivative along rho[{j}] is {gradient[j]:.3g}"
        # A nuisance coordinate is far out where it is far from the cold fit's.
        centre = np.where(smoothing, 0.0, np.asarray(self.cold.result.rho))
        for far in np.flatnonzero(np.abs(rho - centre) > _FAR_OUT):
            if self._falls_inwards(result, int(far), float(centre[far])):
                return f"rho[{far}] = {rho[far]:.4g} is a false plateau: the objective falls towards {centre[far]:.3g}"
        return None

    def _falls_inwards(self, result: FitResult, j: int, centre: float) -> bool:
        """Whether the first change of the objective on the way from far out to the centre is a
        fall.

        A gradient there is lost in rounding, whatever the fit should be.
        """
        rho, value = np.array(result.rho), float(result.objective or 0.0)
        noise = _SLACK * _NOISE * (1.0 + abs(value))
        for share in _WAY_IN:
            inner = np.array(rho)
            inner[j] = centre + (1.0 - share) * (rho[j] - centre)
            change = objective_at(self.driver, self.case, result, inner) - value
            if abs(change) > noise:
                return change < 0.0
        return False


def _edf(result: FitResult) -> Any:
    curvature: Curvature | None = result.curvature
    return None if curvature is None else curvature.edf
