"""Cholesky factors of symmetric matrices scaled to unit diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from gamwarm.engine.arrays import FloatArray

__all__ = ["Cholesky", "factorise", "log_determinant"]

# Scaled pivots below this mean a direction without information from data or penalty.
_SINGULAR_PIVOT = 1e-14


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
