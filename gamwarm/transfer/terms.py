"""A fit's terms as the transfer sees them: identities, outer slots and gauge slabs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gamwarm.checks import FloatArray, as_int, as_str, as_tuple, float_vector, real_array, require
from gamwarm.errors import InvalidInput
from gamwarm.identity import FitProblem, check_descriptor_key
from gamwarm.problem import BasisMeta, Penalty, Role

__all__ = ["TermContext", "term_contexts"]


@dataclass(frozen=True, eq=False)
class TermContext:
    """One term of the fit that is to be started.

    Parameters
    ----------
    identity : str
        Strict term identity.
    rho_slots : sequence of int
        Its outer coordinates.
    reduced_width : int
    gauge_block : array of shape (raw width, reduced width), optional
        T_b. None: coefficients cannot be projected and start cold.
    gauge_shift : array of shape (raw width,), optional
        a_b; default zeros.
    structural_identity : str, optional
    name : str
        Block name; with `role` and `basis` it matches terms of another width. Empty:
        by identities only.
    role : {"mean", "log-slope", "generic"}
    basis : BasisMeta, optional
    penalties : sequence of penalties of the reduced width
        One per coordinate of `rho_slots`; empty: not known.
    """

    identity: str
    rho_slots: Sequence[int]
    reduced_width: int
    gauge_block: Any = None
    gauge_shift: Any = None
    structural_identity: str | None = None
    name: str = ""
    role: Role | str = Role.GENERIC
    basis: BasisMeta | None = None
    penalties: Sequence[Penalty] = ()

    def __post_init__(self) -> None:
        check_descriptor_key(self.identity)
        if self.structural_identity is not None:
            check_descriptor_key(self.structural_identity)
        slots = tuple(as_int(s, "term rho_slots") for s in as_tuple(self.rho_slots, "term rho_slots"))
        object.__setattr__(self, "rho_slots", slots)
        width = as_int(self.reduced_width, "term reduced_width")
        object.__setattr__(self, "reduced_width", width)
        as_str(self.name, "term name", empty=True)
        object.__setattr__(self, "role", Role.of(self.role, "term role"))
        require("term basis", self.basis, (BasisMeta, type(None)))
        if self.gauge_block is None:
            return
        block = real_array(self.gauge_block, "term gauge_block", "a matrix of real numbers")
        if block.ndim != 2 or block.shape[1] != width:
            raise InvalidInput(f"term gauge_block has shape {block.shape}; its reduced width is {width}")
        object.__setattr__(self, "gauge_block", block)
        if self.gauge_shift is not None:
            shift = float_vector(self.gauge_shift, "term gauge_shift", length=block.shape[0], finite=False)
            object.__setattr__(self, "gauge_shift", shift)


def term_contexts(problem: FitProblem) -> tuple[TermContext, ...]:
    """Return the terms of ``problem``, in block order."""
    gauge = problem.gauge
    contexts = []
    for b, (spec, slots) in enumerate(zip(problem.specs, problem.layout.per_block_slots(), strict=True)):
        block: FloatArray | None = None
        shift: FloatArray | None = None
        if gauge is not None:
            block, shift = gauge.block(b), gauge.block_shift(b)
        elif problem.raw_widths[b] == spec.width:
            block = np.eye(spec.width)
        context = object.__new__(TermContext)  # the problem has checked all of it
        vars(context).update(
            identity=problem.strict_identities[b],
            rho_slots=slots,
            reduced_width=spec.width,
            gauge_block=block,
            gauge_shift=shift,
            structural_identity=problem.structural_identities[b],
            name=spec.name,
            role=spec.role or Role.GENERIC,
            basis=spec.basis,
            penalties=spec.penalties,
        )
        contexts.append(context)
    return tuple(contexts)
