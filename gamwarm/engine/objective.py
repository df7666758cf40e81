"""What a search over rho needs of an objective, and what an evaluation leaves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import lapack

from gamwarm.engine.arrays import Counters, FloatArray
from gamwarm.engine.families import Family, Table
from gamwarm.engine.penalty import DiagonalPenalties, Penalties

__all__ = ["LOG_2PI", "Cholesky", "Evaluation", "Objective", "factorise", "log_determinant"]

LOG_2PI = float(np.log(2.0 * np.pi))
# Scaled pivots below this mean a direction without information from data or penalty.
_SINGULAR_PIVOT = 1e-14
# At a scaled pivot of d the gradient of log|H| is wrong by some 1e-15 / d: at this one by
# outer_tol's default.
_SAFE_PIVOT = 1e-10


@dataclass(frozen=True)
class Cholesky:
    """Cholesky factor of a symmetric positive definite matrix scaled to unit diagonal."""

    scale: FloatArray
    upper: FloatArray

    @property
    def logdet(self) -> float:
        """Log determinant of the matrix."""
        return 2.0 * float(np.log(np.diagonal(self.upper)).sum() - np.log(self.scale).sum())

    @property
    def least_pivot(self) -> float:
        """Smallest pivot of the scaled matrix: 1 where it is diagonal, 0 where it is singular."""
        return float(np.diagonal(self.upper).min(initial=1.0)) ** 2

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Return the matrix's inverse times ``rhs`` of shape (p,) or (p, q)."""
        scale = self.scale if rhs.ndim == 1 else self.scale[:, None]
        if rhs.size == 0:
            return np.zeros(rhs.shape)
        x, _ = lapack.dpotrs(self.upper, np.asfortranarray(scale * rhs))
        out: FloatArray = scale * x.reshape(rhs.shape)
        return out

    def inverse(self) -> FloatArray:
        """Return the inverse, of shape (p, p)."""
        # Below the diagonal dpotrf leaves zeros, and dpotri leaves them unchanged.
        half, _ = lapack.dpotri(self.upper)
        out: FloatArray = half + half.T
        np.einsum("ii->i", out)[:] = np.diagonal(half)
        out *= self.scale[:, None]
        out *= self.scale
        return out


def factorise(matrix: FloatArray) -> Cholesky | None:
    """Return the factor of a symmetric matrix, or None where it is not positive definite."""
    diagonal = np.diagonal(matrix)
    if not (np.isfinite(diagonal).all() and (diagonal > 0.0).all()):
        return None
    scale = 1.0 / np.sqrt(diagonal)
    scaled = scale[:, None] * matrix
    scaled *= scale
    # Symmetric, so LAPACK's transpose is the same. What is not finite ends up in a pivot.
    upper, info = lapack.dpotrf(scaled.T, overwrite_a=1)
    if info != 0 or not float(np.diagonal(upper).min()) ** 2 >= _SINGULAR_PIVOT:
        return None
    return Cholesky(scale, upper)


def log_determinant(gram: FloatArray, s: FloatArray) -> float:
    """Return log|gram + diag(s)|, of the absolute value where it is not positive definite."""
    if s.size == 1:
        only = abs(float(gram[0, 0]) + float(s[0]))
        return math.log(only) if only > 0.0 else -np.inf
    diagonal = np.diagonal(gram) + s
    if np.count_nonzero(gram) == np.count_nonzero(np.diagonal(gram)):
        return float(np.log(np.abs(diagonal)).sum()) if diagonal.all() else -np.inf
    matrix = np.array(gram, order="F")
    np.einsum("ii->i", matrix)[:] = diagonal
    upper, info = lapack.dpotrf(matrix)
    if info == 0:
        return 2.0 * float(np.log(np.diagonal(upper)).sum())
    return float(np.linalg.slogdet(matrix)[1])


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
    q : int
        Outer coordinates.
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
