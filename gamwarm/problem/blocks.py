"""One parameter block of a fit: design, offset, penalties, and hints that move its start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from gamwarm.checks import FloatArray, as_int, as_str, as_tuple, float_vector, require, zero_vector
from gamwarm.display import brief_repr
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem.basis import BasisMeta
from gamwarm.problem.designs import design_shape
from gamwarm.problem.distributed import DistributedRows, check_same_ranks, distributed_of
from gamwarm.problem.penalties import Penalty, is_penalty

__all__ = ["ParameterBlockSpec", "Role", "check_specs", "infer_role"]


class Role(StrEnum):
    """What a block's linear predictor describes."""

    MEAN = "mean"
    LOG_SLOPE = "log-slope"
    GENERIC = "generic"

    @classmethod
    def of(cls, value: Any, what: str) -> Role:
        """Return ``value`` as a role; `InvalidInput` names ``what`` if it is none."""
        if type(value) is cls:
            return value
        try:
            return cls(value if isinstance(value, str) else "")
        except ValueError:
            raise InvalidInput(f"{what} {brief_repr(value)}; use one of {[str(role) for role in cls]}") from None


_LOG_SLOPE_WORDS = frozenset({"logslope", "log_slope", "scale", "sigma", "dispersion", "disp"})
_MEAN_WORDS = frozenset({"mean", "loc", "marginal"})


@lru_cache(maxsize=1024)  # folds have the same blocks
def infer_role(name: str) -> Role:
    """Return the role that the words of a block's lower-cased name suggest: "s(displacement)"
    holds no word for a scale.
    """
    words = set(re.findall(r"\w+", name.lower()))
    if words & _LOG_SLOPE_WORDS:
        return Role.LOG_SLOPE
    if words & _MEAN_WORDS:
        return Role.MEAN
    return Role.GENERIC


