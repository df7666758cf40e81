"""The affine gauge: reduced coefficients of a fit to raw ones that mean the same in every fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from gamwarm.checks import FloatArray, as_int, as_tuple, float_matrix, float_vector, frozen, zero_vector
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem.designs import IndexedDesign, design_shape, is_row_source

__all__ = ["Gauge"]


def _partition(starts: Any, total: int, what: str) -> tuple[int, ...]:
    numbers = tuple(as_int(s, what) for s in as_tuple(starts, what))
    if not numbers or numbers[0] != 0 or numbers[-1] != total or any(a > b for a, b in pairwise(numbers)):
        raise InvalidInput(
            f"{what} is {list(numbers)}; it must increase from 0 to {total}, with one number more than there are blocks"
        )
    return numbers


@dataclass(frozen=True, eq=False)
class Gauge:
    """``beta_raw = T theta + a``, with both sides partitioned into the same blocks.

    Parameters
    ----------
    lift : array of shape (raw, reduced)
        T. A gauge `from_blocks` makes it when it is first asked for.
    raw_starts, reduced_starts : sequences of blocks + 1 integers
        Where each block begins; the last number is the total.
    shift : array of shape (raw,), optional
        a; default zeros.
    """

    lift: Any
    raw_starts: Sequence[int]
    reduced_starts: Sequence[int]
    shift: Any = None

    def __post_init__(self) -> None:
        lift = float_matrix(self.lift, "gauge lift T")
        raw = _partition(self.raw_starts, lift.shape[0], "gauge raw_starts")
        reduced = _partition(self.reduced_starts, lift.shape[1], "gauge reduced_starts")
        if len(raw) != len(reduced):
            raise InvalidInput(
                f"gauge raw_starts has {len(raw)} numbers and reduced_starts {len(reduced)}; "
                "both partition the same blocks"
            )
        self._settle(raw, reduced, self.shift)
        object.__setattr__(self, "lift", lift)

    def _settle(self, raw: tuple[int, ...], reduced: tuple[int, ...], shift: Any) -> None:
        for b in range(len(raw) - 1):
            if reduced[b + 1] - reduced[b] > raw[b + 1] - raw[b]:
                raise InvalidInput(
                    f"gauge block {b} has reduced width {reduced[b + 1] - reduced[b]} above its raw width "
                    f"{raw[b + 1] - raw[b]}; a gauge cannot have fewer raw than reduced coefficients"
                )
        if shift is None:
            shift = zero_vector(raw[-1])
        else:
            shift = float_vector(shift, f"gauge shift (T has shape ({raw[-1]}, {reduced[-1]}))", length=raw[-1])
        vars(self).update(raw_starts=raw, reduced_starts=reduced, shift=shift)

    def __getattr__(self, name: str) -> Any:
        slabs = self.__dict__.get("_slabs")
        if name != "lift" or slabs is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        lift = np.zeros((self.raw_starts[-1], self.reduced_starts[-1]))
        for b, slab in enumerate(slabs):
            lift[self._raw(b), self._reduced(b)] = slab
        self.__dict__["lift"] = lift = frozen(lift)
        return lift

    @classmethod
    def identity(cls, widths: Sequence[int]) -> Gauge:
        """Return the gauge of blocks whose coefficients are raw already."""
        starts = np.concatenate(
            ([0], np.cumsum([as_int(w, "gauge width") for w in as_tuple(widths, "gauge widths")], dtype=np.int64))
        )
        return cls(np.eye(int(starts[-1])), starts.tolist(), starts.tolist())

    @classmethod
    def from_blocks(cls, blocks: Sequence[Any], shift: Any = None) -> Gauge:
        """Return the block-diagonal gauge of ``T_b`` matrices; ``shift`` is the full raw vector."""
        slabs = [float_matrix(block, f"gauge block {b}") for b, block in enumerate(as_tuple(blocks, "gauge blocks"))]
        if not slabs:
            raise InvalidInput("a gauge needs at least one block; none was given")
        gauge = object.__new__(cls)
        raw, reduced = (tuple(accumulate([s.shape[axis] for s in slabs], initial=0)) for axis in (0, 1))
        gauge._settle(raw, reduced, shift)
        vars(gauge)["_slabs"] = tuple(slabs)  # those that fits share stay the same objects
        return gauge

    @classmethod
    def sum_to_zero(cls, basis: Any) -> Gauge:
        """Return the one-block gauge whose lift is the constraint null-space basis Z (tall)."""
        z = float_matrix(basis, "sum-to-zero basis Z")
        if z.shape[0] <= z.shape[1]:
            raise InvalidInput(
                f"sum-to-zero basis Z has shape {z.shape}; it must be tall (rows > columns): transpose it?"
            )
        return cls.from_blocks([z])

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.raw_starts) - 1

    @property
    def raw_widths(self) -> tuple[int, ...]:
        """Raw width per block."""
        return tuple(b - a for a, b in pairwise(self.raw_starts))

    @property
    def reduced_widths(self) -> tuple[int, ...]:
        """Reduced width per block."""
        return tuple(b - a for a, b in pairwise(self.reduced_starts))

    @property
    def is_identity(self) -> bool:
        """Whether reduced and raw coefficients are the same numbers."""
        return (
            self.raw_starts == self.reduced_starts
            and not self.shift.any()
            and bool(np.array_equal(self.lift, np.eye(self.lift.shape[0])))
        )

    @property
    def is_block_diagonal(self) -> bool:
        """Whether every block lifts from its own reduced coefficients alone."""
        if "_slabs" in self.__dict__:
            return True
        outside = np.array(self.lift)
        for b in range(self.n_blocks):
            outside[self._raw(b), self._reduced(b)] = 0.0
        return not outside.any()

    def _check_block(self, b: int) -> int:
        if not 0 <= b < self.n_blocks:
            raise InvalidInput(f"gauge has blocks 0 to {self.n_blocks - 1}; block {b} was requested")
        return b

    def _raw(self, b: int) -> slice:
        return slice(self.raw_starts[b], self.raw_starts[b + 1])

    def _reduced(self, b: int) -> slice:
        return slice(self.reduced_starts[b], self.reduced_starts[b + 1])

    def block(self, b: int) -> FloatArray:
        """Return the diagonal slab T_b of shape (raw_b, reduced_b), read-only."""
        self._check_block(b)
        slabs: tuple[FloatArray, ...] | None = self.__dict__.get("_slabs")
        slab: FloatArray = self.lift[self._raw(b), self._reduced(b)] if slabs is None else slabs[b]
        return slab

    def block_shift(self, b: int) -> FloatArray:
        """Return the shift a_b of shape (raw_b,), read-only."""
        part: FloatArray = self.shift[self._raw(self._check_block(b))]
        return part

    def split_raw(self, beta_raw: FloatArray) -> list[FloatArray]:
        """Split a raw vector into blocks."""
        return [np.array(beta_raw[self._raw(b)]) for b in range(self.n_blocks)]

    def split_reduced(self, theta: FloatArray) -> list[FloatArray]:
        """Split a reduced vector into blocks."""
        return [np.array(theta[self._reduced(b)]) for b in range(self.n_blocks)]

    def join_reduced(self, blocks: Sequence[Any]) -> FloatArray:
        """Join reduced vectors of the blocks into one; widths are checked."""
        return np.concatenate(self._reduced_parts(blocks))

    def _reduced_parts(self, blocks: Sequence[Any]) -> list[FloatArray]:
        if len(blocks) != self.n_blocks:
            raise InvalidInput(f"gauge has {self.n_blocks} blocks; {len(blocks)} coefficient vectors were given")
        return [
            v
            if type(v) is np.ndarray and v.dtype == np.float64 and v.shape == (w,)
            else float_vector(v, f"coefficients of gauge block {b}", length=w, finite=False)
            for b, (v, w) in enumerate(zip(blocks, self.reduced_widths, strict=True))
        ]

    def lift_blocks(self, blocks: Sequence[Any]) -> list[FloatArray]:
        """Lift reduced block vectors to raw block vectors: ``T theta + a``."""
        parts, slabs = self._reduced_parts(blocks), self.__dict__.get("_slabs")
        if slabs is None:
            return self.split_raw(self.lift @ np.concatenate(parts) + self.shift)
        return [slab @ part + self.shift[self._raw(b)] for b, (slab, part) in enumerate(zip(slabs, parts, strict=True))]

    def lift_covariance(self, covariance: Any) -> FloatArray:
        """Lift a covariance of theta (reduced x reduced) to one of beta_raw: ``T Σ T'``."""
        sigma = self._square(covariance, "covariance", self.lift.shape[1])
        lifted: FloatArray = self.lift @ sigma @ self.lift.T
        return lifted

    def restrict_design(self, design: Any) -> Any:
        """Return ``X T`` (n x reduced) of a raw design X (n x raw); indexed stays indexed."""
        self._check_columns(design)
        if isinstance(design, IndexedDesign):
            return IndexedDesign(design.rows @ self.lift, design.index)
        if is_row_source(design):
            raise InvalidType(
                "design is a row source; restrict the rows that its row_chunk returns (chunk @ gauge.lift)"
            )
        return design @ self.lift

    def restrict_offset(self, design: Any, offset: Any) -> FloatArray:
        """Return ``o + X a`` of shape (n,)."""
        self._check_columns(design)
        if is_row_source(design):
            raise InvalidType("design is a row source; add its chunks' own `chunk @ gauge.shift` to the offset")
        base = float_vector(offset, f"offset (design {design.shape})", length=int(design.shape[0]))
        if isinstance(design, IndexedDesign):
            shift = np.asarray(design.rows @ self.shift)[design.index]
        else:
            shift = np.asarray(design @ self.shift).ravel()
        shifted: FloatArray = base + shift
        return shifted

    def restrict_penalty(self, penalty: Any) -> FloatArray:
        """Return ``T' S T`` (reduced x reduced) of a raw penalty S (raw x raw)."""
        s = self._square(penalty, "penalty", self.lift.shape[0])
        restricted: FloatArray = self.lift.T @ s @ self.lift
        return restricted

    def _square(self, value: Any, what: str, width: int) -> FloatArray:
        matrix = float_matrix(value, what)
        if matrix.shape != (width, width):
            raise InvalidInput(
                f"{what} has shape {matrix.shape}; gauge T of shape {self.lift.shape} needs ({width}, {width})"
            )
        return matrix

    def _check_columns(self, design: Any) -> None:
        shape = design_shape(design)
        if shape[1] != self.lift.shape[0]:
            raise InvalidInput(
                f"design has shape {shape}; gauge T of shape {self.lift.shape} needs (n, {self.lift.shape[0]})"
            )

    def __repr__(self) -> str:
        return f"Gauge(raw {list(self.raw_widths)}, reduced {list(self.reduced_widths)})"
