"""A vector of parameters as the blocks of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from gamwarm.checks import as_float, as_int, as_str, float_vector
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity import FitProblem, NamedFamily
from gamwarm.problem import BlockwiseFitOptions, DensePenalty, ParameterBlockSpec

__all__ = ["Description", "Split", "inverse", "positive_definite", "split_of", "vector_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

METRIC = "inverse Hessian"
MOST_FOR_METRIC = 200
"""Parameters beyond which no inverse Hessian of coefficients is kept: 200 of them are 160 kB."""


@dataclass(frozen=True)
class Block:
    """Entries of x: coefficients, and log smoothing parameters."""

    name: str
    coefficients: IntArray
    rho: IntArray


@dataclass(frozen=True)
class Split:
    """How x falls into blocks.

    Attributes
    ----------
    blocks : tuple of Block
    size : int
        Length of x.
    """

    blocks: tuple[Block, ...]
    size: int

    @property
    def rho(self) -> IntArray:
        """Entries of x that are log smoothing parameters, in the order of the outer coordinates."""
        return np.concatenate([block.rho for block in self.blocks])

    @property
    def coefficients(self) -> IntArray:
        """The other entries, block by block."""
        return np.concatenate([block.coefficients for block in self.blocks])


def vector_of(value: Any, what: str, *, length: int | None = None, finite: bool = True) -> FloatArray:
    """Return a writable copy of a vector of parameters; a number is a vector of one.

    Raises
    ------
    InvalidInput, InvalidType
        Naming ``what``.
    """
    numbers = value
    if np.isscalar(value) or getattr(value, "ndim", None) == 0:
        numbers = [as_float(value, what)]
    vector: FloatArray = np.array(float_vector(numbers, what, length=length, finite=finite))
    if vector.size == 0:
        raise InvalidInput(f"{what} is empty; there is nothing to search over")
    return vector


def split_of(size: int, rho: Any, blocks: Mapping[str, Any] | None) -> Split:
    """Cut x into blocks; every entry belongs to one.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the block or entry at fault.
    """
    is_rho = np.zeros(size, dtype=np.bool_)
    if rho is not None:
        is_rho[_indices(rho, size, "rho")] = True
    named = {"x": slice(None)} if blocks is None else blocks
    if not hasattr(named, "items") or not named:
        raise InvalidType("blocks must be a mapping from names to entries of x, with at least one block")
    cut, owner = [], np.full(size, -1)
    for b, (name, entries) in enumerate(named.items()):
        own = _indices(entries, size, f"block {name!r}")
        taken = own[owner[own] >= 0]
        if taken.size or len(set(own.tolist())) != own.size:
            twice = int(taken[0]) if taken.size else int(own[0])
            raise InvalidInput(f"block {name!r}: entry {twice} of x is given twice; an entry belongs to one block")
        owner[own] = b
        if name == METRIC:
            raise InvalidInput(f"block {name!r} has a name reserved by gamwarm; choose another")
        cut.append(Block(as_str(name, "block name"), own[~is_rho[own]], own[is_rho[own]]))
    if (owner < 0).any():
        lost = int(np.flatnonzero(owner < 0)[0])
        raise InvalidInput(f"entry {lost} of x belongs to no block; name it in blocks")
    return Split(tuple(cut), size)


def _indices(entries: Any, size: int, what: str) -> IntArray:
    everything: IntArray = np.arange(size, dtype=np.intp)
    chosen: IntArray
    if isinstance(entries, slice):
        chosen = everything[entries]
        return chosen
    picked = np.atleast_1d(np.asarray(entries))
    if picked.size == 0:
        return np.zeros(0, dtype=np.intp)
    if picked.dtype == np.bool_:
        if picked.shape != (size,):
            raise InvalidInput(f"{what}: a mask of shape {picked.shape}; x has {size} entries")
        chosen = everything[picked]
        return chosen
    if picked.dtype.kind not in "iu" or picked.ndim != 1:
        raise InvalidType(f"{what} must be a slice, a mask or integers; it is an array of {picked.dtype}")
    if picked.min() < -size or picked.max() >= size:
        raise InvalidInput(f"{what}: entries run from {picked.min()} to {picked.max()}; x has {size}")
    chosen = everything[picked]
    return chosen


@dataclass(frozen=True)
class Description:
    """Translates between x and what gamwarm keeps."""

    split: Split
    has_metric: bool

    @property
    def keeps_metric(self) -> bool:
        """Whether an inverse Hessian of coefficients is kept, in a block of its own."""
        return self.has_metric and self.split.coefficients.size > 0 and self.split.size <= MOST_FOR_METRIC

    def problem(
        self,
        family: NamedFamily,
        x0: FloatArray,
        options: BlockwiseFitOptions,
        n_rows: int,
        engine: tuple[str, str] = ("scipy.optimize", scipy.__version__),
    ) -> FitProblem:
        """Describe the fit: the family's fingerprint has the function's data, designs are empty."""
        n = as_int(n_rows, "n_rows")
        specs = []
        for block in self.split.blocks:
            width = block.coefficients.size
            specs.append(
                ParameterBlockSpec(
                    block.name,
                    scipy.sparse.csr_array((n, width), dtype=np.float64),
                    penalties=[DensePenalty(np.eye(width))] * block.rho.size,
                    initial_log_lambdas=x0[block.rho],
                    initial_beta=x0[block.coefficients],
                )
            )
        if self.keeps_metric:
            size = self.split.size
            width = size * (size + 1) // 2
            specs.append(ParameterBlockSpec(METRIC, scipy.sparse.csr_array((n, width), dtype=np.float64)))
        return FitProblem(family, specs, options, engine=engine[0], engine_version=engine[1])

    def packed(self, x: FloatArray, hess_inv: FloatArray | None) -> tuple[FloatArray, list[FloatArray]]:
        """Return rho and coefficients per block."""
        beta = [x[block.coefficients] for block in self.split.blocks]
        if self.keeps_metric:
            size = self.split.size
            matrix = np.zeros((size, size)) if hess_inv is None else hess_inv
            beta.append(matrix[np.tril_indices(size)])
        return x[self.split.rho], beta

    def unpacked(self, start: Any) -> tuple[FloatArray, FloatArray | None]:
        """Return x, and the inverse Hessian of a start if there is one that can be used."""
        x = np.zeros(self.split.size)
        x[self.split.rho] = start.rho
        for block, beta in zip(self.split.blocks, start.block_beta, strict=False):
            x[block.coefficients] = beta
        return x, self._metric(start)

    def _metric(self, start: Any) -> FloatArray | None:
        if self.keeps_metric:
            size = self.split.size
            matrix = np.zeros((size, size))
            matrix[np.tril_indices(size)] = start.block_beta[-1]
            return positive_definite(matrix + np.tril(matrix, -1).T)
        known = None if start.curvature is None else start.curvature.hessian
        if known is None or self.split.coefficients.size:
            return None
        order = np.argsort(self.split.rho)
        return inverse(np.asarray(known)[np.ix_(order, order)])


def positive_definite(matrix: Any) -> FloatArray | None:
    """Return the symmetric part if it is finite and positive definite, else None."""
    if not np.isfinite(matrix).all():
        return None
    symmetric: FloatArray = 0.5 * (matrix + matrix.T)
    values = np.linalg.eigvalsh(symmetric)
    return symmetric if values.size and values[0] > 1e-12 * max(1.0, float(values[-1])) else None


def inverse(matrix: FloatArray) -> FloatArray | None:
    """Return the inverse of a matrix that is positive definite, else None."""
    usable = positive_definite(matrix)
    return None if usable is None else positive_definite(np.asarray(np.linalg.inv(usable), dtype=np.float64))