@dataclass(frozen=True, eq=False)
class ParameterBlockSpec:
    """One block, in *reduced* coordinates. Immutable; arrays but the design are copied.

    Parameters
    ----------
    name : str
        Unique within a fit; part of every identity of the block.
    design : array, sparse matrix, `IndexedDesign`, row source or `DistributedRows` of shape (n, p)
        Kept by reference and read when the fit is named; do not change it afterwards.
    offset : array or `DistributedRows` of shape (n,), optional
        Default zeros. With a distributed design it may be the full offset on every rank, or
        distributed itself.
    penalties : sequence of penalties of width p
    nullspace_dims : sequence of int
        Empty, or the null-space dimension of each penalty.
    initial_log_lambdas : array of shape (number of penalties,), optional
        Default zeros.
    initial_beta : array of shape (p,), optional
        Moves the start only; not part of the exact key.
    role : {"mean", "log-slope", "generic"}, optional
        Default: inferred from the name.
    raw_width : int, optional
        Width before the gauge; not part of the exact key.
    basis : BasisMeta, optional
        What the columns are made of, kept in artifacts for readers; not part of any key.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the block, the penalty and both shapes.
    """

    name: str
    design: Any
    offset: Any = None
    penalties: Sequence[Penalty] = ()
    nullspace_dims: Sequence[int] = ()
    initial_log_lambdas: Any = None
    initial_beta: Any = None
    role: Role | str | None = None
    raw_width: int | None = None
    basis: BasisMeta | None = None

    def __post_init__(self) -> None:
        name = as_str(self.name, "block name")
        where = f"block {name!r}"
        n, p = design_shape(self.design, f"{where}: design")
        if self.offset is None:
            offset: FloatArray | DistributedRows = zero_vector(n)
        elif isinstance(self.offset, DistributedRows):
            offset = self.offset
            if offset.shape != (n,):
                raise InvalidInput(f"{where}: offset is distributed rows of shape {offset.shape}; expected ({n},)")
        else:
            offset = float_vector(self.offset, f"{where}: offset (design {n} x {p})", length=n)
        penalties = as_tuple(self.penalties, f"{where}: penalties")
        for j, penalty in enumerate(penalties):
            if not is_penalty(penalty):
                raise InvalidType(
                    f"{where}: penalty {j} is {type(penalty).__name__}; wrap the matrix in DensePenalty(...)"
                )
            if penalty.dim != p:
                raise InvalidInput(
                    f"{where}: penalty {j} has shape ({penalty.dim}, {penalty.dim}); the design has shape ({n}, {p})"
                )
        stated = as_tuple(self.nullspace_dims, f"{where}: nullspace_dims")
        dims = tuple(as_int(d, f"{where}: nullspace_dims[{j}]") for j, d in enumerate(stated))
        if dims and len(dims) != len(penalties):
            raise InvalidInput(
                f"{where}: {len(dims)} nullspace_dims for {len(penalties)} penalties; give one each, or none"
            )
        if any(d > p for d in dims):
            raise InvalidInput(f"{where}: nullspace_dims {dims} exceed the block's width {p}")
        log_lambdas = zero_vector(len(penalties))
        if self.initial_log_lambdas is not None:
            log_lambdas = float_vector(
                self.initial_log_lambdas,
                f"{where}: initial_log_lambdas ({len(penalties)} penalties)",
                length=len(penalties),
            )
        beta = None
        if self.initial_beta is not None:
            beta = float_vector(self.initial_beta, f"{where}: initial_beta (design {n} x {p})", length=p)
        role = infer_role(name) if self.role is None else Role.of(self.role, f"{where}: role")
        raw = self.raw_width
        if raw is not None:
            raw = as_int(raw, f"{where}: raw_width")
            if raw < p:
                raise InvalidInput(f"{where}: raw_width {raw} is below the reduced width {p}")
        require(f"{where}: basis", self.basis, (BasisMeta, type(None)))
        settled = {
            "name": name,
            "offset": offset,
            "penalties": penalties,
            "nullspace_dims": dims,
            "initial_log_lambdas": log_lambdas,
            "initial_beta": beta,
            "role": role,
            "raw_width": raw,
        }
        settled |= {"_n": n, "_p": p}  # asked for often
        for field, value in settled.items():
            object.__setattr__(self, field, value)

    @property
    def n_rows(self) -> int:
        """Number of rows n of the design."""
        return int(self.__dict__["_n"])

    @property
    def width(self) -> int:
        """Number of columns p of the design (the reduced width)."""
        return int(self.__dict__["_p"])

    def __repr__(self) -> str:
        return f"ParameterBlockSpec({self.name!r}, {self.n_rows} x {self.width}, {len(self.penalties)} penalties)"


def check_specs(specs: Sequence[ParameterBlockSpec]) -> tuple[ParameterBlockSpec, ...]:
    """Return the blocks of one fit as a tuple: at least one, unique names, one n for all."""
    blocks = as_tuple(specs, "the blocks of a fit")
    if not blocks:
        raise InvalidInput("a fit needs at least one block; none was given")
    for position, block in enumerate(blocks):
        require(f"block {position}", block, ParameterBlockSpec)
    seen: dict[str, int] = {}
    for position, block in enumerate(blocks):
        if block.name in seen:
            raise InvalidInput(f"blocks {seen[block.name]} and {position} are both named {block.name!r}; rename one")
        seen[block.name] = position
    first = blocks[0]
    for block in blocks[1:]:
        if block.n_rows != first.n_rows:
            raise InvalidInput(
                f"block {block.name!r} has shape ({block.n_rows}, {block.width}) but block {first.name!r} has shape "
                f"({first.n_rows}, {first.width}); all blocks of a fit share their rows"
            )
    distributed = distributed_of(blocks)
    for rows in distributed[1:]:
        check_same_ranks(rows, distributed[0].comm, "a fit's blocks lie on different ranks")
    return blocks
