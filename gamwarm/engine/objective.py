"""What a search over rho needs of an objective, and what an evaluation leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gamwarm.engine.arrays import Counters, FloatArray
from gamwarm.engine.cholesky import Cholesky
from gamwarm.engine.constraints import Face
from gamwarm.engine.penalty import DiagonalPenalties, Penalties
from gamwarm.engine.walls import Walls
from gamwarm.families import Family, Table

__all__ = ["LOG_2PI", "Evaluation", "Objective"]

LOG_2PI = float(np.log(2.0 * np.pi))
# At a scaled pivot of d the gradient of log|H| is wrong by some 1e-15 / d: at this one by
# outer_tol's default.
_SAFE_PIVOT = 1e-10


@dataclass
class Evaluation:
    """The objective at one rho, with the parts that its Hessian needs."""

    rho: FloatArray
    theta: FloatArray
    value: float
    gradient: FloatArray
    edf: FloatArray
    tangent: FloatArray
    nll: float
    penalty: float
    decrement: float
    cycles: int
    converged: bool
    penalties: Penalties
    factor: Cholesky | None = None
    etas: list[FloatArray] = field(default_factory=list)
    inverse: FloatArray | None = None
    third: Table = field(default_factory=dict)
    leverage: dict[tuple[int, int], FloatArray] = field(default_factory=dict)
    pull: FloatArray | None = None
    scale: float = 1.0
    hessian: FloatArray | None = None
    step: FloatArray | None = None
    moved: list[FloatArray] = field(default_factory=list)
    gram: FloatArray | None = None
    failure: str = ""
    force: FloatArray | None = None
    face: Face | None = None
    walls: Walls | None = None
    kink: FloatArray | None = None

    @property
    def mode_inverse(self) -> FloatArray:
        """How the mode responds to a force, (p, p): the inverse Hessian, on the mode's face."""
        if self.face is not None:
            return self.face.inverse
        assert self.inverse is not None
        return self.inverse

    @property
    def is_finite(self) -> bool:
        """Whether value and gradient are numbers."""
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())


class Objective(ABC):
    """An objective in rho, over p coefficients with diagonal penalties.

    Parameters
    ----------
    family : Family
    penalties : DiagonalPenalties
    null : array of shape (p,)
        Coefficients of the null model.
    names : sequence of str
        A name per coefficient, for messages.
    counters : Counters

    Attributes
    ----------
    smoothing : int
        Log smoothing parameters.
    q : int
        Outer coordinates: the smoothing parameters, then the family's nuisance parameters.
    origin : array of shape (q,)
        Where a search that knows nothing begins: rho = 0, nuisance parameters of the null model.
    """

    def __init__(
        self,
        family: Family,
        penalties: DiagonalPenalties,
        null: FloatArray,
        names: Sequence[str],
        counters: Counters,
    ) -> None:
        self.family, self.counters = family, counters
        self.penalties, self.null, self.names = penalties, null, names
        self.q = penalties.q
        self.smoothing = self.q - len(family.nuisance)
        self.origin = np.zeros(self.q)

    @abstractmethod
    def evaluate(
        self, rho: FloatArray, theta: FloatArray, tol: float, max_cycles: int, gram: FloatArray | None = None
    ) -> Evaluation:
        """Return the objective at ``rho``, the inner solve begun at ``theta``; inf if it fails."""

    @abstractmethod
    def hessian(self, at: Evaluation) -> FloatArray:
        """Return the outer Hessian at an evaluation, of shape (q, q)."""

    @abstractmethod
    def penalised_nll(self, rho: FloatArray, theta: FloatArray) -> float:
        """Return the inner objective, inf if not a number. No Hessian formation."""

    def newton_changes(self, at: Evaluation, columns: slice) -> float:
        """Return the largest change of a predictor by the rest of a Newton step.

        In units of the response's standard deviation where the predictor has the response's units.
        """
        return 0.0

    def objection(self, at: Evaluation) -> str:
        """Return why a point with a flat gradient is no answer, in words; empty if it may be."""
        return ""

    @abstractmethod
    def information(self, theta: FloatArray) -> FloatArray:
        """Return the expected Hessian of the negative log-likelihood at theta, of shape (p, p)."""

    @abstractmethod
    def log_likelihood(self, at: Evaluation) -> float:
        """Return the log-likelihood at an evaluation, constants included."""

    def _nearly_singular(self, gram: FloatArray, s: FloatArray, factor: Cholesky) -> str:
        """Return why a penalized Hessian is not safely positive definite, else an empty string."""
        if factor.least_pivot >= _SAFE_PIVOT:
            return ""
        return f"the penalized Hessian is nearly singular along a combination of {self._culprits(gram + np.diag(s))}"

    def _held_message(self, matrix: FloatArray) -> str:
        return (
            "the penalized Hessian is positive definite on the face of the constraints that hold with equality, and "
            f"not off it, along a combination of {self._culprits(matrix)}; use fewer basis functions there, or "
            "drop the constraint"
        )

    def _singular_message(self, matrix: FloatArray) -> str:
        if not np.isfinite(matrix).all():
            return "the information matrix is not finite; look for huge covariate, offset or weight values"
        return (
            "the model is not identifiable: no data and no penalty determine a combination of "
            f"{self._culprits(matrix)}; "
            "drop one of these terms, or the levels and columns that repeat another's"
        )

    def _culprits(self, matrix: FloatArray) -> list[str]:
        diagonal = np.diagonal(matrix)
        scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
        _, vectors = np.linalg.eigh(scale[:, None] * matrix * scale)
        worst = np.argsort(-np.abs(vectors[:, 0]))[:3]
        return list(dict.fromkeys(self.names[i] for i in worst))

    def _failed(self, rho: FloatArray, theta: FloatArray, cycles: int, why: str = "") -> Evaluation:
        nan = np.full(self.q, np.nan)
        tangent = np.zeros((theta.size, self.q))
        failed = Evaluation(
            np.array(rho), theta, np.inf, nan, nan, tangent, np.inf, np.inf, np.inf, cycles, False,
            self.penalties.at(rho),
        )  # fmt: skip
        failed.failure = why
        return failed
